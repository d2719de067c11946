"""`survival`: whether what the book finds was made by training, or by the instrument.

It takes the matrix of `trials.matrix`: the primary statistics of the claims about the model, on
the trained model and on one of the same shapes whose weights nobody trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom, binomtest

from essaylib.cells import MEASURED
from essaylib.claims import Test
from essaylib.columns import FINAL, UNTRAINED
from essaylib.errors import EssayError

if TYPE_CHECKING:
    import pandas as pd

LEAST = 12
"""Statistics that must run on both models, their controls passed in the trained one."""


def pairs(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return one row a statistic: claim, statistic, trained, untrained, delta, gain, both, control.

    `gain` is the trained model's estimate less the untrained one's, in units of the statistic's
    delta, NaN where `both` is False: then one of them could not be measured. `control` says whether
    the claim's control passed in the trained model.
    """
    keys = ["claim", "statistic"]
    trained, untrained = (
        matrix[matrix.column == name].set_index(keys) for name in (FINAL, UNTRAINED)
    )
    if trained.empty or not trained.index.equals(untrained.index):
        raise EssayError(f"The matrix needs the same statistics of {FINAL} and of {UNTRAINED}.")
    found = trained[["estimate", "delta"]].rename(columns={"estimate": "trained"})
    found["untrained"] = untrained.estimate
    found["both"] = (trained.state == MEASURED) & (untrained.state == MEASURED)
    found["gain"] = ((found.trained - found.untrained) / found.delta).where(found.both)
    found["control"] = trained.control.map(bool) & (trained.state == MEASURED)
    return found.reset_index()


def learned(pairs: pd.DataFrame) -> Test:
    """Return the share of statistics that the training raised by at least their own delta.

    pairs: from `pairs`; those that did not run on both models are left out. Interval: exact
    (Clopper and Pearson). Null: the two models are exchanged at random, statistic by statistic. Of
    all exchanges, enumerated, a statistic counts in one half if its two estimates are a delta apart
    at all, whichever is the larger, and in none otherwise: a binomial distribution, of which p is
    the exact tail.
    """
    gain = pairs.gain[pairs.both].to_numpy(float)
    n = len(gain)
    if not n:
        raise EssayError("No statistic runs on both models: there is no share to speak of.")
    raised, apart = int((gain >= 1).sum()), int((np.abs(gain) >= 1).sum())
    interval = binomtest(raised, n).proportion_ci(0.95, method="exact")
    p = float(binom.sf(raised - 1, apart, 0.5))
    return Test(raised / n, float(interval.low), float(interval.high), p, n)


def passed(pairs: pd.DataFrame) -> int:
    """Count the statistics that run on both models, their controls passed in the trained one.

    The claim's control asks for at least `LEAST` of them.
    """
    return int((pairs.both & pairs.control).sum())
