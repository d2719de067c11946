import numpy as np
import pandas as pd
import pytest

from essaylib.errors import EssayError
from essaylib.measures import ledger
from essaylib.statistics import noise

T = np.arange(0, 1001, 50)
FEW = {"draws": 2000, "resamples": 300}


def decaying(concept, vendor, m=1000, seed=0, last=None):
    """Answers whose excess over a quarter halves at the given timesteps."""
    rng = np.random.default_rng(seed)
    chance = np.stack(
        [0.25 + 0.5 * 0.5 ** ((T / life) ** 3) for life in (concept, vendor, 300)], axis=1
    )
    answers = rng.binomial(4, chance, size=(m, len(T), 3)) / 4
    return noise.Decay(T, answers, np.full(3, 0.25))


def test_the_maker_going_first_supports():
    found = noise.order(decaying(600, 450), **FEW)
    assert found.estimate == pytest.approx(150, abs=20)
    assert 100 < found.low < found.high < 200
    assert found.p == pytest.approx(1 / 2001) and found.n == 1000


def test_the_thing_going_first_contradicts():
    found = noise.order(decaying(450, 600), **FEW)
    assert found.high < 0 and found.p > 0.9


def test_coinciding_half_lives_contradict_too():
    found = noise.order(decaying(500, 500, m=3000), **FEW)
    assert found.low < 0 < found.high < 40 and found.p > 0.01


def test_each_half_life_has_its_interval():
    life = noise.half_life(decaying(600, 450), "concept", resamples=300)
    assert life.low < 600 < life.high and life.high - life.low < 60


def test_what_is_left_is_tabled_from_one_to_nothing():
    rows = noise.table(decaying(600, 450), resamples=200).set_index(["question", "timestep"])
    assert rows.shape == (3 * len(T), 3)
    assert rows.loc[("concept", 0)].to_numpy() == pytest.approx(1)
    assert rows.left["concept", 600] == pytest.approx(0.5, abs=0.03)
    assert (rows.left_low - 1e-9 <= rows.left).all() and (rows.left <= rows.left_high + 1e-9).all()
    assert rows.left_high["vendor", 1000] < 0.05


def test_the_control_reads_both_ends():
    found = decaying(400, 450)
    assert found.floor("vendor") == 0.25
    first, last = noise.readable(found)["concept"]
    assert first == pytest.approx(0.5, abs=0.03) and last == pytest.approx(0, abs=0.03)
    assert noise.passed(found)
    assert not noise.passed(decaying(2000, 450))


def test_what_never_falls_to_half_is_refused():
    with pytest.raises(EssayError, match="end below it"):
        noise.order(decaying(3000, 450))


def test_noise_is_mixed_by_variance():
    clean = np.random.default_rng(0).normal(size=(200, 4, 8, 8)).astype(np.float32)
    mixed = noise.noised(clean, 0.3, 5)
    assert mixed.dtype == np.float32 and mixed.std() == pytest.approx(1, abs=0.02)
    signal = (mixed * clean).mean() / (clean**2).mean()
    assert signal == pytest.approx(0.3**0.5, abs=0.02)
    assert np.array_equal(noise.noised(clean, 1.0), clean)


def test_the_ledger_is_read_from_clean_to_noise():
    vendors = ["emojione", "google", "microsoft", "twitter"]
    rows = [(f"c{s}-{c}", v, f"s{s}", "g") for s in range(12) for c in range(6) for v in vendors]
    table = pd.DataFrame(rows, columns=["concept", "vendor", "subgroup", "group"])
    rng = np.random.default_rng(0)
    c, v = pd.factorize(table.concept)[0], pd.factorize(table.vendor)[0]
    latents = rng.normal(size=(c.max() + 1, 2, 4, 4))[c] + rng.normal(size=(4, 2, 4, 4))[v]
    latents = (latents + 0.3 * rng.normal(size=latents.shape)).astype(np.float32)
    asked = ledger.questions(table, latents)
    found = noise.read(latents, asked, np.linspace(0.999, 1e-6, 1000))
    assert found.answers.shape == (len(asked.names), 21, 3)
    assert found.timesteps[[0, 1, -1]].tolist() == [0, 50, 1000]
    clean = ledger.ledger(latents, asked).answers.mean(0)
    assert found.answers[:, 0].mean(0) == pytest.approx(clean, abs=0.01)
    for question in ledger.QUESTIONS:
        scores = found.scores(question)
        assert scores[0] > 0.8 and scores[-1] == pytest.approx(0.25, abs=0.1)
        assert found.floor(question) == pytest.approx(0.25, abs=0.05)
    again = noise.read(latents, asked, np.linspace(0.999, 1e-6, 1000))
    assert np.array_equal(found.answers, again.answers)
    with pytest.raises(EssayError, match="no 20 to read"):
        noise.read(latents, asked, np.ones(5))
