import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import logm

from essaylib.errors import EssayError
from essaylib.measures import vendi


def features(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_copies_are_one_and_strangers_are_many():
    assert vendi.vendi(np.ones((7, 3))) == pytest.approx(1)
    assert vendi.vendi(np.eye(5)) == pytest.approx(5)
    # Two groups of copies, of 3 and 1: exp(entropy of 3/4, 1/4).
    groups = np.eye(2)[[0, 0, 0, 1]]
    wanted = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert vendi.vendi(groups) == pytest.approx(wanted)
    assert vendi.vendi(features(1, 4)) == pytest.approx(1)


def test_two_images_at_an_angle_match_the_closed_form():
    # K = [[1, c], [c, 1]] has the eigenvalues 1 + c and 1 - c; divided by n = 2.
    c = 0.6
    p = np.array([1 + c, 1 - c]) / 2
    x = np.array([[1.0, 0.0], [c, np.sqrt(1 - c**2)]])
    assert vendi.vendi(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize("n, d", [(6, 40), (40, 6)])
def test_it_is_the_von_neumann_entropy_of_the_kernel(n, d):
    x = features(n, d)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    kernel = unit @ unit.T
    assert vendi.vendi(x) == pytest.approx(vendi.vendi_of_kernel(kernel))
    if n < d:  # a matrix logarithm needs full rank
        density = kernel / n
        assert vendi.vendi(x) == pytest.approx(np.exp(-np.trace(density @ logm(density)).real))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_range_and_invariances(n, d, seed):
    x = features(n, d, seed)
    score = vendi.vendi(x)
    assert 1 - 1e-9 <= score <= min(n, d) + 1e-9
    scale = np.random.default_rng(seed).uniform(0.5, 2, size=(n, 1))
    assert vendi.vendi((x * scale)[::-1]) == pytest.approx(score)
    rotation = np.linalg.qr(features(d, d, seed + 1))[0]
    assert vendi.vendi(x @ rotation) == pytest.approx(score)
    assert vendi.vendi(np.repeat(x, 3, axis=0)) == pytest.approx(score)


def test_prompts_that_bind_lie_below_the_ceiling():
    prompts = np.repeat(np.arange(10), 6)
    x = features(10, 32)[prompts] + 0.1 * features(60, 32, 1)
    names, scores = vendi.per_prompt(x, prompts)
    assert names.tolist() == list(range(10))
    ceiling = vendi.ceiling(x, prompts)
    assert ceiling.observed == pytest.approx(scores.mean())
    assert ceiling.low > scores.max() and ceiling.p == 1.0


def test_bad_features_are_refused():
    with pytest.raises(EssayError, match="NaN"):
        vendi.vendi(np.array([[np.nan, 1.0]]))
    with pytest.raises(EssayError, match="no direction"):
        vendi.vendi(np.zeros((2, 3)))
    with pytest.raises(EssayError, match="2 axes"):
        vendi.vendi(np.ones(3))
    with pytest.raises(EssayError, match="symmetric"):
        vendi.vendi_of_kernel(np.array([[1.0, 0.5], [0.1, 1.0]]))
    with pytest.raises(EssayError, match="diagonal"):
        vendi.vendi_of_kernel(np.eye(2) / 2)
