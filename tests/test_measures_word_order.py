"""Exchanged words, by hand."""

import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures import word_order


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dog face", "face dog"),
        ("pile of poo", "poo of pile"),
        ("pizza", None),
        ("knock knock", None),
        ("kiss: woman, man", None),
    ],
)
def test_first_and_last_word_change_places(name, other):
    assert word_order.exchanged(name) == other


def test_the_share_preferred_counts_ties_by_half():
    right, wrong = np.array([0.5, 0.5, 0.2, 0.4]), np.array([0.1, 0.5, 0.6, 0.1])
    found = word_order.preferred(right, wrong, ["a", "a", "b", "b"])
    assert found.estimate == pytest.approx(2.5 / 4) and found.n == 2


def test_pairs_must_pair():
    with pytest.raises(EssayError, match="must pair"):
        word_order.preferred(np.ones(3), np.ones(2), ["a", "b", "c"])
