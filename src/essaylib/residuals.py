"""What the autoencoder drops: a drawing less its own encoding and decoding.

To take the whole corpus through it takes minutes, and the ledger reads sixty-four directions of
whatever it is given. So the residuals are kept as their sixty-four principal components, with the
axes that they were read along, and the size of each (see `store`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from essaylib import features, models, store
from essaylib.corpus import Corpus
from essaylib.corpus import load as load_corpus
from essaylib.measures.ledger import DIMENSIONS

GRID = 64
"""Side at which residuals are kept, in pixels: means over blocks, as for the pixels beside them."""

BATCH = 4
NAMES = ("error", "components", "mean", "axes")


@dataclass(frozen=True)
class Residuals:
    """Of each drawing, `error` (n,): root mean square over its pixels, in grey levels of 255.

    `components` (n, 64) are the residuals at 64 x 64 pixels along `axes` (64, 64 x 64 x 3), after
    `mean` (64 x 64 x 3,) was taken off.
    """

    error: np.ndarray
    components: np.ndarray
    mean: np.ndarray
    axes: np.ndarray

    def of(self, residuals: np.ndarray) -> np.ndarray:
        """The components (n, 64) of other residuals (n, 64, 64, 3)."""
        return (residuals.reshape(len(residuals), -1) - self.mean) @ self.axes.T


@torch.no_grad()
def residuals(vae: Any, images: np.ndarray) -> np.ndarray:
    """Original less reconstruction, in grey levels: uint8 (n, h, w, 3) to float32 (n, h, w, 3).

    The reconstruction is rounded to whole pixel values, as a picture that is saved would be.
    """
    where = models.execution_device(vae), next(vae.parameters()).dtype
    found = []
    for start in range(0, len(images), BATCH):
        whole = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)
        pixels = (whole.float() / 127.5 - 1).to(*where)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        passed = ((decoded.float().cpu() + 1) * 127.5).round().clamp(0, 255)
        found.append((whole - passed).permute(0, 2, 3, 1))
    return torch.cat(found).numpy()


def corpus_residuals(vae: Any, data: Corpus) -> Residuals:
    """The residuals of the corpus's drawings, rows as in `data`.

    Computed for the whole corpus at the first call (three to four minutes on one thread) and kept,
    by the weights and the corpus. Where they ship with the book some are computed again:
    `EssayError` if they differ. Less than a quarter of the corpus is computed alone, along axes of
    its own, unless the rest is there already.
    """
    whole = load_corpus(data.source)
    name = file_of(vae, whole)

    def read(path: Path) -> Residuals | None:
        return _read(path, vae, whole)

    found = store.find(name, read)
    if found is None and 4 * len(data) < len(whole):
        return measured(vae, data)
    if found is None:
        found = store.kept(name, read, write, lambda: measured(vae, whole))
    rows = features.rows_of(data, whole)
    return Residuals(found.error[rows], found.components[rows], found.mean, found.axes)


def ship(vae: Any) -> list[Path]:
    """Put latents and residuals of the whole corpus with the book, in place of other weights'.

    Latents are kept as float16. Returns the files.
    """
    whole = load_corpus()
    latents = features.corpus_latents(vae, whole).astype(np.float16)
    found = corpus_residuals(vae, whole)
    first, second = features.file_of(vae, whole), file_of(vae, whole)
    return [
        *store.ship("latents-*.npy", {first: lambda part: features.save(part, latents)}),
        *store.ship("residuals-*.safetensors", {second: lambda part: write(part, found)}),
    ]


def measured(vae: Any, data: Corpus) -> Residuals:
    """Take these drawings through the autoencoder, and find the axes of what is lost."""
    from sklearn.decomposition import PCA

    error = np.empty(len(data), np.float32)
    lost = np.empty((len(data), GRID * GRID * 3), np.float32)
    for start in range(0, len(data), 256):  # at full size all would take a gigabyte
        rows = np.arange(start, min(start + 256, len(data)))
        full = residuals(vae, data.rgb(rows))
        error[rows], lost[rows] = _size(full), _on_grid(full).reshape(len(rows), -1)
    solver = "randomized" if len(data) > 4 * DIMENSIONS else "full"
    fitted = PCA(min(DIMENSIONS, len(data)), svd_solver=solver, random_state=0).fit(lost)
    axes = fitted.components_.astype(np.float16).astype(np.float32)  # as they will be kept
    mean = fitted.mean_.astype(np.float32)
    return Residuals(error, (lost - mean) @ axes.T, mean, axes)


def file_of(vae: Any, whole: Corpus) -> str:
    """Name of the file that keeps the corpus's residuals."""
    key = store.digest("residuals", store.weights_hash(vae), whole.sha256, GRID, DIMENSIONS)
    return f"residuals-{key}.safetensors"


def write(path: Path, found: Residuals) -> None:
    """Write the residuals, axes as float16."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(getattr(found, name)) for name in NAMES}
    save_file(arrays | {"axes": arrays["axes"].astype(np.float16)}, path)


def _read(path: Path, vae: Any, whole: Corpus) -> Residuals | None:
    """What a file keeps; None where there is none or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        found = Residuals(*(arrays[name].astype(np.float32) for name in NAMES))
    except (OSError, SafetensorError, KeyError):
        return None
    if len(found.error) != len(whole):
        return None
    if path.parent == store.shipped():
        rows = features.some_rows(len(whole))
        again = residuals(vae, whole.rgb(rows))
        features.agree(path, found.error[rows], _size(again))
        features.agree(path, found.components[rows], found.of(_on_grid(again)))
    return found


def _size(lost: np.ndarray) -> np.ndarray:
    return np.sqrt((lost.reshape(len(lost), -1) ** 2).mean(1))


def _on_grid(lost: np.ndarray) -> np.ndarray:
    """Residuals (n, h, w, 3) as means over blocks, (n, 64, 64, 3)."""
    block = lost.shape[1] // GRID
    return lost.reshape(len(lost), GRID, block, GRID, block, 3).mean((2, 4))
