"""Speed and finish, on outcomes and pictures whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from essaylib.errors import EssayError
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


def rounds(change, count=20, n=10, seed=0):
    """Pictures that pass through `change(picture, round)`, from random ones."""
    rng = np.random.default_rng(seed)
    passed = [rng.integers(60, 120, size=(n, 8, 8, 3))]
    for number in range(count):
        passed.append(change(passed[-1], number, rng))
    return np.stack(passed).astype(np.uint8)


def test_distances_are_root_mean_squares_in_grey_levels():
    passed = rounds(lambda x, number, rng: x + number + 1, count=3, n=2)
    assert delivery.distances(passed)[0] == pytest.approx(
        np.array([[0, 1, 3, 6], [1, 0, 2, 5], [3, 2, 0, 3], [6, 5, 3, 0]])
    )
    assert delivery.drift(delivery.distances(passed))[1] == pytest.approx([0, 2, 5])


def test_a_picture_that_keeps_moving_supports_the_claim():
    def walk(x, number, rng):
        return x + rng.choice([1, 2], size=(len(x), 1, 1, 1))

    test = delivery.finish(rounds(walk), draws=2000)
    assert test.low > 0.5 and test.p < 0.001 and test.n == 10
    assert test.estimate > 5


def test_a_fixed_point_contradicts_it():
    still = rounds(lambda x, number, rng: x + 5 if number == 0 else x)
    test = delivery.finish(still, draws=2000)
    assert (test.estimate, test.p) == (0, 1) and test.high < 0.5


def test_trembling_about_a_fixed_point_is_no_drift():
    """Each round is one still picture and noise of its own: its last is like any other."""
    base = np.random.default_rng(1).integers(60, 120, size=(10, 8, 8, 3))

    def tremble(x, number, rng):
        return base + 10 + rng.integers(-2, 3, size=base.shape)

    found = delivery.shuffled(delivery.distances(rounds(tremble)), draws=2000)
    assert found.low < found.observed < found.high


def test_shuffling_draws_ordered_pairs_of_rounds():
    """With two rounds, either may come first: the null's mean is that of the two orders."""
    between = np.array([[[0, 2, 5], [2, 0, 4], [5, 4, 0.0]]] * 2)
    found = delivery.shuffled(between, draws=4000)
    assert found.observed == 2 and found.mean == pytest.approx((4 / 2 + 4 / 5) / 2, rel=0.02)
    assert set(found.draws.round(6)) == {0.8, 1.4, 2.0}


def test_degenerate_rounds_are_refused():
    still = rounds(lambda x, number, rng: x)
    with pytest.raises(EssayError, match="changes nothing"):
        delivery.finish(still, draws=2000)
    with pytest.raises(EssayError, match="fewest"):
        delivery.distances(still[:2])
    moving = delivery.distances(rounds(lambda x, number, rng: x + 1))
    with pytest.raises(EssayError, match="too few"):
        delivery.shuffled(moving, draws=10)
