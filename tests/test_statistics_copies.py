import numpy as np
import pandas as pd
import pytest

from essaylib.errors import EssayError
from essaylib.statistics import copies


def test_original_outputs_support_the_minority_claim():
    distances = np.concatenate([np.full(20, 1.0), np.full(180, 9.0)])
    test = copies.minority(distances, limit=4)
    assert test.estimate == pytest.approx(0.4) and test.low > 0.3
    assert test.p < 0.001 and test.n == 200


def test_a_model_that_copies_contradicts_it():
    test = copies.minority(np.full(50, 1.0), limit=4)
    assert test.estimate == -0.5 and test.high < 0.1 and test.p == 1


def sample(rng, n, mean, prefix):
    groups = np.array(["faces", "food"])[np.arange(n) % 2]
    borrowed = np.clip(mean + 0.2 * (groups == "food") + rng.normal(0, 0.05, n), 0, 1)
    names = [f"{prefix}{i}" for i in range(n)]
    return pd.DataFrame({"concept": names, "group": groups, "borrowed": borrowed})


def test_borrowing_beyond_the_held_out_is_found():
    rng = np.random.default_rng(0)
    made, held = sample(rng, 80, 0.6, "a"), sample(rng, 60, 0.3, "b")
    made.loc[:9, "borrowed"] = np.nan
    test = copies.parcels(made, held)
    assert test.estimate == pytest.approx(0.3, abs=0.03)
    assert test.low > 0.1 and test.p < 0.001
    assert (test.n, test.drawn) == (60, 60)


def test_no_more_than_the_held_out_is_no_evidence():
    rng = np.random.default_rng(1)
    test = copies.parcels(sample(rng, 80, 0.4, "a"), sample(rng, 80, 0.4, "b"))
    assert test.high < 0.1 and test.p > 0.01


def test_groups_do_not_pass_for_borrowing():
    rng = np.random.default_rng(2)
    made, held = sample(rng, 120, 0.4, "a"), sample(rng, 120, 0.4, "b")
    made = made[(made.group == "food") | (rng.random(120) < 0.2)]
    assert copies.parcels(made, held).p > 0.01


def test_samples_without_patches_are_refused():
    rng = np.random.default_rng(0)
    flat = sample(rng, 8, 0.5, "a").assign(borrowed=np.nan)
    with pytest.raises(EssayError, match="not flat"):
        copies.parcels(flat, sample(rng, 8, 0.5, "b"))


def test_limits_take_in_most_near_duplicates():
    rng = np.random.default_rng(0)
    drawings = rng.integers(0, 255, (40, 64, 64, 3)).astype(np.uint8)
    steps = np.arange(40)[:, None, None, None]
    duplicates = np.clip(drawings.astype(int) // 2 + steps, 0, 255).astype(np.uint8)
    drawings = (drawings // 2).astype(np.uint8)
    found = copies.limits(drawings, duplicates)
    assert found.duplicates == pytest.approx(np.arange(40), abs=1e-3)
    assert found.image == pytest.approx(np.quantile(np.arange(0, 40, 2), 0.95), abs=1e-3)
    assert found.patch == pytest.approx(found.image, abs=2.1)
    assert found.recognised == pytest.approx(18 / 20)
    with pytest.raises(EssayError, match="four drawings"):
        copies.limits(drawings[:2], duplicates[:2])


def test_near_duplicates_are_round_trips_that_moved(tiny):
    pipe = tiny("embedded")
    drawings = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
    once, again = (copies.near_duplicates(pipe, drawings, seed) for seed in (0, 0))
    other = copies.near_duplicates(pipe, drawings, 1)
    assert once.shape == drawings.shape and 0 <= once.min() <= once.max() <= 255
    assert (once == again).all() and (once != other).any()


def test_some_near_duplicates_are_those_among_all(tiny):
    pipe = tiny("embedded")
    drawings = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
    every = copies.near_duplicates(pipe, drawings, 2)
    some = copies.near_duplicates(pipe, drawings, 2, [2, 0])
    assert some == pytest.approx(every[[2, 0]], abs=1.01)  # a pixel may round either way


def test_flat_patches_have_no_distance():
    drawings = np.full((4, 64, 64, 3), 255, np.uint8)
    drawings[:, :16, 16:32] = np.random.default_rng(0).integers(0, 255, (16, 16, 3))
    whole, pieces = copies.apart(drawings, drawings - np.uint8(3) * (drawings > 3))
    assert whole.shape == (4,) and pieces.shape == (4, 16)
    assert (pieces[:, [0, *range(2, 16)]] == -1).all()
    assert pieces[:, 1] == pytest.approx(np.full(4, 3), abs=0.1)
