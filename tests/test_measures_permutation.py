from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from essaylib.errors import EssayError
from essaylib.measures import permutation
from essaylib.measures.permutation import Null


def test_p_counts_the_observed_and_ties():
    assert Null(2.0, np.array([1.0, 2.0, 3.0])).p == pytest.approx(3 / 4)
    assert Null(9.0, np.zeros(9999)).p == pytest.approx(1 / 10000)
    # The same sum in another order is a tie.
    assert Null(0.1 + 0.2, np.array([0.3])).p == 1.0


def test_permute_matches_scipy_and_full_enumeration():
    rng = np.random.default_rng(0)
    x = rng.normal(size=7)
    y = x + rng.normal(size=7)
    observed = np.corrcoef(x, y)[0, 1]
    every = [np.corrcoef(x, y[list(order)])[0, 1] for order in permutations(range(7))]
    exact = np.mean(np.array(every) >= observed - 1e-12)
    found = permutation.permute(lambda shuffled: np.corrcoef(x, shuffled)[0, 1], y, draws=20_000)
    assert found.observed == pytest.approx(observed)
    assert found.p == pytest.approx(exact, abs=0.005)
    theirs = stats.permutation_test(
        (y,),
        lambda shuffled: np.corrcoef(x, shuffled)[0, 1],
        permutation_type="pairings",
        alternative="greater",
        n_resamples=9999,
    )
    assert found.p == pytest.approx(theirs.pvalue, abs=0.01)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 99))
def test_shuffling_never_leaves_the_block(blocks, seed):
    blocks = np.array(blocks)
    order = permutation.shuffler(blocks)(np.random.default_rng(seed))
    assert sorted(order) == list(range(len(blocks)))
    assert (blocks[order] == blocks).all()


def test_orders_within_a_block_are_equally_likely():
    draw, rng = permutation.shuffler(np.array([1, 0, 1, 1])), np.random.default_rng(0)
    orders = [tuple(draw(rng)) for _ in range(6000)]
    counts = np.array([orders.count(order) for order in set(orders)])
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 0.001


def test_sign_flip_matches_scipy_on_few_pairs():
    d = np.array([0.5, 1.2, -0.3, 0.8, 0.1, 0.9, 1.1, -0.2, 0.4, 0.6])
    theirs = stats.permutation_test(
        (d, np.zeros(10)),
        lambda a, b: (a - b).mean(),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    )
    found = permutation.sign_flip(d)
    assert len(found.draws) == 1024
    assert found.p == pytest.approx((theirs.pvalue * 1024 + 1) / 1025)


def test_clusters_change_sign_together():
    d = np.ones(8)
    alone = permutation.sign_flip(d, clusters=np.arange(8))
    together = permutation.sign_flip(d, clusters=np.repeat([0, 1], 4))
    assert alone.p == pytest.approx(2 / 257)
    assert together.p == pytest.approx(2 / 5)


def test_exchange_is_sign_flip_for_a_mean():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 60), rng.normal(size=60)
    flipped = permutation.sign_flip(a - b)
    exchanged = permutation.exchange(lambda x, y: x.mean() - y.mean(), a, b)
    assert exchanged.observed == pytest.approx(flipped.observed)
    assert exchanged.p == pytest.approx(flipped.p, abs=0.01)
    assert (exchanged.low, exchanged.high) == pytest.approx((flipped.low, flipped.high), abs=0.02)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_exchanged_rows_are_the_same_rows(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 5, 3))
    total = (a + b).sum()
    permutation.exchange(
        lambda x, y: 0.0 if np.isclose((x + y).sum(), total) else np.nan, a, b, draws=2000
    )


def test_under_the_null_small_p_are_as_rare_as_they_should_be():
    rng = np.random.default_rng(0)
    p = [permutation.sign_flip(rng.normal(size=30), draws=2000, seed=seed).p for seed in range(300)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.045)


def test_too_few_draws_and_bad_data_are_refused():
    with pytest.raises(EssayError, match="too few"):
        permutation.sign_flip(np.ones(50), draws=1999)
    with pytest.raises(EssayError, match="NaN"):
        permutation.sign_flip(np.array([np.nan, 1.0]))
    with pytest.raises(EssayError, match="exchanged for like"):
        permutation.exchange(lambda x, y: 0.0, np.ones(3), np.ones(4))
    with pytest.raises(EssayError, match="not a finite number"):
        permutation.permute(lambda x: np.nan, np.ones(4))
    with pytest.raises(EssayError, match="4 labels"):
        permutation.permute(np.mean, np.ones(4), within=np.zeros(3))
