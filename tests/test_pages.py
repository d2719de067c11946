import json
import re
import shutil

import browsing
import jsonschema
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from essaylib import claims, figures, glue, plotting
from essaylib.errors import EssayError
from essaylib.publishing import execute, lock, pages
from essaylib.publishing.chapters import chapters

SWEEP = pd.DataFrame({"w": [1, 4], "adherence": [0.1, 0.20400000000000001], "seed <b>": ["a", "b"]})


def draw(name="guidance-sweep", data=SWEEP, **settings):
    with figures.figure(
        name, data, "Adherence & vendors, n = {n}.", "A line <rises>.", **settings
    ) as fig:
        plotting.frontier(fig, SWEEP, "w", "adherence")


def sheet():
    with figures.figure("guidance-sheet", {"w": [1]}, "One prompt.", "A grey square.") as fig:
        plotting.image_grid(fig, np.zeros((1, 32, 32, 3), np.uint8))


def executed(*ids):
    """Pretend that the only chapter was run and showed these figures."""
    cell = nbformat.v4.new_code_cell("draw()")
    cell.outputs = [
        nbformat.v4.new_output(
            "display_data", {"text/plain": id}, metadata={figures.MIME: {"id": id}}
        )
        for id in ids
    ]
    (chapter,) = chapters()
    chapter.executed.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), chapter.executed)


@pytest.fixture
def book(sandbox):
    """One chapter that shows two figures and tests a claim; all lists are in the contents."""
    lists = ("figures", "claims", "report", "bibliography")
    (sandbox / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/guidance\n"
        + "".join(f"- file: book/{name}\n" for name in lists)
    )
    (sandbox / "book/guidance.md").write_text(
        "---\nkernelspec:\n  name: python3\n---\n\n# The guidance *premium*\n"
    )
    (sandbox / "book/claims.yml").write_text((ROOT / "book/claims.yml").read_text())
    (sandbox / "book/figures.yml").write_text(
        "figures:\n"
        "  guidance-sweep: {chapter: guidance, title: x}\n"
        "  guidance-old: {redirect: guidance-sweep}\n"
    )
    glue.chapter("guidance", model="embedded", seed=0, device="cpu")
    draw(claim="values")
    sheet()
    executed("guidance-sheet", "guidance-sweep")
    test = claims.Test(0.4, 0.38, 0.42, p=0.5, n=1008)
    claims.record("values", test, control_ok=True, seed=None, show=False)
    entry = execute.Entry(
        "guidance", "ok", 61.25, 812.0, ["guidance-sheet", "guidance-sweep"],
        {"device": "cpu", "seed": 0}, 1, {"torch version": "2.13.0"},
    )  # fmt: skip
    execute.Report([entry]).write()
    return sandbox


def page(id="guidance-sweep"):
    return pages.files()[f"_extra/fig/{id}/index.html"].decode()


def test_each_figure_has_a_folder_with_everything_its_page_links_to(book):
    found = pages.files()
    for id in ("guidance-sheet", "guidance-sweep"):
        text = found[f"_extra/fig/{id}/index.html"].decode()
        for link in re.findall(r'(?:href|src)="([^"#:]+)"', text):
            if not link.startswith(".."):
                assert f"_extra/fig/{id}/{link}" in found, link
        record = json.loads(found[f"_extra/fig/{id}/provenance.json"])
        jsonschema.validate(record, json.loads(found["_extra/fig/schema.json"]))
        assert found[f"_extra/fig/{id}/{record['image']['file']}"]


def test_a_figure_page_says_what_it_must(book):
    text = page()
    assert "Figure 2" in text and "Adherence &amp; vendors, n = 2." in text
    assert "<p>A line &lt;rises&gt;.</p>" in text, "the alt text is shown"
    assert claims.load()["values"].sentence.split(",")[0] in text
    assert "<strong>undecided</strong> (exploratory" in text
    assert "0.4, 95 % interval 0.38 to 0.42" in text
    for style in ("bibtex", "csl-json", "ris", "text"):
        assert f'data-copy="cite-{style}"' in text
    assert "@misc{market-in-the-model-measured-guidance-sweep" in text
    assert '<th scope="col">seed &lt;b&gt;</th>' in text
    assert "<td>0.204</td>" in text
    assert "essay run guidance" in text and "essay verify guidance-sweep" in text
    assert "not been locked yet" in text
    assert 'href="../../book/guidance.html#guidance-sweep"' in text


def test_the_published_provenance_has_number_and_verdict(book):
    record = json.loads(pages.files()["_extra/fig/guidance-sweep/provenance.json"])
    assert record["number"] == "2"
    assert record["claim"] == {"id": "values", "verdict": "undecided"}


def test_a_locked_figure_says_how_it_compares(book):
    lock.accept()
    assert "this figure is <strong>identical</strong>" in page()
    glue.chapter("guidance", model="embedded", seed=0)
    draw(data=SWEEP.assign(adherence=[0.1, 0.9]))
    text = page()
    assert "this figure is <strong>changed</strong>: adherence at row 2: 0.204 → 0.9" in text


def test_without_a_repository_there_are_no_links_out(book):
    for path, content in pages.files().items():
        if path.endswith((".html", ".md")):
            links = re.findall(r'(?:href|src)="(https?://[^"]*)"', content.decode())
            assert links == [], path
    assert "Colab" not in page()


def test_with_a_repository_the_code_is_linked_at_its_commit(book, monkeypatch):
    from essaylib import provenance

    monkeypatch.setattr(provenance, "git", lambda: {"commit": "c" * 40, "clean": True})
    glue.chapter("guidance", model="embedded", seed=0)
    draw()
    (book / "_config.yml").write_text(
        "repository: {url: 'https://git.example.org/book'}\nhtml: {baseurl: 'https://b.example.org'}\n"
    )
    text = page()
    assert f"https://git.example.org/book/blob/{'c' * 40}/book/guidance.md" in text
    assert "https://b.example.org/fig/guidance-sweep/" in text


def test_a_figure_page_leads_to_its_cell_in_a_notebook(book):
    assert 'href="../../notebooks/guidance.ipynb" download' in page()
    config = book / "_config.yml"
    config.write_text("repository: {url: 'https://github.com/owner/name'}\n")
    address = "https://colab.research.google.com/github/owner/name/blob/gh-pages/notebooks"
    assert f'href="{address}/guidance.ipynb#scrollTo=figure-guidance-sweep"' in page()


def test_a_retired_id_leads_to_the_figure_that_took_its_place(book):
    text = pages.files()["_extra/fig/guidance-old/index.html"].decode()
    assert 'url=../guidance-sweep/"' in text and 'href="../guidance-sweep/"' in text


def test_the_list_of_figures_shows_them_in_book_order(book):
    text = pages.files()["book/figures.md"].decode()
    ids = re.findall(r'<li id="index-([a-z-]+)">', text)
    assert ids == ["guidance-sheet", "guidance-sweep"]
    assert 'src="../fig/guidance-sheet/figure.png"' in text
    assert 'claim <a href="claims.html#claim-values">values</a>: undecided' in text


def test_the_claims_page_has_every_claim_with_rule_and_verdict(book):
    text = pages.files()["book/claims.md"].decode()
    for claim in claims.load():
        assert f'id="claim-{claim.id}"' in text
    assert text.count("<dt>Counts against it</dt>") == len(claims.load())
    assert "1 undecided" in text
    assert "0.4, 95 % interval 0.38 to 0.42; p = 0.5" in text
    assert 'drawn in <a href="../fig/guidance-sweep/">' in text


def test_no_page_of_the_book_breaks_out_of_its_html(book):
    # A blank line ends an HTML block of Markdown; what follows would be read as Markdown.
    for name in ("figures", "claims", "report"):
        text = pages.files()[f"book/{name}.md"].decode()
        for block in re.split(r"\n\s*\n", text):
            assert block.lstrip().startswith(("<", "#")) or not block.strip(), block[:80]


def test_the_report_shows_seconds_memory_device_and_versions(book):
    text = pages.files()["book/report.md"].decode()
    for fact in ("61.2", "812 MiB", "<td>cpu</td>", "torch 2.13.0", "executed", "seed = 0"):
        assert fact in text


def test_the_report_of_a_cached_run_is_the_same_page(book):
    before = pages.report_page()
    report = execute.read_report()
    entry = report.chapters[0]
    execute.Report([type(entry)(**{**vars(entry), "status": "cached"})]).write()
    assert pages.report_page() == before


def test_lists_are_made_only_where_the_contents_name_them(book):
    (book / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/guidance\n"
    )
    assert [path for path in pages.files() if path.endswith(".md")] == []


def test_an_id_in_two_places_and_a_damaged_file_are_errors(book):
    executed("guidance-sheet", "guidance-sheet")
    with pytest.raises(EssayError, match="guidance-sheet is used by"):
        pages.files()
    executed("guidance-sheet")
    (figures.folder("guidance-sheet") / "data.csv").write_text("w\n2\n")
    with pytest.raises(EssayError, match="is not the data that was drawn"):
        pages.files()


@pytest.fixture(scope="module")
def browser():
    with browsing.browser() as found:
        yield found


@pytest.fixture
def site(book, tmp_path_factory):
    """The generated HTML pages as files, with everything that a figure page can show."""
    (book / "_config.yml").write_text("repository: {url: 'https://git.example.org/book'}\n")
    lock.accept()
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "book/_static", place / "_static")
    for path, content in pages.files().items():
        target = place / path.removeprefix("_extra/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return place


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figure_pages_pass_axe_and_ask_no_other_host(site, browser, scheme):
    from axe_playwright_python.sync_playwright import Axe

    for id in ("guidance-sheet", "guidance-sweep"):
        tab = browser.new_page(color_scheme=scheme)
        asked, told = [], []
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("console", lambda message, told=told: told.append(message.text))
        tab.goto((site / "fig" / id / "index.html").as_uri())
        assert told == []
        found = Axe().run(tab).response["violations"]
        grave = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
        assert grave == [], json.dumps(found, indent=1)[:3000]
        assert all(url.startswith(("file:", "data:")) for url in asked), asked
        tab.close()


def test_copying_a_citation_tells_that_it_was_copied(site, browser):
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    tab.goto((site / "fig/guidance-sweep/index.html").as_uri())
    tab.get_by_role("button", name="Copy BibTeX").press("Enter")
    tab.wait_for_function("document.getElementById('told').textContent !== ''")
    told = tab.locator("#told").inner_text()
    copied = tab.evaluate("navigator.clipboard.readText().catch(() => String(getSelection()))")
    assert told == "Copied BibTeX." or told.startswith("Selected")
    assert copied.startswith("@misc{market-in-the-model-measured-guidance-sweep")


def test_the_readers_theme_and_a_narrow_screen(site, browser):
    tab = browser.new_page(color_scheme="light", viewport={"width": 360, "height": 700})
    tab.add_init_script("localStorage.setItem('theme', 'dark')")
    tab.goto((site / "fig/guidance-sweep/index.html").as_uri())
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
