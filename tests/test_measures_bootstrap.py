import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from essaylib.errors import EssayError
from essaylib.measures import bootstrap


def sample(n=60, seed=0):
    return np.random.default_rng(seed).gamma(2.0, size=n)  # skewed, so that BCa differs


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_match_scipy(method):
    x = sample()
    ours = bootstrap.bootstrap(lambda rows: x[rows].mean(), len(x), draws=20_000, method=method)
    theirs = stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    fast = bootstrap.mean(x, draws=20_000, method=method)
    assert (fast.low, fast.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    assert ours.estimate == fast.estimate == pytest.approx(x.mean())
    assert ours.n == fast.n == 60


def test_whole_clusters_are_drawn():
    # Ten copies of each value carry no more information than one.
    x = sample()
    copies, clusters = np.repeat(x, 10), np.repeat(np.arange(60), 10)
    once = bootstrap.mean(x)
    repeated = bootstrap.mean(copies, clusters)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    assert repeated.n == once.n == 60
    slow = bootstrap.bootstrap(lambda rows: copies[rows].mean(), clusters)
    assert (slow.low, slow.high) == pytest.approx((once.low, once.high), abs=0.03)
    naive = bootstrap.mean(copies)
    assert naive.high - naive.low < (once.high - once.low) / 2


def test_clusters_of_unequal_size_weigh_by_their_rows():
    seen = []

    def statistic(rows):
        seen.append(len(rows))
        return 0.0

    bootstrap.bootstrap(statistic, np.array([0, 0, 0, 1]), draws=200)
    assert set(seen) == {2, 4, 6}  # the large cluster drawn zero, one or two times


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        found = bootstrap.mean(rng.normal(size=80), draws=600, seed=seed)
        covered += found.low <= 0 <= found.high
    assert covered / 300 == pytest.approx(0.95, abs=0.035)


def test_a_crossed_table_counts_both_margins():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 1)) + 3 * rng.normal(size=(1, 6))
    found = bootstrap.crossed(lambda i, j: table[np.ix_(i, j)].mean(), 200, 6)
    rows_only = bootstrap.mean(table.mean(1))
    assert found.n == 200
    assert found.high - found.low > 5 * (rows_only.high - rows_only.low)


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.sampled_from(["percentile", "bca"])
)
@settings(max_examples=50)
def test_an_interval_stays_within_the_data_and_moves_with_it(x, method):
    x = np.array(x)
    found = bootstrap.mean(x, draws=300, method=method)
    assert x.min() - 1e-9 <= found.low <= found.high <= x.max() + 1e-9
    scaled = bootstrap.mean(x * 4, draws=300, method=method)
    assert (scaled.low, scaled.high) == pytest.approx((4 * found.low, 4 * found.high), abs=1e-6)


def test_the_unit_of_the_data_does_not_matter():
    plain = bootstrap.mean(np.array([0.0, 1.0, 5.0]), method="bca")
    tiny = bootstrap.mean(np.array([0.0, 1.0, 5.0]) * 1e-120, method="bca")
    assert (tiny.low * 1e120, tiny.high * 1e120) == pytest.approx((plain.low, plain.high))


def test_a_constant_has_an_interval_of_no_width():
    for method in ("percentile", "bca"):
        found = bootstrap.mean(np.full(10, 3.0), method=method)
        assert (found.estimate, found.low, found.high) == (3, 3, 3)


def test_what_cannot_be_resampled_is_refused():
    with pytest.raises(EssayError, match="at least two clusters"):
        bootstrap.mean(np.array([1.0]))
    with pytest.raises(EssayError, match="at least two clusters"):
        bootstrap.bootstrap(lambda rows: 0.0, np.zeros(5))
    with pytest.raises(EssayError, match="NaN"):
        bootstrap.mean(np.array([1.0, np.nan]))
    with pytest.raises(EssayError, match="finite number on some resample"):
        bootstrap.bootstrap(lambda rows: np.nan if 0 not in rows else 1.0, 3)
    with pytest.raises(EssayError, match="Unknown method"):
        bootstrap.mean(sample(), method="basic")
    with pytest.raises(EssayError, match="60 labels, one a row"):
        bootstrap.mean(sample(), np.arange(3))
    with pytest.raises(EssayError, match="two rows and two columns"):
        bootstrap.crossed(lambda i, j: 0.0, 5, 1)
