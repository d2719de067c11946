"""The house style: sizes, colours, type, and an empty figure."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

CSS_DPI = 96  # a figure of 7.2 inches is as wide as the page's column
DPI = 2 * CSS_DPI
WIDTH = 7.2
NARROW = 4.2  # a figure that keeps its type on a telephone, whose column is nearly as wide
LETTER = 9 / 72 * DPI * 0.58  # pixels that a letter of nine points takes, on average

PAPER, INK, MUTED, FAINT = "#fbfaf6", "#22211f", "#67635c", "#d9d5cb"
NULL = "#8d887f"
NO_ONE = "#b5b0a6"
DASHED = (0, (4, 3))
ACCENT = "#237a99"
VENDOR_COLOURS = {
    "google": "#1b2750",
    "microsoft": "#8c2f1c",
    "twitter": "#237a99",
    "emojione": "#bb8719",
}
VENDOR_MARKERS = {"google": "o", "microsoft": "s", "twitter": "^", "emojione": "D"}
SERIES_COLOURS = ("#1b2750", "#8c2f1c", "#237a99", "#bb8719", "#67635c", "#6a3d7d")
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P")
VERDICT_COLOURS = {
    "supported": "#237a99",
    "contradicted": "#8c2f1c",
    "undecided": "#e4dfd3",
    "mixed": "#bb8719",
    "untestable": NO_ONE,
}
HEAT = LinearSegmentedColormap.from_list("essay-heat", ["#f4efe2", "#d9a441", "#8c2f1c", "#1b2750"])

RC = {
    "figure.dpi": DPI,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "image.interpolation": "none",
    "image.cmap": "essay-heat",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.fonttype": "path",
}

if "essay-heat" not in matplotlib.colormaps:
    matplotlib.colormaps.register(HEAT)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style; the reader's own matplotlib settings come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def new_figure(size: tuple[float, float] | None = None) -> Figure:
    """An empty figure of `size` inches on the house card, independent of pyplot."""
    return Figure(figsize=size or (WIDTH, 4.2))


def ink_on(colour: Any) -> str:
    """Ink or paper, whichever reads better on `colour`."""
    return max((PAPER, INK), key=lambda ink: contrast(ink, colour))


def contrast(one: Any, other: Any) -> float:
    """Contrast of two colours, 1 to 21, as WCAG 2 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Any) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
