"""Whether an operation that is repeated comes to rest: how far each round lies from the first.

Around a fixed point no round is farther from the first than any other, so that the null shuffles
the rounds within each picture.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite
from essaylib.measures.permutation import Null, enough


def distances(passed: np.ndarray) -> np.ndarray:
    """Return root mean square distances between the rounds of each picture, in grey levels.

    passed: uint8 (rounds + 1, n, H, W, 3), as `interventions.autoencoder_rounds` gives; returns
    (n, rounds + 1, rounds + 1).
    """
    passed = np.asarray(passed)
    if passed.ndim < 3 or len(passed) < 3:
        raise EssayError(f"Two rounds are the fewest to compare, not those of {passed.shape}.")
    rounds, n = passed.shape[:2]
    found = np.empty((n, rounds, rounds))
    for picture in range(n):
        flat = passed[:, picture].reshape(rounds, -1).astype(np.float64)
        gram = flat @ flat.T  # sums of whole numbers, so that the subtraction is exact
        squares = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
        found[picture] = np.sqrt(np.maximum(squares, 0) / flat.shape[1])
    return found


def drift(between: np.ndarray) -> np.ndarray:
    """Return each round's distance from the first, over the first's from the original.

    between: (n, rounds + 1, rounds + 1), as `distances` gives; returns (n, rounds) for rounds 1 up.
    Raises `EssayError` where the first round changed nothing.
    """
    between = finite(between, "between", dims=3)
    first = between[:, 1, 0]
    if not (first > 0).all():
        raise EssayError("A first round that changes nothing leaves no measure for the others.")
    return between[:, 1:, 1] / first[:, None]


def shuffled(between: np.ndarray, draws: int = 10_000, seed: int = 0) -> Null:
    """Shuffle the rounds after the original within every picture: the drift of a fixed point.

    `observed` is the last round's mean drift. Only which round comes first and which last matters,
    so that an ordered pair is drawn.
    """
    observed = float(drift(between)[:, -1].mean())
    enough(draws)
    rng = np.random.default_rng(seed)
    n, rounds = len(between), between.shape[1] - 1
    first = rng.integers(rounds, size=(draws, n))
    last = (first + rng.integers(1, rounds, size=(draws, n))) % rounds
    moved = between[np.arange(n), first + 1, 0]
    if not (moved > 0).all():
        raise EssayError("A round that equals the original leaves no measure for the others.")
    ratio = between[np.arange(n), last + 1, first + 1] / moved
    return Null(observed, ratio.mean(axis=1))
