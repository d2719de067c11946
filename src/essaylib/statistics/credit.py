"""The statistic of the claim `credit`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from essaylib import claims
from essaylib.errors import EssayError
from essaylib.measures import agreement, bootstrap, permutation


def agreements(ledgers: Mapping[str, np.ndarray], top: int = agreement.TOP) -> pd.DataFrame:
    """Compare ledgers (seeds, outputs, drawings) on each output: output, one, other, tau.

    A ledger with two seeds or more is compared with itself (`one` equals `other`; the mean over
    pairs of seeds). Different ledgers are compared at their first seeds.
    """
    found = []
    for one, other in [*combinations(ledgers, 2), *((name, name) for name in ledgers)]:
        a, b = ledgers[one], ledgers[other]
        if a.shape[1:] != b.shape[1:]:
            raise EssayError(f"{one} and {other} do not credit the same drawings: {a.shape[1:]}.")
        pairs = [(a[0], b[0])] if one != other else list(combinations(a, 2))
        for output in range(a.shape[1]) if pairs else ():
            taus = [agreement.tau(x[output], y[output], top) for x, y in pairs]
            found.append((output, one, other, float(np.mean(taus))))
    return pd.DataFrame(found, columns=["output", "one", "other", "tau"])


def within(table: pd.DataFrame) -> pd.Series:
    """How well ledgers agree with themselves, by output; the mean over those with two seeds."""
    return _mean(table[table.one == table.other])


def between(table: pd.DataFrame) -> pd.Series:
    """How well different ledgers agree, by output; the mean over pairs."""
    return _mean(table[table.one != table.other])


def disagreement(table: pd.DataFrame, draws: int = 10_000, seed: int = 0) -> claims.Test:
    """Return how much better ledgers agree with themselves than with one another.

    table: from `agreements`. Per output, then averaged; one output a concept.
    """
    gap = (within(table) - between(table)).to_numpy()
    null = permutation.sign_flip(gap, draws=draws, seed=seed)
    return claims.Test.of(bootstrap.mean(gap, seed=seed), null.p)


def _mean(table: pd.DataFrame) -> pd.Series:
    if table.empty:
        raise EssayError("Two ledgers, one of them drawn up twice, are the fewest to compare.")
    return table.groupby("output").tau.mean()
