from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from essaylib import claims
from essaylib.errors import EssayError
from essaylib.plans import PADDING
from essaylib.statistics import attention

FEW = {"draws": 2000, "resamples": 500}
SEEDS = 4


def made(slope, prompts=60, noise=0.3, padding=0.01, seed=0):
    """A run and its masses: log change is `slope` times log mass, plus each prompt's own level."""
    rng = np.random.default_rng(seed)
    rows, latents, masses = [], [], []
    for p in range(prompts):
        words = [f"w{i}" for i in range(rng.integers(3, 6))]
        mass = rng.lognormal(0, 1, len(words))
        mass *= 0.1 / mass.sum()
        level = rng.normal()
        change = np.exp(slope * np.log(mass) + noise * rng.normal(size=len(words)) + level)
        moved = dict(zip(words, change, strict=True)) | {PADDING: padding * np.median(change)}
        for s in range(SEEDS):
            whole = rng.normal(size=(4, 2, 2))
            rows.append(("whole", f"p{p}", s, None))
            latents.append(whole)
            for hidden, size in moved.items():
                away = rng.normal(size=(4, 2, 2))
                away *= np.sqrt(size / (away**2).mean())
                rows.append(("without", f"p{p}", s, hidden))
                latents.append(whole + away)
            shares = {"<start>": 0.8, **dict(zip(words, mass, strict=True))}
            shares |= {"with": 0.02, "<end>": 0.03, "<padding>": 0.05}
            masses += [(f"p{p}", s, token, share) for token, share in shares.items()]
    run = SimpleNamespace(
        table=pd.DataFrame(rows, columns=["setting", "prompt", "seed", "hidden"]),
        latents=torch.tensor(np.array(latents), dtype=torch.float32),
    )
    return run, pd.DataFrame(masses, columns=["prompt", "seed", "token", "share"])


def verdict(run, masses):
    test = attention.mass(run, masses, **FEW)
    passed = attention.control(run, masses).passed
    decided = claims.decide(claims.load()["attention"], {"mass": test}, passed, others={})
    return decided.verdict, test


def test_a_mass_that_predicts_the_change_supports_the_claim():
    word, test = verdict(*made(slope=1.0))
    assert word == "supported" and test.estimate > 0.9 and test.n > 180


def test_a_mass_that_says_nothing_contradicts_it():
    word, test = verdict(*made(slope=0.0))
    assert word == "contradicted" and abs(test.estimate) < 0.15 and test.p > 0.001


def test_a_mass_that_repels_contradicts_it_too():
    word, test = verdict(*made(slope=-1.0))
    assert word == "contradicted" and test.estimate < -0.9


def test_the_prompts_own_level_does_not_count():
    """Between prompts the levels would drown a correlation; within them it is whole."""
    run, masses = made(slope=1.0, noise=0.0)
    assert attention.mass(run, masses, **FEW).estimate == pytest.approx(1, abs=0.01)


def test_words_and_changes_match_a_hand_computation():
    table = pd.DataFrame(
        [("whole", "a b", s, None) for s in (0, 1)]
        + [("less", "a b", s, word) for word in "ab" for s in (0, 1)]
        + [("less", "a b", s, PADDING) for s in (0, 1)],
        columns=["setting", "prompt", "seed", "hidden"],
    )
    latents = torch.tensor([0.0, 1.0, 2.0, 1.0, 0.0, 4.0, 0.5, 1.0]).reshape(8, 1, 1, 1)
    run = SimpleNamespace(table=table, latents=latents.half())
    masses = pd.DataFrame(
        [
            ("a b", seed, token, share)
            for seed in (0, 1)
            for token, share in (("<start>", 0.7), ("a", 0.1), ("b", 0.06), ("<end>", 0.04))
        ]
        + [("a b", seed, "<padding>", 0.1) for seed in (0, 1)],
        columns=["prompt", "seed", "token", "share"],
    )
    found = attention.words(run, masses)
    assert found.word.tolist() == ["a", "b"]
    assert found.mass.tolist() == pytest.approx([0.5, 0.3])
    assert found.change.tolist() == pytest.approx([2.0, 4.5])
    assert found.relative_mass.tolist() == pytest.approx([(5 / 3) ** 0.5, (3 / 5) ** 0.5])
    assert found.relative_change.tolist() == pytest.approx([2 / 3, 3 / 2])
    control = attention.control(run, masses)
    assert (control.padding, control.word) == pytest.approx((0.125, 3.25))
    assert control.missing == pytest.approx(0, abs=1e-9) and control.passed


def test_the_control_fails_where_padding_matters_or_shares_are_missing():
    assert not attention.control(*made(slope=1.0, padding=0.5)).passed
    run, masses = made(slope=1.0)
    control = attention.control(run, masses[masses.token != "<end>"])
    assert control.missing == pytest.approx(0.03, abs=1e-6) and not control.passed
    assert attention.control(run, masses[masses.prompt != "p0"]).missing == 1


def test_what_has_no_logarithm_or_no_mass_is_refused():
    run, masses = made(slope=1.0, prompts=4)
    run.latents[run.table.index[run.table.hidden == "w0"]] = 0
    run.latents[run.table.index[run.table.hidden.isna()]] = 0
    with pytest.raises(EssayError, match="'w0' of 'p0' has no attention or no effect"):
        attention.mass(run, masses, **FEW)
    run, masses = made(slope=1.0, prompts=4)
    with pytest.raises(EssayError, match="No attention was measured for 'w1'"):
        attention.words(run, masses[masses.token != "w1"])


def test_the_statistic_is_the_one_registered():
    assert [part.id for part in claims.load()["attention"].primary] == ["mass"]
