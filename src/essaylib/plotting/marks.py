"""What figures of several kinds share: series, intervals, names, nulls."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from essaylib.plotting.house import (
    ACCENT,
    DASHED,
    INK,
    MUTED,
    NULL,
    SERIES_COLOURS,
    SERIES_MARKERS,
    VENDOR_COLOURS,
    VENDOR_MARKERS,
)


def null_band(
    ax: Axes,
    low: float,
    high: float | None = None,
    label: str = "chance",
    axis: str = "y",
    side: str | None = None,
) -> None:
    """Draw what there would be if nothing were there: a dashed line, or a band from low to high.

    It is named at its `side`, "left" or "right": a level one on the left unless told otherwise, an
    upright one above its middle.
    """
    span, line = (ax.axhspan, ax.axhline) if axis == "y" else (ax.axvspan, ax.axvline)
    if high is None:
        line(low, color=NULL, linewidth=1, linestyle=DASHED, zorder=1)
    else:
        span(low, high, facecolor=NULL, alpha=0.22, linewidth=0, zorder=0)
        high_line = max(low, high)
        line(high_line, color=NULL, linewidth=0.8, linestyle=DASHED, zorder=1)
    edge = low if high is None else max(low, high)
    if axis == "y":
        right = side == "right"
        place, coordinates = (float(right), edge), ax.get_yaxis_transform()
        offset, alignment = (-3 if right else 3, 2), (side or "left", "bottom")
    else:
        place, coordinates, offset = (edge, 1), ax.get_xaxis_transform(), (0, 3)
        alignment = ({"left": "right", "right": "left"}.get(side, "center"), "bottom")
    ax.annotate(
        label,
        place,
        offset,
        xycoords=coordinates,
        textcoords="offset points",
        ha=alignment[0],
        va=alignment[1],
        fontsize=8,
        color=MUTED,
    )


def null_bar(ax: Axes, place: float, low: float, high: float, label: str = "chance") -> None:
    """Draw the null at one place of the horizontal axis, as an upright bar from low to high."""
    ax.vlines(place, low, high, color=NULL, linewidth=7, alpha=0.45, zorder=1)
    note_at(ax, label, place, high, (0, 3), MUTED, "center", "bottom")
    keep_apart(ax)


def axes_of(target: Figure | Axes) -> Axes:
    """The axes themselves, or a figure's first, made where it has none."""
    if isinstance(target, Axes):
        return target
    return target.axes[0] if target.axes else target.add_subplot()


def series(
    table: pd.DataFrame, group: str | None
) -> Iterator[tuple[str | None, pd.DataFrame, str, str]]:
    """Each group's name, rows, colour and marker; vendors keep theirs throughout the book."""
    if group is None:
        yield None, table, ACCENT, "o"
        return
    for index, name in enumerate(dict.fromkeys(table[group])):
        colour = VENDOR_COLOURS.get(name, SERIES_COLOURS[index % len(SERIES_COLOURS)])
        marker = VENDOR_MARKERS.get(name, SERIES_MARKERS[index % len(SERIES_MARKERS)])
        yield word(name), table[table[group] == name], colour, marker


def dots(ax: Axes, rows: pd.DataFrame, x: str, y: str, colour: str, marker: str) -> None:
    """A dot a row, with its intervals on both axes as far as the table has them."""
    ax.errorbar(
        rows[x],
        rows[y],
        xerr=errors(rows, x),
        yerr=errors(rows, y),
        fmt=marker,
        color=colour,
        elinewidth=1,
        zorder=3,
    )


def errors(rows: pd.DataFrame, column: str) -> np.ndarray | None:
    """How far the interval reaches below and above the values, (2, rows); None without one."""
    if f"{column}_low" not in rows:
        return None
    below = rows[column] - rows[f"{column}_low"]
    above = rows[f"{column}_high"] - rows[column]
    return np.maximum(np.stack([below, above]).astype(float), 0)


def word(value: Any) -> str:
    """The value as a figure writes it: numbers as short as they can be."""
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def label_ends(ax: Axes, ends: list[tuple[str, float, float, str]]) -> None:
    """Write each curve's name to the right of its end, moved apart where they would touch."""
    bottom, top = ax.get_ylim()
    gap = (top - bottom) * 0.06
    placed = -np.inf
    for name, x, y, colour in sorted(ends, key=lambda end: end[2]):
        placed = max(y, placed + gap)
        ax.annotate(
            name,
            (x, placed),
            (7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=8.5,
            annotation_clip=False,
        )


def note_at(
    ax: Axes,
    text: str,
    x: float,
    y: float,
    offset: tuple[float, float],
    colour: str,
    ha: str = "left",
    va: str = "baseline",
    weight: str = "normal",
) -> None:
    """Write a text beside a point of the data, `offset` points away."""
    ax.annotate(
        text,
        (x, y),
        offset,
        textcoords="offset points",
        color=colour,
        ha=ha,
        va=va,
        weight=weight,
        fontsize=8.5,
        label=_AT_A_POINT,
    )


_AT_A_POINT = "names a point"


def keep_apart(ax: Axes) -> None:
    """Move the names of points to where they cover least: no other name, few points and lines."""
    ax.figure.draw_without_rendering()
    names = [text for text in ax.texts if text.get_label() == _AT_A_POINT]
    taken = [text.get_window_extent() for text in ax.texts if text not in names]
    marks = _drawn_points(ax)
    room = ax.get_window_extent()
    for text in names:
        best = None
        for offset, ha, va in _AROUND:
            text.set(position=offset, ha=ha, va=va)
            box = text.get_window_extent()
            inside = room.count_contains(box.corners()) == 4
            met = sum(Bbox.intersection(box, other) is not None for other in taken)
            away = 0.15 * np.hypot(*offset)  # a name far from its point is another's
            cost = met + (not inside), box.count_contains(marks) + away
            if best is None or cost < best[0]:
                best = cost, offset, ha, va, box
        _, offset, ha, va, box = best
        text.set(position=offset, ha=ha, va=va)
        taken.append(box)


# Places of a name about its point, in the order in which they are liked: offset in points.
_AROUND = [
    ((distance * across, distance * up), ha, va)
    for distance in (5, 11, 18, 26)
    for across, up, ha, va in (
        (1, 1, "left", "bottom"),
        (-1, 1, "right", "bottom"),
        (1, -1, "left", "top"),
        (-1, -1, "right", "top"),
        (0, 1.2, "center", "bottom"),
        (0, -1.2, "center", "top"),
    )
]


def _drawn_points(ax: Axes) -> np.ndarray:
    """Places (n, 2) in pixels that markers, lines and error bars of the axes cover."""
    paths = [line.get_xydata() for line in ax.lines if line.get_transform() == ax.transData]
    for group in ax.collections:
        if isinstance(group, LineCollection):
            paths += group.get_segments()
        elif isinstance(group, PathCollection):
            paths += [place[None] for place in np.asarray(group.get_offsets())]
    places = [np.zeros((0, 2))]
    for path in paths:
        path = ax.transData.transform(np.asarray(path, dtype=float))
        along = np.linspace(0, 1, 24)[:, None]
        places += [a + along * (b - a) for a, b in zip(path, path[1:], strict=False)]
        places.append(path)
    return np.concatenate(places)


def note(
    ax: Axes,
    text: str,
    place: tuple[float, float],
    offset: tuple[float, float],
    ha: str,
    va: str,
    colour: str = INK,
    weight: str = "normal",
    points: float = 9,
) -> None:
    """Write a text beside a place of the axes (0 to 1 across and up), `offset` points away."""
    ax.annotate(
        text,
        place,
        offset,
        xycoords="axes fraction",
        textcoords="offset points",
        ha=ha,
        va=va,
        color=colour,
        weight=weight,
        fontsize=points,
        annotation_clip=False,
    )


def name_rows(ax: Axes, places: Sequence[float], names: Sequence[Any]) -> None:
    """Write names where rows stand, in place of the vertical axis; long ones in several lines."""
    ax.set_yticks(places, ["\n".join(wrap(word(name), 16)) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def labelled(ax: Axes, xlabel: str | None, ylabel: str | None) -> Axes:
    """Name the axes, underscores as spaces; return them."""
    if xlabel:
        ax.set_xlabel(xlabel.replace("_", " "))
    if ylabel:
        ax.set_ylabel(ylabel.replace("_", " "))
    return ax
