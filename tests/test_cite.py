import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import rispy
import yaml
from conftest import ROOT
from pybtex.database import parse_file, parse_string

from essaylib import citation, figures, glue
from essaylib.errors import EssayError
from essaylib.publishing import cite

CFF = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
ESSAY = Path(sys.executable).with_name("essay")
ADDRESSES = (
    "html: {baseurl: 'https://book.example.org'}\nrepository: {url: 'https://r.example.org'}\n"
)


@pytest.fixture
def book(sandbox):
    """A book with one chapter and one figure, at an address."""
    (sandbox / "_config.yml").write_text(ADDRESSES)
    (sandbox / "book" / "guidance.md").write_text(
        "---\nkernelspec: {}\n---\n\n# The *guidance* premium\n"
    )
    glue.chapter("guidance", model="embedded")
    with figures.figure(
        "guidance-sheet", {"x": [1]}, "Pictures & prices: 50% of {n}_all.", "Grey."
    ) as fig:
        fig.subplots().plot([0, 1])
    return sandbox


IDS = [None, "guidance", "guidance-sheet"]


@pytest.mark.parametrize("id", IDS)
def test_bibtex_parses_and_agrees_with_citation_cff(book, id):
    cited = cite.find(id)
    (entry,) = parse_string(cite.write(cited, "bibtex"), "bibtex").entries.values()
    assert [str(person) for person in entry.persons["author"]] == [
        f"{{{CFF['authors'][0]['name']}}}"
    ]
    assert entry.fields["year"] == CFF["date-released"][:4]
    assert entry.fields["version"] == CFF["version"]
    assert entry.fields["url"] == cited.url
    if id:
        assert CFF["title"] in entry.fields.get("booktitle", entry.fields.get("howpublished"))
    else:
        assert entry.fields["title"].strip("{}") == CFF["title"]


def test_bibtex_escapes_what_latex_reads_as_commands(book):
    assert r"Pictures \& prices: 50\% of 1\_all" in cite.write(
        cite.find("guidance-sheet"), "bibtex"
    )


@pytest.mark.parametrize("id", IDS)
def test_csl_json_is_rendered_by_a_citation_processor(book, id):
    from citeproc import (
        Citation,
        CitationItem,
        CitationStylesBibliography,
        CitationStylesStyle,
        formatter,
    )
    from citeproc.source.json import CiteProcJSON

    items = json.loads(cite.write(cite.find(id), "csl-json"))
    (item,) = items
    assert item["author"] == [{"literal": CFF["authors"][0]["name"]}]
    assert item["issued"] == {"date-parts": [[int(n) for n in CFF["date-released"].split("-")]]}
    style = CitationStylesStyle("harvard-cite-them-right", validate=False)
    bibliography = CitationStylesBibliography(style, CiteProcJSON(items), formatter.plain)
    bibliography.register(Citation([CitationItem(item["id"])]))
    rendered = str(bibliography.bibliography()[0])
    assert CFF["authors"][0]["name"] in rendered and CFF["date-released"][:4] in rendered


@pytest.mark.parametrize("id", IDS)
def test_ris_parses_and_agrees_with_citation_cff(book, id):
    cited = cite.find(id)
    (record,) = rispy.loads(cite.write(cited, "ris"))
    assert record["authors"] == [CFF["authors"][0]["name"]]
    assert record["year"] == CFF["date-released"][:4]
    assert record["urls"] == [cited.url]
    assert record["type_of_reference"] == {None: "BOOK", "guidance": "CHAP"}.get(id, "FIGURE")
    assert record["title"] == cited.title


@pytest.mark.parametrize("id", IDS)
def test_the_text_asks_that_the_paper_be_cited_too(book, id):
    text = cite.write(cite.find(id))
    assert CFF["title"] in text and f"version {CFF['version']}" in text
    assert re.search(r"Please also cite: Salvaggio, Eryk \(2026\).*arXiv:2606\.19151", text)


def test_each_part_has_its_own_address(book):
    assert cite.find().url == "https://book.example.org"
    assert cite.find("guidance").url == "https://book.example.org/book/guidance.html"
    assert cite.find("guidance").title == "The guidance premium"
    assert cite.find("guidance-sheet").url == "https://book.example.org/fig/guidance-sheet/"


def test_without_an_address_a_citation_has_none(book):
    (book / "_config.yml").write_text("html: {baseurl: ''}\nrepository: {url: ''}\n")
    assert cite.find("guidance-sheet").url == ""
    assert "url" not in cite.write(cite.find("guidance-sheet"), "bibtex")
    assert not [line for line in cite.write(cite.find(), "ris").splitlines() if line[:2] == "UR"]


def test_a_doi_enters_every_format_from_citation_cff(book):
    path = book / "CITATION.cff"
    path.write_text(path.read_text() + "doi: 10.5281/zenodo.1\n")
    citation._book.cache_clear()
    try:
        for style in cite.FORMATS:
            assert "10.5281/zenodo.1" in cite.write(cite.find("guidance-sheet"), style)
    finally:
        citation._book.cache_clear()


def test_a_saved_image_is_cited_by_what_it_carries(book):
    image = figures.folder("guidance-sheet") / "figure.svg"
    assert cite.find(str(image)) == cite.find("guidance-sheet")


def test_a_figure_is_cited_from_the_registry_where_it_was_not_drawn(sandbox):
    (sandbox / "book" / "figures.yml").write_text(
        "figures:\n"
        "  clip-ratio: {chapter: clip, title: Ratios}\n"
        "  clip-old: {redirect: clip-ratio}\n"
    )
    assert cite.find("clip-old").title == cite.find("clip-ratio").title == "Ratios"


def test_redirects_in_a_circle_are_named(sandbox):
    (sandbox / "book" / "figures.yml").write_text(
        "figures:\n  a-b: {redirect: c-d}\n  c-d: {redirect: a-b}\n"
    )
    with pytest.raises(EssayError, match="circle: a-b → c-d → a-b"):
        cite.find("a-b")


def test_what_cannot_be_cited_names_the_cure(book):
    with pytest.raises(EssayError, match="Did you mean 'guidance-sheet'"):
        cite.find("guidance-shet")
    with pytest.raises(EssayError, match="choose text, bibtex, csl-json, ris"):
        cite.write(cite.find(), "endnote")
    (book / "book" / "empty.md").write_text("no heading\n")
    with pytest.raises(EssayError, match="has no title"):
        cite.find("empty")
    (book / "CITATION.cff").unlink()
    citation._book.cache_clear()
    with pytest.raises(EssayError, match="CITATION.cff is missing"):
        cite.find()


def test_citation_cff_is_valid():
    found = find_spec("cffconvert")
    if found is None:
        pytest.skip("needs the schema in cffconvert: pip install --no-deps cffconvert")
    path = Path(found.submodule_search_locations[0]) / "schemas" / "1.2.0" / "schema.json"
    jsonschema.validate(CFF, json.loads(path.read_text()))


def test_citation_cff_names_the_paper_and_the_source_of_its_terms():
    titles = [reference["title"] for reference in CFF["references"]]
    assert titles == ["The Market in the Model: Latent Diffusion as Neural Economy", "Vector Media"]


def test_citation_cff_has_the_version_of_the_package():
    import essaylib

    assert CFF["version"] == essaylib.__version__


BIBLIOGRAPHY = parse_file(ROOT / "book" / "references.bib")


def test_every_work_cited_is_in_the_bibliography():
    missing = {
        f"{page.name}: {key.strip()}"
        for page in (ROOT / "book").glob("*.md")
        for keys in CITED.findall(page.read_text())
        for key in keys.split(",")
        if key.strip() not in BIBLIOGRAPHY.entries
    }
    assert missing == set()


def test_the_bibliography_holds_verified_works_only():
    for key, entry in BIBLIOGRAPHY.entries.items():
        assert not {"note", "annote"} & set(entry.fields), f"{key} carries a working note"
        assert (
            entry.persons.get("author") and entry.fields.get("title") and entry.fields.get("year")
        )
    assert "†" not in (ROOT / "book" / "references.bib").read_text()


def test_the_bibliography_and_citation_cff_agree_on_the_paper():
    paper = CFF["references"][0]
    entry = BIBLIOGRAPHY.entries["salvaggio2026market"]
    assert entry.fields["title"] == paper["title"]
    assert f"arXiv:{entry.fields['eprint']}" == paper["identifiers"][0]["value"]


def test_the_command_prints_citations_and_errors():
    done = subprocess.run([ESSAY, "cite", "--format", "ris"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("TY  - BOOK")
    done = subprocess.run([ESSAY, "cite", "nothing-here"], capture_output=True, text=True)
    assert done.returncode == 2 and "Nothing is called 'nothing-here'" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([ESSAY, "cite", "guidence-sheet"], capture_output=True, text=True)
    assert done.returncode == 2 and "Did you mean 'guidance-sheet'" in done.stderr
