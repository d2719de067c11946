import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from essaylib.errors import EssayError
from essaylib.power import concentration_sd, crossed_sd, sample_size, share_power


def test_a_mean_matches_the_textbook_formula():
    # Interval: (1.960 + 1.282)^2 / 0.5^2 = 42.03; test: (2.807 + 1.282)^2 / 1^2 = 16.7.
    assert sample_size("mean", effect=1.0, delta=0.5, sd=1.0) == 43
    # With delta near zero, the test decides.
    wanted = (norm.ppf(1 - 0.05 / 20) + norm.ppf(0.9)) ** 2 / 0.3**2
    assert sample_size("mean", effect=0.3, delta=0.0, sd=1.0) == math.ceil(wanted)


def test_a_mean_of_that_size_clears_delta_nine_times_in_ten():
    n = sample_size("mean", effect=0.3, delta=0.1, sd=0.5)
    means = np.random.default_rng(0).normal(0.3, 0.5, (4000, n)).mean(1)
    assert np.mean(means - 1.96 * 0.5 / math.sqrt(n) > 0.1) == pytest.approx(0.9, abs=0.02)


def test_a_correlation_of_that_size_clears_delta_nine_times_in_ten():
    n, rho = sample_size("correlation", effect=0.5, delta=0.3), 0.5
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(2, 3000, n))
    y = rho * x + math.sqrt(1 - rho**2) * e
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    r = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    low = np.tanh(np.arctanh(r) - 1.96 / math.sqrt(n - 3))
    assert np.mean(low > 0.3) == pytest.approx(0.9, abs=0.025)


def test_the_power_of_a_share_counts_exact_intervals():
    n, effect, delta = 16, 0.9, 0.5
    lows = [binomtest(k, n).proportion_ci(method="exact").low for k in range(n + 1)]
    chance = [math.comb(n, k) * effect**k * (1 - effect) ** (n - k) for k in range(n + 1)]
    wanted = sum(c for c, low in zip(chance, lows, strict=True) if low > delta)
    assert share_power(n, effect, delta) == pytest.approx(wanted)


def test_an_effect_that_does_not_exceed_delta_has_no_sample_size():
    with pytest.raises(EssayError, match="must exceed"):
        sample_size("mean", effect=0.1, delta=0.1)
    with pytest.raises(EssayError, match="Unknown design"):
        sample_size("median", effect=0.2, delta=0.1)


def test_an_even_market_stays_even():
    mean, sd = concentration_sd(8, leader=0.25, spread=0.0)
    assert mean == pytest.approx(0.0, abs=0.002)
    # Two independent indices of 28 pairs, each pair alike with chance 1/4.
    assert sd == pytest.approx(math.sqrt(2 * 0.25 * 0.75 / 28), rel=0.02)


def test_more_prompts_and_seeds_narrow_the_shares():
    assert crossed_sd(48, 16, 0.4, 0.15) < crossed_sd(12, 4, 0.4, 0.15)
