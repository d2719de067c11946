"""The statistics of the claim `delivery`: what speed costs, and whether finishing ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from essaylib import claims
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, drift, frontier

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
    found = frontier.between(slow, fast, draws, seed)
    return claims.Test.of(found.difference, found.null.p)


def finish(between: np.ndarray, draws: int = 10_000, seed: int = 0) -> claims.Test:
    """Return how far the last round lies from the first, over the first from the original.

    between: (n, rounds + 1, rounds + 1) distances of pictures that went through the autoencoder
    again and again (`drift.distances`); 20 rounds as registered. Interval: BCa over pictures, 4,000
    resamples.
    """
    estimate = bootstrap.mean(drift.drift(between)[:, -1], method="bca", seed=seed)
    return claims.Test.of(estimate, drift.shuffled(between, draws, seed).p)
