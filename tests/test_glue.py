import builtins

import numpy as np
import pytest

from essaylib import glue
from essaylib.errors import EssayError


@pytest.mark.parametrize(
    ("value", "fmt", "text"),
    [
        (5901, None, "5,901"),
        (np.int64(5901), None, "5,901"),
        (0.123456, None, "0.123"),
        (np.float32(0.25), None, "0.25"),
        (0.256, ".0%", "26%"),
        (True, None, "True"),
        ("supported", None, "supported"),
    ],
)
def test_values_are_written_as_prose_shows_them(value, fmt, text):
    assert glue.as_text(value, fmt) == text


def test_a_format_that_does_not_fit_is_refused():
    with pytest.raises(EssayError, match="cannot be written as '.1%'"):
        glue.as_text("high", ".1%")


def test_a_glued_value_is_stored_for_the_page_and_not_shown(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    glue.glue("share", 0.256, ".0%")
    ((data,), options) = shown[0]
    assert data == {"application/papermill.record/text/plain": "'26%'"}
    assert options["metadata"]["scrapbook"]["name"] == "share"


@pytest.mark.parametrize("name", ["", "1st", "two words", "a:b"])
def test_names_that_a_role_cannot_hold_are_refused(name):
    with pytest.raises(EssayError, match="cannot be glued"):
        glue.glue(name, 1)


def test_glue_needs_no_notebook(monkeypatch):
    real = builtins.__import__

    def without_ipython(name, *args, **kwargs):
        if name.startswith("IPython"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_ipython)
    assert glue.glue("share", 0.5) is None


def test_a_chapter_is_what_figures_and_claims_will_record(sandbox):
    assert glue.current() is None
    chapter = glue.chapter("guidance", model="embedded", seed=0)
    assert glue.current() is chapter
    assert chapter.parameters == {"model": "embedded", "seed": 0}
    assert chapter.started.endswith("+00:00")


@pytest.mark.parametrize("id", ["", "Guidance", "a_b", "-a", "a--b", "a/b"])
def test_ids_are_file_names(sandbox, id):
    with pytest.raises(EssayError, match="not a chapter id"):
        glue.chapter(id)


def test_a_chapter_keeps_to_its_own_id(sandbox, monkeypatch):
    monkeypatch.setenv("ESSAY_CHAPTER", "guidance")
    with pytest.raises(EssayError, match="give it its own id"):
        glue.chapter("loss")
