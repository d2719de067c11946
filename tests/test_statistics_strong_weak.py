"""Centrality and quality: made by hand, and read from a tiny text encoder and the judge."""

import numpy as np
import pytest
import torch

from essaylib import corpus
from essaylib.errors import EssayError
from essaylib.judge import Judge, Network
from essaylib.statistics import strong_weak
from essaylib.training.judge import blank


def untrained():
    """A judge of the book's concepts that has learnt nothing."""
    concepts = list(dict.fromkeys(corpus.load().table.concept))
    return Judge(Network(len(concepts), len(corpus.VENDORS)), blank(concepts))


def concepts(n=300, slope=0.8, through=0.0, seed=0):
    """Centrality, quality, three variables held fixed, and groups.

    `slope` is what centrality does to quality; `through` what both owe to the first variable.
    """
    rng = np.random.default_rng(seed)
    given = rng.normal(size=(n, 3))
    central = rng.normal(size=n) + through * given[:, 0]
    quality = slope * central + rng.normal(size=n) + through * given[:, 0]
    return central, quality, given, rng.integers(8, size=n)


def test_a_centre_that_is_drawn_better_supports_the_claim():
    test = strong_weak.centrality(*concepts(), draws=2000, resamples=500)
    assert test.estimate == pytest.approx(0.6, abs=0.1)
    assert test.low > 0.15 and test.p < 0.001 and test.n == 300


def test_what_edges_explain_is_not_counted():
    values = concepts(n=600, slope=0, through=1.5)
    assert np.corrcoef(values[0], values[1])[0, 1] > 0.6
    test = strong_weak.centrality(*values, draws=2000, resamples=500)
    assert test.high < 0.15 and test.p > 0.01


def test_margins_that_are_drawn_better_contradict_it():
    test = strong_weak.centrality(*concepts(slope=-0.8), draws=2000, resamples=500)
    assert test.high < 0.15 and test.p > 0.9


def test_the_centre_is_that_of_the_others():
    x = np.array([[1.0, 0], [0, 1], [1, 1], [3, 4], [4, 3]])
    found = strong_weak.to_centre(x, np.array([0, 0, 0, 1, 1]))
    assert found[0] == pytest.approx(1 / np.sqrt(5))  # with (1, 2)
    assert found[2] == pytest.approx(1)  # with (1, 1)
    assert found[3:] == pytest.approx([24 / 25] * 2)
    with pytest.raises(EssayError, match="alone"):
        strong_weak.to_centre(x, np.array([0, 0, 0, 1, 2]))


def test_quality_is_the_mean_of_two_ranks():
    probability = np.array([[0.1, 0.2], [0.9, 0.8]])
    sharpness = np.array([[4.0, 3.0], [2.0, 1.0]])
    assert strong_weak.quality(probability, sharpness) == pytest.approx([5 / 8, 5 / 8])
    assert strong_weak.quality(probability, probability) == pytest.approx([3 / 8, 7 / 8])
    with pytest.raises(EssayError, match="must be"):
        strong_weak.quality(probability, sharpness[0])


def test_the_judge_is_asked_for_the_concept_that_was_ordered():
    judge = untrained()
    data = corpus.load().take(range(6))
    said = judge(data.rgb())
    found = strong_weak.requested(judge, said.features.astype(np.float16), data.table.concept)
    index = [judge.concepts.index(name) for name in data.table.concept]
    assert found == pytest.approx(said.concept_probs[np.arange(6), index], rel=1e-2)


def test_drawings_are_described_concept_by_concept():
    data = corpus.load()
    names = ["pizza", "red heart", "dog face"]
    found = strong_weak.drawings(data, untrained(), names)
    train = data.table[data.table.split == "train"]
    assert list(found.index) == names
    assert list(found.number) == [int((train.concept == name).sum()) for name in names]
    assert found.edges["red heart"] < found.edges["pizza"]


def test_captions_are_pooled_as_the_text_encoder_pools(tiny):
    pipe = tiny("embedded")
    found = strong_weak.pooled(pipe, ["dog", "a cat", "doggy"], batch_size=2)
    ids = pipe.tokenizer(
        ["a cat"], padding="max_length", max_length=32, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        wanted = pipe.text_encoder(ids).pooler_output
    assert found[1] == pytest.approx(wanted[0].numpy(), abs=1e-5)


def test_the_plan_holds_the_registered_sample():
    from essaylib import claims, plans

    plan = plans.load("strong-weak", final=True)
    registered = claims.load()["strong-weak"].statistic().n
    assert plan.prompts == {"caption": "{concept}", "count": registered}
    setting = plan.setting("4")
    assert (plan.seeds, setting.guidance_scale, setting.steps) == (2, 4.0, 25)
