"""The statistic of the claim `guidance`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from essaylib import claims
from essaylib.measures import concentration

if TYPE_CHECKING:
    from essaylib.runs import Run

HIGH, LOW = "7.5", "1"


def premium(
    run: Run, seen: Mapping[str, np.ndarray], draws: int = 10_000, seed: int = 0
) -> claims.Test:
    """Return how much more concentrated vendors are at w = 7.5 than at w = 1.

    run: the run `guidance`; seen: the judge's answers to it. The unbiased index of each prompt's
    images that the judge is sure of, one scale less the other, averaged over prompts with at least
    four at both. Raises `EssayError` where fewer than two prompts have them.
    """
    vendors = run.by_setting(seen["vendor"])
    found = concentration.premium(vendors[HIGH], vendors[LOW], draws=draws, seed=seed)
    return claims.Test.of(found.difference, found.null.p, drawn=len(found.kept))
