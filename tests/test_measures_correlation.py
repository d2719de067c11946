import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from essaylib.errors import EssayError
from essaylib.measures import correlation


def data(n=200, direct=0.5, seed=0):
    """x and y share the cause z; `direct` is what x adds to y besides."""
    rng = np.random.default_rng(seed)
    z, x, y = rng.normal(size=(3, n))
    x = z + x
    return x, z + direct * x + y, z


@given(st.integers(0, 999))
def test_with_one_variable_fixed_it_matches_the_textbook_formula(seed):
    x, y, z = data(60, seed=seed)
    xy, xz, yz = (spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    wanted = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert correlation.partial_spearman(x, y, z) == pytest.approx(wanted)
    # Ranks do not change under any rising function.
    assert correlation.partial_spearman(np.exp(x), y**3, 2 * z) == pytest.approx(wanted)


def test_a_common_cause_is_taken_off():
    x, y, z = data(2000, direct=0)
    assert spearmanr(x, y).statistic > 0.4
    assert correlation.partial_spearman(x, y, z) == pytest.approx(0, abs=0.06)


def test_the_permutation_keeps_what_is_fixed():
    x, y, z = data(150, direct=0)
    nothing = correlation.freedman_lane(x, y, z, draws=2000)
    assert nothing.p > 0.01 and abs(nothing.mean) < 0.02
    assert nothing.draws.std() == pytest.approx(1 / np.sqrt(148), rel=0.1)
    x, y, z = data(150)
    something = correlation.freedman_lane(x, y, z, within=np.arange(150) % 5, draws=2000)
    assert something.observed == pytest.approx(correlation.partial_spearman(x, y, z))
    assert something.p == pytest.approx(1 / 2001)


def test_within_groups_the_groups_own_level_does_not_count():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    level = 10 * rng.normal(size=40)[groups]
    x, y = rng.normal(size=(2, 200))
    assert pearsonr(x + level, y + level).statistic > 0.9
    assert correlation.within_groups(x + level, y + level, groups) == pytest.approx(
        correlation.within_groups(x, y, groups)
    )
    one = np.zeros(200)
    assert correlation.within_groups(x, y, one) == pytest.approx(pearsonr(x, y).statistic)


def test_where_nothing_is_left_there_is_no_correlation():
    x, y, z = data(50)
    with pytest.raises(EssayError, match="Nothing varies"):
        correlation.partial_spearman(x, y, x)
    with pytest.raises(EssayError, match="Nothing varies"):
        correlation.within_groups(x, np.ones(50), np.zeros(50))
    with pytest.raises(EssayError, match="too few"):
        correlation.partial_spearman(x[:4], y[:4], z[:4])
    with pytest.raises(EssayError, match="do not pair"):
        correlation.partial_spearman(x, y[:-1], z)
    with pytest.raises(EssayError, match="NaN"):
        correlation.partial_spearman(x * np.nan, y, z)
