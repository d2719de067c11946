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
