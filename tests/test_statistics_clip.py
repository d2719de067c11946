"""The registered statistic of `clip`, on ledgers whose answer is known."""

import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures.ledger import Ledger
from essaylib.statistics import clip

FEW = {"draws": 2000, "resamples": 500}


def made(vendor, concept=0.5, m=500, seed=0):
    """A ledger of m concepts, four drawings each, answered rightly at these rates."""
    rng = np.random.default_rng(seed)
    rates = np.array([concept, vendor, 0.5])
    return Ledger(np.arange(m), rng.binomial(4, rates, size=(m, 3)) / 4)


def test_the_smaller_fall_counts():
    pixels, untrained, unnamed = made(0.8), made(0.6, seed=1), made(0.4, seed=2)
    test = clip.fall(pixels, untrained, unnamed, **FEW)
    wanted = untrained.of("vendor").mean() - unnamed.of("vendor").mean()
    assert test.estimate == pytest.approx(wanted)
    assert test.low > 0.10 and test.p < 0.001 and test.n == 500


@pytest.mark.parametrize(("pixels", "untrained"), [(0.8, 0.4), (0.4, 0.8)])
def test_one_fall_alone_contradicts(pixels, untrained):
    test = clip.fall(made(pixels), made(untrained, seed=1), made(0.4, seed=2), **FEW)
    assert test.high < 0.10 and test.p > 0.01


def test_the_interval_is_of_the_smaller_fall():
    """Two equal falls: the smaller of two noisy means lies below either."""
    ledgers = made(0.5), made(0.5, seed=1), made(0.4, seed=2)
    test = clip.fall(*ledgers, **FEW)
    falls = [one.of("vendor") - ledgers[2].of("vendor") for one in ledgers[:2]]
    error = np.std(falls[0]) / np.sqrt(500)
    assert test.estimate == min(np.mean(falls[0]), np.mean(falls[1]))
    assert test.low == pytest.approx(test.estimate - 2 * error, abs=error)


def test_the_control_is_the_gain_in_concept():
    gain = clip.gained(made(0.5, concept=0.4), made(0.5, concept=0.7, seed=1), resamples=500)
    assert gain.low > 0.2 and gain.estimate == pytest.approx(0.3, abs=0.05)
    nothing = clip.gained(made(0.5, concept=0.4), made(0.5, concept=0.4, seed=1), resamples=500)
    assert nothing.low < 0 < nothing.high


def test_ledgers_of_other_concepts_are_refused():
    other = Ledger(np.arange(500) + 1, made(0.5).answers)
    with pytest.raises(EssayError, match="different concepts"):
        clip.fall(made(0.5), other, made(0.5), **FEW)
