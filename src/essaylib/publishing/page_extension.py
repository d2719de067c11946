"""What Sphinx adds to each page of the site: a glossary in the margin, and what links tell of it.

The first time that a page uses a term of the glossary, the definition stands beside it, where the
screen has a margin. Every picture must say what it shows: one without alt text is a warning, and
the build takes warnings for errors.
"""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

from essaylib import citation, claims, paths
from essaylib.publishing.templating import render

GLOSSARY = "book/glossary"

_IMAGE = re.compile(r"<img\b[^>]*>")
_MISTAKEN = (
    ' aria-label="Toggle hidden content"',  # MyST-NB: it hides what the summary says
    ' role="list" class="citation-list"',  # sphinxcontrib-bibtex: its children are no list items
)
_TAGS = re.compile(r"<[^>]*>")
_logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", _set_up_theme)
    app.connect("doctree-read", _check_images)
    app.connect("doctree-resolved", _gloss)
    app.connect("html-page-context", _tell)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _set_up_theme(app: Sphinx, config: Any) -> None:
    """Choose the theme's furniture; Jupyter Book would let such options replace its own."""
    config.html_theme_options |= {
        "search_bar_text": "Search the book",
        "primary_sidebar_end": [],
        "use_fullscreen_button": False,
    }


def _check_images(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of every image without alt text; markup may say `alt=""` of one that only decorates."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip():
            _logger.warning("image without alt text: %s", image["uri"], location=image)
    for raw in doctree.findall(nodes.raw):
        for tag in _IMAGE.findall(raw.astext()):
            if not re.search(r"\salt\s*=", tag):
                _logger.warning("image without alt text: %.80s", tag, location=raw)


def _gloss(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Set the definition of each glossary term beside the paragraph that first uses it."""
    if page == GLOSSARY or GLOSSARY not in app.env.found_docs:
        return
    seen: set[str] = set()
    for reference in list(doctree.findall(nodes.reference)):
        id = reference.get("refid") or reference.get("refuri", "").partition("#")[2]
        if not id.startswith("term-") or id in seen:
            continue
        seen.add(id)
        paragraph = _ancestor(reference, nodes.paragraph)
        definition = _definition(app, id)
        if paragraph is None or definition is None or _ancestor(paragraph, nodes.caption):
            continue
        where = paragraph.parent.index(paragraph)
        paragraph.parent.insert(where, definition)


def _definition(app: Sphinx, id: str) -> nodes.sidebar | None:
    """The term and the first paragraph of its definition, as a note for the margin."""
    glossary = app.env.get_doctree(GLOSSARY)
    for item in glossary.findall(nodes.definition_list_item):
        terms = list(item.findall(nodes.term))
        if not any(id in term["ids"] for term in terms):
            continue
        text = next(item.findall(nodes.paragraph), None)
        if text is None:
            return None
        text = text.deepcopy()
        # References are the glossary's own, and not resolved here: citations go, words stay.
        for pending in list(text.findall(addnodes.pending_xref)):
            keep = "" if pending.get("refdomain") == "cite" else pending.astext()
            pending.parent.replace(pending, nodes.Text(keep))
        words = ", ".join(term.astext() for term in terms)
        text.insert(0, [nodes.strong("", words), nodes.Text(". ")])
        note = nodes.sidebar("", text, classes=["margin", "gloss"])
        return note
    return None


def _ancestor(node: nodes.Node, kind: type[nodes.Node]) -> nodes.Element | None:
    while node is not None and not isinstance(node, kind):
        node = node.parent
    return node


def _tell(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add the tags that search engines, messengers and reference managers read."""
    if doctree is None:
        return
    for wrong in _MISTAKEN:
        context["body"] = context["body"].replace(wrong, "")
    book = citation.book()
    whole = book.title.partition(":")[0]
    title = unescape(_TAGS.sub("", context.get("title") or "")) or whole
    root = pagename == app.config.root_doc
    id = pagename.rpartition("/")[2]
    found = json.loads(Path(app.srcdir, "_extra/cards/index.json").read_text("utf-8"))
    card = id if id in found and pagename == f"book/{id}" else "index"
    context["metatags"] = context.get("metatags", "") + render(
        "page_meta.html",
        title=book.title if root else title,
        whole=whole,
        description=_description(id, doctree),
        kind="website" if root else "article",
        place=f"{pagename}.html",
        card=f"cards/{card}.png",
        alt=found[card]["alt"],
        up=context["content_root"],
        site=citation.addresses()[0],
        book=book,
        chapter=id in found and not root,
    )


def _description(id: str, doctree: nodes.document) -> str:
    """A page in a sentence or two: its chapter's claim, else the beginning of its text."""
    if (paths.book() / "claims.yml").is_file():
        stated = [claim.sentence for claim in claims.load() if claim.chapter == id]
        if stated:
            return " ".join(stated)
    for paragraph in doctree.findall(nodes.paragraph):
        if _ancestor(paragraph, nodes.sidebar) is None and len(paragraph.astext()) > 60:
            return _shortened(paragraph.astext())
    for raw in doctree.findall(nodes.raw):
        if len(text := unescape(_TAGS.sub("", raw.astext()))) > 60:
            return _shortened(text)
    return citation.book().title


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:199].rsplit(" ", 1)[0] + "…"
