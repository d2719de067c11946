import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from essaylib.errors import EssayError
from essaylib.measures.gini import by_chance, gini

positive = arrays(float, st.integers(1, 12), elements=st.floats(0.01, 100))


def test_hand_computed_values():
    assert gini([1, 1, 1, 1]) == 0
    assert gini([0, 0, 0, 5]) == pytest.approx(3 / 4)
    # |1-2| + |1-3| + |2-3| = 4, twice, over 2 * 9 * 2.
    assert gini([1, 2, 3]) == pytest.approx(8 / 36)
    assert gini([[1, 1], [0, 3]]).tolist() == [0, 0.5]
    assert gini([7]) == 0


@given(positive)
def test_it_is_half_the_relative_mean_difference(mass):
    wanted = np.abs(mass[:, None] - mass).mean() / (2 * mass.mean())
    assert gini(mass) == pytest.approx(wanted, abs=1e-9)


@given(positive, st.floats(0.1, 10))
def test_range_and_invariances(mass, scale):
    index = gini(mass)
    assert -1e-12 <= index <= 1 - 1 / len(mass) + 1e-12
    assert gini(scale * mass[::-1]) == pytest.approx(index, abs=1e-9)
    assert gini(np.tile(mass, 3)) == pytest.approx(index, abs=1e-9)
    if len(mass) > 1:
        poorest, richest = mass.argmin(), mass.argmax()
        moved = mass.copy()
        gift = (mass[richest] - mass[poorest]) / 4
        moved[richest] -= gift
        moved[poorest] += gift
        assert gini(moved) <= index + 1e-9


def test_chance_alone_is_unequal():
    for n in (2, 5, 20):
        assert by_chance(n).mean() == pytest.approx((n - 1) / (2 * n), abs=0.01)


def test_what_is_no_mass_is_refused():
    with pytest.raises(EssayError, match="from zero up"):
        gini([1, -1])
    with pytest.raises(EssayError, match="no mass at all"):
        gini([0, 0])
    with pytest.raises(EssayError, match="NaN"):
        gini([np.nan, 1])
    with pytest.raises(EssayError, match="empty"):
        gini([])
