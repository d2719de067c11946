"""How sharp a picture is, and how much line it has: the Laplacian's energy, the density of edges.

Both read luminance from 0 to 1. The energy of the Laplacian is the classic measure of focus
(Subbarao, Choi and Nikzad 1993); it grows with contrast and with noise too, so it is read beside
something that knows what the picture should show.
"""

import numpy as np
from scipy.ndimage import correlate1d

from essaylib.errors import EssayError

WEIGHTS = np.array([0.2126, 0.7152, 0.0722])
"""Rec. 709: what red, green and blue contribute to luminance."""

EDGE = 0.1
"""Least slope of an edge, in luminance a pixel: white to black over ten pixels or fewer."""


def luminance(images: np.ndarray) -> np.ndarray:
    """Return the luminance (n, h, w), 0 to 1, of uint8 pictures (n, h, w, 3)."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise EssayError(f"Pictures are uint8 (n, h, w, 3), not {images.dtype} {images.shape}.")
    if min(images.shape[1:3]) < 3:
        raise EssayError(f"A picture of {images.shape[1:3]} pixels has no inside to measure.")
    return images @ (WEIGHTS / 255)


def laplacian_energy(images: np.ndarray) -> np.ndarray:
    """Return the mean square of each picture's Laplacian (n,), four neighbours, border left out."""
    y = luminance(images)
    around = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
    return ((around - 4 * y[:, 1:-1, 1:-1]) ** 2).mean(axis=(1, 2))


def edge_density(images: np.ndarray, slope: float = EDGE) -> np.ndarray:
    """Return the share of pixels (n,) at which luminance rises by more than `slope` a pixel.

    By Sobel's operator, border left out.
    """
    y = luminance(images)
    rise = np.hypot(_sobel(y, 1, 2), _sobel(y, 2, 1))[:, 1:-1, 1:-1]
    return (rise > slope).mean(axis=(1, 2))


def _sobel(y: np.ndarray, along: int, across: int) -> np.ndarray:
    """Rise a pixel along one axis, averaged over three across (scipy's would mix pictures)."""
    return correlate1d(correlate1d(y, [-1, 0, 1], axis=along), [1, 2, 1], axis=across) / 8
