"""What chance alone would give: permutation tests (Fisher 1935; Phipson and Smyth 2010).

Every test is one-sided: a statistic is oriented so that larger favours the claim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite, labels

LEAST = 2000
"""Fewest draws that a p may rest on."""


@dataclass(frozen=True)
class Null:
    """A statistic as observed, and as chance made it, `draws` (n,) times."""

    observed: float
    draws: np.ndarray

    @property
    def p(self) -> float:
        """(k + 1) / (n + 1), where k draws reach the observed statistic: never zero."""
        if not len(self.draws):
            raise EssayError("A null without draws gives no p.")
        # Sums taken in another order differ in the last digit; a tie must stay a tie.
        slack = 1e-12 * max(1.0, abs(self.observed))
        return (int((self.draws >= self.observed - slack).sum()) + 1) / (len(self.draws) + 1)

    @property
    def mean(self) -> float:
        return float(self.draws.mean())

    @property
    def low(self) -> float:
        """The draws' 2.5 % quantile, where a figure begins its null band."""
        return float(np.quantile(self.draws, 0.025))

    @property
    def high(self) -> float:
        return float(np.quantile(self.draws, 0.975))


def permute(
    statistic: Callable[[np.ndarray], float],
    values: np.ndarray,
    within: np.ndarray | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Null:
    """Shuffle `values` (n, ...) among rows, inside each block of `within` (n,), and look again.

    `statistic` takes the shuffled values. Without `within` all rows are one block.
    """
    values = np.asarray(values)
    shuffled = shuffler(len(values) if within is None else labels(within, "within", len(values)))
    rng = _rng(draws, seed)
    found = [statistic(values[shuffled(rng)]) for _ in range(draws)]
    return _null(statistic(values), found)


def shuffler(blocks: np.ndarray | int) -> Callable[[np.random.Generator], np.ndarray]:
    """Return a function that draws row orders which leave every row inside its block."""
    if isinstance(blocks, int):
        return lambda rng: rng.permutation(blocks)
    _, index = np.unique(blocks, return_inverse=True)
    home = np.argsort(index, kind="stable")

    def draw(rng: np.random.Generator) -> np.ndarray:
        order = np.empty(len(index), dtype=np.int64)
        # Sorting by (block, random) gives each block its own rows in random order.
        order[home] = np.lexsort((rng.random(len(index)), index))
        return order

    return draw


def sign_flip(
    differences: np.ndarray,
    clusters: np.ndarray | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Null:
    """Mean of paired differences (n,), whole clusters changing sign at random.

    The null is that the two things compared are exchangeable. Where all sign patterns are fewer
    than `draws`, each is taken once instead (its own p still counts the observed pattern twice,
    which errs on the safe side).
    """
    differences = finite(differences, "differences", dims=1)
    clusters = np.arange(len(differences)) if clusters is None else clusters
    _, index = np.unique(labels(clusters, "clusters", len(differences)), return_inverse=True)
    sums = np.bincount(index, differences)
    rng = _rng(draws, seed)
    if 2 ** min(len(sums), 62) <= draws:
        found = np.array([np.dot(signs, sums) for signs in product((1, -1), repeat=len(sums))])
    else:
        found = np.concatenate(
            [
                rng.choice((-1.0, 1.0), size=(min(500, draws - start), len(sums))) @ sums
                for start in range(0, draws, 500)
            ]
        )
    return Null(float(differences.mean()), found / len(differences))


def exchange(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    a: np.ndarray,
    b: np.ndarray,
    draws: int = 10_000,
    seed: int = 0,
) -> Null:
    """Exchange a[i] and b[i] (both (n, ...)) at random, unit by unit, and look again.

    For statistics that are no plain mean of differences: ratios, half-lives, indices.
    """
    a, b = finite(a, "a"), finite(b, "b")
    if a.shape != b.shape:
        raise EssayError(f"Only like can be exchanged for like: {a.shape} and {b.shape} differ.")
    rng = _rng(draws, seed)
    found = np.empty(draws)
    for i in range(draws):
        swap = (rng.random(len(a)) < 0.5).reshape(-1, *[1] * (a.ndim - 1))
        found[i] = statistic(np.where(swap, b, a), np.where(swap, a, b))
    return _null(statistic(a, b), found)


def enough(draws: int) -> None:
    """Refuse fewer draws than a p may rest on."""
    if draws < LEAST:
        raise EssayError(f"{draws} draws are too few for a p: use at least {LEAST:,}.")


def _rng(draws: int, seed: int) -> np.random.Generator:
    enough(draws)
    return np.random.default_rng(seed)


def _null(observed: float, found: np.ndarray | list[float]) -> Null:
    found = np.asarray(found, dtype=float)
    if not (np.isfinite(observed) and np.isfinite(found).all()):
        raise EssayError("The statistic is not a finite number on some shuffle of the data.")
    return Null(float(observed), found)
