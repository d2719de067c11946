import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from essaylib.errors import EssayError
from essaylib.measures import calibration


def features(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_few_images_are_paired_exhaustively():
    x = features(12, 5)
    wanted = np.sort(cosine_similarity(x)[np.triu_indices(12, 1)])
    assert calibration.floor(x).cosines == pytest.approx(wanted)


def test_many_images_are_sampled_without_pairing_one_with_itself():
    x = features(400, 5)
    floor = calibration.floor(x, pairs=5000)
    assert len(floor.cosines) == 5000
    assert floor.cosines.max() < 1 - 1e-9
    every = cosine_similarity(x)[np.triu_indices(400, 1)]
    assert floor.mean == pytest.approx(every.mean(), abs=0.02)
    assert (floor.low, floor.high) == pytest.approx(
        tuple(np.quantile(every, [0.025, 0.975])), abs=0.04
    )


def test_a_cosine_is_read_against_its_own_space():
    narrow = calibration.floor(features(200, 20) + 5)
    wide = calibration.floor(features(200, 20))
    assert narrow.mean > 0.9 and abs(wide.mean) < 0.05
    assert narrow.rank(0.8) < 0.05 and wide.rank(0.8) > 0.99
    assert narrow.rank(np.median(narrow.cosines)) == pytest.approx(0.5, abs=0.01)
    assert wide.rank([-1.01, 1.01]).tolist() == [0, 1]


@given(st.integers(2, 9), st.integers(0, 99))
def test_cosines_match_scikit_learn_and_ignore_length(n, seed):
    a, b = features(n, 4, seed), features(n, 4, seed + 1)
    wanted = np.diag(cosine_similarity(a, b))
    assert calibration.cosine(a, b) == pytest.approx(wanted)
    assert calibration.cosine(3 * a, 0.1 * b) == pytest.approx(wanted)


def test_effective_rank_counts_directions():
    # Four points at the corners of a square use two directions alike.
    square = np.array([[1, 0], [-1, 0], [0, 1], [0, -1.0]])
    assert calibration.effective_rank(square) == pytest.approx(2)
    line = np.outer(np.arange(5.0), [1, 2, 3])
    assert calibration.effective_rank(line) == pytest.approx(1)
    # Singular values in the ratio 3 : 1.
    cross = square * [3, 1]
    wanted = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert calibration.effective_rank(cross) == pytest.approx(wanted)


@given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 99))
def test_effective_rank_is_bounded_and_ignores_shift_scale_and_rotation(n, d, seed):
    x = features(n, d, seed)
    rank = calibration.effective_rank(x)
    assert 1 - 1e-9 <= rank <= min(n - 1, d) + 1e-6
    turn = np.linalg.qr(features(d, d, seed + 1))[0]
    assert calibration.effective_rank(7 + 2 * x @ turn) == pytest.approx(rank)


def test_degenerate_features_are_refused():
    with pytest.raises(EssayError, match="no direction"):
        calibration.floor(np.zeros((3, 2)))
    with pytest.raises(EssayError, match="no direction is in use"):
        calibration.effective_rank(np.ones((4, 3)))
    with pytest.raises(EssayError, match="two images"):
        calibration.floor(np.ones((1, 3)))
    with pytest.raises(EssayError, match="NaN"):
        calibration.cosine(np.array([[np.nan]]), np.array([[1.0]]))


def test_the_modality_gap_is_the_distance_of_the_means():
    images, texts = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 5.0]])
    assert calibration.modality_gap(images, texts) == pytest.approx(np.hypot(0.5, 0.5))
    assert calibration.modality_gap(images, -images) == pytest.approx(2 * np.hypot(0.5, 0.5))
    with pytest.raises(EssayError, match="zeros"):
        calibration.modality_gap(np.zeros((2, 2)), texts)
