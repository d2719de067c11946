"""What the site has around its pages: the door, the page for what is not there, the sitemap, cards.

The parts here know every page from the table of contents and every figure from its provenance, so
none of them waits for Sphinx.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlsplit

import yaml

from essaylib import citation, figures, paths
from essaylib.publishing import cards, cite
from essaylib.publishing.chapters import chapters, pages
from essaylib.publishing.templating import render

CARDS = "_extra/cards"
"""Folder of the pages' cards in the stage; `index.json` says which page has which."""

_ICONS = "/* The theme's icons are drawn by icons.css: a megabyte and a half less to load. */\n"


def files(records: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Everything around the pages, as {path in the stage: content}.

    `records` are the provenances of the published figures, in book order.
    """
    made: dict[str, str | bytes] = {
        "_extra/index.html": door(),
        "_extra/404.html": missing(),
        "_extra/_static/scripts/fontawesome.js": _ICONS,
        **pictures(records),
    }
    if site := citation.addresses()[0]:
        made["_extra/sitemap.xml"] = sitemap(site, records)
    return {
        path: content if isinstance(content, bytes) else content.encode()
        for path, content in made.items()
    }


def pictures(records: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """A card for each chapter that shows a figure, one for each figure, and one for the book."""
    book = citation.book().title.partition(":")[0]
    made: dict[str, bytes] = {}
    first: dict[str, dict[str, str]] = {}
    for record in records:
        image = figures.folder(record["id"]) / record["image"]["file"]
        over = f"Figure {record['number']} · {book}"
        made[f"_extra/fig/{record['id']}/card.png"] = cards.card(over, record["title"], image)
        chapter = record["chapter"]
        if chapter and chapter not in first:
            title = book if chapter == "index" else cite.heading(paths.book() / f"{chapter}.md")
            over = "An executable companion" if chapter == "index" else book
            made[f"{CARDS}/{chapter}.png"] = cards.card(over, title, image)
            first[chapter] = {"alt": record["alt"]}
    if "index" not in first:
        made[f"{CARDS}/index.png"] = cards.card("An executable companion", book, None)
        first["index"] = {"alt": book}
    made[f"{CARDS}/index.json"] = json.dumps(first, ensure_ascii=False).encode()
    return made


def door() -> str:
    """The site's first address, which leads to the preface and says what the book is."""
    cff = yaml.safe_load((paths.root() / "CITATION.cff").read_text("utf-8"))
    return render(
        "door.html",
        book=citation.book(),
        description=" ".join(cff["abstract"].split()),
        first=f"{pages()[0]}.html",
        site=citation.addresses()[0],
    )


def missing() -> str:
    """The page that a server shows for an address that is not there, at whatever depth."""
    at = urlsplit(citation.addresses()[0]).path.rstrip("/")
    found = [(f"{at}/{chapter.page}.html", cite.heading(chapter.path)) for chapter in chapters()]
    return render("404.html", book=citation.book(), at=at, chapters=found)


def sitemap(site: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Every page of the book and every figure's page, as sitemaps.org describes it."""
    places = [f"{page}.html" for page in pages()] + [f"fig/{record['id']}/" for record in records]
    urls = "\n".join(f"<url><loc>{escape(f'{site}/{place}')}</loc></url>" for place in places)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{urls}\n</urlset>\n"
    )
