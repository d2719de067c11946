"""Figures of a table as it stands: a square for each of its cells."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from essaylib.plotting.house import FAINT, HEAT, PAPER, VERDICT_COLOURS, ink_on
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
