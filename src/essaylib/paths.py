"""Where the book's parts lie.

Every path hangs on the repository root, because corpus, models and chapters are shipped with the
code (an editable install). `ESSAY_ROOT` points elsewhere, for tests and for a second checkout.
"""

import os
from pathlib import Path

from essaylib.errors import EssayError


def root() -> Path:
    """Return the repository root; raise `EssayError` where there is none."""
    # Chapters run in other folders: a root that was given as a relative path must not move.
    folder = Path(os.environ.get("ESSAY_ROOT") or Path(__file__).parents[2]).expanduser().resolve()
    if not (folder / "_toc.yml").is_file():
        raise EssayError(
            f"No book found at {folder}: essaylib reads the corpus, models and chapters from its "
            "repository. Clone it and `pip install -e .` there, or set ESSAY_ROOT to the clone."
        )
    return folder


def book() -> Path:
    """Chapters, bibliography, claims and locks."""
    return root() / "book"


def corpus() -> Path:
    """The corpus: one row a drawing."""
    return root() / "data" / "corpus" / "corpus.parquet"


def names() -> Path:
    """The concepts' names in every language that CLDR gives."""
    return root() / "data" / "corpus" / "names.parquet"


def runs() -> Path:
    """Declared runs: latents drawn once, with their provenance."""
    return root() / "data" / "runs"


def models() -> Path:
    """The embedded model, its second CLIP and the judge."""
    return root() / "models"


def build() -> Path:
    """Everything that can be made again."""
    return root() / "_build"
