import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from essaylib.errors import EssayError
from essaylib.measures import bootstrap, variance


def crossed(rows, columns, a, b, c, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return (
        a * rng.normal(size=(rows, 1, d))
        + b * rng.normal(size=(1, columns, d))
        + c * rng.normal(size=(rows, columns, d))
    )


def test_shares_match_a_hand_computation():
    # Rows 0 and 4, columns 0 and 2, no interaction: mean squares 16, 4 and 0.
    x = np.array([[0.0, 2.0], [4.0, 6.0]])
    found = variance.shares(x)
    # Components: rows (16 - 0) / 2 = 8, columns (4 - 0) / 2 = 2.
    assert (found.rows, found.columns, found.interaction) == pytest.approx((0.8, 0.2, 0.0))


def test_shares_match_the_textbook_formulas():
    x = crossed(7, 4, 1, 0.5, 1, d=1)[..., 0]
    r, c = x.shape
    rows, columns = x.mean(1, keepdims=True), x.mean(0, keepdims=True)
    ms_rows = c * ((rows - x.mean()) ** 2).sum() / (r - 1)
    ms_columns = r * ((columns - x.mean()) ** 2).sum() / (c - 1)
    ms_rest = ((x - rows - columns + x.mean()) ** 2).sum() / ((r - 1) * (c - 1))
    parts = np.array([(ms_rows - ms_rest) / c, (ms_columns - ms_rest) / r, ms_rest])
    found = variance.shares(x)
    wanted = tuple(parts / parts.sum())
    assert (found.rows, found.columns, found.interaction) == pytest.approx(wanted)


def test_what_is_planted_comes_back():
    found = variance.shares(crossed(300, 40, 2, 1, 1, d=40))
    assert found.rows == pytest.approx(4 / 6, abs=0.02)
    assert found.columns == pytest.approx(1 / 6, abs=0.02)
    nothing = variance.shares(crossed(300, 4, 0, 0, 1, d=40))
    assert nothing.rows == pytest.approx(0, abs=0.01)
    assert nothing.interaction == pytest.approx(1, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(2, 6), st.integers(0, 99))
def test_shares_sum_to_one_and_ignore_scale_shift_and_order(rows, columns, seed):
    x = crossed(rows, columns, 1, 1, 1, seed=seed)
    found = variance.shares(x)
    assert found.rows + found.columns + found.interaction == pytest.approx(1)
    rng = np.random.default_rng(seed)
    again = variance.shares(5 + 3 * x[rng.permutation(rows)][:, rng.permutation(columns)])
    assert again.rows == pytest.approx(found.rows)
    turned = variance.shares(x.swapaxes(0, 1))
    assert (turned.rows, turned.columns) == pytest.approx((found.columns, found.rows))


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_fast_intervals_match_the_plain_bootstrap(method):
    x = crossed(40, 4, 1, 0.3, 1)
    fast = variance.over_rows(x, "unnamed", method=method)
    slow = bootstrap.bootstrap(
        lambda rows: 1 - variance.shares(x[rows]).rows, len(x), draws=2000, method=method
    )
    assert fast.estimate == pytest.approx(slow.estimate)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.03)
    assert fast.n == 40


def test_components_can_be_asked_for_one_by_one():
    x = crossed(20, 4, 1, 0.5, 1)
    found = variance.shares(x)
    one = {name: variance.over_rows(x, name, draws=50).estimate for name in ("rows", "columns")}
    assert one == pytest.approx({"rows": found.rows, "columns": found.columns})
    with pytest.raises(EssayError, match="Unknown component"):
        variance.over_rows(x, "vendor")


def test_dispersion_is_the_squared_distance_to_the_mean():
    x = np.array([[[0.0, 0.0], [2.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert variance.dispersion(x).tolist() == [1.0, 0.0]


def test_copies_are_misregistered_but_hardly_different():
    images = np.full((2, 32, 32, 3), 255.0)
    images[:, 8:24, 8:24] = [[[[200, 30, 30]]], [[[30, 30, 200]]]]
    copies = variance.misregistered(images, shift=1, zoom=0.02)
    assert copies.shape == (2, 4, 32, 32, 3)
    assert copies.max() < 255.001 and copies.min() > 29.999
    assert (copies[:, 0] != copies[:, 1]).any()
    assert variance.shares(copies).rows > 0.7
    still = variance.misregistered(images, copies=2, shift=0, zoom=0)
    assert still[:, 1] == pytest.approx(images)


def test_degenerate_tables_are_refused():
    with pytest.raises(EssayError, match="two rows and two columns"):
        variance.shares(np.ones((1, 4, 3)))
    with pytest.raises(EssayError, match="two rows and two columns"):
        variance.shares(np.ones(4))
    with pytest.raises(EssayError, match="Nothing varies"):
        variance.shares(np.full((3, 4, 2), 0.1))
    with pytest.raises(EssayError, match="NaN"):
        variance.shares(np.array([[1, np.nan], [1, 2]]))


def test_copies_are_moved_as_scipy_moves_them():
    from scipy.ndimage import affine_transform

    image = np.random.default_rng(0).uniform(0, 255, (1, 24, 16, 3))
    found = variance.misregistered(image, copies=2, seed=3)[0]
    rng = np.random.default_rng(3)
    middle = (np.array(image.shape[1:3]) - 1) / 2
    for copy in found:
        scale = 1 + rng.uniform(-0.05, 0.05)
        offset = middle - scale * middle + rng.uniform(-4, 4, 2)
        for channel in range(3):
            wanted = affine_transform(
                image[0, ..., channel], [scale] * 2, offset, order=1, cval=255
            )
            assert copy[..., channel] == pytest.approx(wanted, abs=1e-2)


def test_copies_averaged_over_blocks_are_the_means_of_the_copies():
    image = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))
    whole = variance.misregistered(image)
    blocks = variance.misregistered(image, block=4)
    assert blocks == pytest.approx(whole.reshape(2, 4, 4, 4, 4, 4, 3).mean((3, 5)), abs=1e-2)
    with pytest.raises(EssayError, match="divides neither"):
        variance.misregistered(image, block=5)


def test_both_margins_may_be_resampled():
    x = crossed(30, 12, 1, 0.6, 1, d=6)
    shares, found = variance.shares(x), variance.over_both(x, draws=1000)
    for name in ("rows", "columns", "interaction"):
        part = getattr(found, name)
        assert part.estimate == pytest.approx(getattr(shares, name))
        assert part.low < part.estimate < part.high and part.n == 30
    assert found.lead.estimate == pytest.approx(shares.rows - shares.columns)
    row = found.as_row("prompt", "seed")
    assert len(row) == 9 and row["seed_low"] == found.columns.low
    assert row["prompt"] + row["seed"] + row["interaction"] == pytest.approx(1)


def test_rows_drawn_twice_do_not_count_as_agreement():
    # Where sampling leaves little to chance the plain bootstrap would miss its own estimate.
    x = crossed(20, 8, 1, 1, 1, d=4000)
    found = variance.over_both(x, draws=1000)
    for name, wanted in (("rows", 1 / 3), ("columns", 1 / 3), ("interaction", 1 / 3)):
        part = getattr(found, name)
        assert part.estimate == pytest.approx(wanted, abs=0.02)
        assert part.low < part.estimate < part.high < part.low + 0.03


def test_intervals_over_both_margins_cover_what_is_planted():
    covered = 0
    for seed in range(60):
        found = variance.over_both(crossed(24, 16, 1, 0.5, 1, d=8, seed=seed), draws=300)
        covered += found.lead.low < (1 - 0.25) / 2.25 < found.lead.high
    assert covered >= 51  # 95 % of 60 are 57


def test_small_tables_can_be_resampled():
    found = variance.over_both(crossed(3, 3, 1, 1, 1), draws=2000)
    assert np.isfinite([found.lead.low, found.lead.high]).all()


def test_dealing_within_columns_matches_dealing_by_hand():
    x = crossed(6, 5, 1, 1, 1)
    null = variance.dealt(x, draws=2000, seed=4)
    shares = variance.shares(x)
    assert null.observed == pytest.approx(shares.rows - shares.columns)
    rng = np.random.default_rng(4)
    order = rng.permuted(np.broadcast_to(np.arange(6)[:, None], (6, 5)), axis=0)
    by_hand = variance.shares(x[order, np.arange(5)])
    assert null.draws[0] == pytest.approx(by_hand.rows - by_hand.columns)
    assert variance.dealt(crossed(6, 5, 3, 0, 1), draws=2000).p < 0.01
    with pytest.raises(EssayError, match="too few"):
        variance.dealt(x, draws=10)


def test_the_ratio_is_that_of_the_shares_and_zero_for_columns_dealt_at_random():
    rng = np.random.default_rng(0)
    concept, vendor = rng.normal(size=(300, 1, 20)), 0.5 * rng.normal(size=(1, 4, 20))
    x = concept + vendor + rng.normal(size=(300, 4, 20))
    found, parts = variance.ratio(x, draws=200), variance.shares(x)
    assert found.estimate == pytest.approx(parts.columns / parts.rows)
    assert found.low < found.estimate < found.high and found.n == 300
    few = [variance.ratio(x[i : i + 30], draws=200) for i in range(0, 300, 30)]
    middle = np.mean([(one.low + one.high) / 2 - one.estimate for one in few])
    assert abs(middle) < 0.1 * found.estimate  # repeated rows do not shift a resample
    dealt = variance.ratio(rng.permuted(x, axis=1), draws=200)
    assert dealt.estimate == pytest.approx(0, abs=0.01)
    with pytest.raises(EssayError, match="rows explain nothing"):
        variance.ratio(vendor + rng.normal(size=(300, 4, 20)), draws=200)
