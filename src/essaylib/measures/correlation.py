"""Correlations with something held fixed: other variables, or the group that a row belongs to."""

import numpy as np
from scipy.stats import rankdata

from essaylib.errors import EssayError
from essaylib.measures.checks import finite, labels, paired
from essaylib.measures.permutation import Null, enough, shuffler


def partial_spearman(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Return the rank correlation of x and y (n,), the ranks of `given` (n, k) held fixed.

    The correlation of what is left of both ranks after linear regression on the others.
    """
    x, y, given = _ranks(x, y, given)
    return _correlation(_residual(x, given), _residual(y, given))


def freedman_lane(
    x: np.ndarray,
    y: np.ndarray,
    given: np.ndarray,
    within: np.ndarray | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Null:
    """Permute what is left of x, inside blocks of `within` (n,), and look again.

    Freedman and Lane 1983: residuals are shuffled, added to the fit, and regressed anew, so that
    the variables held fixed stay tied to x.
    """
    enough(draws)
    x, y, given = _ranks(x, y, given)
    left_x, left_y = _residual(x, given), _residual(y, given)
    shuffled = shuffler(len(x) if within is None else labels(within, "within", len(x)))
    rng = np.random.default_rng(seed)
    found = [_correlation(_residual(left_x[shuffled(rng)], given), left_y) for _ in range(draws)]
    return Null(_correlation(left_x, left_y), np.array(found))


def within_groups(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Return the correlation of x and y (n,), both centred inside their group (n,)."""
    x, y = finite(x, "x", dims=1), finite(y, "y", dims=1)
    paired(x=x, y=y)
    _, index = np.unique(labels(groups, "groups", len(x)), return_inverse=True)
    sizes = np.bincount(index)
    centred = [v - (np.bincount(index, v) / sizes)[index] for v in (x, y)]
    return _correlation(*centred)


def _ranks(
    x: np.ndarray, y: np.ndarray, given: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = finite(x, "x", dims=1), finite(y, "y", dims=1)
    given = finite(given, "given").reshape(len(given), -1)
    if not len(x) == len(y) == len(given):
        raise EssayError(f"{len(x)}, {len(y)} and {len(given)} rows do not pair.")
    if len(x) < given.shape[1] + 4:
        raise EssayError(f"{len(x)} rows are too few to hold {given.shape[1]} variables fixed.")
    return rankdata(x), rankdata(y), rankdata(given, axis=0)


def _residual(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    basis = np.column_stack([np.ones(len(given)), given])
    return values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    # What regression leaves of a variable that it explains is rounding, not variation.
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    if min(lengths) < 1e-9 * np.sqrt(len(x)):
        raise EssayError("Nothing varies once the rest is held fixed: there is no correlation.")
    return float(x @ y / (lengths[0] * lengths[1]))
