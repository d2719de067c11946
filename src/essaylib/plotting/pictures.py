"""Figures that show images, pixel for pixel."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from essaylib.errors import EssayError
from essaylib.plotting.house import (
    DPI,
    HEAT,
    LETTER,
    MUTED,
    NARROW,
    NO_ONE,
    RC,
    SERIES_COLOURS,
    VENDOR_COLOURS,
    WIDTH,
)
from essaylib.plotting.marks import labelled, note, word


def image_grid(
    fig: Figure,
    images: Sequence[Any] | np.ndarray,
    columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    scale: int | None = None,
    gap: int = 8,
    points: float | None = None,
) -> list[Axes]:
    """Show images of one size in rows, each of their pixels as a whole number of screen pixels.

    Nothing is resampled: an image pixel becomes `scale` × `scale` pixels of the saved file (by
    default as many as the page's column holds), and the figure takes the size that this needs.
    `images` is n images or rows of images, uint8 or 0..1 floats, grey, RGB, or RGBA (set on
    white); None leaves a place empty. `labels` are written under the images. Text is `points` tall,
    or as the sheet is wide: a telephone shrinks wide ones. Returns the axes, row by row.
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

    points = points or (9 if scale == 1 else 11)
    left = gap + max((_width(text, points) for text in row_labels or ()), default=0)
    if scale is None:
        scale = max(1, int((WIDTH * DPI - left - columns * gap) // (columns * width)))
    width, height = width * scale, height * scale
    column_labels, labels = (
        _wrapped(given, width + gap, points) for given in (column_labels, labels)
    )
    head = _lines(column_labels) * _line(points) + gap
    written = [
        labels[row * columns : (row + 1) * columns] if labels else None for row in range(rows)
    ]
    feet = [_lines(row) * _line(points) for row in written]
    total = (left + columns * (width + gap), head + rows * (height + gap) + sum(feet))
    _set_pixels(fig, total)

    axes = []
    for index, cell in enumerate(pixels):
        row, column = divmod(index, columns)
        x = left + column * (width + gap)
        y = head + row * (height + gap) + sum(feet[:row])
        ax = _pixel_axes(fig, (x, y, width, height), total)
        axes.append(ax)
        if cell is not None:
            ax.imshow(cell.repeat(scale, 0).repeat(scale, 1), interpolation="none", aspect="auto")
        if labels:
            note(ax, labels[index], (0.5, 0), (0, -3), "center", "top", points=points)
        if row_labels and column == 0:
            note(ax, row_labels[row], (0, 0.5), (-4, 0), "right", "center", points=points)
        if column_labels and row == 0:
            note(ax, column_labels[column], (0.5, 1), (0, 3), "center", "bottom", points=points)
    return axes


def parcel_map(
    fig: Figure,
    pictures: np.ndarray,
    pieces: Sequence[Any],
    makers: Sequence[str],
    labels: Sequence[str],
    borrowed: Sequence[float],
    scale: int = 2,
) -> list[Axes]:
    """A picture a row; the training patches that stand for its own; whose these are, and how many.

    `pieces` holds for each of `pictures` (n, H, W, 3) what `neighbours.Matches.of` returns;
    `makers` the vendor of each training drawing; `borrowed` the share written under each map.
    Patches that no training patch is near are grey; a spot marks those of the drawing that supplies
    most. What has no patch stays white.
    """
    colours = {**VENDOR_COLOURS, "none": NO_ONE}
    cells: list[Any] = []
    taken = []
    for picture, found in zip(pictures, pieces, strict=True):
        names = np.where(found.near, np.asarray(makers, dtype=object)[found.source], "none")
        flags = np.array([to_rgb(colours[name]) for name in names]).reshape(-1, 3)
        flags = np.broadcast_to(255 * flags[:, None, None], found.pixels.shape).astype(np.uint8)
        third = flags.shape[1] // 3
        flags[found.main, third:-third, third:-third] = 255
        cells.append(
            [picture, *(mosaic(picture, found.place, x) for x in (found.pixels, flags)), None]
        )
        taken.append([(names == name).mean() for name in colours])
    under = [
        text
        for label, part in zip(labels, borrowed, strict=True)
        for text in (label, "", f"borrowed {part:.0%}", "")
    ]
    heads = ["the picture", "nearest patches", "published by", ""]
    axes = image_grid(fig, cells, labels=under, column_labels=heads, scale=scale)
    for ax, shares in zip(axes[3::4], taken, strict=True):
        ax.set(xlim=(0, 1), ylim=(0, 1))
        for line, ((name, colour), share) in enumerate(zip(colours.items(), shares, strict=True)):
            y = 0.88 - 0.19 * line
            ax.add_patch(Rectangle((0.02, y - 0.05), 0.1, 0.1, facecolor=colour))
            ax.text(0.17, y, f"{name} {share:.0%}", va="center", fontsize=11)
    return axes


def ledger_rows(
    fig: Figure,
    asked: Mapping[str, np.ndarray],
    credited: Mapping[str, np.ndarray],
    makers: Mapping[str, Sequence[str]],
    paid: Mapping[str, Mapping[str, float]],
    scale: int = 1,
) -> list[Axes]:
    """What is accounted for, and below it, a ledger a row, what is credited most and who is paid.

    `asked` holds pictures (H, W, 3) by the word under them. By the ledger's name: `credited` holds
    drawings (k, H, W, 3), framed in the colours of their `makers` (k,) and named by them; `paid`
    the vendors' shares.
    """
    width = len(next(iter(credited.values()))) + 2  # room for the shares
    cells: list[list[Any]] = [[*asked.values()], *([*drawings] for drawings in credited.values())]
    cells = [row + [None] * (width - len(row)) for row in cells]
    words = [[*asked], *([*makers[name]] for name in credited)]
    under = [word for row in words for word in row + [""] * (width - len(row))]
    axes = image_grid(fig, cells, row_labels=["", *credited], labels=under, scale=scale)
    for row, name in enumerate(credited, start=1):
        here = axes[row * width : (row + 1) * width]
        for ax, maker in zip(here, makers[name], strict=False):
            look = {"edgecolor": VENDOR_COLOURS[maker], "linewidth": 4, "facecolor": "none"}
            ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, **look))
        for line, (vendor, colour) in enumerate(VENDOR_COLOURS.items()):
            text, top = f"{paid[name][vendor]:.0%} {vendor}", 0.98 - 0.27 * line
            here[-2].text(0.06, top, text, color=colour, fontsize=9, va="top")
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
    """A scatter between two strips: the images of the lowest `x` above it, of the highest below.

    `images` (n, H, W, 3), one a row of `table`, shown pixel for pixel, lowest first.
    """
    if len(images) != len(table):
        raise EssayError(f"{len(table)} rows and {len(images)} images: pass one image a row.")
    order = np.argsort(table[x].to_numpy(), kind="stable")
    count = min(count, len(order) // 2)
    strips = (order[:count], order[-count:])
    height, width = np.asarray(images).shape[1:3]
    pad = 12
    column = max(round(NARROW * DPI) // max(count, 1), width + pad)
    names = _wrapped([word(name) for name in table[label]], column - pad) if label else None
    feet = [_lines([names[i] for i in ends] if names else None) * _line() for ends in strips]
    tall = [_line() + height + foot + 2 * pad for foot in feet]
    room, middle = round(0.62 * DPI), round(3.2 * DPI)
    total = (count * column, tall[0] + middle + room + tall[1])
    _set_pixels(fig, total)

    ax = _pixel_axes(fig, (room, tall[0], total[0] - room - pad, middle), total)
    ax.set_axis_on()
    ax.scatter(table[x], table[y], s=10, color=MUTED, alpha=0.35, linewidth=0)
    tops, colours = (0, total[1] - tall[1]), (SERIES_COLOURS[1], SERIES_COLOURS[0])
    for ends, top, colour, end in zip(strips, tops, colours, ("lowest", "highest"), strict=True):
        ax.scatter(table[x].iloc[ends], table[y].iloc[ends], s=26, color=colour, zorder=3)
        for place, index in enumerate(ends):
            left = place * column + (column - width) // 2
            picture = _pixel_axes(fig, (left, top + _line() + pad, width, height), total)
            picture.imshow(to_uint8(images[index]), interpolation="none", aspect="auto")
            if place == 0:
                note(picture, end, (0, 1), (0, 3), "left", "bottom", colour, "bold")
            if names:
                note(picture, names[index], (0.5, 0), (0, -2), "center", "top")
    return labelled(ax, xlabel or x, ylabel or y)


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


def _set_pixels(fig: Figure, total: tuple[int, int]) -> None:
    """Give the figure a size of whole pixels, and leave every place in it as it is set."""
    fig.set_layout_engine("none")
    fig.set_dpi(DPI)
    fig.set_size_inches(total[0] / DPI, total[1] / DPI)


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


def _line(points: float = 9) -> int:
    """Pixels that a line of text takes."""
    return round(points / 72 * DPI * 1.4)


def _width(text: str, points: float = 9) -> int:
    """Pixels that the longest line of a text takes, with a little room beside it."""
    face = FontProperties(family=RC["font.family"])
    lines = [line for line in text.split("\n") if line.strip()]
    paths = [TextPath((0, 0), line, size=points, prop=face) for line in lines]
    widest = max((path.get_extents().width for path in paths), default=0)
    return round((widest + points / 2) / 72 * DPI)


def _wrapped(labels: Sequence[str] | None, pixels: int, points: float = 9) -> list[str] | None:
    """Labels broken into lines that fit into `pixels`."""
    if labels is None:
        return None
    letters = max(6, int(pixels / LETTER * 9 / points))
    return [
        "\n".join(
            part
            for line in str(text).split("\n")
            for part in wrap(line, letters, break_long_words=False) or [""]
        )
        for text in labels
    ]
