"""Sliders: what the page holds, without a browser; the browser's part is tested on the site."""

import re

import numpy as np
import pytest

from essaylib import sliders
from essaylib.errors import EssayError

PICTURES = [np.full((8, 12, 3), shade, np.uint8) for shade in (0, 128, 255)]
WORDS = ["w = 1", "w = 4", 'w = "7.5"']
ALTS = ["black", "grey", "white"]


def test_one_frame_is_shown_and_all_are_described():
    page = sliders.frames(PICTURES, WORDS, "guidance", ALTS, start=1).data
    images = re.findall(r"<img [^>]*>", page)
    assert [" hidden" in image for image in images] == [True, False, True]
    assert [re.search('alt="([^"]*)"', image)[1] for image in images] == ALTS
    assert '<input type="range" min="0" max="2" step="1" value="1"' in page
    assert '<output aria-live="off">w = 4</output>' in page
    assert 'aria-label="guidance" aria-valuetext="w = 4"' in page


def test_words_cannot_break_the_page():
    page = sliders.frames(PICTURES, WORDS, "<b>guidance</b>", ALTS).data
    assert "<b>" not in page and "w = &quot;7.5&quot;" in page


def test_everything_is_in_the_page():
    page = sliders.frames(PICTURES, WORDS, "guidance", ALTS).data
    assert "http" not in page and page.count("data:image/webp;base64,") == 3


@pytest.mark.parametrize(("words", "start"), [(WORDS[:2], 0), (WORDS, 3)])
def test_unfit_sliders_are_refused(words, start):
    with pytest.raises(EssayError):
        sliders.frames(PICTURES, words, "guidance", ALTS, start=start)


def test_strip_keeps_pixels_and_leaves_gaps():
    row = sliders.strip(np.stack([PICTURES[0], PICTURES[1]]), gap=2)
    assert row.shape == (8, 26, 3)
    assert (row[:, :12] == 0).all() and (row[:, 12:14] == 255).all() and (row[:, 14:] == 128).all()


def test_live_draws_what_the_slider_says(monkeypatch):
    monkeypatch.delenv("ESSAY_CHAPTER", raising=False)
    drawn = []
    widget = sliders.live(drawn.append, [1.0, 4.0], "guidance")
    widget.children[0].value = 4.0
    widget.update()
    assert drawn[-1] == 4.0


def test_live_is_silent_where_no_kernel_will_be(monkeypatch):
    monkeypatch.setenv("ESSAY_CHAPTER", "guidance")
    assert sliders.live(print, [1.0], "guidance") is None
