"""Shares of variance in a crossed table with one picture a cell (Searle et al. 1992, chapter 4).

Rows and columns are concepts and vendors, or prompts and seeds. Shares are analysis-of-variance
components: raw sums of squares would give each factor a share of pure noise (a quarter of it to
concepts, with four vendors). With one picture a cell, interaction and chance are one component.
Components are unbiased, so a factor that does nothing may come out slightly negative.
"""

from dataclasses import dataclass

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import bootstrap
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.checks import finite


@dataclass(frozen=True)
class Shares:
    """Shares of the total variance; they sum to one."""

    rows: float
    columns: float
    interaction: float


def shares(x: np.ndarray) -> Shares:
    """Return the shares of rows, columns and interaction in x (R, C, ...), summed over the rest.

    Raises `EssayError` for fewer than two rows or columns, and where nothing varies.
    """
    x = _table(x)
    return Shares(*(float(share) for share in _shares(x, np.ones((1, len(x))))[0]))


def over_rows(
    x: np.ndarray, component: str, draws: int = 4000, method: str = "bca", seed: int = 0
) -> Estimate:
    """Return one component's share with its interval over rows (concepts), columns being fixed.

    component: "rows", "columns", "interaction", or "unnamed", which is columns and interaction
        together: all that the row's name does not say.
    """
    x = _table(x)
    pick = _picker(component)
    n = len(x)
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    for start in range(0, draws, 500):
        picked = rng.integers(n, size=(min(500, draws - start), n))
        weights = np.stack([np.bincount(row, minlength=n) for row in picked])
        found[start : start + len(picked)] = pick(_shares(x, weights))
    left_out = pick(_shares(x, 1.0 - np.eye(n))) if method == "bca" else None
    return bootstrap.interval(float(pick(_shares(x, np.ones((1, n))))[0]), found, n, left_out)


def dispersion(x: np.ndarray) -> np.ndarray:
    """Mean squared distance of a row's pictures to their mean, (R,), for x (R, C, ...)."""
    x = finite(x, "x")
    x = x.reshape(*x.shape[:2], -1)
    return ((x - x.mean(1, keepdims=True)) ** 2).sum(-1).mean(1)


def misregistered(
    images: np.ndarray,
    copies: int = 4,
    shift: float = 4,
    zoom: float = 0.05,
    block: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Return copies (n, copies, H, W, 3) of images (n, H, W, 3), a little off one another.

    Each is shifted by up to `shift` pixels and scaled by up to `zoom`, on white, by linear
    interpolation: what four publishers would show if they all printed one drawing. With `block`,
    which must divide H and W, the copies are then averaged over blocks of that many pixels.
    """
    images = finite(images, "images", dims=4, dtype=np.float32)
    height, width = images.shape[1:3]
    if height % block or width % block:
        raise EssayError(f"block {block} divides neither side of {height} x {width} pixels.")
    rng = np.random.default_rng(seed)
    found = np.empty((len(images), copies, height // block, width // block, images.shape[3]))
    for i, image in enumerate(255 - images.transpose(0, 3, 1, 2)):
        for j in range(copies):
            scale = 1 + rng.uniform(-zoom, zoom)
            down, right = rng.uniform(-shift, shift, 2)
            moved = _resample(height, scale, down, block) @ image
            moved = moved @ _resample(width, scale, right, block).T
            found[i, j] = 255 - moved.transpose(1, 2, 0)
    return found


def _resample(size: int, scale: float, shift: float, block: int) -> np.ndarray:
    """The matrix (size / block, size) that scales a line of pixels about its middle and shifts it.

    What comes from outside the line is zero, that is, paper.
    """
    middle = (size - 1) / 2
    places = scale * (np.arange(size) - middle) + middle + shift
    left = np.floor(places).astype(int)
    weights = np.zeros((size, size), np.float32)
    for source, weight in ((left, 1 - (places - left)), (left + 1, places - left)):
        inside = (source >= 0) & (source < size) & (places >= 0) & (places <= size - 1)
        weights[np.flatnonzero(inside), source[inside]] += weight[inside]
    return weights.reshape(size // block, block, size).mean(1)


def _table(x: np.ndarray) -> np.ndarray:
    x = finite(x, "x")
    if x.ndim < 2 or min(x.shape[:2]) < 2:
        raise EssayError(f"A crossed table needs two rows and two columns; this is {x.shape}.")
    x = x.reshape(*x.shape[:2], -1)
    x = x - x.mean((0, 1))
    if not np.ptp(x, axis=(0, 1)).any():
        raise EssayError("Nothing varies: all pictures are the same, and shares are undefined.")
    return x


def _shares(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shares (draws, 3) for rows repeated by `weights` (draws, R); x is (R, C, d)."""
    columns = x.shape[1]
    rows = weights.sum(1)
    row_means = x.mean(1)
    column_means = (weights @ x.reshape(len(x), -1)).reshape(len(weights), columns, -1)
    column_means /= rows[:, None, None]
    grand = (column_means.mean(1) ** 2).sum(-1)
    total = weights @ (x**2).sum((1, 2)) - rows * columns * grand
    between_rows = columns * (weights @ (row_means**2).sum(-1) - rows * grand)
    between_columns = rows * ((column_means**2).sum((1, 2)) - columns * grand)
    residual = (total - between_rows - between_columns) / ((rows - 1) * (columns - 1))
    row = (between_rows / (rows - 1) - residual) / columns
    column = (between_columns / (columns - 1) - residual) / rows
    parts = np.stack([row, column, residual], axis=1)
    return parts / parts.sum(1, keepdims=True)


def _picker(component: str):
    places = {"rows": [0], "columns": [1], "interaction": [2], "unnamed": [1, 2]}
    if component not in places:
        raise EssayError(f"Unknown component {component!r}: use one of {', '.join(places)}.")
    return lambda parts: parts[:, places[component]].sum(1)
