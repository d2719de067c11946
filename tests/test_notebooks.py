"""Chapters as notebooks: plain Markdown, published values, a run in a clean environment."""

import json
import os
import subprocess
import sys
import venv

import nbformat
import pytest
from conftest import ROOT
from tiny_book import Inline
from typer.testing import CliRunner

from essaylib import cli, figures
from essaylib.errors import EssayError
from essaylib.publishing import execute, myst, notebooks, references, workshop
from essaylib.publishing.chapters import Chapter, chapters, parse

ADDRESSES = """\
repository: {url: 'https://github.com/owner/name'}
html: {baseurl: 'https://b.example.org/'}
"""
CHAPTER = r"""---
kernelspec:
  name: python3
  display_name: Python 3
---

# The *one*

*Under* the title, {cite:t}`agre1997` and {cite}`ho2022cfg,agre1997`.

## Some section

Of {glue:text}`share` see {numref}`one-bars`, {term}`vendors <vendor>`, {eq}`chain`,
{fixed}`1.5`, [two](two.md#x), [list](figures.md), <https://c.example.org>.

```{code-cell} python3
:tags: [parameters]
seed = 0
```

## Other section

% seen by nobody
(target)=
$$
x_t = \epsilon
$$ (chain)

```{note}
A {fixed}`2`.
```

```{code-cell} python3
:tags: [hide-input]
with figure(
    "one-bars", data={}) as fig:
    draw(fig)
```

```{code-cell} python3
draw()
```
"""
BIBLIOGRAPHY = """
@book{agre1997, author={Agre, Philip}, title={Practice (in craft)}, publisher={P}, year={1997}}
@misc{ho2022cfg, author={Ho, Jonathan and Salimans, Tim}, title={Guidance}, year={2021},
      eprint={2207.12598}, archivePrefix={arXiv}}
@misc{many, author={von M{\\"u}ller, A. and B, C. and D, E.}, title={Many}, year={2020}, doi={10/x}}
@misc{open, author={Longpre, S. and others}, title={Open}, year={2024}, url={https://o.org}}
"""


@pytest.fixture
def book(sandbox):
    """A chapter `one` that has been run, and a chapter `two` that has not."""
    (sandbox / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/one\n- file: book/two\n"
    )
    (sandbox / "book/one.md").write_text(CHAPTER)
    (sandbox / "book/two.md").write_text(CHAPTER[: CHAPTER.index("# The")] + "# Two\n")
    (sandbox / "book/references.bib").write_text(BIBLIOGRAPHY)
    glued = nbformat.v4.new_output(
        "display_data",
        {"application/papermill.record/text/plain": "'26%'"},
        metadata={"scrapbook": {"name": "share"}},
    )
    drawn = nbformat.v4.new_output("display_data", {}, metadata={figures.MIME: {"id": "one-bars"}})
    cell = nbformat.v4.new_code_cell("run()", outputs=[glued, drawn])
    one = Chapter("book/one")
    one.executed.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), one.executed)
    one.record.write_text(json.dumps({"entry": {"parameters": {"model": "embedded", "seed": 0}}}))
    return sandbox


def made(**options):
    return notebooks.notebook(Chapter("book/one"), **options)


def source(id, **options):
    (cell,) = [cell for cell in made(**options).cells if cell.id == id]
    return cell.source


def test_a_notebook_is_clean_and_says_what_it_needs(book):
    found = made()
    nbformat.validate(found)
    assert found.metadata.accelerator == "GPU" and found.metadata.colab.gpuType == "T4"
    for cell in found.cells:
        assert cell.metadata.id == cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            parse(cell.source)


def test_a_figures_cell_is_called_after_it_and_others_after_their_section(book):
    assert [cell.id for cell in made().cells] == [
        "title", "install", "opening-1", "some-section-1", "some-section-2", "other-section-1",
        "figure-one-bars", "other-section-2", "works-cited",
    ]  # fmt: skip
    (book / "book/one.md").write_text(
        CHAPTER.replace("## Other", "```{code-cell} python3\nx\n```\n## Other")
    )
    assert [cell.id for cell in made().cells][6:9] == [
        "other-section-1", "figure-one-bars", "other-section-2"
    ]  # fmt: skip


def test_without_addresses_roles_come_to_text(book):
    text = source("some-section-1")
    assert "Of 26%† see Figure 1, vendors, (1),\n1.5, [two](two.ipynb), list, <https" in text
    assert source("opening-1") == (
        "*Under* the title, Agre (1997) and "
        "([Ho and Salimans, 2021](https://arxiv.org/abs/2207.12598); Agre, 1997)."
    )
    assert source("other-section-1") == (
        "## Other section\n\n$$\nx_t = \\epsilon \\tag{1}\n$$\n\n> **Note**\n>\n> A 2."
    )
    assert "- Philip Agre. *Practice (in craft)*. P, 1997." in source("works-cited")
    assert '`model = "embedded"`, `seed = 0`' in source("title")
    assert source("install").startswith("import essaylib")
    assert notebooks.colab("one") == ""


def test_with_addresses_they_are_links(book):
    (book / "_config.yml").write_text(ADDRESSES)
    text = source("some-section-1")
    assert "[Figure 1](https://b.example.org/fig/one-bars/)" in text
    assert "[vendors](https://b.example.org/book/glossary.html#term-vendor)" in text
    assert "[two](https://b.example.org/book/two.html#x)" in text
    assert (
        "git clone --quiet --depth 1 --branch v0.1.0 https://github.com/owner/name book"
        in source("install")
    )
    assert notebooks.colab("one", notebooks.figure_cell("one-bars")) == (
        "https://colab.research.google.com/github/owner/name/blob/gh-pages/notebooks/one.ipynb"
        "#scrollTo=figure-one-bars"
    )


def test_colab_opens_only_what_is_on_github(book):
    (book / "_config.yml").write_text("repository: {url: 'https://git.example.org/book'}\n")
    assert notebooks.colab("one") == ""
    assert "https://git.example.org/book book" in source("install")


def test_the_install_cell_pins_nothing(book):
    text = notebooks.install("https://github.com/owner/name")
    assert "pip install --quiet -e .\n" in text and "==" not in text.replace("is None", "")


def test_folded_cells_are_folded_here_too(book):
    (cell,) = [cell for cell in made().cells if cell.id == "figure-one-bars"]
    assert cell.source.startswith("# @title Draw one-bars\nwith figure(")
    assert cell.metadata.cellView == "form" and cell.metadata.jupyter.source_hidden


def test_a_chapter_that_was_not_run_shows_names_for_values(book):
    Chapter("book/one").executed.unlink()
    assert "Of `share` see Figure one-bars" in source("some-section-1")
    assert "published values" not in source("title")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("`share`", "`gone`", "'gone' is not glued"),
        ("`ho2022cfg,", "`nobody,", "No work 'nobody'"),
        ("{eq}`chain`", "{eq}`other`", "no formula 'other'"),
        ("{fixed}`1.5`", "{ref}`x`", "{ref} has no form"),
        ("{note}", "{toggle}", "{toggle} has no form"),
        ("# The *one*", "No title", "begins with its title"),
    ],
)
def test_what_has_no_form_in_a_notebook_is_an_error(book, old, new, message):
    assert old in CHAPTER
    (book / "book/one.md").write_text(CHAPTER.replace(old, new, 1))
    with pytest.raises(EssayError, match=message.replace("{", r"\{")):
        made()


def test_works_are_named_as_readers_cite_them(book):
    assert references.label("many") == "[von Müller et al., 2020](https://doi.org/10/x)"
    assert references.label("open", textual=True) == "[Longpre et al. (2024)](https://o.org)"


@pytest.mark.parametrize(
    "text",
    [
        "`{fixed}`",
        "``a ` {x}`b` ``",
        "```python\n{fixed}`1`\n% kept\n```\n",
        "$a_{b}$ and \\$5",
        "100 % of",
    ],
)
def test_code_and_formulas_pass_as_they_are(text):
    assert myst.convert(text, {"fixed": lambda _: "lost"}, lambda *_: "lost", {}) == text


def test_the_command_writes_them(book):
    done = CliRunner().invoke(cli.app, ["notebooks", "one", "-o", str(book / "out")])
    assert done.exit_code == 0, done.output
    found = nbformat.read(book / "out/one.ipynb", as_version=4)
    assert [cell.id for cell in found.cells] == [cell.id for cell in made().cells]
    assert [path.name for path in notebooks.save(book / "out")] == ["one.ipynb", "two.ipynb"]


def test_open_keeps_a_readers_copy(book, monkeypatch):
    path = workshop.copy("one")
    assert path == book / "notebooks/one.ipynb"
    path.write_text("mine")
    assert workshop.copy("one").read_text() == "mine"
    assert workshop.copy("one", fresh=True).read_text() != "mine"
    started = []
    monkeypatch.setattr(workshop.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(
        workshop.subprocess,
        "run",
        lambda *a, **k: started.append(a[0]) or subprocess.CompletedProcess(a, 3),
    )
    assert CliRunner().invoke(cli.app, ["open", "one"]).exit_code == 3
    assert started == [[sys.executable, "-m", "jupyterlab", str(path)]]


def test_open_without_jupyterlab_names_the_cure(book, monkeypatch):
    monkeypatch.setattr(workshop.importlib.util, "find_spec", lambda name: None)
    done = CliRunner().invoke(cli.app, ["open", "one"])
    assert done.exit_code == 2 and "pip install -e '.[lab]'" in done.stderr
    assert not (book / "notebooks").exists()
    done = CliRunner().invoke(cli.app, ["open", "nonesuch"])
    assert done.exit_code == 2 and "There is no chapter nonesuch" in done.stderr


def test_new_writes_a_chapter_of_its_own_name(book):
    done = CliRunner().invoke(cli.app, ["new", "sampling-steps", "--title", "The sampler's hurry"])
    assert done.exit_code == 0 and "- file: book/sampling-steps" in done.output
    text = (book / "book/sampling-steps.md").read_text()
    assert "# The sampler's hurry\n" in text and '"sampling-steps-lightness"' in text
    assert workshop.NAME not in text and workshop.TITLE not in text


@pytest.mark.parametrize(
    ("id", "message"), [("Two Words", "not a chapter id"), ("one", "already"), ("index", "already")]
)
def test_new_refuses_what_cannot_be_a_chapter(book, id, message):
    with pytest.raises(EssayError, match=message):
        workshop.new(id)


def test_the_template_keeps_the_rules_of_a_chapter(book):
    from test_prose import MOST_LINES, is_hidden, lines_of_code, typed_digits

    from essaylib.publishing.chapters import code_cells, read

    workshop.new("fresh")
    chapter = read(Chapter("book/fresh"))
    assert [
        w for c in chapter.cells if c.cell_type == "markdown" for w in typed_digits(c.source)
    ] == []
    for _, cell in code_cells(chapter):
        count = lines_of_code(cell.source) if is_hidden(cell) else cell.source.count("\n") + 1
        assert count <= MOST_LINES, cell.source


@pytest.mark.slow
def test_the_template_runs_as_it_stands(tmp_path, monkeypatch):
    for name in ("_config.yml", "CITATION.cff", "data", "models", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "book").mkdir()
    for name in ("claims.yml", "references.bib"):
        (tmp_path / "book" / name).symlink_to(ROOT / "book" / name)
    contents = tmp_path / "_toc.yml"
    contents.write_text("format: jb-book\nroot: book/index\n")
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    workshop.new("fresh")
    contents.write_text(contents.read_text() + "chapters:\n- file: book/fresh\n")
    before = dict(os.environ)
    report = execute.run(["fresh"], {"samples": 40}, executor=Inline()).raise_for_failures()
    os.environ.clear()
    os.environ.update(before)
    assert report.chapters[0].figures == ["fresh-lightness"]
    (chapter,) = chapters(["fresh"])
    assert "40† concepts" in "".join(cell.source for cell in notebooks.notebook(chapter).cells)


@pytest.mark.slow
def test_a_notebook_runs_without_book_tools_and_without_pins(tmp_path, monkeypatch):
    """As on Colab: torch is there, the first cell clones the release and installs by ranges."""
    from nbclient import NotebookClient

    python = tmp_path / "environment/bin/python"
    venv.create(tmp_path / "environment", with_pip=True)
    torch = next(
        x for x in (ROOT / "constraints.txt").read_text().split() if x.startswith("torch==")
    )
    pip = [str(python), "-m", "pip", "install", "--quiet", torch, "ipykernel"]
    if (done := subprocess.run(pip, capture_output=True, text=True)).returncode:
        pytest.skip(f"needs an index that packages can be installed from: {done.stderr[-300:]}")

    origin = tmp_path / "origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(origin)], check=True)
    subprocess.run(
        ["git", "-C", str(origin), "tag", "--force", notebooks.tag(), "HEAD"], check=True
    )
    spec = tmp_path / "jupyter/kernels/clean/kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "clean", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("ESSAY_ROOT", "ESSAY_CHAPTER", "PYTHONPATH", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)

    notebook = notebooks.notebook(Chapter("book/index"), repository=origin.as_uri())
    folder = tmp_path / "content"
    folder.mkdir()
    client = NotebookClient(
        notebook, kernel_name="clean", timeout=None, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()

    (cell,) = [cell for cell in notebook.cells if cell.id == "figure-pipeline-map"]
    assert any(figures.MIME in output.metadata for output in cell.outputs if "metadata" in output)
    assert (folder / "book/_build/figures/pipeline-map/provenance.json").is_file()
    listed = subprocess.run([*pip[:3], "list"], capture_output=True, text=True).stdout.lower()
    for tool in ("jupyter-book", "jupytext", "papermill", "sphinx"):
        assert tool not in listed
