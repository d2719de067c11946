"""The statistic of the claim `leaving`: variety regained, at equal adherence.

`operations` lays other ways of refusing beside it, with intervals and without verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib import claims, corpus
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, frontier

if TYPE_CHECKING:
    import pandas as pd

    from essaylib.judge import Judge
    from essaylib.runs import Run

SCALES = ("1", "2", "4", "7.5", "12")
OPERATION = "interval"


def curves(
    run: Run, seen: Mapping[str, np.ndarray], concepts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return outcomes of interval guidance (prompts, 2) and of ordinary (prompts, scales, 2).

    run: the run `guidance`; seen: the judge's answers to it; concepts: the judge's list.
    """
    found = frontier.outcomes(run, seen, concepts, (OPERATION, *SCALES))
    return found[:, 0], found[:, 1:]


def within(point: np.ndarray, along: np.ndarray) -> bool:
    """Whether the mean adherence of `point` lies in the curve's range: the claim's control."""
    x, _ = frontier.curve(along)
    return bool(x.min() <= point[:, 0].mean() <= x.max())


def regained(
    point: np.ndarray, along: np.ndarray, draws: int = 10_000, seed: int = 0
) -> claims.Test:
    """Return log variety with interval guidance less that of ordinary at the same adherence.

    point: outcomes (prompts, 2); along: (prompts, scales, 2), as `curves` gives them. Raises
    `EssayError` where ordinary guidance never reaches the point's adherence.
    """
    found = frontier.beyond(point, along, draws, seed)
    return claims.Test.of(found.difference, found.null.p)


def times_at_last(point: np.ndarray, along: np.ndarray) -> float:
    """Return how many times the variety of ordinary guidance `point` has where both obey alike.

    point: outcomes (prompts, 2); along: (prompts, scales, 2). A curve that turns back has that
    adherence more than once: `regained` takes the first place along the scales, this the last. NaN
    where there is none.
    """
    if not within(point, along):
        return float("nan")
    level, log_variety = point.mean(axis=0)
    x, y = frontier.curve(along)
    return float(np.exp(log_variety - frontier.at(x[::-1], y[::-1], float(level))))


def operations(
    run: Run,
    seen: Mapping[str, np.ndarray],
    others: Run,
    seen_others: Mapping[str, np.ndarray],
    concepts: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row a counter-operation: before, after, and against ordinary guidance.

    run: the run `guidance`; others: the run `leaving`, whose prompts and noises are the first of
    it. Columns: operation, prompts, adherence and variety with their intervals (variety in
    effectively different images), both `_before`, which is ordinary guidance at the same scale, and
    `times`, how many times the variety of ordinary guidance at equal adherence, with its interval
    and what chance alone would give; these are NaN where ordinary guidance never has that
    adherence. Several vendors kept away from count as one operation, averaged prompt by prompt.
    """
    import pandas as pd

    point, along = curves(run, seen, concepts)
    rows = [_compared("interval", point, along, SCALES.index("7.5"), seed)]
    first, seen_first = _first(run, seen, others)
    along = frontier.outcomes(first, seen_first, concepts, SCALES)
    settings = list(others.table.setting.unique())
    groups = {"not this vendor": [name for name in settings if name.startswith("not ")]}
    groups |= {name: [name] for name in settings if not name.startswith("not ")}
    for name, members in groups.items():
        point = frontier.outcomes(others, seen_others, concepts, members).mean(axis=1)
        rows.append(_compared(name, point, along, SCALES.index("4"), seed))
    return pd.DataFrame(rows)


def _first(
    run: Run, seen: Mapping[str, np.ndarray], others: Run
) -> tuple[Run, dict[str, np.ndarray]]:
    """The images of `run` whose prompts `others` has too, in the same order, and their answers."""
    names = list(others.table.concept.unique())
    first = run.where(concept=names)
    for setting in others.table.setting.unique():
        own = others.where(setting=setting).table[["concept", "seed"]]
        if not own.equals(first.where(setting="4").table[["concept", "seed"]]):
            raise EssayError(
                f"At {setting!r} the prompts and seeds are not the first of the run "
                f"{run.plan.name!r}: draw both by plans of one minimum of vendors."
            )
    here = run.table.concept.isin(names).to_numpy()
    return first, {name: values[here] for name, values in seen.items()}


def _compared(
    name: str, point: np.ndarray, along: np.ndarray, before: int, seed: int
) -> dict[str, Any]:
    adherence, log_variety = (bootstrap.mean(values, seed=seed) for values in point.T)
    x, y = frontier.curve(along)
    row = {
        "operation": name,
        "prompts": len(point),
        "adherence_before": float(x[before]),
        "variety_before": float(np.exp(y[before])),
    }
    row |= _columns("adherence", adherence, float) | _columns("variety", log_variety, np.exp)
    if not within(point, along):
        return row | dict.fromkeys(
            ("times", "times_low", "times_high", "times_null_low", "times_null_high"), np.nan
        )
    found = frontier.beyond(point, along, seed=seed)
    row |= _columns("times", found.difference, np.exp)
    return row | {
        "times_null_low": float(np.exp(found.null.low)),
        "times_null_high": float(np.exp(found.null.high)),
    }


def _columns(name: str, measured: bootstrap.Estimate, unit: Any) -> dict[str, float]:
    ends = {"": measured.estimate, "_low": measured.low, "_high": measured.high}
    return {name + end: float(unit(value)) for end, value in ends.items()}


def examples(
    vendor: str, few: int = 16, ask: int = 8, seed: int = 0
) -> tuple[corpus.Corpus, list[str]]:
    """Draw `few` training drawings by a vendor, and `ask` other concepts to ask for.

    All are of concepts that every vendor drew for training, so that none is the vendor's own.
    Raises `EssayError` where there are too few.
    """
    data = corpus.load().where(split="train")
    count = data.table.groupby("concept").vendor.transform("nunique")
    mine = data.take(np.flatnonzero((count == len(corpus.VENDORS)) & (data.table.vendor == vendor)))
    if len(mine) < few + ask:
        raise EssayError(f"{vendor!r} has {len(mine)} such drawings, and {few + ask} are needed.")
    order = np.random.default_rng(seed).permutation(len(mine))
    return mine.take(order[:few]), list(mine.table.concept.iloc[order[few : few + ask]])


def manner(
    pictures: Mapping[str, np.ndarray], judge: Judge, vendor: str, seed: int = 0
) -> pd.DataFrame:
    """Return how far the judge puts pictures down to a vendor, one row a state of the model.

    pictures: uint8 (n, H, W, 3) by state. Columns: state, `probability` of the vendor with its
    interval over pictures, and the `share` of pictures for which the vendor is the likeliest.
    """
    import pandas as pd

    index, rows = judge.vendors.index(vendor), []
    for state, images in pictures.items():
        found = judge(images)
        mean = bootstrap.mean(found.vendor_probs[:, index], seed=seed)
        share = float((found.best_vendor == index).mean())
        rows.append({"state": state} | _columns("probability", mean, float) | {"share": share})
    return pd.DataFrame(rows)


def kept_away(
    run: Run,
    seen: Mapping[str, np.ndarray],
    others: Run,
    seen_others: Mapping[str, np.ndarray],
    vendors: Sequence[str],
) -> pd.DataFrame:
    """Return each vendor's share without and with the request to keep away from it.

    Shares are of the images that the judge can place, at w = 4 and on the prompts of `others`; a
    row is a vendor, the columns are `ordinary` and `not this vendor`.
    """
    import pandas as pd

    first, seen_first = _first(run, seen, others)

    def share(run: Run, seen: Mapping[str, np.ndarray], setting: str, index: int) -> float:
        named = seen["vendor"][(run.table.setting == setting).to_numpy()]
        named = named[named >= 0]
        return float(np.mean(named == index)) if len(named) else np.nan

    shares = {
        vendor: (
            share(first, seen_first, "4", index),
            share(others, seen_others, f"not {vendor}", index),
        )
        for index, vendor in enumerate(vendors)
    }
    return pd.DataFrame(shares, index=["ordinary", "not this vendor"]).T
