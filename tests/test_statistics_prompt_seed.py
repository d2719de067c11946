import numpy as np
import pytest

from essaylib import claims
from essaylib.errors import EssayError
from essaylib.measures import identification, variance
from essaylib.statistics import prompt_seed

FEW = {"draws": 2000, "resamples": 500}


def latents(prompt, seed, own, prompts=24, seeds=8, rng_seed=0):
    """Prompt, seed and interaction of given strength, drawn independently."""
    rng = np.random.default_rng(rng_seed)
    shape = (4, 4, 4)
    return (
        prompt * rng.normal(size=(prompts, 1, *shape))
        + seed * rng.normal(size=(1, seeds, *shape))
        + own * rng.normal(size=(prompts, seeds, *shape))
    )


def verdict(x):
    tests = {part: getattr(prompt_seed, part)(x, **FEW) for part in ("order", "static")}
    claim = claims.load()["prompt-seed"]
    decided = claims.decide(claim, tests, prompt_seed.control(x).passed, others={})
    return {part.id: part.verdict for part in decided.parts}, tests


def test_a_prompt_that_rules_beside_a_seed_that_shows_supports_both_halves():
    x = latents(1.0, 0.5, 0.7)
    words, tests = verdict(x)
    found = variance.shares(x)
    assert tests["order"].estimate == pytest.approx(found.rows - found.columns)
    assert tests["order"].estimate == pytest.approx(0.75 / 1.74, abs=0.1)
    assert tests["order"].n == 24 and tests["order"].p < 0.001
    assert tests["static"].estimate > 0.5 and tests["static"].p < 0.001
    assert words == {"order": "supported", "static": "supported"}


def test_a_seed_that_rules_contradicts_the_first_half():
    words, tests = verdict(latents(0.3, 1.0, 0.5))
    assert tests["order"].estimate < -0.5 and words["order"] == "contradicted"


def test_a_seed_that_does_nothing_contradicts_the_second_half():
    words, tests = verdict(latents(1.0, 0.0, 1.0, prompts=48, seeds=16))
    assert tests["static"].estimate == pytest.approx(0, abs=0.04)
    assert words["static"] == "contradicted"


def test_the_control_reads_nothing_where_there_is_nothing():
    dealt = prompt_seed.control(latents(1.0, 0.5, 0.7), deals=20)
    assert dealt.passed
    assert dealt.prompt == pytest.approx(0, abs=0.01) and dealt.seed == pytest.approx(0, abs=0.01)
    assert dealt.recognised == pytest.approx(identification.CHANCE, abs=0.02)
    assert not prompt_seed.Dealt(0.03, 0.0, 0.25).passed
    assert not prompt_seed.Dealt(0.0, 0.0, 0.29).passed


def test_the_statistics_are_those_registered():
    claim = claims.load()["prompt-seed"]
    assert {part.id for part in claim.primary} == {"order", "static"}
    assert all(callable(getattr(prompt_seed, part.id)) for part in claim.primary)


def test_images_without_any_variation_are_refused():
    with pytest.raises(EssayError, match="Nothing varies"):
        prompt_seed.order(np.ones((4, 4, 2)), **FEW)
    with pytest.raises(EssayError, match="four seeds"):
        prompt_seed.static(np.random.default_rng(0).normal(size=(4, 3, 2)), **FEW)
