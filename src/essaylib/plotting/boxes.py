"""Figures made of boxes: a table as coloured squares, steps joined by arrows."""

from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from essaylib.plotting.house import (
    ACCENT,
    DPI,
    FAINT,
    HEAT,
    INK,
    LETTER,
    MUTED,
    PAPER,
    VERDICT_COLOURS,
    WIDTH,
    ink_on,
)
from essaylib.plotting.marks import axes_of, labelled, word


def matrix(
    target: Figure | Axes,
    table: pd.DataFrame,
    write: Callable[[Any], str] | None = None,
    limits: tuple[float, float] | None = None,
    colours: dict[str, str] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Axes:
    """The table as coloured squares: index down the side, columns along the top.

    Numbers are coloured light to dark between `limits` and written in the square; words (such as
    verdicts) take `colours`. `write` turns a value into the text of its square.
    """
    ax = axes_of(target)
    numeric = all(pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes)
    values = table.to_numpy()
    if numeric:
        low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
        span = (high - low) or 1.0
        write = write or (lambda value: f"{value:.2f}")
    else:
        colours = colours or VERDICT_COLOURS
        write = write or str
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = values[row, column]
            if pd.isna(value):
                colour = PAPER
            elif numeric:
                colour = HEAT(np.clip((value - low) / span, 0, 1))
            else:
                colour = colours.get(value, FAINT)
            place = (column - 0.5, row - 0.5)
            ax.add_patch(Rectangle(place, 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=1.5))
            text = "–" if pd.isna(value) else write(value)
            ink = ink_on(colour)
            ax.text(column, row, text, color=ink, ha="center", va="center", fontsize=8)
    ax.set_xlim(-0.5, values.shape[1] - 0.5)
    ax.set_ylim(values.shape[0] - 0.5, -0.5)
    ax.set_xticks(range(values.shape[1]), [word(name) for name in table.columns])
    ax.set_yticks(range(values.shape[0]), [word(name) for name in table.index])
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return labelled(ax, xlabel, ylabel)


def flow(
    target: Figure | Axes,
    steps: Sequence[tuple[str, str]],
    columns: int = 4,
    marked: Sequence[str] = (),
) -> Axes:
    """Boxes joined by arrows, row by row: a name and a line about it; `marked` names stand out."""
    ax = axes_of(target)
    letters = max(10, int(WIDTH * DPI / columns * 0.8 / LETTER))
    for index, (name, note) in enumerate(steps):
        row, column = divmod(index, columns)
        x, y = column, -row
        face, ink = (ACCENT, PAPER) if name in marked else ("#efece3", INK)
        ax.add_patch(
            FancyBboxPatch(
                (x - 0.39, y - 0.31),
                0.78,
                0.62,
                boxstyle="round,pad=0,rounding_size=0.05",
                facecolor=face,
                edgecolor=MUTED,
                linewidth=0.8,
            )
        )
        ax.text(x, y + 0.15, name, ha="center", va="center", weight="bold", color=ink)
        ax.text(
            x,
            y - 0.1,
            "\n".join(wrap(note, letters)),
            ha="center",
            va="center",
            color=ink,
            fontsize=8,
        )
        if index + 1 < len(steps):
            if column + 1 < columns:
                _arrow(ax, (x + 0.4, y), (x + 0.6, y))
            else:
                ax.plot([x, x, 0], [y - 0.32, y - 0.5, y - 0.5], color=MUTED, linewidth=1)
                _arrow(ax, (0, y - 0.5), (0, y - 0.68))
    rows = -(-len(steps) // columns)
    ax.set_xlim(-0.5, min(columns, len(steps)) - 0.5)
    ax.set_ylim(-rows + 0.5, 0.5)
    ax.set_axis_off()
    return ax


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look)
