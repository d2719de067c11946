"""Make the site: executed chapters and other pages go to a staging folder, Jupyter Book builds it.

The stage has the layout of the repository, so links between pages are the same in both. Each
figure that a chapter shows becomes a numbered figure of the page, its name being its id. Only
files that changed are written, and where none did, the site is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from essaylib import paths
from essaylib.errors import EssayError
from essaylib.figures import MIME
from essaylib.publishing import front, heads, lock, machine, notebooks
from essaylib.publishing import pages as generated
from essaylib.publishing.chapters import Chapter, chapters, pages
from essaylib.publishing.sphinx_extension import SOURCES

if TYPE_CHECKING:
    from nbformat import NotebookNode

_LOCAL_FILE = re.compile(r"""(?:\]\(|src=["'])([^)"'\s:#]+)""")
_MARKUP = re.compile(r"[\\`*_{}\[\]<>$&~#^|]")
_MARKDOWN_LINK = re.compile(r"\]\(([^()\s:#]+)\.md(?=[)#])")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def build() -> Path:
    """Build the site from the executed chapters and return its folder, `_build/html`.

    Raises `EssayError` with Sphinx's own words for a broken reference, a missing citation, a page
    that is not there, or a chapter that was not executed.
    """
    site = paths.build() / "html"
    files = _collect()
    _synchronise(paths.build() / "stage", files)
    state = _fingerprint(files)
    built = paths.build() / "site.json"
    kept = built.read_text("utf-8") if built.is_file() and (site / "index.html").is_file() else None
    if kept != state:
        built.unlink(missing_ok=True)
        _jupyter_book(paths.build() / "stage")
        built.write_text(state, "utf-8")
    notebooks.save(site / "notebooks")
    return site


def _collect() -> dict[str, bytes]:
    """Return the content of the whole stage, by path."""
    files = _static_files() | generated.files() | front.files(generated.published())
    executable = {chapter.page: chapter for chapter in chapters()}
    for page in pages():
        if page in executable:
            files |= _chapter(executable[page])
        elif (source := paths.root() / f"{page}.md").is_file():
            files[f"{page}.md"] = _with_machine(source.read_text("utf-8")).encode()
            files |= _shown(source)
    files |= _links_to_notebooks(files, set(executable))
    missing = [page for page in pages() if not files.keys() & {f"{page}.md", f"{page}.ipynb"}]
    if missing:
        raise EssayError(f"_toc.yml lists pages that do not exist: {', '.join(missing)}.")
    return files


def _static_files() -> dict[str, bytes]:
    """Return configuration, bibliography and theme."""
    root = paths.root()
    files = {
        "_config.yml": yaml.safe_dump(_config()).encode(),
        "_toc.yml": (root / "_toc.yml").read_bytes(),
        "_extra/.nojekyll": b"",
    }
    bibliography = paths.book() / "references.bib"
    if bibliography.is_file():
        files["book/references.bib"] = bibliography.read_bytes()
    static = paths.book() / "_static"
    for path in sorted(static.rglob("*")):
        if path.is_file():
            files[f"_static/{path.relative_to(static).as_posix()}"] = path.read_bytes()
    return files


def _config() -> dict[str, Any]:
    """Return the book's configuration, with what follows from the repository's address."""
    config = yaml.safe_load((paths.root() / "_config.yml").read_text("utf-8"))
    page = config.setdefault("html", {})
    if (config.get("repository") or {}).get("url"):
        page |= dict.fromkeys(("use_repository_button", "use_edit_page_button"), True)
    if (paths.book() / "references.bib").is_file():
        config["bibtex_bibfiles"] = ["book/references.bib"]
        config["sphinx"]["config"] |= {
            "bibtex_reference_style": "author_year",
            "bibtex_default_style": "plain",
        }
    return config


def _chapter(chapter: Chapter) -> dict[str, bytes]:
    """Return what one chapter puts on the stage: its notebook, its source, its pictures."""
    import nbformat

    if not chapter.executed.is_file():
        raise EssayError(f"{chapter.id} has not been executed: run `essay run {chapter.id}`.")
    notebook = page_notebook(chapter, nbformat.read(chapter.executed, as_version=4))
    return {
        f"{chapter.page}.ipynb": nbformat.writes(notebook).encode(),
        f"{SOURCES}/{chapter.page}.md": chapter.path.read_bytes(),
        **_shown(chapter.path),
    }


def page_notebook(chapter: Chapter, notebook: NotebookNode) -> NotebookNode:
    """Return an executed notebook as the site shows it: a head, numbered figures, no widgets."""
    import nbformat

    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("source_map", None)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        shown = []
        for output in cell.outputs:
            if MIME in output.get("metadata", {}):
                text = figure_directive(chapter, output.metadata[MIME])
                id = f"figure-{output.metadata[MIME]['id']}"
                cells.append(nbformat.v4.new_markdown_cell(text, id=id))
            elif _WIDGET not in output.get("data", {}):
                shown.append(output)
        cell.outputs = shown
    notebook.cells = cells
    heads.add(chapter, notebook)
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _with_machine(cell.source)
    return notebook


def _with_machine(text: str) -> str:
    """Draw the map of the machine where a page asks for it."""
    if machine.MARK not in text:
        return text
    return text.replace(machine.MARK, heads.block(machine.nav(lock.recorded())))


def figure_directive(chapter: Chapter, figure: dict[str, Any]) -> str:
    """Return the MyST directive of a figure; its links lead to the figure's own page.

    Where the book is published on GitHub, a last one opens the cell that draws it in Colab.
    """
    up = "../" * chapter.page.count("/")
    addresses = {
        word: f"{up}fig/{figure['id']}/#{word.lower()}"
        for word in ("Cite", "Data", "Code", "Verify")
    }
    if address := notebooks.colab(chapter.id, notebooks.figure_cell(figure["id"])):
        addresses["Run"] = address
    links = " · ".join(f'<a href="{address}">{word}</a>' for word, address in addresses.items())
    options = {
        "name": figure["id"],
        "alt": " ".join(figure["alt"].split()),
        "width": f"{figure['image']['width']}px",
    }
    lines = [
        f"````{{figure}} {up}_extra/fig/{figure['id']}/{figure['image']['file']}",
        *(f":{name}: {value}" for name, value in options.items()),
        "",
        _MARKUP.sub(r"\\\g<0>", " ".join(figure["caption"].split())),
        f'<span class="figure-links">{links}</span>',
        "````",
    ]
    return "\n".join(lines)


def _links_to_notebooks(files: dict[str, bytes], executable: set[str]) -> dict[str, bytes]:
    """Return the pages whose links to a chapter's Markdown must lead to its notebook here."""
    changed = {}
    for name, content in files.items():
        if not name.endswith((".md", ".ipynb")) or name.startswith(SOURCES):
            continue
        folder = PurePosixPath(name).parent

        def to_notebook(link: re.Match, folder: PurePosixPath = folder) -> str:
            target = posixpath.normpath(folder / link[1])
            return f"]({link[1]}.ipynb" if target in executable else link[0]

        text = content.decode("utf-8")
        changed[name] = _MARKDOWN_LINK.sub(to_notebook, text).encode()
    return changed


def _shown(source: Path) -> dict[str, bytes]:
    """Return the pictures and files of the repository that a page shows or links to."""
    found = {source.parent / name for name in _LOCAL_FILE.findall(source.read_text("utf-8"))}
    root = paths.root().resolve()
    return {
        path.resolve().relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(found)
        if path.is_file() and path.suffix != ".md" and path.resolve().is_relative_to(root)
    }


def _synchronise(stage: Path, files: dict[str, bytes]) -> None:
    """Make the stage hold these files and no others, touching only those that differ."""
    for path in sorted(stage.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(stage).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = stage / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _fingerprint(files: dict[str, bytes]) -> str:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    tools = {name: version(name) for name in ("jupyter-book", "sphinx", "sphinx-book-theme")}
    here = Path(__file__).parent
    for path in [*here.glob("*_extension.py"), *here.glob("templates/*meta.html")]:
        tools[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return json.dumps({"files": digests, "tools": tools}, indent=1, sort_keys=True)


def _jupyter_book(stage: Path) -> None:
    """Run Jupyter Book; any warning of Sphinx is an error."""
    shutil.rmtree(paths.build() / "html", ignore_errors=True)
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(stage)]
    command += ["--path-output", str(paths.root()), "--warningiserror", "--keep-going"]
    done = subprocess.run(command, text=True, capture_output=True)
    log = paths.build() / "sphinx.log"
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        # What Sphinx has read it does not warn of again: let the next build read it anew.
        shutil.rmtree(paths.build() / ".doctrees", ignore_errors=True)
        told = [line for line in done.stderr.splitlines() if re.search("WARNING|ERROR", line)]
        raise EssayError(
            "\n".join(
                ["The site could not be built:", *(told or [done.stderr[-2000:]]), f"See {log}."]
            )
        )
