"""A fingerprint of a figure's data, and how far a second run may stray from it.

A fingerprint holds the numbers that a figure draws, not its pixels, so restyling changes nothing.
It is small enough to be committed and read in a diff. Two runs are *identical* when their digests
agree, *within tolerance* when every value lies as close as its column allows, else *changed*.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib.errors import EssayError

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_RELATIVE = 0.02  # printed scalars: within 2 % across devices
STORED_DIGITS = 6  # significant digits kept in the lock; the digest covers all of them
STORED_ROWS = 512  # longer tables are kept as quantiles and most frequent values
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
MOST_FREQUENT = 20

IDENTICAL, WITHIN, CHANGED, MISSING = "identical", "within tolerance", "changed", "missing"


@dataclass(frozen=True)
class Tolerance:
    """How far one column may stray.

    `relative`: share of the larger of the value and the column's root mean square, so that a value
    that happens to lie near zero is not held to an impossible standard. `absolute`: in the column's
    own unit. `items`: for counts, how far each may be off; for words and neighbours, how many
    entries may differ. `unlocked`: measured anew each time (seconds), never compared.
    """

    kind: str
    value: float = 0.0

    KINDS = ("relative", "absolute", "items", "unlocked")

    @classmethod
    def parse(cls, spec: Any, column_type: str) -> Tolerance:
        """Read a tolerance: None, a number, "unlocked" or `{"absolute": 0.01}`."""
        if spec is None:
            return cls("relative", DEFAULT_RELATIVE) if column_type == "number" else cls("items")
        if spec == "unlocked":
            return cls("unlocked")
        if isinstance(spec, Mapping) and len(spec) == 1:
            kind, value = next(iter(spec.items()))
        else:
            kind, value = ("relative" if column_type == "number" else "items"), spec
        if (
            kind not in cls.KINDS
            or isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not (math.isfinite(value) and value >= 0)
        ):
            raise EssayError(
                f"Unknown tolerance {spec!r}: write a number, 'unlocked', or one of "
                "{'relative': 0.02}, {'absolute': 0.01}, {'items': 2}."
            )
        if column_type == "text" and kind not in ("items", "unlocked"):
            raise EssayError(f"A column of words takes a tolerance in items, not {kind}.")
        return cls(kind, float(value))

    def to_json(self) -> dict[str, float] | str:
        return "unlocked" if self.kind == "unlocked" else {self.kind: self.value}

    def write(self, size: float | None = None) -> str:
        """A departure of `size` in this tolerance's unit; its own value by default."""
        size = self.value if size is None else size
        if self.kind == "relative":
            return f"{100 * size:.3g} %"
        return f"{size:g} items" if self.kind == "items" else f"{size:.3g}"


@dataclass(frozen=True)
class Difference:
    """The largest departure of one column, in the unit of its tolerance."""

    column: str
    place: str
    expected: Any
    actual: Any
    size: float
    tolerance: Tolerance

    @property
    def ratio(self) -> float:
        """Size over tolerance; above 1 the column has changed."""
        if self.size == 0:
            return 0.0
        return self.size / self.tolerance.value if self.tolerance.value else math.inf

    def __str__(self) -> str:
        size, allowed = self.tolerance.write(self.size), self.tolerance.write()
        return (
            f"{self.column} at {self.place}: {self.expected} → {self.actual} "
            f"(off by {size}, tolerance {allowed})"
        )


@dataclass(frozen=True)
class Comparison:
    """What a second run says of the first."""

    status: str
    largest: Difference | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.status in (IDENTICAL, WITHIN)

    def __str__(self) -> str:
        detail = self.reason or (str(self.largest) if self.largest else "")
        return f"{self.status}: {detail}" if detail else self.status


def fingerprint(
    table: pd.DataFrame, tolerance: Mapping[str, Any] | float | None = None
) -> dict[str, Any]:
    """Digest and readable values of `table`, with the tolerance of each column.

    `tolerance` is one setting for all columns of numbers, or one per column (see `Tolerance`);
    without one, numbers may be off by 2 %, counts and words not at all. A cell holds one number
    or one word. Raises `EssayError` for anything else, and for a tolerance of no column.
    """
    per_column = tolerance if isinstance(tolerance, Mapping) else {}
    unknown = sorted(set(per_column) - set(map(str, table.columns)))
    if unknown:
        raise EssayError(
            f"No column {unknown[0]!r} to give a tolerance: the data has "
            f"{', '.join(map(str, table.columns))}."
        )
    columns, digest = {}, hashlib.sha256()
    for name in map(str, table.columns):
        column_type, values = _plain(name, table[name])
        for_all = tolerance if column_type == "number" and not per_column else None
        allowed = Tolerance.parse(per_column.get(name, for_all), column_type)
        entry: dict[str, Any] = {"type": column_type, "tolerance": allowed.to_json()}
        if allowed.kind != "unlocked":
            digest.update(json.dumps([name, values]).encode())
            entry |= _stored(column_type, values)
        columns[name] = entry
    return {"rows": len(table), "sha256": digest.hexdigest(), "columns": columns}


def compare(expected: dict[str, Any] | None, actual: dict[str, Any] | None) -> Comparison:
    """Compare two fingerprints by the tolerances of the first."""
    if expected is None:
        return Comparison(MISSING, reason="not in the lock")
    if actual is None:
        return Comparison(MISSING, reason="locked, but not drawn")
    names, drawn = list(expected["columns"]), list(actual["columns"])
    if names != drawn:
        return Comparison(CHANGED, reason=f"columns {', '.join(names)} → {', '.join(drawn)}")
    if expected["rows"] != actual["rows"]:
        return Comparison(CHANGED, reason=f"rows {expected['rows']} → {actual['rows']}")
    if expected["sha256"] == actual["sha256"]:
        return Comparison(IDENTICAL)
    largest: Difference | None = None
    for name in names:
        was, now = expected["columns"][name], actual["columns"][name]
        if was["type"] != now["type"]:
            return Comparison(CHANGED, reason=f"{name} was a {was['type']}, is a {now['type']}")
        difference = _difference(name, was, now)
        if difference and (largest is None or difference.ratio > largest.ratio):
            largest = difference
    changed = largest is not None and largest.ratio > 1
    if largest is None or largest.size == 0:
        reason = f"beyond the {STORED_DIGITS} digits that the lock keeps"
        return Comparison(WITHIN, largest, reason)
    return Comparison(CHANGED if changed else WITHIN, largest)


def image_summary(images: np.ndarray) -> pd.DataFrame:
    """Mean red, green, blue and the contrast (standard deviation) of images (n, H, W, 3) uint8.

    What a sheet of pictures adds to its figure's data so that a changed picture is noticed;
    lock it with `{"absolute": 2}`, two levels of 255.
    """
    import pandas as pd

    pixels = np.asarray(images, dtype=np.float64)
    mean = pixels.mean(axis=(1, 2))
    return pd.DataFrame(
        {
            "red": mean[:, 0],
            "green": mean[:, 1],
            "blue": mean[:, 2],
            "contrast": pixels.std(axis=(1, 2, 3)),
        }
    )


def _plain(name: str, column: pd.Series) -> tuple[str, list[Any]]:
    """The column as JSON values, with its type: number, count or text."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_integer_dtype(column):
        return "count", [None if pd.isna(value) else int(value) for value in column]
    if pd.api.types.is_float_dtype(column):
        return "number", [_finite(float(value)) for value in column]
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    values = [None if value is None or value is pd.NA else value for value in column]
    if any(isinstance(value, (list, tuple, dict, set, np.ndarray, bytes)) for value in values):
        raise EssayError(
            f"Column {name!r} of the figure's data holds lists or bytes: give each its own column "
            "or row, so that a reader can open the data in a spreadsheet."
        )
    return "text", [None if value is None else str(value) for value in values]


def _finite(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _round(value: Any) -> Any:
    return float(f"{value:.{STORED_DIGITS}g}") if isinstance(value, float) else value


def _stored(column_type: str, values: list[Any]) -> dict[str, Any]:
    if len(values) <= STORED_ROWS:
        return {"values": [_round(value) for value in values]}
    if column_type == "text":
        frequent = sorted(Counter(values).items(), key=lambda item: (-item[1], str(item[0])))
        return {"frequent": {str(word): int(n) for word, n in frequent[:MOST_FREQUENT]}}
    numbers = np.array([value for value in values if isinstance(value, (int, float))], dtype=float)
    if not len(numbers):
        return {"quantiles": [], "mean": None}
    quantiles = [_round(float(value)) for value in np.quantile(numbers, QUANTILES)]
    return {"quantiles": quantiles, "mean": _round(float(numbers.mean()))}


def _difference(name: str, was: dict[str, Any], now: dict[str, Any]) -> Difference | None:
    allowed = Tolerance.parse(was["tolerance"], was["type"])
    if allowed.kind == "unlocked":
        return None
    places, expected, actual = _aligned(was, now)
    if was["type"] == "text" and "values" in was:
        off = [place for place, a, b in zip(places, expected, actual, strict=True) if a != b]
        if not off:
            return None
        first = places.index(off[0])
        size = float(len(off))
        return Difference(name, off[0], expected[first], actual[first], size, allowed)
    numbers = [value for value in expected if isinstance(value, (int, float))]
    scale = math.sqrt(sum(value * value for value in numbers) / len(numbers)) if numbers else 0.0
    worst: Difference | None = None
    for place, a, b in zip(places, expected, actual, strict=True):
        difference = Difference(name, place, a, b, _size(a, b, scale, allowed), allowed)
        if worst is None or difference.size > worst.size:
            worst = difference
    return worst


def _aligned(was: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[Any], list[Any]]:
    """Where each stored value stands, the expected values and the actual ones."""
    if "values" in was:
        places = [f"row {row + 1}" for row in range(len(was["values"]))]
        return places, was["values"], now["values"]
    if "frequent" in was:
        words = sorted({*was["frequent"], *now["frequent"]})
        return (
            [f"count of {word!r}" for word in words],
            [was["frequent"].get(word, 0) for word in words],
            [now["frequent"].get(word, 0) for word in words],
        )
    if len(was["quantiles"]) != len(now["quantiles"]):
        return ["all rows"], [was["mean"]], [now["mean"]]
    places = [f"quantile {quantile:g}" for quantile in QUANTILES[: len(was["quantiles"])]]
    return [*places, "mean"], [*was["quantiles"], was["mean"]], [*now["quantiles"], now["mean"]]


def _size(a: Any, b: Any, scale: float, allowed: Tolerance) -> float:
    if a == b:
        return 0.0
    if not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
        return math.inf  # a value has appeared or gone
    off = abs(a - b)
    if allowed.kind != "relative":
        return off
    return off / max(abs(a), scale) if max(abs(a), scale) else math.inf
