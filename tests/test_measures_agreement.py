import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kendalltau

from essaylib.errors import EssayError
from essaylib.measures import agreement

amounts = arrays(float, 4, elements=st.floats(0.01, 10))


def test_tau_counts_pairs_in_the_same_order():
    # Of the six pairs of 1 2 3 4 and 1 2 4 3 one is discordant: (5 - 1) / 6.
    assert agreement.tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    x = np.random.default_rng(0).normal(size=50)
    assert agreement.tau(x, 3 * x + 1) == pytest.approx(1)
    assert agreement.tau(x, -x) == pytest.approx(-1)


def test_only_the_most_credited_count():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300))
    union = sorted(set(np.argsort(-a)[:20]) | set(np.argsort(-b)[:20]))
    assert agreement.tau(a, b, top=20) == pytest.approx(kendalltau(a[union], b[union]).statistic)


def test_chance_for_the_union_lies_below_zero():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000))
    found = agreement.by_chance(a, b, top=50)
    assert found.mean() < -0.2 and found.max() < 0.1
    assert agreement.tau(a, b, top=50) == pytest.approx(found.mean(), abs=4 * found.std())


def test_total_variation_is_what_changes_hands():
    assert agreement.total_variation([1, 0], [0, 1]) == 1
    assert agreement.total_variation([0.5, 0.5], [0.6, 0.4]) == pytest.approx(0.1)
    assert agreement.total_variation([[2, 2], [1, 3]], [1, 1]).tolist() == [0, 0.25]


@given(amounts, amounts, amounts, st.floats(0.1, 10))
def test_total_variation_is_a_distance_between_shares(p, q, r, scale):
    tv = agreement.total_variation
    assert 0 <= tv(p, q) <= 1
    assert tv(p, q) == pytest.approx(tv(q, scale * p), abs=1e-9)
    assert tv(p, p) == 0
    assert tv(p, r) <= tv(p, q) + tv(q, r) + 1e-9


def test_vendor_shares_pay_the_most_credited_only():
    credit, vendor = np.array([5.0, 3.0, 2.0, 1.0, -4.0]), np.array([0, 1, 1, 3, 2])
    assert agreement.vendor_shares(credit, vendor, top=3).tolist() == [0.5, 0.5, 0, 0]
    assert agreement.vendor_shares(credit, vendor)[2] == 0


def test_ledgers_without_order_or_amount_are_refused():
    with pytest.raises(EssayError, match="no order"):
        agreement.tau(np.ones(5), np.arange(5))
    with pytest.raises(EssayError, match="one list"):
        agreement.tau(np.ones(5), np.ones(4))
    with pytest.raises(EssayError, match="NaN"):
        agreement.tau([np.nan, 1], [1, 2])
    with pytest.raises(EssayError, match="from zero up"):
        agreement.total_variation([0, 0], [1, 1])
