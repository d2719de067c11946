from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from essaylib.errors import EssayError
from essaylib.measures import concentration


def test_the_index_is_the_share_of_pairs_that_agree():
    vendors = np.array([0, 0, 1, 2, 2, 2])
    pairs = [a == b for a, b in combinations(vendors, 2)]
    assert concentration.unbiased(concentration.count(vendors)) == pytest.approx(np.mean(pairs))
    # And (n H - 1) / (n - 1) with H = (4 + 1 + 9) / 36.
    assert np.mean(pairs) == pytest.approx((6 * 14 / 36 - 1) / 5)


@given(arrays(int, st.integers(2, 12), elements=st.integers(-1, 3)), st.permutations(range(4)))
def test_range_and_invariances(vendors, renamed):
    index = concentration.unbiased(concentration.count(vendors))
    if (vendors >= 0).sum() < 2:
        assert np.isnan(index)
        return
    assert 0 <= index <= 1
    again = np.where(vendors < 0, -1, np.array(renamed)[vendors])[::-1]
    assert concentration.unbiased(concentration.count(again)) == pytest.approx(index)


def test_its_mean_does_not_depend_on_the_number_of_images():
    rng, shares = np.random.default_rng(0), [0.4, 0.3, 0.2, 0.1]
    for n in (2, 4, 16):
        counts = rng.multinomial(n, shares, size=200_000)
        assert concentration.unbiased(counts).mean() == pytest.approx(0.30, abs=0.004)


def test_one_vendor_is_one_and_unsure_images_are_left_out():
    vendors = np.array([[2, 2, 2, 2, -1], [1, 1, 1, 1, 1], [0, -1, -1, -1, -1]])
    found = concentration.concentration(vendors)
    assert (found.estimate, found.n) == (1.0, 2)


def test_premium_compares_prompt_by_prompt():
    rng = np.random.default_rng(0)
    before = rng.integers(0, 4, size=(60, 8))
    after = np.where(rng.random((60, 8)) < 0.5, before[:, :1], before)
    found = concentration.premium(after, before, draws=2000)
    wanted = np.mean(
        [
            concentration.unbiased(concentration.count(a))
            - concentration.unbiased(concentration.count(b))
            for a, b in zip(after, before, strict=True)
        ]
    )
    assert found.difference.estimate == found.null.observed == pytest.approx(wanted)
    assert found.difference.low > 0 and found.null.p == pytest.approx(1 / 2001)
    assert abs(found.null.mean) < 0.01 and found.kept.all()


def test_premium_of_nothing_is_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, size=(2, 80, 8))
    found = concentration.premium(a, b, draws=2000)
    assert found.difference.low < 0 < found.difference.high and found.null.p > 0.01
    same = concentration.premium(a, a, draws=2000)
    assert (same.difference.estimate, same.null.p) == (0.0, 1.0)


def test_a_prompt_takes_part_only_if_both_settings_are_sure_enough():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, size=(2, 10, 8))
    a[3, :5] = -1
    assert concentration.premium(a, b, draws=2000).kept.tolist() == [i != 3 for i in range(10)]


def test_the_floor_is_the_prompts_own_shares():
    shares = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [2, 1, 1, 0]])
    floor = concentration.floor(shares, 8)
    assert floor.observed == pytest.approx((1 / 3 + 1 / 4 + 6 / 16) / 3)
    assert floor.mean == pytest.approx(floor.observed, abs=0.01)
    assert floor.low < floor.observed < floor.high


def test_bad_vendors_are_refused():
    with pytest.raises(EssayError, match="outside -1 to 3"):
        concentration.count(np.array([4]))
    with pytest.raises(EssayError, match="whole numbers"):
        concentration.count(np.array([np.nan, 1.0]))
    with pytest.raises(EssayError, match="draw more seeds"):
        concentration.concentration(np.full((5, 8), -1))
    with pytest.raises(EssayError, match="must pair"):
        concentration.premium(np.zeros((3, 8), int), np.zeros((3, 7), int))
    with pytest.raises(EssayError, match="too few"):
        concentration.premium(np.zeros((3, 8), int), np.zeros((3, 8), int), draws=100)
    with pytest.raises(EssayError, match="at least one training drawing"):
        concentration.floor(np.zeros((2, 4)), 8)
    with pytest.raises(EssayError, match="Two images"):
        concentration.floor(np.ones((2, 4)), 1)
    with pytest.raises(EssayError, match="from zero up"):
        concentration.unbiased(np.array([-1, 2]))


def test_measurable_needs_two_prompts_with_enough_sure_images_at_every_setting():
    sure, unsure = np.zeros((3, 4), int), np.full((3, 4), -1)
    one_left = unsure.copy()
    one_left[0] = 0
    assert concentration.measurable(sure, sure)
    assert not concentration.measurable(sure, unsure)
    assert not concentration.measurable(one_left)
