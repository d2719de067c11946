"""Statistics of many models in one figure."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from essaylib.plotting.house import ACCENT, DASHED, FAINT, INK, MUTED, NULL, PAPER
from essaylib.plotting.marks import axes_of


def survival(
    target: Figure,
    table: pd.DataFrame,
    states: dict[str, tuple[str, str]],
    widest: float = 5.0,
) -> Axes:
    """Statistics down the side, models along the top: each cell an estimate with its interval.

    table: one row a cell, with `row`, `title` (of the model), `state`, `control`, `effect`,
    `effect_low` and `effect_high`. Cells are drawn on one scale, even near zero and logarithmic far
    from it, cut at `widest` with an arrow; lines at 0 (nothing) and 1 (enough). A hollow dot has
    failed its control, a grey one stands for a model that shares the part. `states` gives a cell
    without numbers its mark and the words for the key. A model that has only such cells takes a
    narrow column. Returns the axes.
    """
    ax = axes_of(target)
    rows, titles = (list(dict.fromkeys(table[name])) for name in ("row", "title"))
    wide = {title: table[table.title == title].effect.notna().any() for title in titles}
    starts, centres, edge = {}, {}, 0.0
    for title in titles:
        width = 1.0 if wide[title] else 0.3
        starts[title], centres[title] = edge, edge + width / 2
        edge += width
    reach = np.arcsinh(widest) * 1.15

    def across(title: str, effect: Any) -> Any:
        return centres[title] + 0.5 * np.arcsinh(np.clip(effect, -widest, widest)) / reach

    for place in range(0, len(rows), 2):
        ax.axhspan(place - 0.5, place + 0.5, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    for title in titles:
        ax.axvline(starts[title], color=FAINT, linewidth=0.8, zorder=1)
        if wide[title]:
            ax.axvline(across(title, 0), color=NULL, linewidth=0.9, linestyle=DASHED, zorder=1)
            ax.axvline(across(title, 1), color=NULL, linewidth=0.9, zorder=1)
    for cell in table.itertuples():
        y = rows.index(cell.row)
        if np.isnan(cell.effect):
            mark = states[cell.state][0]
            ax.plot(
                centres[cell.title], y, mark, color=MUTED, markersize=4.5, markerfacecolor="none"
            )
            continue
        colour = NULL if cell.state in states else (ACCENT if cell.effect_low > 1 else INK)
        ends = across(cell.title, np.array([cell.effect_low, cell.effect_high]))
        ax.hlines(y, *ends, color=colour, linewidth=2, zorder=2)
        mark = "o" if abs(cell.effect) <= widest else "><"[cell.effect < 0]
        fill = colour if cell.control else PAPER
        x = across(cell.title, cell.effect)
        ax.plot(x, y, mark, color=colour, markerfacecolor=fill, markersize=5, zorder=3)
    ax.set_xticks([*centres.values()], titles, rotation=90)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlim(0, edge)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    _key(ax, [title for title in titles if wide[title]], across, states, table)
    return ax


def _key(
    ax: Axes,
    wide: list[str],
    across: Callable[[str, Any], Any],
    states: dict[str, tuple[str, str]],
    table: pd.DataFrame,
) -> None:
    """Under the cells: where 0 and 1 lie; then what the marks mean, those that occur."""
    for title in wide:
        for effect in (0, 1):
            ax.annotate(
                str(effect),
                (across(title, effect), 0),
                (0, -10),
                xycoords=ax.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=MUTED,
            )
    handles = [
        Line2D([], [], marker="o", color=ACCENT, label="the interval lies above 1"),
        Line2D([], [], marker="o", color=INK, label="it does not"),
        Line2D([], [], marker="o", color=INK, markerfacecolor=PAPER, label="the control failed"),
    ]
    for state, (mark, words) in states.items():
        if state in set(table.state):
            numbers = table[table.state == state].effect.notna().any()
            style = {"color": NULL} if numbers else {"color": MUTED, "markerfacecolor": "none"}
            line = "-" if numbers else ""
            handles.append(Line2D([], [], marker=mark, linestyle=line, label=words, **style))
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.41, -0.03),
        frameon=False,
        fontsize=8,
        handlelength=1.6,
        borderpad=0,
    )
