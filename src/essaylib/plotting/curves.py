"""Figures of one number against another: points, curves, arrows, histograms."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from essaylib.plotting.house import ACCENT, DASHED, INK, MUTED, NULL, SERIES_COLOURS, SERIES_MARKERS
from essaylib.plotting.marks import (
    axes_of,
    dots,
    keep_apart,
    label_ends,
    labelled,
    note_at,
    series,
    word,
)


def frontier(
    target: Figure | Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    label: str | None = None,
    group: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Axes:
    """Points in the table's order, joined by a line, with both intervals; `label` names points."""
    ax = axes_of(target)
    for name, rows, colour, marker in series(table, group):
        ax.plot(rows[x], rows[y], color=colour, linewidth=1.2, alpha=0.7, zorder=2)
        dots(ax, rows, x, y, colour, marker)
        if label:
            for _, row in rows.iterrows():
                note_at(ax, word(row[label]), row[x], row[y], (5, 5), colour)
        if name is not None:
            last = rows.iloc[-1]
            note_at(ax, name, last[x], last[y], (7, -11), colour, weight="bold")
    ax.margins(0.12)
    labelled(ax, xlabel or x, ylabel or y)
    keep_apart(ax)
    return ax


def before_after(target: Figure | Axes, table: pd.DataFrame, x: str, y: str, label: str) -> Axes:
    """One arrow a row, from (`x_before`, `y_before`) to (x, y), a point with both intervals.

    The first colour is left to the curve that the arrows start from.
    """
    ax = axes_of(target)
    looks = zip(SERIES_COLOURS[1:], SERIES_MARKERS[1:], strict=True)
    for (_, row), (colour, marker) in zip(table.iterrows(), looks, strict=False):
        dots(ax, row.to_frame().T, x, y, colour, marker)
        start = (row[f"{x}_before"], row[f"{y}_before"])
        look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1, "linestyle": DASHED}
        ax.annotate("", (row[x], row[y]), start, arrowprops=look)
        note_at(ax, word(row[label]), row[x], row[y], (6, 5), colour, weight="bold")
    keep_apart(ax)
    return ax


def curves_with_bands(
    target: Figure | Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    group: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Axes:
    """A curve for each group, its interval as a band, its name where the curve ends.

    Numbers on `x` are sorted; words keep the table's order.
    """
    ax = axes_of(target)
    ends = []
    for name, rows, colour, marker in series(table, group):
        if pd.api.types.is_numeric_dtype(rows[x]):
            rows = rows.sort_values(x)
        ax.plot(rows[x], rows[y], color=colour, marker=marker, markevery=_every(len(rows)))
        if f"{y}_low" in rows:
            low, high = rows[f"{y}_low"], rows[f"{y}_high"]
            ax.fill_between(rows[x], low, high, color=colour, alpha=0.16, linewidth=0)
        if f"{y}_null" in rows:
            ax.plot(rows[x], rows[f"{y}_null"], color=colour, linewidth=1, linestyle=DASHED)
        if name is not None:
            ends.append((name, rows[x].iloc[-1], rows[y].iloc[-1], colour))
    ax.margins(x=0.02)
    label_ends(ax, ends)
    return labelled(ax, xlabel or x, ylabel or y)


def power_law(
    target: Figure | Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    null: tuple[float, float],
    label: str | None = None,
    count: int = 3,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Axes:
    """Two ratios, one dot a row, both on logarithmic scales whose middle is one; and their fit.

    The line is the least-squares fit of logarithms through the middle. `null` is the range of the
    correlation by chance, drawn as the range of lines that it would give. `label` names the
    `count` dots that lie highest, and the lowest.
    """
    ax = axes_of(target)
    across, up = np.log(table[x].to_numpy()), np.log(table[y].to_numpy())
    ax.scatter(table[x], table[y], s=16, color=ACCENT, alpha=0.65, linewidth=0, zorder=2)
    ends = np.exp(np.array([across.min(), 0, across.max()]))
    slope = across @ up / (across @ across)
    chance = np.array(null) * np.sqrt((up @ up) / (across @ across))
    lines = ends[:, None] ** chance
    ax.fill_between(ends, lines.min(1), lines.max(1), color=NULL, alpha=0.3, linewidth=0, zorder=1)
    ax.plot(ends, ends**slope, color=SERIES_COLOURS[1], zorder=3)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(
            lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
        )
    note_at(ax, "by chance", ends[0], 1, (0, 3), MUTED)
    order = np.argsort(up, kind="stable")
    for row in [*order[:count], *order[len(order) - count :]] if label else ():
        note_at(
            ax, word(table[label].iloc[row]), table[x].iloc[row], table[y].iloc[row], (4, 3), INK
        )
    note_at(ax, "fit", ends[-1], ends[-1] ** slope, (-3, 5), SERIES_COLOURS[1], "right")
    labelled(ax, xlabel or x, ylabel or y)
    keep_apart(ax)
    return ax


def histograms(
    target: Figure | Axes,
    table: pd.DataFrame,
    value: str,
    group: str | None = None,
    bins: int | Sequence[float] = 40,
    xlabel: str | None = None,
) -> Axes:
    """Outlined histograms on shared bins, as the share of each group, named at their peaks."""
    ax = axes_of(target)
    edges = np.histogram_bin_edges(table[value].dropna(), bins)
    for name, rows, colour, _ in series(table, group):
        counts, _ = np.histogram(rows[value].dropna(), edges)
        heights = counts / max(counts.sum(), 1)
        ax.stairs(heights, edges, color=colour, linewidth=1.6)
        ax.stairs(heights, edges, color=colour, fill=True, alpha=0.14)
        if name is not None:
            peak = int(heights.argmax())
            middle = (edges[peak] + edges[peak + 1]) / 2
            note_at(ax, name, middle, heights[peak], (0, 3), colour, "center", "bottom")
    ax.set_ylim(bottom=0)
    ax.margins(y=0.15)
    return labelled(ax, xlabel or value, "share of each group")


def _every(points: int) -> int:
    return max(1, points // 12)
