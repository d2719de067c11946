"""Who passes a threshold on how well a picture fits its caption, and how unequally.

Scores are a table (m, k): one row a concept, one column a vendor. A cut-off is named by the share
of all pairs that it keeps. Cosines of two CLIPs are not on one scale, so where there are two
scorers each has a cut-off of its own and keeps that share of the pairs that it scored.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from essaylib.errors import EssayError
from essaylib.measures.checks import finite, labels, resamples
from essaylib.measures.permutation import Null, enough

KEPT = tuple(k / 10 for k in range(1, 10))
"""The registered cut-offs, as shares of all pairs kept."""


def places(scores: np.ndarray, scorer: np.ndarray | None = None) -> np.ndarray:
    """Return the share of pairs that score higher, (m, k), among those of the same scorer.

    `scorer` (m,) names who scored a row. Half of a pair's own weight counts, so places lie inside
    (0, 1) and a pair survives the cut-off that keeps q where its place is below q.
    """
    scores = finite(scores, "scores", dims=2)
    scorer = np.zeros(len(scores)) if scorer is None else labels(scorer, "scorer", len(scores))
    found = np.empty_like(scores)
    for name in np.unique(scorer):
        rows = scorer == name
        if np.ptp(scores[rows]) == 0:
            raise EssayError("All pairs score the same: no cut-off parts them.")
        ranks = rankdata(-scores[rows], axis=None).reshape(-1, scores.shape[1])
        found[rows] = (ranks - 0.5) / ranks.size
    return found


def survival(
    scores: np.ndarray, scorer: np.ndarray | None = None, kept: Sequence[float] = KEPT
) -> np.ndarray:
    """Return the share of the cut-offs that each pair survives, (m, k)."""
    kept = finite(kept, "kept", dims=1)
    if ((kept <= 0) | (kept >= 1)).any():
        raise EssayError("A cut-off keeps a share between nothing and everything, both excluded.")
    return (places(scores, scorer)[..., None] < kept).mean(-1)


def spread(survived: np.ndarray) -> float:
    """The column that survives most less the one that survives least, from (m, k)."""
    means = survived.mean(0)
    return float(means.max() - means.min())


def dealt(survived: np.ndarray, draws: int = 10_000, seed: int = 0) -> Null:
    """The spread when each row's survivals are dealt to the columns at random.

    Dealing scores within rows changes no cut-off, hence survivals can be dealt instead.
    """
    survived = finite(survived, "survived", dims=2)
    enough(draws)
    rng = np.random.default_rng(seed)
    found = np.array([spread(rng.permuted(survived, axis=1)) for _ in range(draws)])
    return Null(spread(survived), found)


def curves(
    scores: np.ndarray,
    names: Sequence[str],
    scorer: np.ndarray | None = None,
    kept: Sequence[float] = KEPT,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return each column's survival at each cut-off: name, kept, survival, excess, and intervals.

    `excess` is survival less the share kept: zero for whoever is treated as the whole is. Intervals
    (`_low`, `_high`) resample rows, cut-offs found anew; `excess_null_low` and `excess_null_high`
    bound 95 % of what dealing each row's scores at random gives.
    """
    scores = finite(scores, "scores", dims=2)
    resamples(draws)
    scorer = np.zeros(len(scores)) if scorer is None else labels(scorer, "scorer", len(scores))
    kept = finite(kept, "kept", dims=1)
    if len(names) != scores.shape[1]:
        raise EssayError(f"{len(names)} names for {scores.shape[1]} columns of scores.")
    rng = np.random.default_rng(seed)

    def passing(place: np.ndarray) -> np.ndarray:
        return (place[..., None] < kept).mean(0)

    whole = places(scores, scorer)
    resampled, null = (np.empty((draws, len(names), len(kept))) for _ in range(2))
    for i in range(draws):
        rows = rng.integers(len(scores), size=len(scores))
        resampled[i] = passing(places(scores[rows], scorer[rows]))
        null[i] = passing(rng.permuted(whole, axis=1))
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    null_low, null_high = np.quantile(null, (0.025, 0.975), axis=(0, 1)) - kept
    survived = passing(whole)
    columns = {
        "survival": survived,
        "survival_low": low,
        "survival_high": high,
        "excess": survived - kept,
        "excess_low": low - kept,
        "excess_high": high - kept,
        "excess_null_low": np.tile(null_low, (len(names), 1)),
        "excess_null_high": np.tile(null_high, (len(names), 1)),
    }
    axes = {"name": np.repeat(list(names), len(kept)), "kept": np.tile(kept, len(names))}
    return pd.DataFrame(axes | {key: value.ravel() for key, value in columns.items()})


def told_apart(right: np.ndarray, wrong: np.ndarray) -> float:
    """The chance that a right pair scores above a wrong one, ties counting half.

    That is the area under the receiver operating characteristic curve (Hanley and McNeil 1982).
    """
    right, wrong = finite(right, "right", dims=1), np.sort(finite(wrong, "wrong", dims=1))
    below = np.searchsorted(wrong, right, side="left")
    until = np.searchsorted(wrong, right, side="right")
    return float((below + until).mean() / (2 * len(wrong)))
