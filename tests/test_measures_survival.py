"""Survival of a cut-off on fit, on tables whose answer is known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from essaylib.errors import EssayError
from essaylib.measures import survival


def test_places_count_who_scores_higher():
    found = survival.places(np.array([[4.0, 1.0], [3.0, 2.0]]))
    assert found == pytest.approx(np.array([[0.125, 0.875], [0.375, 0.625]]))


def test_each_scorer_has_a_scale_of_its_own():
    scores = np.array([[0.1, 0.2], [0.3, 0.4], [10.0, 20.0], [30.0, 40.0]])
    found = survival.places(scores, np.array(["a", "a", "b", "b"]))
    assert found[:2] == pytest.approx(found[2:])


@pytest.mark.parametrize("keep", survival.KEPT)
def test_a_cut_off_keeps_the_share_that_names_it(keep):
    scores = np.random.default_rng(0).normal(size=(50, 4))
    passed = survival.survival(scores, kept=[keep])
    assert passed.mean() == pytest.approx(keep)
    threshold = np.quantile(scores, 1 - keep)
    assert np.array_equal(passed.astype(bool), scores > threshold)


def test_survival_averages_over_the_cut_offs():
    # Ten pairs in descending order: the best survives all nine, the last none.
    scores = -np.arange(10.0).reshape(5, 2)
    wanted = np.arange(9, -1, -1).reshape(5, 2) / 9
    assert survival.survival(scores) == pytest.approx(wanted)


def test_the_spread_of_one_who_always_comes_first():
    scores = np.random.default_rng(0).uniform(size=(200, 4))
    assert survival.spread(survival.survival(scores)) < 0.1
    scores[:, 2] += 1
    means = survival.survival(scores).mean(0)
    assert means[2] == means.max() > 0.8
    assert survival.spread(survival.survival(scores)) == pytest.approx(means.max() - means.min())


def test_dealing_at_random_forgets_the_columns():
    rng = np.random.default_rng(0)
    even = survival.survival(rng.normal(size=(300, 4)))
    uneven = survival.survival(rng.normal(size=(300, 4)) + [0.0, 0.0, 0.0, 0.5])
    assert survival.dealt(even, draws=2000).p > 0.05
    null = survival.dealt(uneven, draws=2000)
    assert null.p == 1 / 2001
    # Expected range of four means of 300 dealt values, each of standard deviation about 0.29:
    # 2.06 standard errors of a mean (Tippett 1925).
    assert null.mean == pytest.approx(2.06 * uneven.std() / np.sqrt(300), rel=0.15)


def test_curves_say_who_is_kept_and_bound_what_chance_does():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(300, 4)) + [0.0, 0.0, 0.0, 1.0]
    scorer = np.repeat(["a", "b"], 150)
    table = survival.curves(scores, list("wxyz"), scorer, draws=200)
    assert len(table) == 4 * len(survival.KEPT)
    assert table.groupby("kept").survival.mean().to_numpy() == pytest.approx(survival.KEPT)
    assert (table.excess_low <= table.excess).all() and (table.excess <= table.excess_high).all()
    last = table[table.name == "z"]
    assert (last.excess_low > last.excess_null_high).sum() >= 7
    even = survival.curves(rng.normal(size=(300, 4)), list("wxyz"), draws=200)
    inside = (even.excess >= even.excess_null_low) & (even.excess <= even.excess_null_high)
    assert inside.mean() > 0.8


def test_told_apart_is_the_area_under_the_curve():
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(1, 1, 80).round(1), rng.normal(0, 1, 300).round(1)
    truth = np.repeat([1, 0], [80, 300])
    wanted = roc_auc_score(truth, np.concatenate([right, wrong]))
    assert survival.told_apart(right, wrong) == pytest.approx(wanted)
    assert survival.told_apart(np.array([2.0]), np.array([1.0])) == 1
    assert survival.told_apart(np.array([1.0]), np.array([1.0])) == 0.5


def test_what_cannot_be_measured_is_refused():
    flat = np.ones((3, 4))
    with pytest.raises(EssayError, match="no cut-off parts them"):
        survival.places(flat)
    with pytest.raises(EssayError, match="NaN"):
        survival.places(np.full((3, 4), np.nan))
    scores = np.random.default_rng(0).normal(size=(3, 4))
    with pytest.raises(EssayError, match="between nothing and everything"):
        survival.survival(scores, kept=[0.0, 0.5])
    with pytest.raises(EssayError, match="at least 2,000"):
        survival.dealt(scores, draws=10)
    with pytest.raises(EssayError, match="2 names for 4 columns"):
        survival.curves(scores, ["a", "b"])
    with pytest.raises(EssayError, match="empty"):
        survival.told_apart(np.array([]), np.array([1.0]))
