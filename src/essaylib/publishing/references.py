"""The works that the book cites, as text: for notebooks, which no bibliography tool ever sees."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from essaylib import paths
from essaylib.errors import EssayError

if TYPE_CHECKING:
    from pybtex.database import BibliographyData, Entry


def label(key: str, textual: bool = False) -> str:
    """A work by author and year, linked: [Ho and Salimans, 2022](…); textual: … (2022)."""
    entry = _entry(key)
    year = entry.fields.get("year", "n.d.")
    words = f"{_authors(entry)} ({year})" if textual else f"{_authors(entry)}, {year}"
    address = _address(entry)
    return f"[{words}]({address})" if address else words


def works(keys: list[str]) -> list[str]:
    """The entries of these works as Markdown, in the order of authors and years."""
    from pybtex.backends.markdown import Backend
    from pybtex.database import BibliographyData
    from pybtex.style.formatting.plain import Style

    chosen = BibliographyData({key: _entry(key) for key in keys})
    texts = [entry.text.render(Backend("utf-8")) for entry in Style().format_bibliography(chosen)]
    # The backend escapes marks that matter nowhere in a sentence; \( would even begin a formula.
    return [re.sub(r"\\([-.()+!#])", r"\1", " ".join(text.split())) for text in texts]


def _entry(key: str) -> Entry:
    found = _bibliography(paths.book() / "references.bib").entries
    if key not in found:
        raise EssayError(f"No work {key!r} in book/references.bib: add it, or mend the key.")
    return found[key]


@lru_cache(maxsize=2)
def _bibliography(path: Path) -> BibliographyData:
    from pybtex.database import parse_file

    return parse_file(str(path), bib_format="bibtex")


def _authors(entry: Entry) -> str:
    from pybtex.richtext import Text

    people = entry.persons.get("author") or entry.persons.get("editor") or []
    if not people:
        return str(Text.from_latex(entry.fields["title"]))
    names = [
        str(Text.from_latex(" ".join([*person.prelast_names, *person.last_names])))
        for person in people
    ]
    return f"{names[0]} et al." if len(names) > 2 or "others" in names else " and ".join(names)


def _address(entry: Entry) -> str:
    fields = entry.fields
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if fields.get("archivePrefix", "").lower() == "arxiv":
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return fields.get("url", "")
