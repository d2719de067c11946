"""The statistic of the claim `leaving`: variety regained, at equal adherence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from essaylib import claims
from essaylib.measures import frontier

if TYPE_CHECKING:
    from essaylib.runs import Run

SCALES = ("1", "2", "4", "7.5", "12")
OPERATION = "interval"


def curves(
    run: Run, seen: Mapping[str, np.ndarray], concepts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return outcomes of interval guidance (prompts, 2) and of ordinary (prompts, scales, 2).

    run: the run `guidance`; seen: the judge's answers to it; concepts: the judge's list.
    """
    found = frontier.outcomes(run, seen, concepts, (OPERATION, *SCALES))
    return found[:, 0], found[:, 1:]


def within(point: np.ndarray, along: np.ndarray) -> bool:
    """Whether the mean adherence of `point` lies in the curve's range: the claim's control."""
    x, _ = frontier.curve(along)
    return bool(x.min() <= point[:, 0].mean() <= x.max())


def regained(
    point: np.ndarray, along: np.ndarray, draws: int = 10_000, seed: int = 0
) -> claims.Test:
    """Return log variety with interval guidance less that of ordinary at the same adherence.

    point: outcomes (prompts, 2); along: (prompts, scales, 2), as `curves` gives them. Raises
    `EssayError` where ordinary guidance never reaches the point's adherence.
    """
    found = frontier.beyond(point, along, draws, seed)
    return claims.Test.of(found.difference, found.null.p)
