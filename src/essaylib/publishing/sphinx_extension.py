"""What the site needs beyond Jupyter Book: MathML, links to the sources, the role `fixed`.

Formulas become MathML when the site is built, which browsers set themselves, so that no page loads
a script for them. Chapters are built from executed notebooks; their source, edit and download
links lead to the Markdown that people write. The role `fixed` holds a number that no code computes,
such as a version; it is shown as it is.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

SOURCES = "_sources"
"""Folder of the staged Markdown of chapters, in the stage as in the site."""

_logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.add_role("fixed", _fixed)
    app.connect("config-inited", _without_thebe)
    app.connect("html-page-context", _markdown_source)
    app.connect("build-finished", _copy_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _without_thebe(app: Sphinx, config: Any) -> None:
    """Silence Thebe, which Jupyter Book always loads: its script fails, and points to a CDN."""
    for listeners in list(app.events.listeners.values()):
        for listener in list(listeners):
            handler = listener.handler
            if handler.__module__ == "sphinx_thebe" and handler.__name__ != "st_static_path":
                app.disconnect(listener.id)


def _fixed(name: str, rawtext: str, text: str, lineno: int, inliner: Any, **_: Any) -> tuple:
    return [nodes.Text(text)], []


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", "", CLASS="math"))
    if number := node.get("number"):  # first, as the theme's style sheet expects it
        translator.body.append(f'<span class="eqno">({number})</span>')
    translator.body.append(_mathml(node, "block"))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def _mathml(node: nodes.Element, display: str) -> str:
    tex = node.astext().strip()
    try:
        mathml = convert(tex, display=display)
        understood = not re.search(r"\\\w|<mi>&</mi>", mathml)  # it copies what it does not know
    except Exception:  # the converter's errors share no class of their own
        understood = False
    if not understood:
        _logger.warning("formula not understood: %s", tex, location=node)
        return f"<code>{html.escape(tex)}</code>"
    return mathml


def _markdown_source(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    if _source(app, pagename).is_file():
        context["page_source_suffix"] = ".md"
        context["sourcename"] = f"{pagename}.md"
        context["ipynb_source"] = f"{pagename}.ipynb"


def _copy_sources(app: Sphinx, error: Exception | None) -> None:
    """Put each chapter's Markdown and executed notebook where the download links lead."""
    if error or app.builder.name != "html":
        return
    for page in app.env.found_docs:
        if _source(app, page).is_file():
            target = Path(app.outdir, SOURCES, f"{page}.md")
            shutil.copyfile(_source(app, page), target)
            shutil.copyfile(app.env.doc2path(page), target.with_suffix(".ipynb"))


def _source(app: Sphinx, page: str) -> Path:
    return Path(app.srcdir, SOURCES, f"{page}.md")
