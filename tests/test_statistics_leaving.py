"""Variety regained, on outcomes whose answer is known."""

import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.statistics import leaving

PROMPTS = 60


def outcomes(adherence, variety, seed):
    """(prompts, 2) of eight images a prompt, around mean adherence and log variety."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [rng.binomial(8, adherence, PROMPTS) / 8, rng.normal(variety, 0.05, PROMPTS)], -1
    )


def ordinary():
    along = [outcomes(a, 1.5 - a, i) for i, a in enumerate((0.2, 0.4, 0.6, 0.7, 0.75))]
    return np.stack(along, axis=1)


def test_more_variety_at_equal_adherence_supports_the_claim():
    point = outcomes(0.5, 1.3, 9)
    assert leaving.within(point, ordinary())
    test = leaving.regained(point, ordinary(), draws=2000)
    assert test.estimate == pytest.approx(0.3, abs=0.08)
    assert test.low > 0.05 and test.p < 0.001 and test.n == PROMPTS


def test_variety_that_comes_of_disobeying_contradicts_it():
    """As much variety as ordinary guidance has at that adherence, or less."""
    test = leaving.regained(outcomes(0.5, 0.85, 9), ordinary(), draws=2000)
    assert test.high < 0.05 and test.p > 0.5


def test_an_adherence_that_ordinary_guidance_never_has_allows_no_comparison():
    point = outcomes(0.98, 1.3, 9)
    assert not leaving.within(point, ordinary())
    with pytest.raises(EssayError, match="equal adherence"):
        leaving.regained(point, ordinary(), draws=2000)


def test_a_curve_that_turns_back_can_be_met_at_its_last_place_too():
    up_and_down = np.stack([[0.2, 0.6, 0.2], np.log([6.0, 4.0, 2.0])], axis=-1)[None]
    point = np.array([[0.4, np.log(2 * np.sqrt(2))]])
    assert leaving.times_at_last(point, up_and_down) == pytest.approx(1)
    assert leaving.times_at_last(point, up_and_down[:, :2]) == pytest.approx(1 / np.sqrt(3))
    assert np.isnan(leaving.times_at_last(np.array([[0.9, 1.0]]), up_and_down))


def test_curves_take_the_settings_by_name():
    from types import SimpleNamespace

    import pandas as pd
    import torch

    from essaylib.runs import Run

    names = ("12", "interval", "1", "2", "4", "7.5")
    rows = [(s, p, p, k) for s in names for p in "xy" for k in range(2)]
    table = pd.DataFrame(rows, columns=["setting", "prompt", "concept", "seed"])
    run = Run(SimpleNamespace(seeds=2), table, torch.zeros(len(table)), {})
    right = np.isin(table.setting, ("interval", "12"))
    seen = {
        "concept": np.where(right, table.concept.map({"x": 0, "y": 1}), -1),
        "features": np.ones((len(table), 3)),
    }
    point, along = leaving.curves(run, seen, ["x", "y"])
    assert point.shape == (2, 2) and (point[:, 0] == 1).all()
    assert along[0, :, 0].tolist() == [0, 0, 0, 0, 1]


# The operations that are shown beside it.


def run_of(settings, concepts, seeds=4):
    """A run at `settings` of as many prompts as there are concepts."""
    from types import SimpleNamespace

    import pandas as pd
    import torch

    from essaylib.runs import Run

    rows = [
        (s, c, c, i * seeds + k)
        for s in settings
        for i, c in enumerate(concepts)
        for k in range(seeds)
    ]
    table = pd.DataFrame(rows, columns=["setting", "prompt", "concept", "seed"])
    plan = SimpleNamespace(name="small", seeds=seeds)
    return Run(plan, table, torch.zeros(len(table)), {})


CONCEPTS = [f"c{i}" for i in range(12)]


def said(run, rates, various):
    """Adherence `rates` by setting; images differ at the settings in `various`."""
    rng = np.random.default_rng(0)
    rate = run.table.setting.map(rates).to_numpy()
    right = run.table.concept.str[1:].astype(int).to_numpy()
    concept = np.where(rng.random(len(run)) < rate, right, -1)
    apart = run.table.setting.isin(various).to_numpy()[:, None]
    own = np.eye(4)[np.arange(len(run)) % 4] * apart + ~apart
    return {"concept": concept, "features": own + 0.02 * rng.random((len(run), 4))}


def laid_beside(rates=None, **more):
    run = run_of((*leaving.SCALES, "interval"), CONCEPTS)
    others = run_of(("not google", "not twitter", "noise"), CONCEPTS[:8], **more)
    ordinary = dict(zip(leaving.SCALES, (0.1, 0.3, 0.5, 0.7, 0.9), strict=True))
    seen = said(run, ordinary | {"interval": 0.5}, ("1", "interval"))
    rates = rates or {"not google": 0.5, "not twitter": 0.5, "noise": 0.5}
    return leaving.operations(
        run, seen, others, said(others, rates, ("noise",)), CONCEPTS
    ).set_index("operation")


def test_operations_are_compared_with_ordinary_guidance_on_their_own_prompts():
    table = laid_beside()
    assert table.prompts.to_dict() == {"interval": 12, "not this vendor": 8, "noise": 8}
    assert table.times["interval"] > 2 and table.times["noise"] > 2
    assert table.times["not this vendor"] == pytest.approx(1, abs=0.1)
    assert table.variety["noise"] == pytest.approx(4, abs=0.1)
    assert table.variety_before["noise"] == pytest.approx(1, abs=0.1)
    assert (table.times_low <= table.times).all() and (table.times <= table.times_high).all()


def test_an_operation_beyond_the_curve_is_shown_without_comparison():
    table = laid_beside({"not google": 0.5, "not twitter": 0.5, "noise": 0.0})
    assert np.isnan(table.times["noise"]) and np.isfinite(table.variety["noise"])
    assert np.isfinite(table.times["not this vendor"])


def test_operations_must_pair_with_the_run():
    with pytest.raises(EssayError, match="not the first of the run 'small'"):
        laid_beside(seeds=2)


def test_a_vendor_that_is_kept_away_loses_its_share():
    run = run_of(("4", *leaving.SCALES[:2]), CONCEPTS)
    others = run_of(("not google", "not twitter"), CONCEPTS[:8])
    seen = {"vendor": np.tile([0, 0, 1, -1], len(run) // 4)}
    away = {"vendor": np.where(others.table.setting == "not google", 1, -1)}
    table = leaving.kept_away(run, seen, others, away, ["google", "twitter"])
    assert table.ordinary.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert table["not this vendor"]["google"] == 0
    assert np.isnan(table["not this vendor"]["twitter"])


def test_examples_are_of_other_concepts_than_those_asked_for():
    from essaylib import corpus

    few, wanted = leaving.examples("microsoft", few=5, ask=3, seed=1)
    assert set(few.table.vendor) == {"microsoft"} and set(few.table.split) == {"train"}
    assert len(few) == 5 and len(wanted) == 3 and not set(few.table.concept) & set(wanted)
    train = corpus.load().where(split="train", concept=wanted).table
    assert (train.groupby("concept").vendor.nunique() == 4).all()
    again, _ = leaving.examples("microsoft", few=5, ask=3, seed=1)
    assert again.table.equals(few.table)
    with pytest.raises(EssayError, match="are needed"):
        leaving.examples("microsoft", few=5000)


def test_manner_is_the_judges_probability_of_the_vendor():
    from types import SimpleNamespace

    class Named:
        """Tells the vendor by the brightness of a picture."""

        vendors = ("google", "twitter")

        def __call__(self, images):
            first = images.mean(axis=(1, 2, 3)) / 255
            probs = np.stack([first, 1 - first], 1)
            return SimpleNamespace(vendor_probs=probs, best_vendor=probs.argmax(1))

    dark, bright = (np.full((4, 8, 8, 3), value, np.uint8) for value in (51, 255))
    table = leaving.manner({"before": dark, "after": bright}, Named(), "google")
    assert table.probability.tolist() == pytest.approx([0.2, 1.0])
    assert table.share.tolist() == [0.0, 1.0]
