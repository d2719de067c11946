"""Drawings set on textured grounds, so that an outline is known and was never shown to the model.

The corpus keeps every drawing with its alpha channel. Set on white, as the model learnt them, a
drawing can be parted from its ground by looking for white. On a ground that is grained and coloured
at random it cannot, and the alpha channel still says where the drawing ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib.errors import EssayError

if TYPE_CHECKING:
    from essaylib.corpus import Corpus

SIDE = 128
WAVES = (4, 24)
"""Waves across the picture: from broad clouds to a grain of five pixels."""
COLOURS = (40, 216)
"""Range of a ground's mean colour: no ground is white, or black."""
DEPTH = (12, 30)
"""Standard deviation of a ground's grain in grey levels, before it is cut at 0 and 255."""
GROUND = 0.1
"""Least share of the picture that a drawing must leave to its ground to be drawn by lot."""


def grounds(n: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Make n textured grounds, uint8 (n, side, side, 3).

    Each has a mean colour and, around it, a grain: Gaussian noise of one band of frequencies, which
    may run in one direction as wood does, along a second random colour axis.
    """
    if n < 1:
        raise EssayError(f"{n} grounds cannot be made: ask for one or more.")
    rng = np.random.default_rng(seed)
    colour = rng.uniform(*COLOURS, size=(n, 1, 1, 3))
    axis = rng.normal(size=(n, 1, 1, 3)) + 2 * rng.choice((-1, 1), size=(n, 1, 1, 1))
    axis *= np.sqrt(3) / np.linalg.norm(axis, axis=-1, keepdims=True)
    depth = rng.uniform(*DEPTH, size=(n, 1, 1, 1))
    grain = np.stack([_grain(rng, side) for _ in range(n)])[..., None]
    return np.clip(colour + depth * axis * grain, 0, 255).round().astype(np.uint8)


def set_on(rgba: np.ndarray, grounds: np.ndarray) -> np.ndarray:
    """Set drawings, uint8 (n, h, w, 4), on grounds (n, h, w, 3): uint8 (n, h, w, 3)."""
    if rgba.shape[-1] != 4 or rgba.shape[:-1] != grounds.shape[:-1]:
        raise EssayError(f"Drawings {rgba.shape} do not fit on grounds {grounds.shape}.")
    alpha = rgba[..., 3:] / 255.0
    return (rgba[..., :3] * alpha + grounds * (1 - alpha)).round().astype(np.uint8)


def masks(rgba: np.ndarray) -> np.ndarray:
    """Where a drawing covers more than half of a pixel: bool (n, h, w)."""
    return rgba[..., 3] > 127


def fitted(pictures: np.ndarray, pipe: Any) -> np.ndarray:
    """Enlarge pictures (n, h, w, 3) by whole pixels to the size that a model draws."""
    own = pipe.unet.config.sample_size
    side = (own if isinstance(own, int) else min(own)) * pipe.vae_scale_factor
    factor = max(1, side // pictures.shape[1])
    return pictures.repeat(factor, axis=1).repeat(factor, axis=2)


def chosen(corpus: Corpus, n: int, seed: int = 0) -> Corpus:
    """Draw n drawings by lot, one a concept, of those that leave room to a ground (`GROUND`)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(corpus))
    first = order[np.sort(np.unique(corpus.table.concept.to_numpy()[order], return_index=True)[1])]
    kept = []
    for row in first:
        if len(kept) == n:
            break
        if masks(corpus.rgba([row])).mean() <= 1 - GROUND:
            kept.append(row)
    if len(kept) < n:
        raise EssayError(f"Only {len(kept)} concepts leave room to a ground; {n} were asked for.")
    return corpus.take(kept)


def _grain(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of about one octave of frequencies (side, side), mean 0 and variance 1."""
    waves = np.exp(rng.uniform(*np.log(WAVES)))
    turn, run = rng.uniform(0, np.pi), rng.uniform(0, 3)
    down, across = side * np.fft.fftfreq(side)[:, None], side * np.fft.rfftfreq(side)
    radius = np.hypot(down, across)
    radius[0, 0] = 1e-9  # no grain at all there: the mean colour is set apart
    octave = np.exp(-0.5 * (np.log2(radius / waves) / 0.5) ** 2)
    along = np.exp(run * np.cos(2 * (np.arctan2(down, across) - turn)))
    white = np.fft.rfft2(rng.normal(size=(side, side)))
    field = np.fft.irfft2(white * octave * along, s=(side, side))
    return (field - field.mean()) / field.std()
