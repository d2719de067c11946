"""Speed and finish, on outcomes and pictures whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from essaylib.errors import EssayError
from essaylib.measures import drift
from essaylib.runs import Run
from essaylib.statistics import delivery

PROMPTS, SEEDS = 20, 4


def run_of(first=0, seeds=SEEDS):
    rows = [
        (s, f"c{p}", f"c{p}", first + p * seeds + k)
        for s in delivery.SCALES
        for p in range(PROMPTS)
        for k in range(seeds)
    ]
    table = pd.DataFrame(rows, columns=["setting", "prompt", "concept", "seed"])
    return Run(SimpleNamespace(seeds=seeds), table, torch.zeros(len(table)), {})


def answers(run, variety, seed=0):
    """Adherence rises from scale to scale; `variety` of the four features vary in a prompt."""
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(4), PROMPTS * SEEDS)
    concept = run.table.concept.str[1:].astype(int).to_numpy()
    seen = np.where(rng.random(len(run)) < 0.2 + 0.2 * at, concept, -1)
    features = np.eye(4)[np.tile(np.arange(SEEDS) % variety, PROMPTS * 4)]
    return {"concept": seen, "features": features + 0.05 * rng.random(features.shape)}


CONCEPTS = [f"c{p}" for p in range(PROMPTS)]


def compared(many, few):
    slow, fast = run_of(), run_of()
    return delivery.curves(slow, answers(slow, many), fast, answers(fast, few, seed=1), CONCEPTS)


def test_less_variety_at_equal_adherence_supports_the_claim():
    pair = compared(4, 2)
    test = delivery.speed(*pair, draws=2000)
    assert test.estimate == pytest.approx(np.log(2), abs=0.1)
    assert test.low > 0.05 and test.p < 0.001 and test.n == PROMPTS
    assert delivery.overlap(*pair) > 0.3


def test_as_much_variety_contradicts_it():
    test = delivery.speed(*compared(4, 4), draws=2000)
    assert test.high < 0.05


def test_runs_must_pair_image_by_image():
    slow, other = run_of(), run_of(first=1)
    assert delivery.paired(slow, run_of()) and not delivery.paired(slow, other)
    with pytest.raises(EssayError, match="cannot be paired"):
        delivery.curves(slow, answers(slow, 4), other, answers(other, 4), CONCEPTS)


def test_curves_without_a_common_level_are_refused():
    a, b = compared(4, 4)
    b[..., 0] = 1.5
    assert delivery.overlap(a, b) < 0
    with pytest.raises(EssayError, match="equal adherence"):
        delivery.speed(a, b, draws=2000)


# Finish.


def after(change, count=20, n=10):
    """Distances of pictures that pass through `change(picture, round, rng)` again and again."""
    rng = np.random.default_rng(0)
    passed = [rng.integers(60, 120, size=(n, 8, 8, 3))]
    for number in range(count):
        passed.append(change(passed[-1], number, rng))
    return drift.distances(np.stack(passed).astype(np.uint8))


def test_a_picture_that_keeps_moving_supports_the_claim():
    def walk(x, number, rng):
        return x + rng.choice([1, 2], size=(len(x), 1, 1, 1))

    test = delivery.finish(after(walk), draws=2000)
    assert test.low > 0.5 and test.p < 0.001 and test.n == 10
    assert test.estimate > 5


def test_a_fixed_point_contradicts_it():
    still = after(lambda x, number, rng: x + 5 if number == 0 else x)
    test = delivery.finish(still, draws=2000)
    assert (test.estimate, test.p) == (0, 1) and test.high < 0.5


def test_a_first_round_without_effect_is_refused():
    with pytest.raises(EssayError, match="changes nothing"):
        delivery.finish(after(lambda x, number, rng: x), draws=2000)
