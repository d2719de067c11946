"""The head of a chapter: its claim and verdict, how long it takes, how to run and how to cite it.

All of it is known when the book is built: claims come from `book/claims.yml`, verdicts from what
the chapters recorded. A chapter's prose states its claim too, since a notebook has no head; on the
page, where the head says it, that paragraph is left out.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from essaylib import citation, claims, paths
from essaylib.publishing import cite, notebooks
from essaylib.publishing.chapters import Chapter, part_of
from essaylib.publishing.report import read_report
from essaylib.publishing.templating import render
from essaylib.rules import Claim

if TYPE_CHECKING:
    from nbformat import NotebookNode

WORDS_A_MINUTE = 220

STATED = re.compile(
    r"^\*\*The claims?, as this book states (?:it|them)\.\*\*(.*?)(?:\n\n|\Z)", re.M | re.S
)
"""The paragraph in which a chapter's prose states its claim."""

_NO_PROSE = re.compile(r"^(`{3,}|~{3,}|\${2}).*?^\1`*$|<[^>]*>|^\(.*\)=$|\{[\w:-]+\}", re.M | re.S)
_TITLE = re.compile(r"\A\s*# .+$(\n+\*[^*\n]+\*$)?", re.M)
"""A page's title and, where there is one, the line in italics below it: its subtitle."""


def add(chapter: Chapter, notebook: NotebookNode) -> None:
    """Put the head behind a notebook's title, and take out what it says already."""
    first = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    minutes = reading_minutes(notebook)
    text = first.source
    stated = claims_of(chapter)
    if (found := STATED.search(text)) and _same(found[1], stated):
        text = text[: found.start()] + text[found.end() :]
    title = _TITLE.match(text)
    if title is None:
        return
    head = block(head_html(chapter, stated, minutes))
    first.source = f"{title[0]}\n\n{head}\n\n{text[title.end() :].lstrip()}"


def head_html(chapter: Chapter, stated: list[Claim], minutes: int) -> str:
    """Return a chapter's head as HTML."""
    verdicts = claims.recorded() if stated else {}
    cited = citation.part("chapter", chapter.id, cite.heading(chapter.path))
    return render(
        "head.html",
        chapter=chapter,
        up="../" * chapter.page.count("/"),
        part=part_of(chapter.page),
        minutes=minutes,
        seconds=_seconds(chapter),
        claims=[{"claim": claim, "found": verdicts.get(claim.id)} for claim in stated],
        formats=[
            (name, style, cite.write(cited, style))
            for name, style in (("In words", "text"), ("BibTeX", "bibtex"))
        ],
        notebook=notebooks.place(chapter.id),
        colab=notebooks.colab(chapter.id),
    )


def claims_of(chapter: Chapter) -> list[Claim]:
    """The claims that a chapter argues, as registered."""
    if not (paths.book() / "claims.yml").is_file():
        return []
    return [claim for claim in claims.load() if claim.chapter == chapter.id]


def reading_minutes(notebook: NotebookNode) -> int:
    """Minutes to read a notebook's prose, at 220 words a minute; code and formulas not counted."""
    prose = " ".join(
        _NO_PROSE.sub(" ", cell.source) for cell in notebook.cells if cell.cell_type == "markdown"
    )
    return max(1, math.ceil(len(re.findall(r"[^\W\d_][\w’'-]*", prose)) / WORDS_A_MINUTE))


def block(html: str) -> str:
    """HTML that Markdown takes as one block: without blank lines."""
    return "\n".join(line for line in html.splitlines() if line.strip())


def _same(text: str, stated: list[Claim]) -> bool:
    """Whether a paragraph says the registered sentences and nothing else."""
    rest = plain(text)
    for claim in stated:
        rest = rest.replace(plain(claim.sentence), "")
    return bool(stated) and not rest.strip()


def plain(text: str) -> str:
    """Text without markup, roles, line breaks and typographic apostrophes, to be compared."""
    text = re.sub(r"\{[\w:-]+\}`([^`<]*?)\s*(?:<[^>]*>)?`", r"\1", text)
    return " ".join(re.sub(r"[*_`]", "", text).replace("’", "'").split())


def _seconds(chapter: Chapter) -> float | None:
    found: dict[str, Any] = {entry.id: entry.seconds for entry in read_report().chapters}
    return found.get(chapter.id) or None
