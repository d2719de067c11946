"""The book's pages and chapters: which there are, and one chapter read as a notebook.

A chapter is a page of the table of contents written as a MyST notebook: Markdown with `kernelspec`
in its front matter. Its id is its file name.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from essaylib import paths
from essaylib.errors import EssayError

if TYPE_CHECKING:
    from nbformat import NotebookNode

_FRONT_MATTER = re.compile(r"\A---\n.*?^kernelspec:.*?^---$", re.M | re.S)
_DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class Chapter:
    """One executable page; `page` is its path in the table of contents, without suffix."""

    page: str

    @property
    def id(self) -> str:
        return PurePosixPath(self.page).name

    @property
    def path(self) -> Path:
        return paths.root() / f"{self.page}.md"

    @property
    def executed(self) -> Path:
        """Where its executed notebook lies; the record of the run lies beside it."""
        return paths.build() / "executed" / f"{self.id}.ipynb"

    @property
    def record(self) -> Path:
        return self.executed.with_suffix(".json")


def pages() -> list[str]:
    """Return every page of the table of contents, in order, without suffix."""
    toc = _contents()
    return [toc["root"], *_files(toc)]


def part_of(page: str) -> str:
    """Return the caption of the part of the book that a page belongs to; empty outside of parts."""
    for part in _contents().get("parts", ()):
        if page in _files(part):
            return part.get("caption", "")
    return ""


def _contents() -> dict[str, Any]:
    path = paths.root() / "_toc.yml"
    try:
        toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise EssayError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(toc, dict) or "root" not in toc:
        raise EssayError(f"{path.name} names no first page: give it `root: book/index`.")
    return toc


def _files(node: Any) -> list[str]:
    if isinstance(node, list):
        return [page for item in node for page in _files(item)]
    if isinstance(node, dict):
        own = [node["file"]] if "file" in node else []
        return own + [page for value in node.values() for page in _files(value)]
    return []


def chapters(ids: list[str] | None = None) -> list[Chapter]:
    """Return the chapters with these ids, or all, in the order of the table of contents."""
    found: dict[str, Chapter] = {}
    for page in pages():
        chapter = Chapter(page)
        if not is_chapter(chapter.path):
            continue
        if chapter.id in found:
            raise EssayError(
                f"{page} and {found[chapter.id].page} have one id: rename one of them."
            )
        found[chapter.id] = chapter
    unknown = [id for id in ids or () if id not in found]
    if unknown:
        raise EssayError(_unknown(unknown, list(found)))
    return [chapter for chapter in found.values() if not ids or chapter.id in ids]


def _unknown(ids: list[str], known: list[str]) -> str:
    """Say that there are no such chapters, and what to do where one is only not listed."""
    unlisted = [id for id in ids if is_chapter(paths.book() / f"{id}.md")]
    if unlisted:
        lines = ", ".join(f"`- file: book/{id}`" for id in unlisted)
        return f"{', '.join(unlisted)}: not in the table of contents. Add {lines} to _toc.yml."
    return f"There is no chapter {', '.join(ids)}. The chapters are: {', '.join(known) or 'none'}."


def is_chapter(path: Path) -> bool:
    """Whether this file is a MyST notebook."""
    return path.is_file() and bool(_FRONT_MATTER.match(path.read_text("utf-8")))


def read(chapter: Chapter) -> NotebookNode:
    """Read a chapter as a notebook without outputs, and check that its code parses.

    `metadata.source_map` holds the line of the source at which each cell begins.
    """
    from jupytext.myst import MystMetadataParsingError, myst_to_notebook

    name = f"{chapter.page}.md"
    text = chapter.path.read_text("utf-8")
    try:
        notebook = myst_to_notebook(text, add_source_map=True)
    except (MystMetadataParsingError, yaml.YAMLError) as error:
        raise EssayError(f"{name} cannot be read as a notebook: {error}") from error
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{chapter.id}-{number}"
    for number, (line, cell) in enumerate(code_cells(notebook), start=1):
        try:
            parse(cell.source)
        except SyntaxError as error:
            start = text.splitlines().index(cell.source.splitlines()[0], line)
            at = start + (error.lineno or 1)
            raise EssayError(
                f"{name}, line {at} (code cell {number}): {error.msg}: {(error.text or '').strip()}"
            ) from error
    return notebook


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """Return (line of the source, cell) for each code cell."""
    lines = notebook.metadata.get("source_map", [0] * len(notebook.cells))
    return [
        (line, cell)
        for line, cell in zip(lines, notebook.cells, strict=True)
        if cell.cell_type == "code"
    ]


def parse(source: str) -> ast.Module:
    """Parse a code cell as IPython would, magics and top-level await included."""
    from IPython.core.inputtransformer2 import TransformerManager

    source = TransformerManager().transform_cell(source)
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(source, "<cell>", "exec", flags)


def defaults(notebook: NotebookNode) -> dict[str, Any]:
    """Return the values in the cell tagged `parameters`; they must be plain literals."""
    for _, cell in code_cells(notebook):
        if "parameters" in cell.metadata.get("tags", ()):
            try:
                return {
                    target.id: ast.literal_eval(statement.value)
                    for statement in parse(cell.source).body
                    for target in statement.targets
                }
            except (AttributeError, ValueError) as error:
                raise EssayError(
                    "The cell tagged `parameters` may only assign plain values, as in `seed = 0`."
                ) from error
    return {}


def check_parameters(declared: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a chapter runs with: its own values, then those given to it.

    A value given for a parameter that the chapter does not declare is left out. Raises
    `EssayError` where a type differs from the chapter's own, or a value is out of its range.
    """
    used = {name: given.get(name, value) for name, value in declared.items()}
    for name, value in used.items():
        wanted = type(declared[name])
        if wanted is float and type(value) is int:
            used[name] = float(value)
        elif type(value) is not wanted:
            raise EssayError(
                f"The parameter {name} takes {wanted.__name__}, as in "
                f"`{name} = {declared[name]!r}`, not {type(value).__name__} ({value!r})."
            )
    check_ranges(used)
    return used


def check_ranges(given: dict[str, Any]) -> None:
    """Raise `EssayError` where a parameter has a value with which no chapter can run.

    A value of another type is left to `check_parameters`, which knows the chapter's own.
    """
    numbers = {name: value for name, value in given.items() if isinstance(value, int)}
    if numbers.get("seed", 0) < 0:
        raise EssayError(f"seed {given['seed']} is negative: give 0 or more.")
    if numbers.get("samples", 1) < 1:
        raise EssayError(f"samples {given['samples']} draws nothing: give 1 or more.")
    if not _DEVICES.fullmatch(str(given.get("device", "auto"))):
        raise EssayError(f"There is no device {given['device']!r}: use auto, cpu, cuda or mps.")
