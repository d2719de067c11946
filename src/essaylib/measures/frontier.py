"""Two things traded against each other: compare ways of drawing at equal adherence.

More guidance gives more adherence and less variety, so a way of drawing that has more variety may
only have obeyed less. A curve is what one way gives as guidance rises: x adherence, y variety.

*Outcomes* (prompts, settings, 2) hold both for each prompt: the share of its images that show what
was asked for, and the logarithm of their Vendi score. A curve is their mean over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import bootstrap, permutation, vendi
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.checks import finite
from essaylib.measures.permutation import Null

if TYPE_CHECKING:
    import pandas as pd

    from essaylib.runs import Run


@dataclass(frozen=True)
class Contrast:
    """How much more log variety one way gives than another at the adherence `level`.

    `reference` is the log variety of that other way there.
    """

    level: float
    reference: float
    difference: Estimate
    null: Null

    @property
    def chance(self) -> tuple[float, float]:
        """From where to where chance alone would put the first way, in different images."""
        low, high = np.exp(self.reference + np.array([self.null.low, self.null.high]))
        return float(low), float(high)


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
    level = middle(xa, xb) if level is None else level
    return at(xa, ya, level) - at(xb, yb, level)


def middle(a: np.ndarray, b: np.ndarray) -> float:
    """Return the middle of the range of x that both curves cover; refuse where there is none."""
    low, high = common(a, b)
    if low > high:
        raise EssayError(
            "The curves share no range of x: there is no comparison at equal adherence."
        )
    return (low + high) / 2


def outcomes(
    run: Run, seen: Mapping[str, np.ndarray], concepts: Sequence[str], settings: Sequence[str]
) -> np.ndarray:
    """Return adherence and log Vendi score of each prompt's images: (prompts, settings, 2).

    run: its `by_setting` gives the images of a prompt. seen: the judge's answers, one an image
    (`judgements.load`); concepts: the judge's list. Prompts and settings stand in the run's order
    and in that of `settings`. Raises `EssayError` for a setting that was not drawn and a concept
    that the judge does not know.
    """
    index = {name: i for i, name in enumerate(concepts)}
    asked = run.table.concept.map(index)
    if asked.isna().any():
        unknown = run.table.concept[asked.isna()].iloc[0]
        raise EssayError(f"The judge knows no {unknown!r}: adherence cannot be scored.")
    right = run.by_setting(seen["concept"] == asked.to_numpy())
    features = run.by_setting(np.asarray(seen["features"], dtype=float))
    if missing := [name for name in settings if name not in right]:
        raise EssayError(f"The run was not drawn at {missing[0]!r}; it has {', '.join(right)}.")
    found = [
        np.stack([right[name].mean(1), np.log([vendi.vendi(own) for own in features[name]])], -1)
        for name in settings
    ]
    return np.stack(found, axis=1)


def curve(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean adherence and mean log variety (settings,) of outcomes over their prompts."""
    return tuple(found.mean(axis=0).T)


def table(found: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Return one row a setting: adherence and variety with 95 % intervals over prompts.

    Variety is back in its own unit, effectively different images (a geometric mean over prompts).
    """
    import pandas as pd

    rows = []
    for name, own in zip(names, found.swapaxes(0, 1), strict=True):
        row = {"setting": name}
        for column, values, unit in (
            ("adherence", own[:, 0], float),
            ("variety", own[:, 1], np.exp),
        ):
            mean = bootstrap.mean(values)
            row |= {column: unit(mean.estimate)}
            row |= {f"{column}_low": unit(mean.low), f"{column}_high": unit(mean.high)}
        rows.append(row)
    return pd.DataFrame(rows)


def between(a: np.ndarray, b: np.ndarray, draws: int = 10_000, seed: int = 0) -> Contrast:
    """Compare two curves at the middle of the adherence range that both share.

    a, b: outcomes (prompts, settings, 2) of the same prompts. Null: a prompt's two curves are
    exchanged at random. Interval: percentile bootstrap over prompts, 4,000 resamples. The common
    level is found anew each time; a resample without one compares the curves' nearest ends.
    Raises `EssayError` where the observed curves share no level.
    """
    a, b = _paired(a, b)
    level = middle(curve(a)[0], curve(b)[0])

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        (xa, ya), (xb, yb) = curve(a), curve(b)
        level = sum(common(xa, xb)) / 2
        return _nearest(xa, ya, level) - _nearest(xb, yb, level)

    null = permutation.exchange(difference, a, b, draws, seed)
    estimate = bootstrap.bootstrap(lambda rows: difference(a[rows], b[rows]), len(a), seed=seed)
    return Contrast(level, at(*curve(b), level), estimate, null)


def beyond(point: np.ndarray, along: np.ndarray, draws: int = 10_000, seed: int = 0) -> Contrast:
    """Compare one way of drawing with a curve at that way's own adherence.

    point: outcomes (prompts, 2); along: (prompts, settings, 2) of the same prompts. Null: a
    prompt's `point` and its outcome at the setting of nearest mean adherence are exchanged at
    random. Interval: percentile bootstrap over prompts, 4,000 resamples, the curve drawn anew each
    time; a resample whose point leaves the curve's range is compared with its nearest end. Raises
    `EssayError` where the observed point does.
    """
    point, along = finite(point, "point", dims=2), finite(along, "along", dims=3)
    if len(point) != len(along):
        raise EssayError(f"Prompts must pair: {len(point)} and {len(along)} do not.")
    x, y = curve(along)
    level = float(point[:, 0].mean())
    reference = at(x, y, level)
    near = int(np.abs(x - level).argmin())

    def difference(point: np.ndarray, along: np.ndarray) -> float:
        level, value = point.mean(axis=0)
        return value - _nearest(*curve(along), level)

    def exchanged(point: np.ndarray, beside: np.ndarray) -> float:
        swapped = along.copy()
        swapped[:, near] = beside
        return difference(point, swapped)

    null = permutation.exchange(exchanged, point, along[:, near], draws, seed)
    estimate = bootstrap.bootstrap(
        lambda rows: difference(point[rows], along[rows]), len(point), seed=seed
    )
    return Contrast(level, reference, estimate, null)


def _nearest(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """`at`, for levels outside of the curve too: y at its nearest end."""
    return at(x, y, float(np.clip(level, x.min(), x.max())))


def _paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = finite(a, "a", dims=3), finite(b, "b", dims=3)
    if a.shape != b.shape:
        raise EssayError(f"Prompts and settings must pair: {a.shape[:2]} and {b.shape[:2]} do not.")
    return a, b
