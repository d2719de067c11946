import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures import adherence


def test_unsure_counts_as_not_seen():
    seen, asked = np.array([0, 1, -1, 2, 2, 2]), np.array([0, 0, 0, 2, 2, 1])
    assert adherence.hits(seen, asked).tolist() == [True, False, False, True, True, False]
    found = adherence.adherence(seen, asked)
    assert found.estimate == pytest.approx(0.5)
    assert found.n == 3
    assert adherence.adherence(seen, asked, prompts=np.arange(6)).n == 6


def test_a_popular_answer_is_worth_its_share_and_no_more():
    asked = np.repeat(np.arange(4), 25)
    null = adherence.chance(np.zeros(100, dtype=int), asked, draws=2000)
    assert null.observed == null.mean == pytest.approx(0.25)
    assert null.p == 1.0
    assert adherence.chance(asked, asked, draws=2000).p == pytest.approx(1 / 2001)


def test_requests_that_cannot_be_met_are_refused():
    with pytest.raises(EssayError, match="must pair"):
        adherence.hits(np.array([1, 2]), np.array([1]))
    with pytest.raises(EssayError, match="must pair"):
        adherence.hits(np.array([], dtype=int), np.array([], dtype=int))
    with pytest.raises(EssayError, match="not for -1"):
        adherence.hits(np.array([1, 2]), np.array([1, -1]))
    with pytest.raises(EssayError, match="whole numbers"):
        adherence.hits(np.array([0.5, 1.0]), np.array([1, 1]))
