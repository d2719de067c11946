"""The registered statistic of `filters`, on scores and CLIPs whose answer is known."""

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from essaylib import corpus, features
from essaylib.errors import EssayError
from essaylib.statistics import filters

FEW = {"draws": 2000, "resamples": 500}


def scores(shift, m=400, seed=0):
    """Fits of m concepts by four vendors, one of whom fits better by `shift` spreads."""
    table = np.random.default_rng(seed).normal(size=(m, 4)) * 0.1
    table[:, 1] += 0.1 * shift
    return table, np.where(np.arange(m) % 2, "first", "second")


def test_a_favoured_vendor_supports_the_claim():
    test = filters.gap(*scores(1.0), **FEW)
    assert test.low > 0.10 and test.p < 0.001 and test.n == 400
    # The median of one that is a spread better than three others lies 0.21 of a place above its
    # fair share; survival averaged over the cut-offs moves alike.
    assert 0.15 < test.estimate < 0.35


def test_equal_vendors_contradict_it():
    test = filters.gap(*scores(0.0), **FEW)
    assert test.high < 0.10 and test.p > 0.01
    assert test.estimate == pytest.approx(0, abs=0.03)


def test_scales_of_the_scorers_do_not_matter():
    table, scorer = scores(1.0)
    other = np.where(scorer[:, None] == "first", 5 * table + 3, table)
    assert filters.gap(table, scorer, **FEW) == filters.gap(other, scorer, **FEW)


class Words:
    """A tokenizer of letters: enough to tell names apart."""

    def __call__(self, captions, **_):
        ids = torch.zeros(len(captions), 8, dtype=torch.long)
        for row, text in enumerate(captions):
            letters = [2 + ord(letter) % 40 for letter in text[:6]]
            ids[row, 1 : 1 + len(letters)] = torch.tensor(letters)
            ids[row, 1 + len(letters) :] = 49
        return Batch(input_ids=ids)


class Batch(dict):
    def to(self, device):
        return self


@pytest.fixture(scope="module")
def clips():
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision = small | {"image_size": 16, "patch_size": 8, "num_attention_heads": 2}
    text = small | {"vocab_size": 50, "num_attention_heads": 2, "eos_token_id": 49}
    config = CLIPConfig(
        text_config=text | {"max_position_embeddings": 8}, vision_config=vision, projection_dim=12
    )
    return {half: (CLIPModel(config).eval(), Words()) for half in ("first", "second")}


def test_a_drawing_is_scored_by_the_clip_of_the_other_half(clips):
    data = corpus.load().where(subgroup="food-fruit")
    found = filters.fit(clips, data)
    first, second = corpus.halves(set(data.table.concept))
    assert set(data.table.concept[found.scorer == "first"]) == set(second)
    assert set(data.table.concept[found.scorer == "second"]) == set(first)
    for row in (0, len(data) // 2, len(data) - 1):
        clip, words = clips[found.scorer[row]]
        image = features.clip_images(clip, data.rgb([row], size=16))[0]
        text = features.clip_texts(clip, words, [data.table.concept[row]])[0]
        cosine = image @ text / np.linalg.norm(image) / np.linalg.norm(text)
        assert found.cosine[row] == pytest.approx(cosine, abs=1e-4)
    assert set(found.told_apart) == {"first", "second"}
    assert all(0 < value < 1 for value in found.told_apart.values())


def test_what_cannot_be_scored_is_refused(clips):
    with pytest.raises(EssayError, match="first and second"):
        filters.fit({"first": clips["first"]}, corpus.load().take([0]))
    with pytest.raises(EssayError, match="fewer than two concepts"):
        filters.fit(clips, corpus.load().take([0]))
