"""Whose mean? The weights with which an estimate mixes a concept's drawings.

The best answer to squared error is a mean of what is possible. Which mean is read off by writing
the estimate as a mixture of the drawings: weights that are not negative and sum to one.
"""

from itertools import combinations

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.agreement import total_variation
from essaylib.measures.checks import finite
from essaylib.measures.permutation import Null, enough


def convex_weights(estimates: np.ndarray, drawings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (n, k) of the nearest mixture, and its distance (n,) to the estimate.

    estimates: (n, ...); drawings: (n, k, ...), k of them for each. Exact: least squares on every
    face of the simplex, the best that is inside it. Distance is a root mean square.
    """
    x = finite(estimates, "estimates")
    y = finite(drawings, "drawings")
    if y.ndim < 3 or len(x) != len(y) or x.shape[1:] != y.shape[2:]:
        raise EssayError(f"Each estimate needs its drawings: {x.shape} and {y.shape} do not pair.")
    n, k = y.shape[:2]
    x, y = x.reshape(n, 1, -1), y.reshape(n, k, -1)
    d = x.shape[-1]
    gram, against = y @ y.swapaxes(1, 2), (y * x).sum(-1)
    square = (x**2).sum((1, 2))
    best, weights = np.full(n, np.inf), np.zeros((n, k))
    for size in range(1, k + 1):
        for face in combinations(range(k), size):
            tried = _on_face(gram, against, list(face))
            error = (
                square
                - 2 * (tried * against).sum(1)
                + np.einsum("ni,nij,nj->n", tried, gram, tried)
            )
            # A larger face must do better, not equally well: identical drawings share no weight.
            better = (tried >= 0).all(1) & (error < best - 1e-9 * (1 + square))
            best = np.where(better, error, best)
            weights[better] = tried[better]
    return weights, np.sqrt(np.maximum(best, 0) / d)


def lean(weights: np.ndarray, shares: np.ndarray, draws: int = 10_000, seed: int = 0) -> Null:
    """Total variation between mean weights and mean shares, both from (n, k), and its null.

    Null: each concept's weights are dealt to the vendors at random, its shares staying in place.
    The statistic is never negative, so read it as an excess over the null's mean.
    """
    weights, shares = finite(weights, "weights", dims=2), finite(shares, "shares", dims=2)
    if weights.shape != shares.shape:
        raise EssayError(f"Weights {weights.shape} and shares {shares.shape} must pair.")
    enough(draws)
    rng = np.random.default_rng(seed)
    target = shares.mean(0)
    found = [total_variation(rng.permuted(weights, axis=1).mean(0), target) for _ in range(draws)]
    return Null(float(total_variation(weights.mean(0), target)), np.array(found))


def _on_face(gram: np.ndarray, against: np.ndarray, face: list[int]) -> np.ndarray:
    """Least squares with weights that sum to one, on the drawings of a face; (n, k)."""
    n, k = against.shape
    size = len(face)
    system = np.zeros((n, size + 1, size + 1))
    system[:, :size, :size] = gram[:, face][:, :, face]
    system[:, :size, size] = system[:, size, :size] = 1
    right = np.concatenate([against[:, face], np.ones((n, 1))], axis=1)
    found = np.zeros((n, k))
    found[:, face] = (np.linalg.pinv(system) @ right[..., None])[:, :size, 0]
    return found
