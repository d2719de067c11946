"""One house style for every figure.

Figures are printed on a light card, so that they read the same on a light and on a dark page.
Colours differ in lightness as well as in hue, and vendors differ in marker too: nothing is lost in
greyscale or to a colour-blind reader. Series are labelled where they end, not in a legend.

A column `y` is drawn with its interval when the table also has `y_low` and `y_high`, and with its
null, point for point, when it has `y_null`. Every function takes a figure or one of its axes and
returns the axes. None sets a title: the caption says it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle

from essaylib.errors import EssayError

CSS_DPI = 96  # a figure of 7.2 inches is as wide as the page's column
DPI = 2 * CSS_DPI
WIDTH = 7.2
LINE = round(9 / 72 * DPI * 1.4)  # pixels that a line of nine-point text takes
LETTER = 9 / 72 * DPI * 0.58  # pixels that a letter takes, on average

PAPER, INK, MUTED, FAINT = "#fbfaf6", "#22211f", "#67635c", "#d9d5cb"
NULL = "#8d887f"
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
    "untestable": "#b5b0a6",
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


def image_grid(
    fig: Figure,
    images: Sequence[Any] | np.ndarray,
    columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    scale: int | None = None,
    gap: int = 8,
) -> list[Axes]:
    """Show images of one size in rows, each of their pixels as a whole number of screen pixels.

    Nothing is resampled: an image pixel becomes `scale` × `scale` pixels of the saved file (by
    default as many as the page's column holds), and the figure takes the size that this needs.
    `images` is n images or rows of images, uint8 or 0..1 floats, grey, RGB, or RGBA (set on
    white); None leaves a place empty. `labels` are written under the images. Returns the axes,
    row by row.
    """
    cells, columns = _cells(images, columns)
    pixels = [None if cell is None else to_uint8(cell) for cell in cells]
    shown = [cell for cell in pixels if cell is not None]
    if not shown:
        raise EssayError("image_grid was given no image.")
    height, width = shown[0].shape[:2]
    if any(cell.shape[:2] != (height, width) for cell in shown):
        raise EssayError("image_grid shows images of one size: make the sizes equal first.")
    rows = -(-len(pixels) // columns)
    _check_count("row_labels", row_labels, rows)
    _check_count("column_labels", column_labels, columns)
    _check_count("labels", labels, len(pixels))

    longest = (
        max(len(line) for text in row_labels for line in text.split("\n")) if row_labels else 0
    )
    left = gap + round(longest * LETTER)
    if scale is None:
        scale = max(1, int((WIDTH * DPI - left - columns * gap) // (columns * width)))
    width, height = width * scale, height * scale
    column_labels, labels = _wrapped(column_labels, width), _wrapped(labels, width)
    head = _lines(column_labels) * LINE + gap
    foot = _lines(labels) * LINE
    total = (left + columns * (width + gap), head + rows * (height + foot + gap))
    fig.set_layout_engine("none")
    fig.set_dpi(DPI)
    fig.set_size_inches(total[0] / DPI, total[1] / DPI)

    axes = []
    for index, cell in enumerate(pixels):
        row, column = divmod(index, columns)
        x = left + column * (width + gap)
        y = head + row * (height + foot + gap)
        ax = _pixel_axes(fig, (x, y, width, height), total)
        axes.append(ax)
        if cell is not None:
            ax.imshow(cell.repeat(scale, 0).repeat(scale, 1), interpolation="none", aspect="auto")
        if labels:
            _note(ax, labels[index], (0.5, 0), (0, -3), "center", "top")
        if row_labels and column == 0:
            _note(ax, row_labels[row], (0, 0.5), (-4, 0), "right", "center")
        if column_labels and row == 0:
            _note(ax, column_labels[column], (0.5, 1), (0, 3), "center", "bottom")
    return axes


def parcel_map(
    fig: Figure,
    pictures: np.ndarray,
    pieces: Sequence[Any],
    makers: Sequence[str],
    labels: Sequence[str],
    scale: int = 2,
) -> list[Axes]:
    """A picture a row; the training patches that stand for its own; whose these are, and how many.

    `pieces` holds for each of `pictures` (n, H, W, 3) what `neighbours.Matches.of` returns;
    `makers` the vendor of each training drawing. Patches that no training patch is near are pale; a
    spot marks those of the drawing that supplies most. What has no patch stays white.
    """
    cells: list[Any] = []
    taken = []
    for picture, found in zip(pictures, pieces, strict=True):
        names = np.where(found.near, np.asarray(makers, dtype=object)[found.source], "no one near")
        flags = np.array([to_rgb(VENDOR_COLOURS.get(name, FAINT)) for name in names]).reshape(-1, 3)
        flags = np.broadcast_to(255 * flags[:, None, None], found.pixels.shape).astype(np.uint8)
        third = flags.shape[1] // 3
        flags[found.main, third:-third, third:-third] = 255
        cells.append(
            [picture, *(mosaic(picture, found.place, x) for x in (found.pixels, flags)), None]
        )
        taken.append([(names == name).mean() for name in (*VENDOR_COLOURS, "no one near")])
    under = [text for label in labels for text in (label, "", "", "")]
    heads = ["the picture", "nearest patches", "published by", ""]
    axes = image_grid(fig, cells, labels=under, column_labels=heads, scale=scale)
    for ax, shares in zip(axes[3::4], taken, strict=True):
        colours = {**VENDOR_COLOURS, "no one near": MUTED}
        for line, ((name, colour), share) in enumerate(zip(colours.items(), shares, strict=True)):
            ax.text(0, 0.86 - 0.18 * line, f"{name} {share:.0%}", color=colour, fontsize=10)
    return axes


def mosaic(picture: np.ndarray, places: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Lay patches (p, size, size, 3) at their places on a white ground of the picture's size."""
    laid = np.full_like(picture, 255)
    size = patches.shape[1]
    for place, patch in zip(places, patches, strict=True):
        y, x = (size * at for at in divmod(int(place), picture.shape[1] // size))
        laid[y : y + size, x : x + size] = patch
    return laid


def heat(maps: np.ndarray, size: int, limit: float | None = None) -> np.ndarray:
    """Colour maps (n, h, w) of values from 0 to `limit` (their largest) as uint8 (n, H, W, 3).

    Enlarged to `size` pixels by whole squares, so the resolution of the map stays visible.
    """
    maps = np.asarray(maps, dtype=np.float64)
    factor = size // max(maps.shape[1:])
    if factor < 1:
        raise EssayError(f"A map of {maps.shape[1:]} does not fit into {size} pixels: ask more.")
    limit = float(maps.max()) if limit is None else limit
    coloured = HEAT(np.clip(maps / (limit or 1.0), 0, 1))[..., :3]
    return (coloured * 255).round().astype(np.uint8).repeat(factor, 1).repeat(factor, 2)


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
    ax = _axes(target)
    for name, rows, colour, marker in _series(table, group):
        ax.plot(rows[x], rows[y], color=colour, linewidth=1.2, alpha=0.7, zorder=2)
        ax.errorbar(
            rows[x],
            rows[y],
            xerr=_errors(rows, x),
            yerr=_errors(rows, y),
            fmt=marker,
            color=colour,
            elinewidth=1,
            zorder=3,
        )
        if label:
            for _, row in rows.iterrows():
                _note_at(ax, _word(row[label]), row[x], row[y], (5, 5), colour)
        if name is not None:
            last = rows.iloc[-1]
            _note_at(ax, name, last[x], last[y], (7, -11), colour, weight="bold")
    ax.margins(0.12)
    return _labelled(ax, xlabel or x, ylabel or y)


def before_after(target: Figure | Axes, table: pd.DataFrame, x: str, y: str, label: str) -> Axes:
    """One arrow a row, from (`x_before`, `y_before`) to (x, y), a point with both intervals.

    The first colour is left to the curve that the arrows start from.
    """
    ax = _axes(target)
    looks = zip(SERIES_COLOURS[1:], SERIES_MARKERS[1:], strict=True)
    for (_, row), (colour, marker) in zip(table.iterrows(), looks, strict=False):
        one = row.to_frame().T
        ax.errorbar(
            one[x],
            one[y],
            xerr=_errors(one, x),
            yerr=_errors(one, y),
            fmt=marker,
            color=colour,
            elinewidth=1,
            zorder=3,
        )
        start = (row[f"{x}_before"], row[f"{y}_before"])
        look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1, "linestyle": DASHED}
        ax.annotate("", (row[x], row[y]), start, arrowprops=look)
        _note_at(ax, _word(row[label]), row[x], row[y], (6, 5), colour, weight="bold")
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
    ax = _axes(target)
    ends = []
    for name, rows, colour, marker in _series(table, group):
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
    _label_ends(ax, ends)
    return _labelled(ax, xlabel or x, ylabel or y)


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
    ax = _axes(target)
    names = list(dict.fromkeys(table[label]))
    groups = list(_series(table, group))
    for index, (name, rows, colour, marker) in enumerate(groups):
        shift = (index - (len(groups) - 1) / 2) * 0.6 / max(len(groups), 1)
        places = np.array([names.index(word) for word in rows[label]]) + shift
        ax.errorbar(
            rows[value],
            places,
            xerr=_errors(rows, value),
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
            _note_at(ax, name, end, places[0], (6, 0), colour, va="center")
    ax.set_yticks(range(len(names)), [_word(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    return _labelled(ax, xlabel or value, None)


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
    null_band(ax, 0, label="nothing", axis="x")
    null_band(ax, 1, label="enough", axis="x")
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
    ax = _axes(target)
    colours = colours or dict(zip(parts, SERIES_COLOURS, strict=False))
    places = np.arange(len(table))
    left = np.zeros(len(table))
    for part in parts:
        widths = table[part].to_numpy(dtype=float)
        ax.barh(places, widths, 0.62, left, color=colours[part], edgecolor=PAPER, linewidth=1.2)
        for place, start, width in zip(places, left, widths, strict=True):
            if width > 0.07:
                text = f"{part.replace('_', ' ')}\n{width:.0%}" if place == 0 else f"{width:.0%}"
                colour = _on(colours[part])
                middle = start + width / 2
                ax.text(middle, place, text, color=colour, ha="center", va="center", fontsize=8)
        left += widths
    ax.set_yticks(places, [_word(name) for name in table[label]])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return _labelled(ax, xlabel, None)


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
    near, far = _errors(table, rows), _errors(table, columns)[::-1]
    look = {"fmt": "|", "color": INK, "elinewidth": 1.4, "markersize": 7, "markeredgewidth": 1.4}
    ax.errorbar(table[rows], places, xerr=near, **look)
    ax.errorbar(1 - table[columns], places, xerr=far, **look)
    if after is not None:
        ax.axhline(after - 0.45, color=MUTED, linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_ylim(len(table) - 0.4, -0.5)
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
    ax = _axes(target)
    edges = np.histogram_bin_edges(table[value].dropna(), bins)
    for name, rows, colour, _ in _series(table, group):
        counts, _ = np.histogram(rows[value].dropna(), edges)
        heights = counts / max(counts.sum(), 1)
        ax.stairs(heights, edges, color=colour, linewidth=1.6)
        ax.stairs(heights, edges, color=colour, fill=True, alpha=0.14)
        if name is not None:
            peak = int(heights.argmax())
            middle = (edges[peak] + edges[peak + 1]) / 2
            _note_at(ax, name, middle, heights[peak], (0, 3), colour, "center", "bottom")
    ax.set_ylim(bottom=0)
    ax.margins(y=0.15)
    return _labelled(ax, xlabel or value, "share of each group")


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
    ax = _axes(target)
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
            ink = _on(colour)
            ax.text(column, row, text, color=ink, ha="center", va="center", fontsize=8)
    ax.set_xlim(-0.5, values.shape[1] - 0.5)
    ax.set_ylim(values.shape[0] - 0.5, -0.5)
    ax.set_xticks(range(values.shape[1]), [_word(name) for name in table.columns])
    ax.set_yticks(range(values.shape[0]), [_word(name) for name in table.index])
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return _labelled(ax, xlabel, ylabel)


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
    ax = _axes(target)
    rows, titles = (list(dict.fromkeys(table[name])) for name in ("row", "title"))
    wide = {title: table[table.title == title].effect.notna().any() for title in titles}
    starts, edge = {}, 0.0
    for title in titles:
        starts[title] = edge
        edge += 1.0 if wide[title] else 0.3
    reach = np.arcsinh(widest) * 1.15

    def across(title: str, effect: Any) -> Any:
        return starts[title] + 0.5 + 0.5 * np.arcsinh(np.clip(effect, -widest, widest)) / reach

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
            middle = starts[cell.title] + (0.5 if wide[cell.title] else 0.15)
            mark = states[cell.state][0]
            ax.plot(middle, y, mark, color=MUTED, markersize=4.5, markerfacecolor="none")
            continue
        colour = NULL if cell.state in states else (ACCENT if cell.effect_low > 1 else INK)
        ends = across(cell.title, np.array([cell.effect_low, cell.effect_high]))
        ax.hlines(y, *ends, color=colour, linewidth=2, zorder=2)
        mark = "o" if abs(cell.effect) <= widest else "><"[cell.effect < 0]
        fill = colour if cell.control else PAPER
        x = across(cell.title, cell.effect)
        ax.plot(x, y, mark, color=colour, markerfacecolor=fill, markersize=5, zorder=3)
    centres = [starts[title] + (0.5 if wide[title] else 0.15) for title in titles]
    ax.set_xticks(centres, titles, rotation=90)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlim(0, edge)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    _survival_key(ax, [title for title in titles if wide[title]], across, states, table)
    return ax


def _survival_key(
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


def scatter(
    target: Figure | Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    label: str | None = None,
    group: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Axes:
    """One dot a row, with its intervals; `label` names dots, so give it a few only."""
    ax = _axes(target)
    for name, rows, colour, marker in _series(table, group):
        ax.errorbar(
            rows[x],
            rows[y],
            xerr=_errors(rows, x),
            yerr=_errors(rows, y),
            fmt=marker,
            color=colour,
            alpha=0.75,
            elinewidth=1,
            markeredgewidth=0,
        )
        if label:
            for _, row in rows[rows[label].astype(str) != ""].iterrows():
                _note_at(ax, _word(row[label]), row[x], row[y], (5, 4), INK)
        if name is not None:
            ax.plot([], [], marker, color=colour, label=name)
    if group is not None:
        ax.legend(frameon=False, loc="best", handletextpad=0.2)
    return _labelled(ax, xlabel or x, ylabel or y)


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
    ax = _axes(target)
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
    _note_at(ax, "by chance", ends[0], 1, (0, 3), MUTED)
    _note_at(ax, "fit", ends[-1], ends[-1] ** slope, (-3, 5), SERIES_COLOURS[1], "right")
    order = np.argsort(up, kind="stable")
    for row in [*order[:count], *order[len(order) - count :]] if label else ():
        _note_at(
            ax, _word(table[label].iloc[row]), table[x].iloc[row], table[y].iloc[row], (4, 3), INK
        )
    return _labelled(ax, xlabel or x, ylabel or y)


def flow(
    target: Figure | Axes,
    steps: Sequence[tuple[str, str]],
    columns: int = 4,
    marked: Sequence[str] = (),
) -> Axes:
    """Boxes joined by arrows, row by row: a name and a line about it; `marked` names stand out."""
    ax = _axes(target)
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


def scatter_with_extremes(
    fig: Figure,
    table: pd.DataFrame,
    x: str,
    y: str,
    images: np.ndarray,
    label: str | None = None,
    count: int = 4,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Axes:
    """A scatter between two strips: the images of the lowest and of the highest `x`, lowest first.

    `images` (n, H, W, 3), one a row of `table`, shown pixel for pixel.
    """
    if len(images) != len(table):
        raise EssayError(f"{len(table)} rows and {len(images)} images: pass one image a row.")
    order = np.argsort(table[x].to_numpy(), kind="stable")
    count = min(count, len(order) // 2)
    height, width = np.asarray(images).shape[1:3]
    names = _wrapped([_word(name) for name in table[label]], width + 16) if label else None
    extremes = [*order[:count], *order[-count:]]
    pad = 12
    cell = height + _lines([names[index] for index in extremes] if names else None) * LINE + pad
    total = (round(WIDTH * DPI), max(count * cell + 2 * pad + LINE, round(3.4 * DPI)))
    fig.set_layout_engine("none")
    fig.set_dpi(DPI)
    fig.set_size_inches(total[0] / DPI, total[1] / DPI)

    strip = width + 2 * pad
    room = round(0.62 * DPI)
    plot = (strip + room, pad, total[0] - 2 * strip - room - pad, total[1] - pad - room)
    ax = _pixel_axes(fig, plot, total)
    ax.set_axis_on()
    ax.scatter(table[x], table[y], s=10, color=MUTED, alpha=0.35, linewidth=0)
    for ends, left, colour in (
        (order[:count], pad, SERIES_COLOURS[1]),
        (order[-count:], total[0] - width - pad, SERIES_COLOURS[0]),
    ):
        ax.scatter(table[x].iloc[ends], table[y].iloc[ends], s=26, color=colour, zorder=3)
        for place, index in enumerate(ends):
            top = pad + LINE + place * cell
            picture = _pixel_axes(fig, (left, top, width, height), total)
            picture.imshow(to_uint8(images[index]), interpolation="none", aspect="auto")
            if place == 0:
                end = "lowest" if left == pad else "highest"
                _note(picture, end, (0.5, 1), (0, 3), "center", "bottom", colour, "bold")
            if names:
                _note(picture, names[index], (0.5, 0), (0, -2), "center", "top")
    return _labelled(ax, xlabel or x, ylabel or y)


def null_band(
    ax: Axes,
    low: float,
    high: float | None = None,
    label: str = "chance",
    axis: str = "y",
    side: str = "left",
) -> None:
    """Draw what there would be if nothing were there: a dashed line, or a band from low to high.

    A level one is named at its `side`, "left" or "right".
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
        offset, alignment = (-3 if right else 3, 2), (side, "bottom")
    else:
        place, coordinates, offset = (edge, 1), ax.get_xaxis_transform(), (0, 3)
        alignment = ("center", "bottom")
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
    _note_at(ax, label, place, high, (0, 3), MUTED, "center", "bottom")


def to_uint8(image: Any) -> np.ndarray:
    """An image (PIL, or array of 0..255 integers or 0..1 floats) as uint8 (H, W, 3) on white."""
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f":
        pixels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, -1)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype != np.uint8:
        raise EssayError(
            f"Not an image: array of shape {pixels.shape}, {pixels.dtype}; pass (H, W, 3) or "
            "(H, W, 4), uint8 or floats from 0 to 1."
        )
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float64) / 255
        pixels = (pixels[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return pixels


def _axes(target: Figure | Axes) -> Axes:
    if isinstance(target, Axes):
        return target
    return target.axes[0] if target.axes else target.add_subplot()


def _series(
    table: pd.DataFrame, group: str | None
) -> Iterator[tuple[str | None, pd.DataFrame, str, str]]:
    """Each group's name, rows, colour and marker; vendors keep theirs throughout the book."""
    if group is None:
        yield None, table, ACCENT, "o"
        return
    for index, name in enumerate(dict.fromkeys(table[group])):
        colour = VENDOR_COLOURS.get(name, SERIES_COLOURS[index % len(SERIES_COLOURS)])
        marker = VENDOR_MARKERS.get(name, SERIES_MARKERS[index % len(SERIES_MARKERS)])
        yield _word(name), table[table[group] == name], colour, marker


def _errors(rows: pd.DataFrame, column: str) -> np.ndarray | None:
    if f"{column}_low" not in rows:
        return None
    below = rows[column] - rows[f"{column}_low"]
    above = rows[f"{column}_high"] - rows[column]
    return np.maximum(np.stack([below, above]).astype(float), 0)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _every(points: int) -> int:
    return max(1, points // 12)


def _label_ends(ax: Axes, ends: list[tuple[str, float, float, str]]) -> None:
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


def _note_at(
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
    )


def _note(
    ax: Axes,
    text: str,
    place: tuple[float, float],
    offset: tuple[float, float],
    ha: str,
    va: str,
    colour: str = INK,
    weight: str = "normal",
) -> None:
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
        annotation_clip=False,
    )


def _labelled(ax: Axes, xlabel: str | None, ylabel: str | None) -> Axes:
    if xlabel:
        ax.set_xlabel(xlabel.replace("_", " "))
    if ylabel:
        ax.set_ylabel(ylabel.replace("_", " "))
    return ax


def _pixel_axes(fig: Figure, box: tuple[int, int, int, int], total: tuple[int, int]) -> Axes:
    """Bare axes on whole pixels: box is (left, top, width, height) from the top left corner."""
    left, top, width, height = box
    ax = fig.add_axes(
        (
            left / total[0],
            (total[1] - top - height) / total[1],
            width / total[0],
            height / total[1],
        )
    )
    ax.set_axis_off()
    return ax


def _cells(images: Any, columns: int | None) -> tuple[list[Any], int]:
    """Images as one list, with the number of columns."""
    images = list(images)
    if images and isinstance(images[0], np.ndarray) and images[0].ndim == 4:
        images = [list(row) for row in images]
    if images and isinstance(images[0], (list, tuple)):
        columns = columns or max(map(len, images))
        if any(len(row) > columns for row in images):
            raise EssayError(f"A row holds more than {columns} images.")
        images = [cell for row in images for cell in [*row, *[None] * (columns - len(row))]]
    columns = columns or min(len(images), 8)
    if columns < 1:
        raise EssayError("image_grid needs at least one image and one column.")
    return images, columns


def _check_count(name: str, labels: Sequence[str] | None, count: int) -> None:
    if labels is not None and len(labels) != count:
        raise EssayError(f"{name} has {len(labels)} entries for {count} places.")


def _lines(labels: Sequence[str] | None) -> int:
    return max(text.count("\n") + 1 for text in labels) if labels else 0


def _wrapped(labels: Sequence[str] | None, pixels: int) -> list[str] | None:
    """Labels broken into lines that fit into `pixels`."""
    if labels is None:
        return None
    letters = max(6, int(pixels / LETTER))
    return [
        "\n".join(part for line in str(text).split("\n") for part in wrap(line, letters) or [""])
        for text in labels
    ]


def _on(colour: Any) -> str:
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
