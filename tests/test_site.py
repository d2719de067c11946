"""The site as a reader meets it: a small book, built once, looked at in a browser."""

import gzip
import os
import re
import shutil
from xml.etree import ElementTree

import browsing
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from PIL import Image
from tiny_book import FRONT, PARAMETERS, Book

from essaylib import claims, figures, glue, plotting, sliders
from essaylib.publishing import execute, front, heads, machine, page_extension, stage
from essaylib.publishing.chapters import chapters, read

SITE = "https://book.example.org/sub"
SENTENCE = "Guidance buys adherence with difference"
PAGES = ("book/index", "book/guidance", "book/method", "book/figures", "book/claims",
         "book/report", "book/glossary", "book/bibliography", "search", "fig/guidance-sweep/index",
         "404")  # fmt: skip
BUDGET = 900 * 1024
CHAPTER = f"""
# The guidance premium

**The claim, as this book states it.** {SENTENCE}: the more literally the
order is filled, the fewer makers fill it.

Our reading, with a {{term}}`vendor` and another {{term}}`vendor`, see {{cite:t}}`agre1997`,
$x^2$, and {{numref}}`guidance-sweep`.
"""
GLOSSARY = """# Glossary

```{glossary}
vendor
    Who published a drawing, in *Unicode's* own word {cite}`agre1997`. Never the artist.
```
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A preface with the machine, a chapter with claim, verdict and two figures, one without."""
    made = Book(tmp_path_factory.mktemp("site"))
    shutil.copytree(ROOT / "book/_static", made.root / "book/_static", dirs_exist_ok=True)
    shutil.copy(ROOT / "book/claims.yml", made.root / "book/claims.yml")
    made.edit("_config.yml", 'baseurl: ""', f"baseurl: {SITE}")
    made.write(
        "book/references.bib",
        "@book{agre1997, author={Agre, P.}, title={T}, publisher={P}, year={1997}}\n",
    )
    made.write(
        "book/index.md",
        f"{FRONT}\n# The Market\n\n*A companion*\n\nWords.\n\n{machine.MARK}\n\n{PARAMETERS}",
    )
    made.chapter("guidance")
    made.write("book/guidance.md", FRONT + CHAPTER + "\n" + PARAMETERS + "\n## The verdict\n")
    made.chapter("method", "'a long line of code' + ' that is wider' + ' than a phone' + ' can be'")
    made.write("book/glossary.md", GLOSSARY)
    listed = ("glossary", "figures", "claims", "report", "bibliography")
    made.write(
        "_toc.yml",
        "format: jb-book\nroot: book/index\nparts:\n- caption: 'Part III: Generation'\n"
        "  chapters:\n"
        "  - file: book/guidance\n  - file: book/method\n- caption: Back matter\n  chapters:\n"
        + "".join(f"  - file: book/{name}\n" for name in listed),
    )
    before = dict(os.environ)
    os.environ["ESSAY_ROOT"] = str(made.root)
    os.environ.pop("ESSAY_CHAPTER", None)
    _run()
    stage.build()
    yield made
    os.environ.clear()
    os.environ.update(before)


def _run():
    """Leave what a run of the chapters would leave, without a kernel."""
    glue.chapter("guidance", model="embedded", seed=0)
    table = pd.DataFrame({"w": [1, 4], "adherence": [0.1, 0.2]})
    with figures.figure("guidance-sweep", table, "A sweep, n = {n}.", "A line rises.") as fig:
        plotting.frontier(fig, table, "w", "adherence")
    with figures.figure("guidance-sheet", {"w": [1]}, "A sheet.", "A grey square.") as fig:
        plotting.image_grid(fig, np.full((1, 32, 32, 3), 99, np.uint8))
    test = claims.Test(0.4, 0.38, 0.42, p=0.0001, n=80)
    claims.record("guidance", test, control_ok=True, seed=None, show=False)
    entries = []
    for chapter in chapters():
        notebook = read(chapter)
        notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}
        shown = ["guidance-sweep", "guidance-sheet"] if chapter.id == "guidance" else []
        code = next(cell for cell in notebook.cells if cell.cell_type == "code")
        code.outputs = [
            nbformat.v4.new_output("display_data", metadata={figures.MIME: figures.load(id)})
            for id in shown
        ]
        if chapter.id == "guidance":
            code.outputs.append(nbformat.v4.new_output("display_data", {"text/html": _slider()}))
        chapter.executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, chapter.executed)
        entries.append(execute.Entry(chapter.id, "ok", 61.2, 800.0, shown))
    execute.Report(entries).write()


def _slider():
    shades = [np.full((64, 96, 3), shade, np.uint8) for shade in (0, 128, 255)]
    words = ["w = 1", "w = 4", "w = 12"]
    return sliders.frames(shades, words, "guidance scale", ["Black.", "Grey.", "White."]).data


@pytest.fixture
def page(book):
    return lambda name: (book.root / f"_build/html/{name}.html").read_text()


@pytest.fixture(scope="module")
def chromium():
    with browsing.browser() as found:
        yield found


@pytest.fixture(scope="module")
def address(book, tmp_path_factory):
    """The site under a sub-path, as a project page has it."""
    root = tmp_path_factory.mktemp("served")
    (root / "sub").symlink_to(book.root / "_build/html")
    with browsing.served(root) as found:
        yield f"{found}/sub"


@pytest.fixture
def visit(chromium, address):
    """`visit(name, width, **settings)`: a page of the site, or none, in a tab of its own."""
    tabs = []

    def opened(name, width=1280, **settings):
        tab = chromium.new_page(viewport={"width": width, "height": 900}, **settings)
        tabs.append(tab)
        tab.goto(f"{address}/{name}" if name else "about:blank", wait_until="load")
        return tab

    yield opened
    for tab in tabs:
        tab.close()


# What the build writes


def test_the_head_of_a_chapter_has_claim_verdict_time_and_ways_to_run_and_cite(page, book):
    text = page("book/guidance")
    (head,) = re.findall(r'<div class="chapter-head">.*?</details>\n</div>\n</div>', text, re.S)
    assert SENTENCE in head
    verdict = claims.recorded()["guidance"]["verdict"]
    assert f'href="#claim-guidance"><span class="verdict" data-verdict="{verdict}"' in head
    assert "exploratory" in head and 'href="claims.html#claim-guidance"' in head
    assert "Part III: Generation" in head and "1 min to read" in head and "61 s to run" in head
    assert "<code>essay run guidance</code>" in head
    assert "@incollection{market-in-the-model-measured-guidance" in head
    (notebook,) = re.findall(r'href="([^"]*)" download', head)
    assert (book.root / "_build/html/book" / notebook).is_file()
    assert f"{SITE}/book/guidance.html" in head, "the citation has the chapter's address"


def test_the_page_states_the_claim_once_and_keeps_what_the_head_does_not_say(page):
    article = page("book/guidance").partition("<article")[2]
    assert article.count(SENTENCE) == 1, "in the head"
    assert "Our reading" in article
    other = nbformat.v4.new_markdown_cell(CHAPTER.replace("fewer makers", "fewer authors"))
    notebook = nbformat.v4.new_notebook(cells=[other])
    heads.add(chapters(["guidance"])[0], notebook)
    assert "fewer authors" in other.source


def test_every_chapter_states_its_claims_as_registered():
    for claim in claims.load(ROOT / "book/claims.yml"):
        path = ROOT / f"book/{claim.chapter}.md"
        if path.is_file():
            (paragraph,) = heads.STATED.findall(path.read_text())
            assert heads.plain(claim.sentence) in heads.plain(paragraph), claim.id


def test_a_page_without_a_claim_has_a_head_below_its_subtitle(page):
    text = page("book/index")
    assert "chapter-claim" not in text
    assert text.index("A companion") < text.index("chapter-head") < text.index("Words.")


def test_reading_time_counts_prose_alone():
    words = "word " * 440
    cells = [
        nbformat.v4.new_markdown_cell(words + "\n\n```{figure} x\n" + words + "\n```\n$$\na\n$$"),
        nbformat.v4.new_code_cell(words),
    ]
    assert heads.reading_minutes(nbformat.v4.new_notebook(cells=cells)) == 2


def test_the_machine_leads_to_the_chapters_that_there_are(page):
    (drawn,) = re.findall(r'<nav class="machine".*?</nav>', page("book/index"), re.S)
    assert re.findall(r'href="([^"]*)"', drawn) == ["method.html", "guidance.html"]
    assert drawn.count("<li") == sum(len(parts) for _, parts in machine.STAGES)
    assert "to-come" in drawn and 'data-verdict="' in drawn


def test_the_machine_has_a_part_for_every_claim_and_the_stages_of_the_contents():
    parts = [part.chapter for _, found in machine.STAGES for part in found]
    assert len(parts) == len(set(parts))
    assert {claim.chapter for claim in claims.load(ROOT / "book/claims.yml")} <= set(parts)
    for part in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]:
        own = [entry["file"].removeprefix("book/") for entry in part["chapters"]]
        for name, found in machine.STAGES:
            if {one.chapter for one in found} & set(own):
                assert part["caption"].partition(": ")[2] == name


def test_a_definition_stands_beside_the_first_use_of_its_term(page):
    text = page("book/guidance")
    (note,) = re.findall(r'<aside class="margin gloss[^"]*">(.*?)</aside>', text, re.S)
    assert "<strong>vendor</strong>. Who published a drawing, in <em>Unicode" in note
    assert "margin gloss" not in page("book/glossary")


def test_what_links_tell_of_a_page(page, book):
    text = page("book/guidance")
    told = dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', text))
    assert told["og:title"] == told["citation_title"] == "The guidance premium"
    assert SENTENCE in told["description"] == told["og:description"]
    assert told["og:url"] == f"{SITE}/book/guidance.html"
    assert told["og:image:alt"] == "A line rises."
    for name in (*PAGES[:8], "fig/guidance-sweep/index", "index"):
        (card,) = re.findall(r'property="og:image" content="([^"]*)"', page(name))
        path = book.root / "_build/html" / card.removeprefix(f"{SITE}/")
        assert Image.open(path).size == (1200, 630), name


def test_a_card_shows_the_first_figure_of_the_chapter(book):
    root = book.root / "_build/html"
    with_figure = np.asarray(Image.open(root / "cards/guidance.png").convert("L"))
    without = np.asarray(Image.open(root / "cards/index.png").convert("L"))
    below = slice(300, 600)
    assert with_figure[below, 100:].std() > without[below, 100:].std() == 0


def test_the_sitemap_names_every_page(book):
    root = book.root / "_build/html"
    places = [e.text for e in ElementTree.parse(root / "sitemap.xml").iter() if "loc" in e.tag]
    assert f"{SITE}/fig/guidance-sheet/" in places and f"{SITE}/book/claims.html" in places
    for place in places:
        path = root / place.removeprefix(f"{SITE}/")
        assert (path / "index.html" if place.endswith("/") else path).is_file(), place


def test_without_an_address_there_is_no_sitemap(book, monkeypatch):
    monkeypatch.setattr(front.citation, "addresses", lambda: ("", ""))
    made = front.files([])
    assert "_extra/sitemap.xml" not in made
    assert b'href="/book/guidance.html"' in made["_extra/404.html"]


def test_the_page_for_what_is_missing_works_at_any_depth(page):
    links = re.findall(r'(?:href|action)="([^"#]*)"', page("404"))
    assert {"/sub/book/guidance.html", "/sub/search.html", "/sub/"} <= set(links)
    assert all(link.startswith("/sub/") for link in links)


def test_the_door_leads_to_the_preface(page):
    assert 'content="0; url=book/index.html"' in page("index")


def test_a_figure_has_the_same_number_in_its_chapter_and_on_its_page(page):
    for id in ("guidance-sweep", "guidance-sheet"):
        (figure,) = re.findall(rf'<figure[^>]*id="{id}">.*?</figure>', page("book/guidance"), re.S)
        (number,) = re.findall(r'caption-number">Fig. (\d+)', figure)
        assert f'<span class="number">Figure {number}</span>' in page(f"fig/{id}/index")


def test_every_image_says_what_it_shows(book):
    for path in (book.root / "_build/html").rglob("*.html"):
        for tag in re.findall(r"<img\b[^>]*>", path.read_text()):
            assert 'alt="' in tag, (path.name, tag)
            decorates = 'alt=""' in tag
            assert not decorates or "fig/" in tag, (path.name, tag)


def test_an_image_without_alt_text_stops_the_build(monkeypatch):
    from docutils.core import publish_doctree

    told = []
    monkeypatch.setattr(page_extension._logger, "warning", lambda *a, **_: told.append(a[1]))
    source = (
        ".. image:: bad.png\n\n.. image:: good.png\n   :alt: A dog.\n\n"
        '.. raw:: html\n\n   <img src="worse.png"><img src="fine.png" alt="">\n'
    )
    page_extension._check_images(None, publish_doctree(source))
    assert told == ["bad.png", '<img src="worse.png">']


# What a reader meets


@pytest.mark.parametrize(
    "width, scheme, names",
    [(390, "dark", PAGES), (1280, "light", PAGES[:4])],
    ids=["phone", "desk"],
)
def test_pages_pass_axe_fit_the_screen_and_ask_no_other_host(
    chromium, address, width, scheme, names
):
    for name in names:
        assert browsing.faults(chromium, address, f"{name}.html", width, scheme) == {}, name


def test_a_chapter_weighs_little_before_its_figures(visit, address):
    tab = visit("")
    got = []
    tab.on("response", lambda answer: got.append(answer))
    tab.goto(f"{address}/book/guidance.html", wait_until="networkidle")
    bodies = [r.body() for r in got if "/_images/" not in r.url and r.url.startswith(address)]
    assert sum(len(gzip.compress(body)) for body in bodies) < BUDGET
    assert any("source-serif-4" in r.url for r in got), "the book's own typeface"


def test_the_keyboard_reaches_the_text_first_and_opens_what_opens(visit):
    tab = visit("book/guidance.html", 390)
    focused = "document.activeElement"
    tab.keyboard.press("Tab")
    assert tab.evaluate(f"{focused}.textContent").strip() == "Skip to main content"
    tab.wait_for_function(f"{focused}.getBoundingClientRect().top >= 0")
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main-content")
    menu = tab.locator(".bd-header-article .primary-toggle")
    menu.focus()
    tab.keyboard.press("Enter")
    dialog = tab.locator("#pst-primary-sidebar-modal")
    assert dialog.evaluate("d => d.open && d.contains(document.activeElement)")
    tab.keyboard.press("Escape")
    assert not dialog.evaluate("d => d.open")
    assert menu.evaluate("b => b === document.activeElement")
    cite = tab.locator("summary", has_text="Cite")
    cite.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#cite-bibtex").is_visible()


def test_arrow_keys_turn_a_slider_without_a_kernel(visit):
    tab = visit("book/guidance.html", 390)
    box = tab.locator(".essay-frames")
    slider = box.get_by_role("slider", name="guidance scale")
    shown = """box => [...box.querySelectorAll("img")]
        .filter(image => image.offsetParent).map(image => image.alt)"""
    slider.focus()
    for key, word, alt in (("ArrowRight", "w = 4", "Grey."), ("End", "w = 12", "White."),
                           ("ArrowRight", "w = 12", "White."), ("ArrowLeft", "w = 4", "Grey."),
                           ("Home", "w = 1", "Black.")):  # fmt: skip
        tab.keyboard.press(key)
        assert box.locator("output").inner_text() == word
        assert slider.get_attribute("aria-valuetext") == word
        assert box.evaluate(shown) == [alt]


def test_a_focused_link_is_marked(visit):
    tab = visit("book/guidance.html")
    link = tab.locator("article a.reference").first
    tab.keyboard.press("Tab")  # from here on the keyboard is in use
    link.focus()
    width, style = link.evaluate(
        "a => [getComputedStyle(a).outlineWidth, getComputedStyle(a).outlineStyle]"
    )
    assert (width, style) == ("3px", "solid")


def test_the_margin_is_for_wide_screens(visit):
    note = "aside.gloss"
    assert not visit("book/guidance.html", 390).locator(note).is_visible()
    tab = visit("book/guidance.html", 1280)
    box, text = (tab.locator(x).bounding_box() for x in (note, "article > section"))
    assert box["x"] >= text["x"] + text["width"]


def test_who_wants_no_motion_gets_none(visit):
    moving = """[...document.querySelectorAll("*")].filter(e => {
        const style = getComputedStyle(e);
        return style.transitionDuration.split(", ").some(d => d !== "0s")
            && style.transitionProperty !== "none" || style.animationName !== "none";
    }).length"""
    assert visit("book/guidance.html", reduced_motion="reduce").evaluate(moving) == 0


def test_paper_gets_the_text_alone_in_black_on_white(visit):
    tab = visit("book/guidance.html", color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    for hidden in (".bd-sidebar-primary", ".bd-header-article", ".chapter-tools", ".figure-links"):
        assert not tab.locator(hidden).first.is_visible(), hidden
    for shown in ("h1:has-text('The guidance premium')", ".chapter-claim", "#guidance-sweep img"):
        assert tab.locator(f"article {shown}").first.is_visible(), shown
    colours = "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
    found = tab.locator("article p").first.evaluate(colours)
    assert found[1] == "rgb(255, 255, 255)" and max(_rgb(found[0])) < 90


def _rgb(colour):
    return [int(float(x)) for x in re.findall(r"[\d.]+", colour)[:3]]


def test_a_search_finds_pages_and_quotes_their_text(visit):
    tab = visit("search.html?q=adherence")
    results = tab.locator("#search-results li")
    results.first.wait_for(timeout=20_000)
    tab.wait_for_function("document.querySelector('#search-results p.context')")
    assert "The guidance premium" in " ".join(results.all_inner_texts())
    quoted = " ".join(tab.locator("#search-results p.context").all_inner_texts())
    assert ".ipynb" not in quoted and "essay run" not in quoted


def test_a_copy_button_says_what_it_did(visit):
    tab = visit("book/guidance.html")
    tab.locator("summary", has_text="Cite").click()
    button = tab.locator("[data-copy=cite-bibtex]")
    button.click()
    tab.wait_for_function("document.querySelector('[data-copy=cite-bibtex]').innerText != 'Copy'")
    assert re.match("Copied|Selected", button.inner_text())


def test_the_readers_theme_is_kept_on_pages_of_every_kind(visit):
    for name in ("book/guidance.html", "fig/guidance-sweep/", "404.html"):
        tab = visit("favicon.svg")
        tab.evaluate("localStorage.setItem('theme', 'dark'); localStorage.setItem('mode', 'dark')")
        tab.goto(tab.url.replace("favicon.svg", name))
        dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(_rgb(dark)) < 40, name
