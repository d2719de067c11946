"""Figures with one named row for each line of a table: intervals and stacked bars."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from essaylib.plotting.house import ACCENT, FAINT, INK, MUTED, NULL, PAPER, SERIES_COLOURS, ink_on
from essaylib.plotting.marks import axes_of, errors, labelled, name_rows, note_at, null_band, series


def intervals(
    target: Figure | Axes,
    table: pd.DataFrame,
    value: str,
    label: str,
    group: str | None = None,
    xlabel: str | None = None,
) -> Axes:
    """One row a line, top to bottom: its name, its value as a dot, its interval as a bar.

    A null of its own (`value_null`) is a grey tick, a null that spreads (`value_null_low` to
    `value_null_high`) a grey bar behind.
    """
    ax = axes_of(target)
    names = list(dict.fromkeys(table[label]))
    groups = list(series(table, group))
    for index, (name, rows, colour, marker) in enumerate(groups):
        shift = (index - (len(groups) - 1) / 2) * 0.6 / max(len(groups), 1)
        places = np.array([names.index(word) for word in rows[label]]) + shift
        ax.errorbar(
            rows[value],
            places,
            xerr=errors(rows, value),
            fmt=marker,
            color=colour,
            elinewidth=2.2,
            capsize=0,
        )
        if f"{value}_null_low" in rows:
            low, high = rows[f"{value}_null_low"], rows[f"{value}_null_high"]
            ax.hlines(places, low, high, color=NULL, linewidth=9, alpha=0.35, zorder=1)
        if f"{value}_null" in rows:
            ax.plot(
                rows[f"{value}_null"], places, "|", color=NULL, markersize=12, markeredgewidth=2
            )
        if name is not None:
            end = rows.get(f"{value}_high", rows[value]).iloc[0]
            note_at(ax, name, end, places[0], (6, 0), colour, va="center")
    name_rows(ax, range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    return labelled(ax, xlabel or value, None)


def scoreboard(
    target: Figure | Axes,
    table: pd.DataFrame,
    value: str,
    label: str,
    verdict: str,
    xlabel: str | None = None,
    widest: float = 8.0,
) -> Axes:
    """Intervals with a word at the right of each row; lines at 0 (nothing) and 1 (enough).

    Values beyond `widest` are drawn at the edge, with an arrow and the number.
    """
    cut = table.assign(
        **{name: table[name].clip(-widest, widest) for name in table if name.startswith(value)}
    )
    ax = intervals(target, cut, value, label, xlabel=xlabel)
    low, high = float(cut[f"{value}_low"].min()), float(cut[f"{value}_high"].max())
    ax.set_xlim(min(low, 0) - 0.4, max(high, 1) + 0.4)
    null_band(ax, 0, label="nothing", axis="x", side="left")
    null_band(ax, 1, label="enough", axis="x", side="right")
    for place, (true, word) in enumerate(zip(table[value], table[verdict], strict=True)):
        beyond = f" ({true:.0f} →)" if abs(true) > widest else ""
        ax.annotate(
            f"{word}{beyond}",
            (1, place),
            (5, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    return ax


def shares(
    target: Figure | Axes,
    table: pd.DataFrame,
    label: str,
    parts: Sequence[str],
    xlabel: str = "share",
    colours: dict[str, str] | None = None,
) -> Axes:
    """Stacked horizontal bars: one bar a row, one segment for each column of `parts`."""
    ax = axes_of(target)
    colours = colours or dict(zip(parts, SERIES_COLOURS, strict=False))
    places = np.arange(len(table))
    left = np.zeros(len(table))
    for part in parts:
        widths = table[part].to_numpy(dtype=float)
        ax.barh(places, widths, 0.62, left, color=colours[part], edgecolor=PAPER, linewidth=1.2)
        for place, start, width in zip(places, left, widths, strict=True):
            if width > 0.07:
                text = f"{part.replace('_', ' ')}\n{width:.0%}" if place == 0 else f"{width:.0%}"
                colour = ink_on(colours[part])
                middle = start + width / 2
                ax.text(middle, place, text, color=colour, ha="center", va="center", fontsize=8)
        left += widths
    name_rows(ax, places, table[label])
    ax.set_ylim(len(table) - 0.5, -0.5)
    return labelled(ax, xlabel, None)


def crossed_shares(
    target: Figure | Axes,
    table: pd.DataFrame,
    label: str,
    rows: str,
    columns: str,
    rest: str = "interaction",
    after: int | None = None,
) -> Axes:
    """Stacked bars of a crossed table: one factor from the left, the other from the right.

    What neither explains stands between them; each factor's interval lies below its end. A line is
    drawn after the first `after` bars. Shares below zero, as chance makes them, have no width.
    """
    colours = {rows: ACCENT, rest: SERIES_COLOURS[3], columns: SERIES_COLOURS[1]}
    drawn = table.assign(**{part: table[part].clip(0, 1) for part in colours})
    ax = shares(target, drawn, label, list(colours), "share of variance", colours)
    places = np.arange(len(table)) + 0.39
    near, far = errors(table, rows), errors(table, columns)[::-1]
    look = {"fmt": "|", "color": INK, "elinewidth": 1.4, "markersize": 7, "markeredgewidth": 1.4}
    ax.errorbar(table[rows], places, xerr=near, **look)
    ax.errorbar(1 - table[columns], places, xerr=far, **look)
    if after is not None:
        ax.axhline(after - 0.45, color=MUTED, linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_ylim(len(table) - 0.4, -0.5)
    return ax
