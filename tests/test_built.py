"""The book as it was built: every page, as a reader with a phone or at a desk meets it."""

from urllib.parse import urlsplit

import browsing
import pytest
from conftest import ROOT

from essaylib import citation

SITE = ROOT / "_build/html"


@pytest.fixture(scope="module")
def built():
    """The pages of the built book, but for those that only lead to another."""
    if not (SITE / "index.html").is_file():
        pytest.skip("needs the built book: make book")
    pages = (path for path in SITE.rglob("*.html") if "_static" not in path.parts)
    return sorted(
        path.relative_to(SITE).as_posix()
        for path in pages
        if 'http-equiv="refresh"' not in path.read_text()
    )


@pytest.fixture
def served(tmp_path):
    """The site's address, under the path that it will be published at."""
    path = urlsplit(citation.addresses()[0]).path.strip("/")
    root = tmp_path / "root"
    place = root / path  # the root itself where the site has no sub-path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(SITE)
    with browsing.served(root) as address:
        yield f"{address}/{path}".rstrip("/")


@pytest.mark.parametrize("width, scheme", [(390, "dark"), (1280, "light")], ids=["phone", "desk"])
def test_every_page_of_the_built_book(built, served, width, scheme):
    with browsing.browser() as chromium:
        found = {page: browsing.faults(chromium, served, page, width, scheme) for page in built}
    assert {page: faults for page, faults in found.items() if faults} == {}
    assert len(found) > 40
