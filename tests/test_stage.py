"""The site of a tiny book, built once and looked at from many sides."""

import html
import json
import os
import re
import shutil

import browsing
import pytest
from tiny_book import Book, Inline
from typer.testing import CliRunner

from essaylib import cli
from essaylib.errors import EssayError
from essaylib.publishing import execute, stage

GRAVE = ("error", "warning")
BIBLIOGRAPHY = (
    "@book{agre1997, author={Agre, Philip}, title={Practice}, publisher={P}, year={1997}}\n"
)
FIGURE = """from essaylib.figures import figure
with figure("one-bars", data={"x": [1, 2], "y": [3, 4]},
            caption="Bars, n = {n}: *not* emphasised.",
            alt="Two bars, 'high' and \\"low\\".") as fig:
    fig.subplots().bar([1, 2], [3, 4])"""
PROSE = r"""
Share {glue:text}`share` of {fixed}`1.5`, see {numref}`one-bars` and [the other](two.md),
{cite:t}`agre1997`.
Inline $\frac{nH-1}{n-1}$, and {eq}`chain`:

$$
x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon
$$ (chain)
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A built book with two chapters, a figure, a formula, a citation and a widget."""
    made = Book(tmp_path_factory.mktemp("site"))
    made.chapter(
        "one",
        "from essaylib.glue import chapter, glue\nchapter('one')\nglue('share', 0.256, '.0%')",
        FIGURE,
        "import ipywidgets\nipywidgets.IntSlider()",
        prose=PROSE,
    )
    made.chapter("two", "print('two')", prose="Back to [one](one.md#the-one) and [home](index.md).")
    made.write("book/references.bib", BIBLIOGRAPHY)
    made.write("_toc.yml", (made.root / "_toc.yml").read_text() + "- file: book/bibliography\n")
    before = dict(os.environ)
    os.environ["ESSAY_ROOT"] = str(made.root)
    execute.run(executor=Inline()).raise_for_failures()
    stage.build()
    os.environ.pop("ESSAY_CHAPTER")
    yield made
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def page(book):
    return lambda name: (book.root / "_build/html" / name).read_text()


def test_values_numbers_links_and_citations_are_resolved(page):
    text = page("book/one.html")
    assert re.search(r"Share <span[^>]*>26%</span> of 1.5, see", text)
    assert re.search(r'href="#one-bars"[^>]*><span[^>]*>Fig. 1', text)
    assert 'href="two.html"' in text
    assert "Agre" in text and "1997" in text
    assert 'href="one.html#the-one"' in page("book/two.html")
    assert "Practice" in page("book/bibliography.html")


def test_a_figure_is_numbered_described_and_linked_to_its_page(page, book):
    text = page("book/one.html")
    (figure,) = re.findall(r'<figure[^>]*id="one-bars">.*?</figure>', text, re.S)
    assert "Two bars, 'high' and \"low\"." in html.unescape(figure)
    assert "Bars, n = 2: *not* emphasised." in figure
    for word in ("cite", "data", "code", "verify"):
        assert f'href="../fig/one-bars/#{word}"' in figure
    assert (book.root / "_build/html/fig/one-bars/index.html").is_file()
    assert "data:image" not in text


def test_no_page_asks_another_host_for_anything(book):
    loads = re.compile(
        r"""<(?:script|img|link|iframe)[^>]*?(?:src|href)=["']((?:https?:)?//[^"']+)"""
    )
    for path in (book.root / "_build/html").rglob("*.html"):
        asked = [url for url in loads.findall(path.read_text()) if "canonical" not in url]
        assert not asked, path.name
    for path in (book.root / "_build/html").rglob("*.css"):
        assert not re.search(r"@import[^;]*//|url\(['\"]?(https?:)?//", path.read_text()), path.name


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_under_a_sub_path_nothing_is_missing(book, tmp_path, width):
    shutil.copytree(book.root / "_build/html", tmp_path / "sub/path")
    with browsing.served(tmp_path) as address, browsing.browser() as browser:
        for name in ("book/index", "book/one", "book/bibliography", "search"):
            tab = browser.new_page(viewport={"width": width, "height": 800})
            asked, told = [], []
            tab.on(
                "response", lambda answer, asked=asked: asked.append((answer.url, answer.status))
            )
            tab.on("console", lambda m, told=told: m.type in GRAVE and told.append(m.text))
            tab.on("pageerror", lambda error, told=told: told.append(str(error)))
            tab.goto(f"{address}/sub/path/{name}.html", wait_until="load")
            assert told == []
            local = (f"{address}/sub/path/", "data:")
            assert [x for x in asked if not x[0].startswith(local) or x[1] >= 400] == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.close()


def test_formulas_are_mathml_and_widgets_stay_in_the_notebook(page):
    text = page("book/one.html")
    assert text.count("<math ") == 2 and "<mfrac>" in text
    assert 'href="#equation-chain"' in text and 'id="equation-chain"' in text
    assert not [tag for tag in re.findall("<script[^>]*>", text) if "mathjax" in tag.lower()]
    assert "widget-view" not in text


def test_source_links_lead_to_the_markdown(page, book):
    assert "_sources/book/one.md" in page("book/one.html")
    assert page("_sources/book/one.md") == (book.root / "book/one.md").read_text()
    assert json.loads(page("_sources/book/one.ipynb"))["cells"]


def test_chapters_are_published_as_notebooks_too(page):
    cells = json.loads(page("notebooks/one.ipynb"))["cells"]
    assert "Share 26%† of 1.5, see Figure 1" in "".join("".join(cell["source"]) for cell in cells)


def test_an_unchanged_book_is_not_built_again(book):
    marker = book.root / "_build/html/marker"
    marker.touch()
    stage.build()
    assert marker.exists()


def test_what_is_removed_leaves_the_site(book):
    extra = book.write("_build/stage/book/gone.md", "# Gone")
    stage.build()
    assert not extra.exists()


def test_broken_references_stop_the_build_each_time(book):
    broken = {
        "{numref}`nonesuch`": "nonesuch",
        "{cite:t}`nobody1900`": "nobody1900",
        "{glue:text}`unknown`": "unknown",
        "[x](missing.md)": "missing",
        r"$\unheardof$": "formula not understood",
    }
    original = (book.root / "book/two.md").read_text()
    book.edit("book/two.md", "Back to", " ".join(broken) + " Back to")
    try:
        assert [e.status for e in execute.run(["two"], executor=Inline()).chapters] == ["cached"]
        for _ in range(2):
            with pytest.raises(EssayError) as raised:
                stage.build()
            assert [word for word in broken.values() if word not in str(raised.value)] == []
    finally:
        book.write("book/two.md", original)
        execute.run(["two"], executor=Inline())


def test_a_listed_page_must_exist(book):
    contents = (book.root / "_toc.yml").read_text()
    book.write("_toc.yml", contents + "- file: book/nonesuch\n")
    with pytest.raises(EssayError, match="do not exist: book/nonesuch"):
        stage.build()
    book.write("_toc.yml", contents)


def test_a_chapter_must_have_been_executed(book):
    path = book.root / "_build/executed/two.ipynb"
    kept = path.rename(path.with_suffix(".kept"))
    with pytest.raises(EssayError, match="run `essay run two`"):
        stage.build()
    kept.rename(path)


def test_the_build_says_which_links_it_leaves_out(book, monkeypatch):
    monkeypatch.setattr(stage, "build", lambda: book.root / "_build/html")
    monkeypatch.setattr(execute, "run", lambda *_, **__: execute.Report([]))
    config = (book.root / "_config.yml").read_text()
    told = CliRunner().invoke(cli.app, ["build"]).stderr
    assert told.startswith("Links to Colab and to commits are left out") and told.count("\n") == 1
    try:
        book.edit("_config.yml", 'url: "" ', "url: https://github.com/owner/name ")
        assert CliRunner().invoke(cli.app, ["build"]).stderr == ""
    finally:
        book.write("_config.yml", config)


def test_a_file_cannot_take_the_notebooks_and_is_told_so(book):
    place = book.write("taken", "a file")
    done = CliRunner().invoke(cli.app, ["notebooks", "one", "-o", str(place)])
    assert done.exit_code == 2 and f"{place} cannot be used (File exists)" in done.stderr


def test_an_address_of_the_repository_turns_source_links_on(book):
    config = (book.root / "_config.yml").read_text()
    book.edit("_config.yml", 'url: "" ', "url: https://github.com/owner/name ")
    stage.build()
    text = (book.root / "_build/html/book/one.html").read_text()
    assert "https://github.com/owner/name/edit/main/book/one.md" in text
    assert "/owner/name/blob/gh-pages/notebooks/one.ipynb#scrollTo=figure-one-bars" in text
    book.write("_config.yml", config)
