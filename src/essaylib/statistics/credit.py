"""The statistic of the claim `credit`, and readings to be printed beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from essaylib import attribution, claims
from essaylib.errors import EssayError
from essaylib.measures import agreement, bootstrap, permutation


def agreements(ledgers: Mapping[str, np.ndarray], top: int = agreement.TOP) -> pd.DataFrame:
    """Compare ledgers (seeds, outputs, drawings) on each output: output, one, other, tau.

    A ledger with two seeds or more is compared with itself (`one` equals `other`; the mean over
    pairs of seeds). Different ledgers are compared at their first seeds.
    """
    return _compared(ledgers, "tau", lambda a, b: agreement.tau(a, b, top))


def overlaps(ledgers: Mapping[str, np.ndarray], top: int = agreement.TOP) -> pd.DataFrame:
    """Likewise, the share of their `top` drawings that two ledgers have in common: shared."""
    return _compared(ledgers, "shared", lambda a, b: agreement.shared(a, b, top))


def transfers(payments: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Likewise, for `payments`, the part of the money that would change hands: moved."""
    return _compared(payments, "moved", lambda p, q: float(agreement.total_variation(p, q)))


def payments(
    ledgers: Mapping[str, np.ndarray],
    vendor: np.ndarray,
    top: int = agreement.TOP,
    of: int = 4,
) -> dict[str, np.ndarray]:
    """Pay one unit an output to the vendors of its `top` drawings: (seeds, outputs, of) by ledger.

    vendor: number of each drawing's vendor (drawings,). Nearness is paid as `attribution.amounts`
    says, pull by its own amount.
    """
    found = {}
    for name, scores in ledgers.items():
        credit = attribution.amounts(scores) if name in attribution.NEARNESS else scores
        paid = [[agreement.vendor_shares(x, vendor, top, of) for x in seed] for seed in credit]
        found[name] = np.array(paid)
    return found


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over outputs of what two ledgers were compared by, as a square of ledgers.

    table: from `agreements` and the like. The diagonal holds a ledger's agreement with itself, NaN
    where it has no second seed.
    """
    value = table.columns[-1]
    means = table.groupby(["one", "other"], sort=False)[value].mean()
    names = list(dict.fromkeys([*table.one, *table.other]))
    found = pd.DataFrame(np.nan, names, names)
    for (one, other), mean in means.items():
        found.loc[one, other] = found.loc[other, one] = mean
    return found


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """One row a pair of ledgers: one, other, tau, floor, gap; means over outputs.

    The floor is the lower self-agreement of the two, for a ledger cannot be expected to agree with
    another better than with itself; NaN, and the gap with it, where neither has a second seed.
    """
    square = matrix(table)
    own = pd.Series(np.diag(square), square.index)
    both = list(combinations(square, 2))
    found = pd.DataFrame(both, columns=["one", "other"])
    found["tau"] = [square.loc[pair] for pair in both]
    found["floor"] = [own[list(pair)].min() for pair in both]
    return found.assign(gap=found.floor - found.tau)


def against_least(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with one floor only, that of the ledger which agrees with itself least."""
    own = table[table.one == table.other]
    if own.empty:
        raise EssayError("No ledger was drawn up twice: none has a floor.")
    least = own.groupby("one").tau.mean().idxmin()
    return table[(table.one != table.other) | (table.one == least)]


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


def _compared(
    ledgers: Mapping[str, np.ndarray],
    value: str,
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> pd.DataFrame:
    found = []
    for one, other in [*combinations(ledgers, 2), *((name, name) for name in ledgers)]:
        a, b = ledgers[one], ledgers[other]
        if a.shape[1:] != b.shape[1:]:
            raise EssayError(f"{one} and {other} do not credit the same drawings: {a.shape[1:]}.")
        both = [(a[0], b[0])] if one != other else list(combinations(a, 2))
        for output in range(a.shape[1]) if both else ():
            mean = np.mean([measure(x[output], y[output]) for x, y in both])
            found.append((output, one, other, float(mean)))
    return pd.DataFrame(found, columns=["output", "one", "other", value])


def _mean(table: pd.DataFrame) -> pd.Series:
    if table.empty:
        raise EssayError("Two ledgers, one of them drawn up twice, are the fewest to compare.")
    return table.groupby("output").tau.mean()
