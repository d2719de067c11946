import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures.ledger import QUESTIONS, Ledger
from essaylib.statistics import autoencoder


def answered(concept, vendor, source, m=800, seed=0):
    """A ledger whose questions are answered rightly with these chances, four drawings a concept."""
    rng = np.random.default_rng(seed)
    chances = dict(concept=concept, vendor=vendor, source=source)
    right = [rng.binomial(4, chances[q], size=m) / 4 for q in QUESTIONS]
    return Ledger(np.arange(m), np.stack(right, axis=1))


PIXELS = answered(0.65, 0.65, 0.95, seed=1)
FLOORS = answered(0.25, 0.25, 0.25, seed=2), answered(0.25, 0.25, 0.25, seed=3)
FEW = {"draws": 2000, "resamples": 500}


def test_the_maker_is_dropped_more_than_the_thing():
    residual = answered(0.29, 0.57, 0.39, seed=4)  # a tenth; four fifths and a fifth
    found = autoencoder.dropped(PIXELS, residual, *FLOORS, **FEW)
    assert found.estimate == pytest.approx(0.4, abs=0.06)
    assert 0.25 < found.low < found.estimate < found.high < 0.55
    assert found.p == pytest.approx(1 / 2001) and found.n == found.drawn == 800


def test_a_residual_of_the_thing_contradicts():
    residual = answered(0.57, 0.29, 0.3, seed=5)
    found = autoencoder.dropped(PIXELS, residual, *FLOORS, **FEW)
    assert found.high < 0 and found.p > 0.9


def test_a_residual_of_nothing_has_no_retained_part():
    residual = answered(0.25, 0.25, 0.25, seed=6)
    found = autoencoder.dropped(PIXELS, residual, *FLOORS, **FEW)
    assert found.low < 0.02 and abs(found.estimate) < 0.06 and found.p > 0.01


def test_the_estimate_is_the_registered_ratio():
    residual = answered(0.4, 0.5, 0.3, seed=7)
    parts = (residual.answers.mean(0) - FLOORS[1].answers.mean(0)) / (
        PIXELS.answers.mean(0) - FLOORS[0].answers.mean(0)
    )
    part = dict(zip(QUESTIONS, parts, strict=True))
    found = autoencoder.dropped(PIXELS, residual, *FLOORS, **FEW)
    assert found.estimate == pytest.approx((part["vendor"] + part["source"]) / 2 - part["concept"])
    each = autoencoder.retained(PIXELS, residual, *FLOORS, resamples=200)
    for question, value in part.items():
        assert each[question].estimate == pytest.approx(value)
        assert each[question].low < value < each[question].high


def test_the_control_reads_the_excess_in_pixels():
    found = autoencoder.readable(PIXELS, FLOORS[0])
    assert found["source"] == pytest.approx(0.7, abs=0.03)
    assert set(found) == set(QUESTIONS)


def test_ledgers_that_cannot_be_compared_are_refused():
    with pytest.raises(EssayError, match="different concepts"):
        autoencoder.dropped(PIXELS, answered(0.3, 0.3, 0.3, m=10), *FLOORS)
    with pytest.raises(EssayError, match="nothing of which"):
        autoencoder.dropped(answered(0.1, 0.1, 0.1), PIXELS, *FLOORS)
