"""Fixtures that several tests share."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """An empty book in a folder of its own: no chapters, no corpus, no models."""
    from essaylib import figures, glue

    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    monkeypatch.delenv("ESSAY_CHAPTER", raising=False)
    monkeypatch.setattr(glue, "_current", None)
    monkeypatch.setattr(figures, "_drawn", {})
    return tmp_path
