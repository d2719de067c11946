"""Gini index: how unequally a mass is spread, 0 for equal shares (Gini 1912).

Half the mean absolute difference between two shares, relative to the mean. Among n shares the
largest value is (n - 1) / n, reached when one has everything.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite


def gini(mass: np.ndarray) -> np.ndarray:
    """Return the Gini index of each row of `mass` (..., n), all of it non-negative."""
    mass = finite(mass, "mass")
    if mass.ndim == 0 or (mass < 0).any():
        raise EssayError("A mass is a list of numbers from zero up.")
    total = mass.sum(-1)
    if (total == 0).any():
        raise EssayError("Where there is no mass at all, it is spread in no way: leave it out.")
    n = mass.shape[-1]
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return (np.sort(mass, axis=-1) * ranks).sum(-1) / (n * total)


def by_chance(n: int, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """Draw the index of `n` shares that are random alone: uniform on the simplex, (draws,).

    Their mean is (n - 1) / (2 n): inequality is no finding until it exceeds this.
    """
    return gini(np.random.default_rng(seed).dirichlet(np.ones(n), draws))
