"""Two things traded against each other: compare ways of drawing at equal adherence.

More guidance gives more adherence and less variety, so a way of drawing that has more variety may
only have obeyed less. A curve is what one way gives as guidance rises: x adherence, y variety.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite


def at(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Return y where the curve (k,), in its own order, first reaches x = level.

    Linear between its points. Raises `EssayError` where the curve never does.
    """
    x, y = finite(x, "x", dims=1), finite(y, "y", dims=1)
    if len(x) != len(y):
        raise EssayError(f"A curve's x and y must pair: {len(x)} and {len(y)} do not.")
    if x[0] == level:
        return float(y[0])
    for i in range(len(x) - 1):
        if min(x[i], x[i + 1]) <= level <= max(x[i], x[i + 1]) and x[i] != x[i + 1]:
            part = (level - x[i]) / (x[i + 1] - x[i])
            return float(y[i] + part * (y[i + 1] - y[i]))
    raise EssayError(
        f"The curve runs from {x.min():.3g} to {x.max():.3g} and never reaches {level:.3g}: there "
        "is no comparison at equal adherence."
    )


def common(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return the range of x that both curves cover; the first exceeds the second if none."""
    return max(np.min(a), np.min(b)), min(np.max(a), np.max(b))


def gap(
    xa: np.ndarray, ya: np.ndarray, xb: np.ndarray, yb: np.ndarray, level: float | None = None
) -> float:
    """Return y of curve a less y of b at equal x, by default mid-way in their common range."""
    low, high = common(xa, xb)
    if low > high:
        raise EssayError(
            "The curves share no range of x: there is no comparison at equal adherence."
        )
    level = (low + high) / 2 if level is None else level
    return at(xa, ya, level) - at(xb, yb, level)
