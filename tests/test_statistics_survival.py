"""The statistic of `survival` on matrices whose answer is known."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from essaylib import claims
from essaylib.cells import IMPOSSIBLE, MEASURED
from essaylib.errors import EssayError
from essaylib.statistics import survival

DELTA = 0.1


def matrix(trained, untrained, control=True):
    """A matrix of two models; NaN stands where a statistic could not be computed."""
    rows = []
    for column, values in (("final", trained), ("untrained", untrained)):
        for i, value in enumerate(values):
            state = IMPOSSIBLE if np.isnan(value) else MEASURED
            rows.append((column, f"claim {i}", "part", state, control, value, DELTA))
    names = ["column", "claim", "statistic", "state", "control", "estimate", "delta"]
    return pd.DataFrame(rows, columns=names)


def verdict(pairs):
    return claims.decide(
        claims.load()["survival"],
        {"learned": survival.learned(pairs)},
        survival.passed(pairs) >= survival.LEAST,
        others={},
    ).verdict


def test_a_model_that_learned_everything_supports_the_claim():
    pairs = survival.pairs(matrix(np.full(16, 0.5), np.zeros(16)))
    test = survival.learned(pairs)
    assert test.estimate == 1 and test.n == 16 and test.high == 1
    assert test.low == pytest.approx(0.025 ** (1 / 16))  # Clopper and Pearson by hand
    assert test.p == pytest.approx(2.0**-16)
    assert verdict(pairs) == claims.SUPPORTED


def test_effects_that_survive_without_training_contradict_it():
    """Two of sixteen were learned: the interval ends below one half."""
    trained, untrained = np.full(16, 0.5), np.full(16, 0.45)
    untrained[:2] = 0
    pairs = survival.pairs(matrix(trained, untrained))
    test = survival.learned(pairs)
    assert test.estimate == pytest.approx(2 / 16)
    assert test.high < 0.5
    assert verdict(pairs) == claims.CONTRADICTED


def test_too_few_controls_make_it_untestable_however_large_the_share():
    pairs = survival.pairs(matrix(np.full(16, 0.5), np.zeros(16), control=False))
    assert survival.passed(pairs) == 0
    assert verdict(pairs) == claims.UNTESTABLE


def test_p_is_the_share_of_all_exchanges():
    trained = np.array([0.5, 0.3, 0.0, 0.2, 0.05, 0.4, np.nan])
    untrained = np.array([0.0, 0.1, 0.3, 0.15, 0.05, 0.1, 0.0])
    pairs = survival.pairs(matrix(trained, untrained))
    gain = pairs.gain.dropna().to_numpy()
    observed = (gain >= 1).mean()
    all_of_them = [(np.array(s) * gain >= 1).mean() for s in product((1, -1), repeat=len(gain))]
    assert survival.learned(pairs).p == pytest.approx(np.mean(np.array(all_of_them) >= observed))
    assert survival.learned(pairs).n == 6


def test_a_delta_exactly_counts_and_less_does_not():
    pairs = survival.pairs(matrix([1.25, 1.25], [1.0, 1.0])).assign(delta=0.25)
    assert survival.learned(pairs.assign(gain=[1.0, 0.999])).estimate == 0.5


def test_what_was_lost_by_training_is_no_learning():
    pairs = survival.pairs(matrix(np.zeros(12), np.full(12, 0.5)))
    test = survival.learned(pairs)
    assert test.estimate == 0 and test.p == 1


def test_what_runs_on_one_model_only_is_left_out():
    trained, untrained = np.full(16, 0.5), np.zeros(16)
    untrained[:5] = np.nan
    trained[5] = np.nan
    pairs = survival.pairs(matrix(trained, untrained))
    assert survival.learned(pairs).n == 10 and survival.passed(pairs) == 10


def test_other_columns_do_not_count_and_both_models_are_needed():
    found = matrix(np.full(3, 0.5), np.zeros(3))
    beside = found[found.column == "final"].assign(column="early", estimate=9.0)
    assert len(survival.pairs(pd.concat([found, beside]))) == 3
    with pytest.raises(EssayError, match="untrained"):
        survival.pairs(found[found.column == "final"])
    with pytest.raises(EssayError, match="No statistic"):
        survival.learned(survival.pairs(matrix([np.nan], [np.nan])))


def test_the_statistics_counted_are_those_registered():
    from essaylib.cells import TRIALS

    counted = [part.id for claim in TRIALS for part in claims.load()[claim].primary]
    assert len(counted) == claims.load()["survival"].statistic().n == 16
    named = claims.load()["survival"].statistic().statistic
    assert all(claim in named for claim in TRIALS)
