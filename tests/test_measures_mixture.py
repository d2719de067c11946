import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from essaylib.errors import EssayError
from essaylib.measures import mixture


def test_a_mixture_gives_back_its_weights():
    rng = np.random.default_rng(0)
    drawings, weights = rng.normal(size=(50, 4, 30)), rng.dirichlet(np.ones(4), 50)
    weights[:10, 1] = 0
    weights /= weights.sum(1, keepdims=True)
    found, distance = mixture.convex_weights((weights[..., None] * drawings).sum(1), drawings)
    assert found == pytest.approx(weights, abs=1e-6)
    assert distance == pytest.approx(np.zeros(50), abs=1e-5)


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 999))
def test_it_matches_non_negative_least_squares(k, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=12), rng.normal(size=(k, 12))
    heavy = 1e5  # one more equation makes the weights sum to one
    wanted, _ = nnls(np.vstack([y.T, heavy * np.ones(k)]), np.append(x, heavy))
    found, distance = mixture.convex_weights(x[None], y[None])
    assert found[0] == pytest.approx(wanted, abs=1e-4)
    assert distance[0] == pytest.approx(np.sqrt(np.mean((x - wanted @ y) ** 2)), abs=1e-4)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()


def test_outside_the_hull_the_nearest_drawing_has_all():
    drawings = np.array([[[0.0, 0], [1, 0], [0, 1]]])
    found, distance = mixture.convex_weights(np.array([[5.0, -5]]), drawings)
    assert found == pytest.approx(np.array([[0, 1, 0]]))
    assert distance == pytest.approx([np.sqrt((16 + 25) / 2)])


def test_a_lean_to_one_vendor_is_found():
    rng = np.random.default_rng(0)
    shares = np.full((200, 4), 0.25)
    leaning = mixture.lean(rng.dirichlet([4, 2, 2, 2], 200), shares, draws=2000)
    assert leaning.observed == pytest.approx(0.15, abs=0.03)
    assert leaning.p == pytest.approx(1 / 2001)
    even = mixture.lean(rng.dirichlet(np.ones(4), 200), shares, draws=2000)
    assert even.p > 0.01 and even.observed == pytest.approx(even.mean, abs=0.03)


def test_what_does_not_pair_is_refused():
    with pytest.raises(EssayError, match="do not pair"):
        mixture.convex_weights(np.ones((2, 5)), np.ones((2, 4, 6)))
    with pytest.raises(EssayError, match="NaN"):
        mixture.convex_weights(np.full((1, 3), np.nan), np.ones((1, 2, 3)))
    with pytest.raises(EssayError, match="must pair"):
        mixture.lean(np.ones((3, 4)), np.ones((2, 4)))
    with pytest.raises(EssayError, match="too few"):
        mixture.lean(np.ones((3, 4)), np.ones((3, 4)), draws=10)
