"""The verdicts of the whole book in one table, as they stand in `book/claims.lock.json`.

A chapter may run before or beside the others, so the table reads what was locked and not what was
recorded a minute ago: two builds of one commit show the same scoreboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from essaylib import claims

if TYPE_CHECKING:
    import pandas as pd

    from essaylib.rules import Claims

PENDING = "not locked"
"""The word for a claim that no build has locked yet."""


def table(
    book: Claims | None = None, locked: Mapping[str, Mapping[str, Any]] | None = None
) -> pd.DataFrame:
    """Return one row a primary statistic, and one for a claim without any, in the book's order.

    Columns: claim, chapter, statistic, verdict (of the claim), control and exploratory (bool or
    None), n, p, and `effect` with `effect_low` and `effect_high`: the estimate and its interval in
    units of the statistic's smallest interesting effect, so that 1 is enough and 0 is nothing,
    whatever was counted. What was not measured is NaN.
    """
    import pandas as pd

    book = claims.load() if book is None else book
    locked = claims.read_lock() if locked is None else locked
    rows = []
    for claim in book:
        entry = locked.get(claim.id, {})
        shared = {
            "claim": claim.id,
            "chapter": claim.chapter,
            "verdict": entry.get("verdict", "untestable" if claim.no_test else PENDING),
            "control": entry.get("control_ok"),
            "exploratory": entry.get("exploratory"),
        }
        rows += [
            shared | {"statistic": part.id} | _in_deltas(entry.get("tests", {}).get(part.id), part)
            for part in claim.primary
        ] or [shared | {"statistic": None} | _in_deltas(None, None)]
    columns = ["claim", "chapter", "statistic", "verdict", "control", "exploratory", "n", "p"]
    return pd.DataFrame(rows)[[*columns, "effect", "effect_low", "effect_high"]]


def _in_deltas(test: Mapping[str, float] | None, part: Any) -> dict[str, float]:
    if test is None:
        return dict.fromkeys(("effect", "effect_low", "effect_high", "p", "n"), float("nan"))
    scaled = {"effect": "estimate", "effect_low": "low", "effect_high": "high"}
    found = {name: test[key] / part.delta for name, key in scaled.items()}
    return found | {"p": test["p"], "n": test["n"]}
