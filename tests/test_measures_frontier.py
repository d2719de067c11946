import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from essaylib.errors import EssayError
from essaylib.measures import frontier

X, Y = np.array([0.2, 0.4, 0.8]), np.array([5.0, 4.0, 3.0])


def test_a_curve_is_linear_between_its_points():
    assert [frontier.at(X, Y, level) for level in (0.2, 0.3, 0.4, 0.6, 0.8)] == pytest.approx(
        [5, 4.5, 4, 3.5, 3]
    )


@given(st.floats(0.2, 0.8))
def test_rising_curves_match_numpy(level):
    assert frontier.at(X, Y, level) == pytest.approx(np.interp(level, X, Y))


def test_a_curve_that_turns_back_counts_where_it_first_arrives():
    assert frontier.at([0, 1, 0], [0, 10, 50], 0.5) == pytest.approx(5)


def test_the_gap_is_taken_at_equal_adherence():
    # Curve b obeys less at every setting, and lies one lower at equal adherence.
    xb, line = X - 0.1, 6 - 5 * X
    assert frontier.common(X, xb) == pytest.approx((0.2, 0.7))
    assert frontier.gap(X, line, xb, (6 - 5 * xb) - 1) == pytest.approx(1)
    assert frontier.gap(X, Y, X, Y) == 0
    assert frontier.gap(X, Y, X, Y - 2, level=0.3) == pytest.approx(2)


def test_curves_without_a_common_range_are_refused():
    with pytest.raises(EssayError, match="no range"):
        frontier.gap(X, Y, X + 1, Y)
    with pytest.raises(EssayError, match="never reaches 0.9"):
        frontier.at(X, Y, 0.9)
    with pytest.raises(EssayError, match="must pair"):
        frontier.at(X, Y[:2], 0.3)
    with pytest.raises(EssayError, match="NaN"):
        frontier.at([np.nan, 1], [1, 2], 0.5)
