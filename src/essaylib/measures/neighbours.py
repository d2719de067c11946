"""The nearest training drawing, and the nearest training patch, by exhaustive search.

Distances are root mean squares over the numbers of an image, in its own unit (grey levels for
pixels). What counts as a near-copy is fixed on real near-duplicates, before any output is seen
(after Carlini et al. 2023).
"""

from dataclasses import dataclass

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite

FLAT = 4.0
"""A patch whose grey levels have a smaller standard deviation (of 255) is flat."""


@dataclass(frozen=True)
class Patches:
    """Patches that are not flat: `pixels` float32 (n, size * size * 3), `owner` and `place` (n,).

    `owner` is the image's row; `place` counts the cells of the image's grid, row by row.
    """

    pixels: np.ndarray
    owner: np.ndarray
    place: np.ndarray


def nearest(
    queries: np.ndarray, among: np.ndarray, k: int = 1, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances (q, k) and rows (q, k) of the k nearest of `among` (n, ...), in order.

    own: (q,) the row of `among` that each query is itself, or -1; it is left out.
    """
    queries, among = _flat(queries, "queries"), _flat(among, "among")
    if queries.shape[1] != among.shape[1]:
        raise EssayError(f"Images differ in size: {queries.shape[1]} and {among.shape[1]} numbers.")
    left = len(among) - (own is not None)
    if not 1 <= k <= left:
        raise EssayError(f"k must lie between 1 and {left}, the drawings there are, not {k}.")
    distances = np.empty((len(queries), k))
    rows = np.empty((len(queries), k), dtype=np.int64)
    squares = (among**2).sum(1)
    for start in range(0, len(queries), 256):
        part = slice(start, start + 256)
        x = queries[part]
        far = squares - 2 * (x @ among.T)
        if own is not None:
            mine = np.flatnonzero(own[part] >= 0)
            far[mine, own[part][mine]] = np.inf
        found = np.argpartition(far, k - 1, axis=1)[:, :k]
        # The expanded square loses digits near zero: measure the few that were found again.
        exact = np.sqrt(((among[found] - x[:, None]) ** 2).mean(-1, dtype=np.float64))
        order = np.argsort(exact, axis=1, kind="stable")
        rows[part] = np.take_along_axis(found, order, axis=1)
        distances[part] = np.take_along_axis(exact, order, axis=1)
    return distances, rows


def threshold(duplicates: np.ndarray, share: float = 0.95) -> float:
    """Return the distance below which `share` of the real near-duplicates lie."""
    duplicates = finite(duplicates, "distances of near-duplicates", dims=1)
    return float(np.quantile(duplicates, share))


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance of each image of a from the same one of b, both (n, ...)."""
    a, b = _flat(a, "a"), _flat(b, "b")
    if a.shape != b.shape:
        raise EssayError(f"Images must pair: {a.shape} and {b.shape} do not.")
    return np.sqrt(((a - b) ** 2).mean(1, dtype=np.float64))


def patches(images: np.ndarray, size: int = 16, flat: float = FLAT) -> Patches:
    """Cut images (n, H, W, 3) into a grid of patches, and leave the flat ones out.

    Raises `EssayError` where `size` does not divide the image.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] % size or images.shape[2] % size:
        raise EssayError(f"Patches of {size} do not tile images of the shape {images.shape[1:]}.")
    n, height, width, channels = images.shape
    down, across = height // size, width // size
    cut = finite(images, "images", dtype=np.float32)
    cut = cut.reshape(n, down, size, across, size, channels).swapaxes(2, 3)
    cut = cut.reshape(n * down * across, -1)
    # A patch of two even colours is an edge, not flat: spread is taken over the pixels' grey.
    grey = cut.reshape(len(cut), -1, channels).mean(-1)
    keep = np.flatnonzero(grey.std(1) >= flat)
    owner, place = np.divmod(keep, down * across)
    return Patches(cut[keep], owner, place)


def borrowed(
    drawn: Patches, training: Patches, limit: float, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's borrowed share (images,), and the training patch nearest to each patch.

    The share of an image's patches that lie within `limit` of a training patch, those not counted
    that go to the one drawing it draws on most: what it takes from *other* drawings. NaN for an
    image all of whose patches are flat.
    """
    distances, rows = nearest(drawn.pixels, training.pixels)
    rows = rows[:, 0]
    close = distances[:, 0] < limit
    source = training.owner[rows]
    share = np.full(images, np.nan)
    for image in np.unique(drawn.owner):
        mine = drawn.owner == image
        taken = source[mine & close]
        most = np.bincount(taken).max() if len(taken) else 0
        share[image] = (len(taken) - most) / mine.sum()
    return share, rows


def _flat(x: np.ndarray, name: str) -> np.ndarray:
    x = finite(x, name, dtype=np.float32)
    return x.reshape(len(x), -1)
