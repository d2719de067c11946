"""Drift over rounds, on pictures whose movement is known."""

import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures import drift


def rounds(change, count=20, n=10, seed=0):
    """Pictures that pass through `change(picture, round, rng)` again and again."""
    rng = np.random.default_rng(seed)
    passed = [rng.integers(60, 120, size=(n, 8, 8, 3))]
    for number in range(count):
        passed.append(change(passed[-1], number, rng))
    return np.stack(passed).astype(np.uint8)


def test_distances_are_root_mean_squares_in_grey_levels():
    passed = rounds(lambda x, number, rng: x + number + 1, count=3, n=2)
    assert drift.distances(passed)[0] == pytest.approx(
        np.array([[0, 1, 3, 6], [1, 0, 2, 5], [3, 2, 0, 3], [6, 5, 3, 0]])
    )
    assert drift.drift(drift.distances(passed))[1] == pytest.approx([0, 2, 5])


def test_distances_match_the_definition():
    passed = rounds(lambda x, number, rng: rng.integers(0, 256, x.shape), count=4, n=3)
    by_hand = np.sqrt(((passed[1, 2].astype(float) - passed[4, 2]) ** 2).mean())
    assert drift.distances(passed)[2, 1, 4] == pytest.approx(by_hand)


def test_trembling_about_a_fixed_point_is_no_drift():
    """Each round is one still picture and noise of its own: its last is like any other."""
    base = np.random.default_rng(1).integers(60, 120, size=(10, 8, 8, 3))

    def tremble(x, number, rng):
        return base + 10 + rng.integers(-2, 3, size=base.shape)

    found = drift.shuffled(drift.distances(rounds(tremble)), draws=2000)
    assert found.low < found.observed < found.high


def test_shuffling_draws_ordered_pairs_of_rounds():
    """With two rounds, either may come first: the null's mean is that of the two orders."""
    between = np.array([[[0, 2, 5], [2, 0, 4], [5, 4, 0.0]]] * 2)
    found = drift.shuffled(between, draws=4000)
    assert found.observed == 2 and found.mean == pytest.approx((4 / 2 + 4 / 5) / 2, rel=0.02)
    assert set(found.draws.round(6)) == {0.8, 1.4, 2.0}


def test_degenerate_rounds_are_refused():
    with pytest.raises(EssayError, match="fewest"):
        drift.distances(np.zeros((2, 1, 8, 8, 3), np.uint8))
    still = drift.distances(rounds(lambda x, number, rng: x))
    with pytest.raises(EssayError, match="changes nothing"):
        drift.drift(still)
    moving = drift.distances(rounds(lambda x, number, rng: x + 1))
    with pytest.raises(EssayError, match="too few"):
        drift.shuffled(moving, draws=10)
    moving[0, 5, 0] = 0
    with pytest.raises(EssayError, match="equals the original"):
        drift.shuffled(moving, draws=2000)
