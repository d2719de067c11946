"""Does a partition find the figure? Two clusters against a mask, by intersection over union.

Two-means names its clusters at random, so both labellings are tried and the better kept. That
flatters every method alike, an uninformed one too: see `covering`.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the part of a or b that is in both (Jaccard 1901), (n,), for bool masks (n, ...)."""
    a, b = _masks(a, "a"), _masks(b, "b")
    if a.shape != b.shape:
        raise EssayError(f"Masks {a.shape} and {b.shape} do not lie on one another.")
    either = (a | b).sum(1)
    if not either.all():
        raise EssayError("Two empty masks have no overlap to speak of: leave them out.")
    return (a & b).sum(1) / either


def best_labelling(parts: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the overlap (n,) of parts with masks, or of their complement if that is better.

    Also the parts as they were labelled for it, bool (n, ...).
    """
    one = intersection_over_union(parts, masks)
    other = intersection_over_union(~parts, masks)
    turned = (other > one).reshape(-1, *[1] * (parts.ndim - 1))
    return np.maximum(one, other), np.where(turned, ~parts, parts)


def covering(masks: np.ndarray) -> np.ndarray:
    """Return the overlap (n,) of a mask with everything: what no method at all would score."""
    return _masks(masks, "masks").mean(1)


def two_means(points: np.ndarray, starts: int = 4, seed: int = 0) -> tuple[np.ndarray, float]:
    """Part points (n, d) in two by k-means; return the line that parts them, (d,) and offset.

    A point is in the second part where `points @ line > offset`. The nearer of two centres is a
    matter of one weighted sum, so what is enlarged bilinearly can be parted after the enlargement
    without clustering it anew.
    """
    from sklearn.cluster import KMeans

    points = finite(points, "points", dims=2, dtype=np.float32)
    if np.ptp(points, axis=0).max() == 0:
        raise EssayError("All points are one: there are no two clusters to be found.")
    found = KMeans(2, n_init=starts, random_state=seed).fit(points)
    first, second = found.cluster_centers_.astype(np.float64)
    return second - first, float((second @ second - first @ first) / 2)


def _masks(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype != bool or values.ndim < 2 or not values.size:
        raise EssayError(f"{name} must be bool masks (n, ...), not {values.dtype} {values.shape}.")
    return values.reshape(len(values), -1)
