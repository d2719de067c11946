"""Intervals by resampling whole clusters: concepts, prompts, languages (Efron and Tibshirani 1993).

Images of one concept resemble one another, so drawing images one by one would make an interval too
short. A statistic is a function of row indices: `lambda rows: x[rows].mean()`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from essaylib.errors import EssayError
from essaylib.measures.checks import finite, labels, resamples

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval, and the number of units (clusters) behind it."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    clusters: np.ndarray | int,
    draws: int = 4000,
    method: str = "percentile",
    seed: int = 0,
) -> Estimate:
    """Return `statistic` of all rows with its interval from `draws` resamples of whole clusters.

    clusters: the cluster of each row (n,), or the number of rows where each is its own.
    method: "percentile", or "bca", which corrects for bias and skewness (Efron 1987) by a jackknife
        over clusters. A resample repeats a cluster's rows as often as the cluster is drawn.
    Raises `EssayError` with fewer than two clusters, or where a resample gives no finite number.
    """
    resamples(draws)
    clusters = np.arange(clusters) if isinstance(clusters, int) else labels(clusters, "clusters")
    groups = _rows_of(clusters)
    if len(groups) < 2:
        raise EssayError(f"An interval needs at least two clusters to resample, not {len(groups)}.")
    rng = np.random.default_rng(seed)
    estimate = _finite(statistic(np.arange(len(clusters))))
    found = np.array(
        [
            _finite(statistic(np.concatenate([groups[i] for i in picked])))
            for picked in rng.integers(len(groups), size=(draws, len(groups)))
        ]
    )
    if method == "bca":
        left_out = np.array(
            [
                _finite(statistic(np.concatenate([g for i, g in enumerate(groups) if i != out])))
                for out in range(len(groups))
            ]
        )
        return _bca(estimate, found, left_out)
    return _percentile(estimate, found, len(groups), method)


def mean(
    values: np.ndarray,
    clusters: np.ndarray | None = None,
    draws: int = 4000,
    method: str = "percentile",
    seed: int = 0,
) -> Estimate:
    """Return the mean of `values` (n,) over rows, with its interval over clusters; vectorised."""
    resamples(draws)
    values = finite(values, "values", dims=1)
    clusters = np.arange(len(values)) if clusters is None else clusters
    _, index = np.unique(labels(clusters, "clusters", len(values)), return_inverse=True)
    sums, sizes = np.bincount(index, values), np.bincount(index).astype(float)
    n = len(sums)
    if n < 2:
        raise EssayError(f"An interval needs at least two clusters to resample, not {n}.")
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    for start in range(0, draws, 500):
        picked = rng.integers(n, size=(min(500, draws - start), n))
        found[start : start + len(picked)] = sums[picked].sum(1) / sizes[picked].sum(1)
    estimate = float(values.mean())
    if method == "bca":
        left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
        return _bca(estimate, found, left_out)
    return _percentile(estimate, found, n, method)


def crossed(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    rows: int,
    columns: int,
    draws: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Interval for a crossed table (prompts x seeds), both margins resampled (Owen 2007).

    `statistic` takes the indices of rows and of columns. n is the number of rows.
    """
    resamples(draws)
    if min(rows, columns) < 2:
        raise EssayError(f"A crossed table needs two rows and two columns, not {rows} x {columns}.")
    rng = np.random.default_rng(seed)
    estimate = _finite(statistic(np.arange(rows), np.arange(columns)))
    found = np.array(
        [
            _finite(statistic(rng.integers(rows, size=rows), rng.integers(columns, size=columns)))
            for _ in range(draws)
        ]
    )
    return _percentile(estimate, found, rows)


def interval(
    estimate: float, found: np.ndarray, n: int, left_out: np.ndarray | None = None
) -> Estimate:
    """Make an interval from resampled values: BCa where the jackknife's `left_out` is given."""
    return _percentile(estimate, found, n) if left_out is None else _bca(estimate, found, left_out)


def _rows_of(clusters: np.ndarray) -> list[np.ndarray]:
    _, index = np.unique(clusters, return_inverse=True)
    order = np.argsort(index, kind="stable")
    return np.split(order, np.cumsum(np.bincount(index))[:-1]) if len(index) else []


def _finite(value: float) -> float:
    value = float(value)
    if not np.isfinite(value):
        raise EssayError(
            "The statistic is not a finite number on some resample: a group may be empty without "
            "the clusters that were not drawn."
        )
    return value


def _percentile(estimate: float, found: np.ndarray, n: int, method: str = "percentile") -> Estimate:
    if method != "percentile":
        raise EssayError(f"Unknown method {method!r}: use 'percentile' or 'bca'.")
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(estimate, float(low), float(high), n)


def _bca(estimate: float, found: np.ndarray, left_out: np.ndarray) -> Estimate:
    below = np.mean(found < estimate) + np.mean(found == estimate) / 2
    # Where every resample lies on one side, the correction would be infinite: stay within a draw.
    edge = 1 / (2 * len(found))
    bias = norm.ppf(np.clip(below, edge, 1 - edge))
    away = left_out.mean() - left_out
    # Skewness has no unit, but powers of very small numbers vanish: measure in the largest.
    away /= max(np.abs(away).max(), np.finfo(float).tiny)
    spread = (away**2).sum()
    skew = (away**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(found, norm.cdf(bias + z / (1 - skew * z)))
    return Estimate(estimate, float(low), float(high), len(left_out))
