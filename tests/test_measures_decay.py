import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from essaylib.errors import EssayError
from essaylib.measures import decay

T = np.arange(0, 1000, 50.0)


def answers(life, m=400, top=0.8, seed=0):
    """Right or wrong, with a chance that halves its excess over 0.25 at `life`."""
    chance = 0.25 + (top - 0.25) * 0.5 ** (T / life)
    return (np.random.default_rng(seed).random((m, len(T))) < chance).astype(float)


@given(st.floats(100, 700))
def test_an_exponential_has_the_half_life_it_was_given(life):
    curve = 0.5 ** (T / life)
    # Linear interpolation of a convex curve errs by a fraction of one step.
    assert decay.half_life(T, curve) == pytest.approx(life, abs=3)


def test_between_two_timesteps_the_curve_is_straight():
    assert decay.half_life([0, 100, 200], [1, 0.75, 0.25]) == pytest.approx(150)
    assert decay.half_life([0, 100, 200], [1, 0.5, 0.6]) == pytest.approx(100)


def test_excess_starts_at_one_and_counts_from_the_floor():
    curves = decay.excess(np.array([[0.75, 0.25], [1.0, 0.5]]))
    assert curves.mean(0).tolist() == [1.0, 0.2]


def test_what_outlives_is_found_with_its_interval():
    a, b = decay.excess(answers(400, m=1500)), decay.excess(answers(200, m=1500, seed=1))
    found = decay.outlives(T, a, b, draws=400)
    assert found.low < 200 < found.high and found.low > 100
    null = decay.null(T, a, b, draws=2000)
    assert null.observed == pytest.approx(found.estimate)
    assert null.p == pytest.approx(1 / 2001) and abs(null.mean) < 15


def test_equal_lives_do_not_differ_even_when_one_question_is_easier():
    a, b = decay.excess(answers(300)), decay.excess(answers(300, top=0.6, seed=1))
    assert decay.null(T, a, b, draws=2000).p > 0.01
    found = decay.outlives(T, a, b, draws=400)
    assert found.low < 0 < found.high


def test_curves_without_a_half_life_are_refused():
    with pytest.raises(EssayError, match="half-life of nothing"):
        decay.excess(np.full((5, 3), 0.2))
    with pytest.raises(EssayError, match="end below it"):
        decay.half_life([0, 1], [1, 0.9])
    with pytest.raises(EssayError, match="must rise"):
        decay.half_life([0, 0], [1, 0])
    with pytest.raises(EssayError, match="NaN"):
        decay.half_life([0, 1], [1, np.nan])
