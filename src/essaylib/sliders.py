"""Sliders for exploring: over pictures that are already drawn, or live in a notebook.

`frames` needs no kernel: the pictures are part of the page, and the browser's own range input
turns them, by pointer or keyboard. `live` calls the model anew through ipywidgets. Neither is
evidence; the figures are.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib.errors import EssayError

if TYPE_CHECKING:
    from IPython.display import HTML

# One handler for every slider: show the frame whose number the slider stands at.
_TURN = (
    "const box=this.closest('.essay-frames');"
    "box.querySelectorAll('img').forEach((image,i)=>{image.hidden=i!=this.value});"
    "const word=box.querySelectorAll('img')[this.value].dataset.word;"
    "box.querySelector('output').textContent=word;"
    "this.setAttribute('aria-valuetext',word)"
)


def frames(
    pictures: Sequence[np.ndarray],
    words: Sequence[str],
    label: str,
    alts: Sequence[str],
    start: int = 0,
) -> HTML:
    """Show one of several pictures, chosen by a slider that works without a kernel.

    `pictures` are uint8 (h, w, 3) of one size; `words` say where the slider stands ("w = 4");
    `label` says what it changes; `alts` describe each picture. The name is the input's own: a
    <label> around it would name the <output>, which comes first.
    """
    from IPython.display import HTML

    if not len(pictures) == len(words) == len(alts) or not len(pictures):
        raise EssayError(
            f"A slider needs as many words and alt texts as pictures: {len(pictures)}, "
            f"{len(words)} and {len(alts)} given."
        )
    if not 0 <= start < len(pictures):
        raise EssayError(f"start must lie between 0 and {len(pictures) - 1}, not {start}.")
    height, width = pictures[0].shape[:2]
    images = "".join(
        f'<img src="data:image/webp;base64,{_webp(picture)}" alt="{html.escape(alt)}" '
        f'data-word="{html.escape(word)}" width="{width}" height="{height}" '
        f'style="max-width:100%;height:auto;image-rendering:auto"{"" if i == start else " hidden"}>'
        for i, (picture, word, alt) in enumerate(zip(pictures, words, alts, strict=True))
    )
    return HTML(
        f'<div class="essay-frames">{images}<div style="margin-top:.5em">'
        f'{html.escape(label)}: <output aria-live="off">{html.escape(words[start])}</output></div>'
        f'<input type="range" min="0" max="{len(pictures) - 1}" step="1" value="{start}" '
        f'aria-label="{html.escape(label)}" aria-valuetext="{html.escape(words[start])}" '
        f'style="width:min(100%,24rem)" oninput="{html.escape(_TURN)}"></div>'
    )


def live(draw: Callable[[float], Any], values: Sequence[float], label: str) -> Any:
    """Return an ipywidgets slider over `values` that shows `draw(value)`; needs a running kernel.

    In the executed book, which has no kernel, nothing is shown: `frames` stands there.
    """
    if os.environ.get("ESSAY_CHAPTER"):
        return None
    import ipywidgets

    slider = ipywidgets.SelectionSlider(
        options=list(values), description=label, continuous_update=False
    )
    return ipywidgets.interactive(lambda value: draw(value), value=slider)


def strip(images: np.ndarray, gap: int = 4) -> np.ndarray:
    """Join uint8 images (n, h, w, 3) into one row on white, `gap` pixels apart."""
    images = np.asarray(images)
    n, height, width, _ = images.shape
    row = np.full((height, n * width + (n - 1) * gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        row[:, i * (width + gap) : i * (width + gap) + width] = image
    return row


def _webp(picture: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.asarray(picture, dtype=np.uint8)).save(buffer, "WEBP", quality=90, method=4)
    return base64.b64encode(buffer.getvalue()).decode()
