"""To write and to try: a new chapter from the template, a chapter's notebook in JupyterLab."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from essaylib import paths
from essaylib.errors import EssayError
from essaylib.publishing import notebooks
from essaylib.publishing.chapters import chapters, pages

TEMPLATE = Path(__file__).parent / "templates" / "chapter.md"
"""A chapter that runs as it stands; `NAME` and `TITLE` are what a new one has its own of."""

NAME = "new-chapter"
TITLE = "The title of the chapter"


def new(id: str, title: str | None = None) -> Path:
    """Write `book/<id>.md` from the template and return it.

    Raises `EssayError` for an id that cannot be one, and where there is such a page already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", id):
        raise EssayError(
            f"{id!r} is not a chapter id: write lower-case words joined by hyphens, such as "
            "'prompt-seed'. It becomes an address, and figures begin with it."
        )
    path = paths.book() / f"{id}.md"
    if path.exists() or f"book/{id}" in pages():
        raise EssayError(f"There is a page book/{id}.md already: choose another id.")
    text = TEMPLATE.read_text("utf-8").replace(NAME, id)
    path.write_text(text.replace(TITLE, title or id.replace("-", " ").capitalize()), "utf-8")
    return path


def copy(id: str, fresh: bool = False) -> Path:
    """A reader's own copy of a chapter as a notebook, `notebooks/<id>.ipynb`.

    One that is there is left as it is, unless `fresh`.
    """
    (chapter,) = chapters([id])
    path = paths.root() / notebooks.place(id)
    if fresh or not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(notebooks.write(notebooks.notebook(chapter)))
    return path


def jupyterlab(id: str, fresh: bool = False) -> int:
    """Open a reader's copy of a chapter in JupyterLab; return its exit status once it is closed."""
    chapters([id])  # an unknown one is said first
    if importlib.util.find_spec("jupyterlab") is None:
        raise EssayError(
            "JupyterLab is not installed. In the book's folder: "
            f"{sys.executable} -m pip install -e '.[lab]'"
        )
    command = [sys.executable, "-m", "jupyterlab", str(copy(id, fresh))]
    return subprocess.run(command, cwd=paths.root()).returncode
