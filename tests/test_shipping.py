"""What ships is what the chapters ask for."""

import pytest

from essaylib import partings, shipping
from essaylib.publishing import chapters


@pytest.mark.parametrize(
    ("chapter", "shipped"), [("loss", shipping.CONCEPTS), ("unet", partings.DRAWINGS)]
)
def test_as_many_are_shipped_as_the_chapter_measures(chapter, shipped):
    (found,) = chapters.chapters([chapter])
    assert chapters.defaults(chapters.read(found))["samples"] == shipped
