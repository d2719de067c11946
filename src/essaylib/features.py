"""A drawing as the model holds it: latents of the autoencoder, vectors of CLIP's image tower.

Both take pictures as the corpus gives them, uint8 (n, h, w, 3) on white, and return float32 arrays,
one row a picture, without noise: the same picture gives the same numbers. `clip_texts` does it for
captions. `untrained` makes the floor that a learned space is compared with.

What several chapters need of all drawings is computed once and kept under `_build/features/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from essaylib import paths
from essaylib.corpus import SIZE, Corpus
from essaylib.corpus import load as load_corpus
from essaylib.errors import EssayError


def latents(vae: Any, images: np.ndarray) -> np.ndarray:
    """Encode pictures to latents (n, C, h / 8, w / 8), scaled as the U-Net takes them.

    The mean of the posterior is returned, not a draw from it.
    """
    scale = vae.config.scaling_factor

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        # Channels last and a few pictures at a time: half the time on a CPU.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return vae.encode(pixels).latent_dist.mode() * scale

    return _apply(encode, vae, images, batch=4)


def corpus_latents(vae: Any, data: Corpus, size: int = SIZE) -> np.ndarray:
    """The latents of the corpus's drawings, rows as in `data`: float32 (n, C, size / 8, size / 8).

    Computed for the whole corpus at the first call (about a minute on one thread, 12 ms a drawing)
    and kept in `_build/features/`, by the weights, the corpus and the image's side. A second
    process that asks meanwhile waits. For the whole corpus in its own order the answer is mapped
    from the file and cannot be written to; a selection is a copy.
    """
    whole = load_corpus(data.source)

    def compute() -> np.ndarray:
        # A few at a time: all 5,901 drawings as pixels would take a third of a gigabyte.
        chunks = np.array_split(np.arange(len(whole)), -(-len(whole) // 256))
        return np.concatenate([latents(vae, whole.rgb(rows, size)) for rows in chunks])

    key = _digest("latents", weights_hash(vae), whole.sha256, size, str(vae.device.type))
    found = _kept(paths.build() / "features" / f"{key}.npy", len(whole), compute)
    if data is whole:
        return found
    rows = whole.table.reset_index().set_index("id")["index"].loc[data.table.id]
    return found[rows.to_numpy()]


def weights_hash(network: Any) -> str:
    """SHA-256 of a network's configuration and weights as they are in memory."""
    config = {k: v for k, v in dict(network.config).items() if not k.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def clip_images(clip: Any, images: np.ndarray) -> np.ndarray:
    """Embed pictures by CLIP's image tower, projected into the space of captions (n, d).

    Pictures that are larger than the tower takes are averaged over blocks of pixels.
    """
    side = clip.config.vision_config.image_size
    height, width = images.shape[1:3]
    if height % side or width % side or height != width:
        raise EssayError(f"This CLIP takes {side} x {side} pixels, or squares of a multiple of it.")

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        pixels = torch.nn.functional.avg_pool2d(pixels, height // side)
        hidden = clip.vision_model(pixel_values=pixels).pooler_output
        return clip.visual_projection(hidden)

    return _apply(embed, clip, images, batch=64)


@torch.no_grad()
def clip_texts(clip: Any, words: Any, captions: Sequence[str]) -> np.ndarray:
    """Embed captions by CLIP's text tower, projected into the space of drawings (n, d).

    `words` is its tokenizer. Longer captions than it takes are cut off.
    """
    if not len(captions):
        raise EssayError("There is no caption to embed.")
    where = next(clip.parameters()).device
    found = []
    for start in range(0, len(captions), 128):
        batch = list(captions[start : start + 128])
        # The tower is causal and pools at the end token: padding after it changes nothing.
        tokens = words(batch, padding=True, truncation=True, return_tensors="pt").to(where)
        found.append(clip.text_projection(clip.text_model(**tokens).pooler_output).float().cpu())
    return torch.cat(found).numpy()


def untrained(network: Any, seed: int = 0) -> Any:
    """The same architecture with the weights that it would have been given before training."""
    kind = type(network)
    make = kind.from_config if hasattr(kind, "from_config") else kind
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(network.config).eval()


@torch.no_grad()
def _apply(
    function: Callable[[torch.Tensor], torch.Tensor], network: Any, images: np.ndarray, batch: int
) -> np.ndarray:
    """Apply a function of signed pixels (b, 3, h, w), `batch` pictures at a time."""
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise EssayError(f"Pictures are uint8 (n, h, w, 3), not {images.dtype} {images.shape}.")
    where = next(network.parameters())
    found = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2)
        found.append(function((pixels.float() / 127.5 - 1).to(where)).float().cpu())
    return torch.cat(found).numpy()


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _kept(path: Path, rows: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a file, mapped; computed and written there first where it is not, or damaged."""
    from filelock import FileLock

    found = _mapped(path, rows)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            found = _mapped(path, rows)  # another process may have been at it
            if found is None:
                _write(path, compute())
                found = _mapped(path, rows)
    except OSError as error:
        raise EssayError(f"{path} cannot be written ({error.strerror}).") from error
    return found


def _mapped(path: Path, rows: int) -> np.ndarray | None:
    """The array of a file, or None where there is none or it is cut short, damaged or another's."""
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return found if found.dtype == np.float32 and len(found) == rows else None


def _write(path: Path, values: np.ndarray) -> None:
    """Write an array whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, values)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
