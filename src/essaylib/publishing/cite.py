"""Citations of the book, a chapter or a figure: BibTeX, CSL-JSON, RIS, and a sentence to paste."""

import json
import re
from pathlib import Path
from typing import Any

from essaylib import citation, figures, paths
from essaylib.citation import Citation
from essaylib.errors import EssayError, meant

FORMATS = ("text", "bibtex", "csl-json", "ris")
SUFFIXES = {"text": "txt", "bibtex": "bib", "csl-json": "json", "ris": "ris"}

_CSL = {"book": "book", "chapter": "chapter", "figure": "figure"}
_RIS = {"book": "BOOK", "chapter": "CHAP", "figure": "FIGURE"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_"},
}


def find(id: str | None = None) -> Citation:
    """The citation of a figure or chapter by id, of a saved image of a figure, or of the book."""
    if id is None:
        return citation.book()
    if Path(id).suffix in (".png", ".svg"):
        id = figures.read(id)["id"]
    id = current(id)
    entry = figures.registry().get(id)
    if id in figures.ids():
        return figures.cited(figures.load(id))
    if entry:
        return citation.part("figure", id, entry["title"])
    path = paths.book() / f"{id}.md"
    if path.is_file():
        return citation.part("chapter", id, heading(path))
    pages = [page.stem for page in paths.book().glob("*.md")]
    near = meant(id, {*figures.registry(), *figures.ids(), *pages})
    raise EssayError(
        f"Nothing is called {id!r}.{near} Name a chapter, such as 'guidance', or a figure: "
        "`essay figures` lists them."
    )


def write(cited: Citation, style: str = "text") -> str:
    """Write a citation in one of `FORMATS`."""
    writers = {"text": Citation.text, "bibtex": bibtex, "csl-json": csl_json, "ris": ris}
    if style not in writers:
        raise EssayError(f"Unknown format {style!r}: choose {', '.join(FORMATS)}.")
    return writers[style](cited)


def bibtex(cited: Citation) -> str:
    """One BibTeX entry; double braces keep the author, a group, in one piece."""
    part_of = cited.kind != "book"
    fields = {
        "author": f"{{{_latex(cited.author)}}}",
        "title": f"{{{_latex(cited.title)}}}",
        "howpublished": _latex(f"Figure in: {cited.book}") if cited.kind == "figure" else "",
        "booktitle": _latex(cited.book) if cited.kind == "chapter" else "",
        "publisher": f"{{{_latex(cited.author)}}}" if cited.kind == "chapter" else "",
        "year": cited.year,
        "month": str(int(cited.date[5:7])),
        "version": _latex(cited.version),
        "doi": cited.doi,
        "url": cited.url,
        "note": _latex(_note(cited)) if part_of else _latex("Executable book"),
    }
    kind = "incollection" if cited.kind == "chapter" else "misc"
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{_key(cited)},\n" + ",\n".join(lines) + "\n}"


def csl_json(cited: Citation) -> str:
    """A CSL-JSON list of one item."""
    item: dict[str, Any] = {
        "id": _key(cited),
        "type": _CSL[cited.kind],
        "title": cited.title,
        "author": [{"literal": cited.author}],
        "issued": {"date-parts": [[int(number) for number in cited.date.split("-")]]},
        "version": cited.version,
        "container-title": cited.book,
        "URL": cited.url,
        "DOI": cited.doi,
        "note": _note(cited),
    }
    return json.dumps(
        [{name: value for name, value in item.items() if value}], indent=2, ensure_ascii=False
    )


def ris(cited: Citation) -> str:
    """One RIS record."""
    fields = [
        ("TY", _RIS[cited.kind]),
        ("ID", _key(cited)),
        ("AU", cited.author),
        ("TI", cited.title),
        ("T2", cited.book),
        ("PY", cited.year),
        ("DA", cited.date.replace("-", "/")),
        ("ET", f"version {cited.version}"),
        ("DO", cited.doi),
        ("UR", cited.url),
        ("N1", _note(cited)),
    ]
    lines = [f"{tag}  - {' '.join(value.split())}" for tag, value in fields if value]
    return "\n".join([*lines, "ER  - "])


def current(id: str) -> str:
    """The id under which a figure goes today, following redirects."""
    entries, seen = figures.registry(), [id]
    while "redirect" in entries.get(id, {}):
        id = entries[id]["redirect"]
        if id in seen:
            raise EssayError(f"book/figures.yml redirects in a circle: {' → '.join([*seen, id])}.")
        seen.append(id)
    return id


def heading(path: Path) -> str:
    """The title of a page: its first heading of the first level, without markup."""
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if not found:
        raise EssayError(f"{path} has no title: begin its text with a line '# Title'.")
    return re.sub(r"[*_`]", "", found[1]).strip()


def _key(cited: Citation) -> str:
    whole = "market-in-the-model-measured"
    return whole if cited.kind == "book" else f"{whole}-{cited.key}"


def _note(cited: Citation) -> str:
    label = f"Figure {cited.key}. " if cited.kind == "figure" else ""
    commit = f"Commit {cited.commit}. " if cited.commit else ""
    return f"{label}{commit}A companion to: {cited.companion}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
