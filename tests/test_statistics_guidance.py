"""The premium, on answers made by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from essaylib.errors import EssayError
from essaylib.measures import concentration
from essaylib.runs import Run
from essaylib.statistics import guidance

PROMPTS, SEEDS = 12, 8


def answers(low, high):
    """A run at w = 1 and 7.5 and the vendors (prompts, seeds) that the judge saw."""
    rows = [
        (s, f"c{p}", f"c{p}", p * SEEDS + k)
        for s in ("1", "4", "7.5")
        for p in range(PROMPTS)
        for k in range(SEEDS)
    ]
    table = pd.DataFrame(rows, columns=["setting", "prompt", "concept", "seed"])
    run = Run(SimpleNamespace(seeds=SEEDS), table, torch.zeros(len(table)), {})
    return run, {"vendor": np.concatenate([low.ravel(), low.ravel(), high.ravel()])}


def mixed(seed=0):
    return np.random.default_rng(seed).integers(4, size=(PROMPTS, SEEDS))


def test_vendors_that_narrow_support_the_claim():
    narrow = np.zeros((PROMPTS, SEEDS), dtype=int)
    test = guidance.premium(*answers(mixed(), narrow), draws=2000)
    assert test.estimate == pytest.approx(
        1 - np.mean(concentration.unbiased(concentration.count(mixed())))
    )
    assert test.low > 0.05 and test.p < 0.001 and test.n == test.drawn == PROMPTS


def test_vendors_that_stay_mixed_contradict_it():
    same = mixed()
    test = guidance.premium(*answers(same, same), draws=2000)
    assert test.estimate == 0 and test.high < 0.05 and test.p == 1


def test_prompts_the_judge_is_unsure_of_count_as_drawn_only():
    high = mixed(1)
    high[:3] = -1
    test = guidance.premium(*answers(mixed(), high), draws=2000)
    assert (test.n, test.drawn) == (PROMPTS - 3, PROMPTS)
    with pytest.raises(EssayError, match="draw more seeds"):
        guidance.premium(*answers(mixed(), np.full((PROMPTS, SEEDS), -1)), draws=2000)
