"""One house style for every figure.

Figures are printed on a light card, so that they read the same on a light and on a dark page.
Colours differ in lightness as well as in hue, and vendors differ in marker too: nothing is lost in
greyscale or to a colour-blind reader. Series are labelled where they end, not in a legend.

A column `y` is drawn with its interval when the table also has `y_low` and `y_high`, and with its
null, point for point, when it has `y_null`. Every function takes a figure or one of its axes and
returns the axes. None sets a title: the caption says it.

`house` has the style, `marks` what figures share, and `curves`, `rows`, `tables`, `models` and
`pictures` the kinds of figures.
"""

from essaylib.plotting.curves import (
    before_after,
    curves_with_bands,
    frontier,
    histograms,
    power_law,
)
from essaylib.plotting.house import (
    ACCENT,
    CSS_DPI,
    DPI,
    INK,
    MUTED,
    NARROW,
    NULL,
    PAPER,
    SERIES_COLOURS,
    VENDOR_COLOURS,
    VERDICT_COLOURS,
    WIDTH,
    contrast,
    ink_on,
    new_figure,
    style,
)
from essaylib.plotting.marks import null_band, null_bar
from essaylib.plotting.models import survival
from essaylib.plotting.pictures import (
    heat,
    image_grid,
    ledger_rows,
    parcel_map,
    scatter_with_extremes,
    to_uint8,
)
from essaylib.plotting.rows import crossed_shares, intervals, scoreboard, shares
from essaylib.plotting.tables import matrix

__all__ = [
    "ACCENT",
    "CSS_DPI",
    "DPI",
    "INK",
    "MUTED",
    "NARROW",
    "NULL",
    "PAPER",
    "SERIES_COLOURS",
    "VENDOR_COLOURS",
    "VERDICT_COLOURS",
    "WIDTH",
    "before_after",
    "contrast",
    "crossed_shares",
    "curves_with_bands",
    "frontier",
    "heat",
    "histograms",
    "image_grid",
    "ink_on",
    "intervals",
    "ledger_rows",
    "matrix",
    "new_figure",
    "null_band",
    "null_bar",
    "parcel_map",
    "power_law",
    "scatter_with_extremes",
    "scoreboard",
    "shares",
    "style",
    "survival",
    "to_uint8",
]
