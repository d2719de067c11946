"""Chapters as notebooks for Colab and JupyterLab: one clean `.ipynb` each, free of book tools.

A notebook begins with a cell that installs the book; its prose is plain Markdown, in which numbers
carry the values that the book was published with. A cell that draws a figure has an id of the
figure's own, so that a link can open it; other cells are numbered within their section.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from essaylib import citation, paths
from essaylib.errors import EssayError
from essaylib.publishing import execute, myst, references
from essaylib.publishing.chapters import Chapter, chapters, code_cells, is_chapter, parse, read

if TYPE_CHECKING:
    from nbformat import NotebookNode

PUBLISHED = "†"
"""Stands behind every number of the prose that the book computed."""

SITE_BRANCH = "gh-pages"
"""The branch that holds the published site, from which Colab opens notebooks."""

_GLUED = "application/papermill.record/text/plain"
_HIDDEN = {"hide-input", "remove-input", "hide-cell"}


def save(folder: Path, ids: list[str] | None = None, repository: str | None = None) -> list[Path]:
    """Write these chapters as notebooks into a folder, or all; return the path of each."""
    numbers = figure_numbers()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chapter in chapters(ids):
        path = folder / f"{chapter.id}.ipynb"
        path.write_bytes(write(notebook(chapter, numbers, repository)))
        written.append(path)
    return written


def place(id: str) -> str:
    """Where a chapter's notebook lies in the site."""
    return f"notebooks/{id}.ipynb"


def write(made: NotebookNode) -> bytes:
    import nbformat

    return nbformat.writes(made).encode()


def colab(id: str, cell: str = "") -> str:
    """The address that opens a chapter in Colab, at a cell; empty where the book has none.

    Colab opens what lies on GitHub, so the book must be published there.
    """
    repository = citation.addresses()[1]
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?", repository)
    if not found:
        return ""
    page = f"https://colab.research.google.com/github/{found[1]}/blob/{SITE_BRANCH}/{place(id)}"
    return f"{page}#scrollTo={cell}" if cell else page


def figure_cell(figure: str) -> str:
    """The id of the cell that draws a figure."""
    return f"figure-{figure}"


def figure_numbers() -> dict[str, int]:
    """The number of each figure of the executed chapters."""
    return {id: number for number, id in enumerate(execute.shown(), start=1)}


def notebook(
    chapter: Chapter, numbers: dict[str, int] | None = None, repository: str | None = None
) -> NotebookNode:
    """A chapter as a notebook without outputs.

    numbers: those of the figures (`figure_numbers()` if not given). repository: what the install
    cell clones, instead of the book's own address. Where the chapter has not been executed, glued
    values stand as their names. Raises `EssayError` for MyST that has no form in a notebook.
    """
    import nbformat

    source = read(chapter)
    values = published(chapter)
    page = "\n\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    resolve = _Resolver(chapter, values, numbers or figure_numbers(), myst.equations(page))
    title, rest = _title(source.cells[0].source)
    source.cells[0].source = rest
    parts = [part for cell in source.cells for part in _parts(cell)]
    cells = [
        nbformat.v4.new_markdown_cell(f"{title}\n\n{_about(chapter, bool(values))}", id="title"),
        nbformat.v4.new_code_cell(install(repository or citation.addresses()[1]), id="install"),
    ]
    for id, cell in zip(_ids(parts), parts, strict=True):
        if cell.cell_type == "code":
            cells.append(_code(cell, id))
        else:
            text = resolve.markdown(cell.source).strip()
            cells.append(nbformat.v4.new_markdown_cell(text, id=id))
    if resolve.cited:
        works = "\n".join(f"- {work}" for work in references.works(sorted(resolve.cited)))
        cells.append(nbformat.v4.new_markdown_cell(f"## Works cited\n\n{works}", id="works-cited"))
    for cell in cells:
        cell.metadata["id"] = cell.id  # where Colab looks for it
    return nbformat.v4.new_notebook(cells=cells, metadata=_metadata(chapter))


def install(repository: str) -> str:
    """The cell that fetches the release and installs it, where it is not installed."""
    if not repository:
        return (
            "import essaylib  # in a clone of the book, installed by `pip install -e .`\n\n"
            "essaylib.__version__"
        )
    return (
        "import importlib.util, os, sys\n\n"
        'if importlib.util.find_spec("essaylib") is None:\n'
        '    if not os.path.isdir("book"):\n'
        f"        !git clone --quiet --depth 1 --branch {tag()} {repository} book\n"
        "    %cd book\n"
        "    %pip install --quiet -e .\n"
        '    sys.path.insert(0, os.path.abspath("src"))  # this process began before'
    )


def published(chapter: Chapter) -> dict[str, str]:
    """The glued values of a chapter's last run, as its page shows them; empty without a run."""
    return {
        output.metadata["scrapbook"]["name"]: ast.literal_eval(output.data[_GLUED])
        for _, cell in code_cells(execute.executed(chapter))
        for output in cell.outputs
        if _GLUED in output.get("data", {})
    }


class _Resolver:
    """What the roles and links of one chapter come to; `cited` collects the works."""

    def __init__(
        self,
        chapter: Chapter,
        values: dict[str, str],
        figures: dict[str, int],
        equations: dict[str, int],
    ):
        self.chapter = chapter
        self.values = values
        self.figures = figures
        self.equations = equations
        self.cited: set[str] = set()
        self.site = citation.addresses()[0]
        self.roles: dict[str, myst.Role] = {
            "cite": self.cite,
            "cite:p": self.cite,
            "cite:t": lambda keys: self.cite(keys, textual=True),
            "eq": self.eq,
            "fixed": lambda text: text,
            "glue:text": self.glue,
            "math": lambda text: f"${text}$",
            "numref": self.numref,
            "term": self.term,
        }

    def markdown(self, text: str) -> str:
        try:
            return myst.convert(text, self.roles, self.link, self.equations)
        except EssayError as error:
            raise EssayError(f"{self.chapter.page}.md: {error}") from None

    def cite(self, keys: str, textual: bool = False) -> str:
        names = [key.strip() for key in keys.split(",")]
        self.cited.update(names)
        works = "; ".join(references.label(name, textual) for name in names)
        return works if textual else f"({works})"

    def eq(self, label: str) -> str:
        if label not in self.equations:
            raise EssayError(f"There is no formula {label!r}.")
        return f"({self.equations[label]})"

    def glue(self, name: str) -> str:
        if not self.values:
            return f"`{name}`"
        if name not in self.values:
            raise EssayError(f"{name!r} is not glued by the chapter's last run: run it again.")
        return f"{self.values[name]}{PUBLISHED}"

    def numref(self, figure: str) -> str:
        words = f"Figure {self.figures[figure]}" if figure in self.figures else f"Figure {figure}"
        return f"[{words}]({self.site}/fig/{figure}/)" if self.site else words

    def term(self, text: str) -> str:
        found = re.fullmatch(r"(?P<words>.+?)\s*<(?P<term>.+)>", text)
        words, term = (found["words"], found["term"]) if found else (text, text)
        anchor = re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")
        return f"[{words}]({self.site}/book/glossary.html#term-{anchor})" if self.site else words

    def link(self, words: str, target: str) -> str:
        """A page of the site; without one, a chapter is its notebook, another page its name."""
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not path.endswith(".md"):
            return f"[{words}]({target})" if path else words
        page = PurePosixPath(self.chapter.page).parent / path.removesuffix(".md")
        if self.site:
            return f"[{words}]({self.site}/{page}.html{'#' * bool(anchor)}{anchor})"
        if is_chapter(paths.root() / f"{page}.md"):
            return f"[{words}]({page.name}.ipynb)"
        return words


def _title(text: str) -> tuple[str, str]:
    """The first heading of a page, and the rest."""
    found = re.match(r"\s*(# [^\n]+)\n?", text)
    if not found:
        raise EssayError("A chapter begins with its title: '# Title'.")
    return found[1], text[found.end() :]


def _about(chapter: Chapter, computed: bool) -> str:
    """What a notebook says of itself, under its title."""
    book = citation.book()
    site = citation.addresses()[0]
    title = f"[{book.title}]({site}/book/{chapter.id}.html)" if site else book.title
    lines = [f"A chapter of {title}, version {book.version}, as a notebook."]
    if computed:
        entry = json.loads(chapter.record.read_text("utf-8"))["entry"]
        used = ", ".join(
            f"`{name} = {json.dumps(value)}`" for name, value in entry["parameters"].items()
        )
        lines.append(
            f"Numbers marked {PUBLISHED} are the published values, computed with {used}; what you "
            "compute below may differ from them."
        )
    lines.append(
        'With a graphics card, `model = "sd15"` among the parameters runs Stable Diffusion 1.5 as '
        "far as the chapter's claim allows."
    )
    return "\n".join(f"> {line}" for line in lines)


def _parts(cell: NotebookNode) -> list[NotebookNode]:
    """A cell; of prose, one for each section that it holds text of."""
    import nbformat

    if cell.cell_type == "code":
        return [cell]
    parts: list[list[str]] = [[]]
    fenced = False
    for line in cell.source.splitlines():
        fenced ^= bool(re.match(r"(`{3,}|~{3,}|:{3,})", line))
        if line.startswith("## ") and not fenced:
            parts.append([])
        parts[-1].append(line)
    texts = ["\n".join(lines).strip() for lines in parts]
    return [nbformat.v4.new_markdown_cell(text) for text in texts if text]


def _ids(cells: list[NotebookNode]) -> list[str]:
    """An id for each cell: its figure's, else its section's with its place in it."""
    found, section, count = [], "opening", Counter()
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = re.match(r"## (.+)", cell.source)
            if heading:
                section = re.sub(r"[^a-z0-9]+", "-", heading[1].lower()).strip("-")[:48]
        drawn = _drawn(cell)
        count[section] += not drawn
        found.append(figure_cell(drawn) if drawn else f"{section}-{count[section]}")
    return found


def _drawn(cell: NotebookNode) -> str:
    """The figure that a cell draws; empty where it draws none."""
    if cell.cell_type == "code":
        for node in ast.walk(parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "figure":
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant):
                    return str(first.value)
    return ""


def _code(cell: NotebookNode, id: str) -> NotebookNode:
    """A code cell without outputs; one that the book folds away is folded here too."""
    import nbformat

    tags = list(cell.metadata.get("tags", ()))
    metadata: dict[str, Any] = {"tags": tags} if tags else {}
    text = cell.source
    if _HIDDEN & set(tags):
        metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
        drawn = _drawn(cell)
        text = f"# @title {f'Draw {drawn}' if drawn else 'Prepare'}\n{text}"
    return nbformat.v4.new_code_cell(text, id=id, metadata=metadata)


def _metadata(chapter: Chapter) -> dict[str, Any]:
    return {
        "accelerator": "GPU",
        "colab": {"gpuType": "T4", "name": f"{chapter.id}.ipynb", "toc_visible": True},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def tag() -> str:
    """The tag of the release that the notebooks install."""
    return f"v{citation.book().version}"
