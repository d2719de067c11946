"""Do two ledgers of credit agree? On the order (Kendall 1938), and on who is paid.

A ledger gives every training drawing a score for one output. Two are compared on the union of the
drawings that each credits most, for the tail of either is noise.
"""

import numpy as np
from scipy.stats import kendalltau

from essaylib.errors import EssayError
from essaylib.measures.checks import finite, labels

TOP = 100


def tau(a: np.ndarray, b: np.ndarray, top: int = TOP) -> float:
    """Return Kendall's tau-b of two ledgers (n,) over the union of their `top` drawings.

    The union makes it severe: of two ledgers that credit different drawings, what one puts first
    the other puts last. Chance for unrelated ledgers is therefore below zero; see `by_chance`.
    """
    a, b = finite(a, "a", dims=1), finite(b, "b", dims=1)
    if len(a) != len(b):
        raise EssayError(
            f"The ledgers credit {len(a)} and {len(b)} drawings: they must be one list."
        )
    credited = np.union1d(most(a, top), most(b, top))
    found = kendalltau(a[credited], b[credited]).statistic
    if not np.isfinite(found):
        raise EssayError("A ledger that credits all drawings alike has no order to agree with.")
    return float(found)


def most(scores: np.ndarray, top: int = TOP) -> np.ndarray:
    """Return which drawings are credited most, best first: (..., top) of scores (..., n)."""
    return np.argsort(-scores, axis=-1, kind="stable")[..., :top]


def shared(a: np.ndarray, b: np.ndarray, top: int = TOP) -> float:
    """Return the share of their `top` drawings that two ledgers (n,) have in common."""
    return len(np.intersect1d(most(a, top), most(b, top))) / min(top, len(a))


def by_chance(
    a: np.ndarray, b: np.ndarray, top: int = TOP, draws: int = 200, seed: int = 0
) -> np.ndarray:
    """Deal one ledger's scores to the drawings at random, and compare: (draws,)."""
    rng = np.random.default_rng(seed)
    return np.array([tau(a, rng.permutation(b), top) for _ in range(draws)])


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the part of the payment that would change hands, (...,), between shares (..., k).

    Half the sum of absolute differences, 0 to 1. Shares need not be normalised.
    """
    p, q = _shares(p), _shares(q)
    if p.shape[-1] != q.shape[-1]:
        raise EssayError(f"Shares of {p.shape[-1]} and of {q.shape[-1]} parties do not pair.")
    return np.abs(p - q).sum(-1) / 2


def vendor_shares(
    credit: np.ndarray, vendor: np.ndarray, top: int = TOP, of: int = 4
) -> np.ndarray:
    """Return each vendor's share (of,) of the credit (n,) that the `top` drawings get.

    Negative credit, which gradients give, counts as none.
    """
    credit = finite(credit, "credit", dims=1)
    vendor = labels(vendor, "vendor", len(credit))
    paid = most(credit, top)
    return _shares(np.bincount(vendor[paid], np.maximum(credit[paid], 0), minlength=of))


def _shares(mass: np.ndarray) -> np.ndarray:
    mass = finite(mass, "shares")
    total = mass.sum(-1, keepdims=True)
    if (mass < 0).any() or (total == 0).any():
        raise EssayError("Shares come from amounts from zero up, not all of them zero.")
    return mass / total
