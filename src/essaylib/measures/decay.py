"""Half-lives: when noise has taken half of what could be read.

A curve is a ledger score at rising timesteps, less its floor, relative to the clean score's excess:
one at the start, about zero at the end.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import bootstrap, permutation
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.checks import finite, paired
from essaylib.measures.permutation import Null


def excess(answers: np.ndarray, floor: float = 0.25) -> np.ndarray:
    """Return each concept's curve (m, T) from its share of right answers (m, T), clean first.

    Scaled so that the mean curve starts at one. Raises `EssayError` where the clean score does not
    exceed its floor: there is nothing to lose.
    """
    answers = finite(answers, "answers", dims=2)
    clean = answers[:, 0].mean() - floor
    if clean <= 0:
        raise EssayError(
            f"The clean score, {clean + floor:.3f}, does not exceed its floor of {floor:.3f}: "
            "a half-life of nothing is not defined."
        )
    return (answers - floor) / clean


def half_life(timesteps: np.ndarray, curve: np.ndarray) -> float:
    """Return the first timestep at which the curve (T,) is down to one half; linear between them.

    Raises `EssayError` where it never is.
    """
    t, curve = finite(timesteps, "timesteps", dims=1), finite(curve, "curve", dims=1)
    if len(t) != len(curve) or (np.diff(t) <= 0).any():
        raise EssayError("Timesteps must rise, one for each value of the curve.")
    below = np.flatnonzero(curve <= 0.5)
    if not len(below) or below[0] == 0:
        raise EssayError("The curve does not start above one half and end below it.")
    i = below[0]
    part = (curve[i - 1] - 0.5) / (curve[i - 1] - curve[i])
    return float(t[i - 1] + part * (t[i] - t[i - 1]))


def outlives(timesteps: np.ndarray, a: np.ndarray, b: np.ndarray, **options) -> Estimate:
    """Return the half-life of a less that of b, curves (m, T) of the same concepts.

    The interval resamples concepts, each with its two curves; options go to `bootstrap.bootstrap`.
    """
    a, b = finite(a, "a", dims=2), finite(b, "b", dims=2)
    paired(a=a, b=b)
    return bootstrap.bootstrap(
        lambda rows: _difference(timesteps, a[rows], b[rows]), len(a), **options
    )


def null(timesteps: np.ndarray, a: np.ndarray, b: np.ndarray, **options) -> Null:
    """Exchange the two curves of each concept at random; options go to `permutation.exchange`."""
    return permutation.exchange(lambda x, y: _difference(timesteps, x, y), a, b, **options)


def _difference(timesteps: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    def scaled(curves: np.ndarray) -> np.ndarray:
        mean = curves.mean(0)
        return mean / mean[0]

    return half_life(timesteps, scaled(a)) - half_life(timesteps, scaled(b))
