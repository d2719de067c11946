"""The picture that stands for a page where someone passes its address on (Open Graph).

A card is 1200 by 630 pixels: the book, the page's title, and a figure of the page. SVG figures need
`resvg-py`; where it is not installed, a card has words alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from essaylib import paths
from essaylib.plotting import INK, MUTED, PAPER, VENDOR_COLOURS

if TYPE_CHECKING:
    from PIL import Image, ImageFont

SIZE = (1200, 630)
MARGIN = 64
COLUMN = 500
"""Width of the words beside a figure."""

WIDE = 2.0
"""From this ratio of width to height on, a figure lies below the title."""


SERIF = "source-serif-4-latin-wght-normal.woff2"
SANS = "source-sans-3-latin-wght-normal.woff2"


def card(over: str, title: str, picture: Path | None) -> bytes:
    """Return a card as PNG: a line above, a title, and a figure's image (PNG or SVG) below.

    It is kept in `_build/cards` and made anew when any of these changes.
    """
    image = picture.read_bytes() if picture else b""
    told = json.dumps([over, title]).encode() + Path(__file__).read_bytes()
    kept = paths.build() / "cards" / f"{hashlib.sha256(told + image).hexdigest()[:24]}.png"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(_draw(over, title, picture))
    return kept.read_bytes()


def _draw(over: str, title: str, picture: Path | None) -> bytes:
    """Wide figures lie below the title; others stand beside it, cut at the foot of the card."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", SIZE, PAPER)
    pen = ImageDraw.Draw(page)
    side = SIZE[1] / len(VENDOR_COLOURS)
    for index, colour in enumerate(VENDOR_COLOURS.values()):
        pen.rectangle((0, index * side, 15, (index + 1) * side), fill=colour)
    figure = _opened(picture) if picture else None
    beside = figure is not None and figure.width < WIDE * figure.height
    width = COLUMN if beside else SIZE[0] - 2 * MARGIN
    pen.multiline_text(
        (MARGIN, 48),
        "\n".join(_wrapped(over, _font(SANS, 28, 500), width)),
        fill=MUTED,
        font=_font(SANS, 28, 500),
    )
    lines, size = _fitted(title, width, 5 if beside else 2)
    top = 140 if beside else 96
    pen.multiline_text(
        (MARGIN, top), "\n".join(lines), fill=INK, font=_font(SERIF, size, 620), spacing=10
    )
    if figure is not None and beside:
        left = MARGIN + COLUMN + 40
        figure = _scaled(figure, (SIZE[0] - left - 40) / figure.width)
        page.paste(figure, (left, max(48, (SIZE[1] - figure.height) // 2)))
    elif figure is not None:
        free = SIZE[1] - top - len(lines) * round(size * 1.32) - 36 - 40
        figure = _scaled(figure, min(width / figure.width, free / figure.height))
        page.paste(figure, (MARGIN, SIZE[1] - 40 - figure.height))
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _fitted(title: str, width: int, most: int) -> tuple[list[str], int]:
    """The title's lines and their size in pixels: smaller where it is long, cut where too long."""
    for size in (64, 56, 48, 40):
        lines = _wrapped(title, _font(SERIF, size, 620), width)
        if len(lines) <= most:
            return lines, size
    return [*lines[: most - 1], lines[most - 1].rstrip(" ,;:") + " …"], size


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of words, none wider than `width` pixels unless it is one word."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _opened(picture: Path) -> Image.Image | None:
    from PIL import Image

    if picture.suffix != ".svg":
        return Image.open(picture).convert("RGB")
    try:
        import resvg_py
    except ImportError:
        return None
    drawn = resvg_py.svg_to_bytes(
        svg_string=picture.read_text("utf-8"), width=2400, dpi=96, skip_system_fonts=True
    )
    return Image.open(io.BytesIO(bytes(drawn))).convert("RGB")


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    from PIL import Image

    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.LANCZOS)


@lru_cache(maxsize=16)
def _font(name: str, size: int, weight: int) -> ImageFont.FreeTypeFont:
    """The book's own typeface; Matplotlib's, where the font library reads no WOFF2."""
    from matplotlib import font_manager
    from PIL import ImageFont

    try:
        font = ImageFont.truetype(str(paths.book() / "_static/fonts" / name), size)
        font.set_variation_by_axes([weight])
    except (OSError, NotImplementedError):
        family = "DejaVu Serif" if name == SERIF else "DejaVu Sans"
        font = ImageFont.truetype(font_manager.findfont(family), round(size * 0.86))
    return font
