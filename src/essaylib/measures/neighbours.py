"""The nearest training drawing, and the nearest training patch, by exhaustive search.

Distances are root mean squares over the numbers of an image, in its own unit (grey levels for
pixels). What counts as a near-copy is fixed on real near-duplicates, before any output is seen
(after Carlini et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite, labels

BLOCK = 128
"""Images or patches that are worked on at once."""

FLAT = 4.0
"""A patch whose grey levels have a smaller standard deviation (of 255) is flat."""


@dataclass(frozen=True)
class Patches:
    """Patches that are not flat: `pixels` (n, size * size * 3), `owner` and `place` (n,).

    `owner` is the image's row; `place` counts the cells of the image's grid, row by row. `pixels`
    keeps the images' own type: a corpus of patches in uint8 takes a quarter of the memory.
    """

    pixels: np.ndarray
    owner: np.ndarray
    place: np.ndarray

    @cached_property
    def field(self) -> Field:
        """The pixels made ready to be searched, at the first search and for all others."""
        return Field.of(self.pixels)


@dataclass(frozen=True)
class Field:
    """Images (n, d) made ready for `closest`, which takes as long as a search itself.

    `axes` (d, k) are the few directions in which they vary most about their `middle` (d,). `short`
    (n, k + 2) holds each image's coordinates along these, the length of what is left over, and the
    square of both.
    """

    images: np.ndarray
    middle: np.ndarray
    axes: np.ndarray
    short: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, directions: int = 64) -> Field:
        images = _flat(images, "among", None)
        middle, axes = _main_directions(images, directions)
        short = _shortened(images, middle, axes)
        return cls(images, middle, axes, np.column_stack([short, (short**2).sum(1)]))


def nearest(
    queries: np.ndarray, among: np.ndarray, k: int = 1, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances (q, k) and rows (q, k) of the k nearest of `among` (n, ...), in order.

    own: (q,) the row of `among` that each query is itself, or -1; it is left out.
    """
    queries, among = _flat(queries, "queries"), _flat(among, "among")
    if queries.shape[1] != among.shape[1]:
        raise EssayError(f"Images differ in size: {queries.shape[1]} and {among.shape[1]} numbers.")
    if own is not None:
        own = labels(own, "own", len(queries))
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


def closest(queries: np.ndarray, among: np.ndarray | Field) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance (q,) and the row (q,) of the one nearest of `among` (n, ...).

    As `nearest` with k = 1, in a fraction of its time where there are hundreds of thousands. In
    the few directions in which `among` varies most, with what is left over as one more coordinate,
    two images are never farther apart than they are (the triangle inequality). So whatever lies
    farther there than the best that was found can be passed over unseen. For several searches, make
    the `Field` once.
    """
    field = among if isinstance(among, Field) else Field.of(among)
    queries, among = _flat(queries, "queries"), field.images
    if queries.shape[1] != among.shape[1]:
        raise EssayError(f"Images differ in size: {queries.shape[1]} and {among.shape[1]} numbers.")
    sought = _shortened(queries, field.middle, field.axes)
    own = (sought**2).sum(1)
    # One product gives the squared distances, but for the query's own square: the matrix is large,
    # and every further pass over it would cost as much again.
    sought = np.column_stack([-2 * sought, np.ones_like(own)])
    # Twice the rounding of a sum of squares this large, so that no true neighbour is passed over.
    slack = 4e-6 * float(max(field.short[:, -1].max(), own.max()))
    distances, rows = np.empty(len(queries)), np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        far = sought[part] @ field.short.T
        best = far.argmin(1)
        bound = ((among[best] - queries[part]) ** 2).sum(1) - own[part]
        # Counted along one axis: along two, numpy takes as long as the product above.
        near = np.flatnonzero(far <= (bound + slack)[:, None])
        query, row = np.divmod(near, len(among))
        exact = _squares(queries[part], among, query, row)
        order = np.lexsort((row, exact, query))
        first = order[np.unique(query[order], return_index=True)[1]]
        distances[part] = np.sqrt(exact[first] / queries.shape[1])
        rows[part] = row[first]
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


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Average square images (n, H, H, 3) over blocks to float32 (n, side, side, 3)."""
    images = np.asarray(images)
    if side < 1 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[1] % side:
        raise EssayError(f"Images of the shape {images.shape[1:]} cannot be averaged to {side}.")
    block = images.shape[1] // side
    small = np.empty((len(images), side, side, images.shape[3]), np.float32)
    for start in range(0, len(images), BLOCK):
        part = images[start : start + BLOCK]
        cut = part.reshape(len(part), side, block, side, block, -1)
        # Down first, then across: in one go it takes three times as long.
        small[start : start + BLOCK] = cut.mean(2, dtype=np.float32).mean(3)
    return small


def patches(images: np.ndarray, size: int = 16, flat: float = FLAT) -> Patches:
    """Cut images (n, H, W, 3) into a grid of patches, and leave the flat ones out.

    Raises `EssayError` where `size` does not divide the image.
    """
    images = np.asarray(images)
    if size < 1 or images.ndim != 4 or images.shape[1] % size or images.shape[2] % size:
        raise EssayError(f"Patches of {size} do not tile images of the shape {images.shape[1:]}.")
    n, height, width, channels = images.shape
    down, across = height // size, width // size
    if images.dtype.kind == "f":
        finite(images, "images", dtype=np.float32)
    pixels, keep = [], []
    for start in range(0, n, BLOCK):  # a whole corpus of patches in floats would take gigabytes
        cut = images[start : start + BLOCK].reshape(-1, down, size, across, size, channels)
        cut = cut.swapaxes(2, 3).reshape(-1, size * size, channels)
        # A patch of two even colours is an edge, not flat: spread is taken over the pixels' grey.
        grey = sum(cut[..., channel].astype(np.float32) for channel in range(channels)) / channels
        uneven = np.flatnonzero(grey.std(1) >= flat)
        pixels.append(cut[uneven].reshape(len(uneven), -1))
        keep.append(start * down * across + uneven)
    owner, place = np.divmod(np.concatenate(keep), down * across)
    return Patches(np.concatenate(pixels), owner, place)


@dataclass(frozen=True)
class Pieces:
    """The patches (p) of one image, each by the training patch that is nearest to it.

    place: in the image's grid, row by row; pixels: (p, size, size, 3) of the training patch;
    source: the drawing it was cut from; near: whether it lies within the threshold; main: whether
    it does and comes from the one drawing that supplies most.
    """

    place: np.ndarray
    pixels: np.ndarray
    source: np.ndarray
    near: np.ndarray
    main: np.ndarray


@dataclass(frozen=True)
class Matches:
    """Each patch of some images beside the training patch that is nearest to it.

    `cut` are the images' patches (p of them), `distance` (p,) and `row` (p,) lead to the patch of
    `known`, `source` (p,) to the training drawing that this was cut from. `images` counts images,
    flat ones included.
    """

    cut: Patches
    known: Patches
    distance: np.ndarray
    row: np.ndarray
    images: int

    @property
    def source(self) -> np.ndarray:
        return self.known.owner[self.row]

    def of(self, image: int, limit: float) -> Pieces:
        """One image's patches and what stands for each."""
        mine = np.flatnonzero(self.cut.owner == image)
        source, near = self.source[mine], self.distance[mine] < limit
        side = round((self.known.pixels.shape[1] // 3) ** 0.5)
        pixels = self.known.pixels[self.row[mine]].reshape(-1, side, side, 3)
        most = np.bincount(source[near]).argmax() if near.any() else -1
        return Pieces(self.cut.place[mine], pixels, source, near, near & (source == most))


def match(images: np.ndarray, known: Patches, size: int = 16) -> Matches:
    """Find for each patch of the images (n, H, W, 3) that is not flat the nearest of `known`."""
    cut = patches(images, size)
    distance, row = closest(cut.pixels, known.field)
    return Matches(cut, known, distance, row, len(images))


def borrowed(found: Matches, limit: float) -> np.ndarray:
    """Return the share of each image's patches that other drawings than its main one supply.

    A drawing supplies a patch if its own is the nearest and lies within `limit`. Patches that go to
    the one drawing which an image draws on most are not counted. NaN (images,) for an image all of
    whose patches are flat.
    """
    share = np.full(found.images, np.nan)
    for image in np.unique(found.cut.owner):
        pieces = found.of(image, limit)
        share[image] = (pieces.near & ~pieces.main).mean()
    return share


def _main_directions(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,) and the directions (d, count) in which rows vary most, from a sample of rows.

    Any orthonormal directions would do for `closest`; these make it fast.
    """
    sample = x[:: max(1, len(x) // 20_000)].astype(np.float32)
    middle = sample.mean(0)
    sample = sample - middle
    _, axes = np.linalg.eigh(sample.T @ sample)
    return middle, axes[:, -count:]


def _shortened(x: np.ndarray, middle: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Coordinates (n, k + 1) along `axes`, and the length of what they leave over."""
    short = np.empty((len(x), axes.shape[1] + 1), np.float32)
    for start in range(0, len(x), 4096):
        part = slice(start, start + 4096)
        away = x[part] - middle
        short[part, :-1] = along = away @ axes
        left = (away**2).sum(1, dtype=np.float64) - (along**2).sum(1, dtype=np.float64)
        short[part, -1] = np.sqrt(np.maximum(left, 0))
    return short


def _squares(x: np.ndarray, y: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances of x[rows] from y[others], a part at a time."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        away = x[rows[part]] - y[others[part]]
        found[part] = np.einsum("ij,ij->i", away, away, dtype=np.float64)
    return found


def _flat(x: np.ndarray, name: str, dtype: type | None = np.float32) -> np.ndarray:
    """One row an image; `dtype` None keeps whole numbers as they are, to be turned part by part."""
    x = np.asarray(x)
    x = x if dtype is None and x.dtype == np.uint8 and x.size else finite(x, name, dtype=np.float32)
    return x.reshape(len(x), -1)
