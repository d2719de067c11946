"""A drawing as the model holds it: latents of the autoencoder, vectors of CLIP's image tower.

Both take pictures as the corpus gives them, uint8 (n, h, w, 3) on white, and return float32 arrays,
one row a picture, without noise: the same picture gives the same numbers. `clip_texts` does it for
captions, and `conditions` gives those as the U-Net reads them. `untrained` makes the floor that a
learned space is compared with.

What several chapters need of all drawings is computed once and kept (see `store`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from essaylib import models, store
from essaylib.corpus import SIZE, Corpus
from essaylib.corpus import load as load_corpus
from essaylib.errors import EssayError

ENCODER = ("encoder.", "quant_conv.")
"""The parts of an autoencoder that latents depend on."""

SIGHT = ("vision_model.", "visual_projection.")
"""The parts of a CLIP that its vectors of pictures depend on."""

EYE = ("hidden_act", "image_size", "layer_norm_eps", "num_attention_heads", "patch_size")
"""What a picture tower's configuration says beyond the shapes of its weights."""

TOLERANCE = 1e-2
"""Largest difference of a kept value from one computed again, in the largest value's unit."""


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

    Computed for the whole corpus at the first call (one to three minutes on one thread) and kept,
    by the encoder's weights, the corpus and the image's side (see `store`). Where they ship with
    the book, as float16, some are computed again: `EssayError` if they differ. Less than a quarter
    of the corpus is not worth that: it is computed alone, unless the rest is there already. A
    selection is a copy; the whole corpus may be mapped from its file and not be written to.
    """
    whole = load_corpus(data.source)

    def encode(rows: np.ndarray) -> np.ndarray:
        return latents(vae, whole.rgb(rows, size))

    name = file_of(vae, whole, size)
    found = store.find(name, partial(_read, count=len(whole), compute=encode))
    if found is None and 4 * len(data) < len(whole):
        return latents(vae, data.rgb(size=size))
    found = kept(name, len(whole), encode) if found is None else found
    return found if data is whole else found[rows_of(data, whole)]


def file_of(vae: Any, whole: Corpus, size: int = SIZE) -> str:
    """Name of the file that keeps the corpus's latents: a decoder trained on leaves it as it is."""
    encoder = store.weights_hash(vae, ENCODER)
    key = store.digest("latents", encoder, whole.sha256, size)
    return f"latents-{key}.npy"


def kept_clip_images(clip: Any, data: Corpus) -> np.ndarray:
    """`clip_images` of these very drawings, kept by the tower's weights: float32 (n, d).

    Computed at the first call (half a minute for four thousand on one thread). The concepts that
    all vendors drew ship with the book, for its two CLIPs and as float16 (`ship_clip_images`): of
    these some are computed again, `EssayError` if they differ. May be mapped from its file and not
    be written to.
    """
    side = clip.config.vision_config.image_size
    return kept(
        clip_file_of(clip, data),
        len(data),
        lambda rows: clip_images(clip, data.rgb(rows, size=side)),
    )


def ship_clip_images(clips: Sequence[Any], data: Corpus) -> list[Path]:
    """Put the vectors of these drawings with the book, in place of other CLIPs'; the files."""
    found = {
        clip_file_of(clip, data): kept_clip_images(clip, data).astype(np.float16) for clip in clips
    }
    return store.ship("clip-*.npy", {name: partial(save, values=v) for name, v in found.items()})


def clip_file_of(clip: Any, data: Corpus) -> str:
    """Name of the file that keeps the vectors of these drawings: captions do not count."""
    sight = clip.config.vision_config.to_dict()
    tower = store.weights_hash(clip, SIGHT, {name: sight[name] for name in EYE})
    key = store.digest("clip", tower, data.sha256, list(data.table.id))
    return f"clip-{key}.npy"


def rows_of(data: Corpus, whole: Corpus) -> np.ndarray:
    """Where the drawings of a selection stand in the whole corpus (n,)."""
    places = whole.table.reset_index().set_index("id")["index"]
    return places.loc[data.table.id].to_numpy()


def kept(name: str, count: int, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return `count` rows from the file `name`; where there is none, have `compute` make them.

    compute: takes positions (m,) and returns their rows (m, ...) in float32. Of a file that ships
    with the book some rows are computed again: `EssayError` if they differ.
    """

    def all_rows() -> np.ndarray:
        # A few at a time: all 5,901 drawings as pixels would take a third of a gigabyte.
        chunks = np.array_split(np.arange(count), -(-count // 256))
        return np.concatenate([compute(rows) for rows in chunks])

    return store.kept(name, partial(_read, count=count, compute=compute), save, all_rows)


def save(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, whatever the file's name ends in."""
    with open(path, "wb") as file:
        np.save(file, values)


def some_rows(count: int, n: int = 16) -> np.ndarray:
    """Rows to be computed again, the same each time."""
    return np.sort(np.random.default_rng(count).choice(count, min(n, count), replace=False))


def agree(path: Path, before: np.ndarray, again: np.ndarray) -> None:
    """Raise `EssayError` where what was kept differs by more than rounding and another machine."""
    before = before.astype(np.float64)
    off = float(np.abs(before - again).max() / max(np.abs(before).max(), 1e-12))
    if not off <= TOLERANCE:  # nor where it is not a number
        raise EssayError(
            f"{path} does not come out again (off by {off:.1%} of the largest value): remove it, "
            "or restore it with `git checkout`."
        )


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


@torch.no_grad()
def conditions(pipe: Any, captions: Sequence[str]) -> torch.Tensor:
    """Captions as a pipeline gives them to its U-Net, token by token: a tensor (n, T, D)."""
    return pipe.encode_prompt(list(captions), pipe.unet.device, 1, False)[0]


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
    where = models.execution_device(network), next(network.parameters()).dtype
    found = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2)
        found.append(function((pixels.float() / 127.5 - 1).to(*where)).float().cpu())
    return torch.cat(found).numpy()


def _read(path: Path, count: int, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """An array as float32; of one that ships, in whichever precision, some rows are made again."""
    found = _mapped(path, count)
    if found is None or path.parent != store.shipped():
        return found
    rows = some_rows(count)
    agree(path, found[rows], compute(rows))
    return found.astype(np.float32)


def _mapped(path: Path, rows: int) -> np.ndarray | None:
    """The array of a file, or None where there is none or it is cut short, damaged or another's."""
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return found if found.dtype in (np.float32, np.float16) and len(found) == rows else None
