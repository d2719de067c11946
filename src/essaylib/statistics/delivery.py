"""The statistics of the claim `delivery`: what speed costs, and whether finishing ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from essaylib import claims
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, frontier
from essaylib.measures.frontier import Contrast
from essaylib.measures.permutation import LEAST, Null

if TYPE_CHECKING:
    from essaylib.runs import Run

SCALES = ("1", "2", "4", "7.5")


def paired(slow: Run, fast: Run) -> bool:
    """Whether two runs have the same prompts and seeds, image by image, at every scale.

    Then the noises are the same too, and the runs differ in how they were drawn alone.
    """
    keys = ["setting", "prompt", "concept", "seed"]
    one, other = (run.where(setting=SCALES).table[keys] for run in (slow, fast))
    return bool(one.equals(other))


def curves(
    slow: Run,
    seen_slow: Mapping[str, np.ndarray],
    fast: Run,
    seen_fast: Mapping[str, np.ndarray],
    concepts: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcomes (prompts, scales, 2) of both runs; refuse runs that do not pair."""
    if not paired(slow, fast):
        raise EssayError(
            "The two runs differ in prompts or seeds, so that their images cannot be paired: draw "
            "them by plans of one count and one minimum of vendors."
        )
    return (
        frontier.outcomes(slow, seen_slow, concepts, SCALES),
        frontier.outcomes(fast, seen_fast, concepts, SCALES),
    )


def overlap(slow: np.ndarray, fast: np.ndarray) -> float:
    """Return the width of the adherence range that both curves cover, for the claim's control."""
    low, high = frontier.common(frontier.curve(slow)[0], frontier.curve(fast)[0])
    return float(high - low)


def speed(slow: np.ndarray, fast: np.ndarray, draws: int = 10_000, seed: int = 0) -> claims.Test:
    """Return log variety in many steps less that in few, at equal adherence.

    slow, fast: outcomes (prompts, scales, 2), as `curves` gives them. Raises `EssayError` where the
    two share no level of adherence.
    """
    found: Contrast = frontier.between(slow, fast, draws, seed)
    return claims.Test.of(found.difference, found.null.p)


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
        gram = flat @ flat.T  # whole numbers, so the subtraction below is exact
        squares = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
        found[picture] = np.sqrt(np.maximum(squares, 0) / flat.shape[1])
    return found


def drift(between: np.ndarray) -> np.ndarray:
    """Return each round's distance from the first, over the first's from the original.

    between: (n, rounds + 1, rounds + 1), as `distances` gives; returns (n, rounds) for rounds 1 up.
    Raises `EssayError` where the first round changed nothing.
    """
    first = between[:, 1, 0]
    if not (first > 0).all():
        raise EssayError("A first round that changes nothing leaves no measure for the others.")
    return between[:, 1:, 1] / first[:, None]


def shuffled(between: np.ndarray, draws: int = 10_000, seed: int = 0) -> Null:
    """Shuffle the rounds after the original within every picture: the drift of a fixed point.

    Only which round comes first and which last matters, so that an ordered pair is drawn.
    """
    observed = float(drift(between)[:, -1].mean())
    if draws < LEAST:
        raise EssayError(f"{draws} draws are too few for a p: use at least {LEAST:,}.")
    rng = np.random.default_rng(seed)
    n, rounds = len(between), between.shape[1] - 1
    first = rng.integers(rounds, size=(draws, n))
    last = (first + rng.integers(1, rounds, size=(draws, n))) % rounds
    picture = np.arange(n)
    ratio = between[picture, last + 1, first + 1] / between[picture, first + 1, 0]
    if not np.isfinite(ratio).all():
        raise EssayError("A round that equals the original leaves no measure for the others.")
    return Null(observed, ratio.mean(axis=1))


def finish(passed: np.ndarray, draws: int = 10_000, seed: int = 0) -> claims.Test:
    """Return how far the last round lies from the first, over the first from the original.

    passed: uint8 (rounds + 1, n, H, W, 3) of n pictures that went through the autoencoder again
    and again; 20 rounds as registered. Interval: BCa over pictures, 4,000 resamples.
    """
    between = distances(passed)
    estimate = bootstrap.mean(drift(between)[:, -1], method="bca", seed=seed)
    return claims.Test.of(estimate, shuffled(between, draws, seed).p)
