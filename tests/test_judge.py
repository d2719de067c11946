"""The judge: what it takes, when it is unsure, and that it is independent of CLIP."""

import ast
import inspect

import numpy as np
import pytest
import torch

from essaylib import judge as judging
from essaylib.errors import EssayError
from essaylib.judge import SHADES, SIDE, TRAITS, UNSURE, Judge, Network, decide, traits

READERS = (((8, 8, 16, 16), torch.nn.Linear), ((8, 16), judging.Cosine))


@pytest.fixture
def small_judge():
    torch.manual_seed(0)
    settings = {
        "concepts": ["one", "two", "three"],
        "vendors": ("a", "b"),
        "temperature": {"concept": 16.0, "vendor": 1.0},
        "threshold": {"concept": 0.9, "vendor": 0.0},
    }
    return Judge(Network(3, 2, READERS), settings)


def pictures(n: int, side: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


def test_probabilities_sum_to_one_and_shapes(small_judge):
    found = small_judge(pictures(5))
    assert found.concept_probs.shape == (5, 3) and found.vendor_probs.shape == (5, 2)
    np.testing.assert_allclose(found.concept_probs.sum(1), 1, atol=1e-5)


def test_what_is_unsure_counts_as_none(small_judge):
    found = small_judge(pictures(5))
    assert (found.concept == UNSURE).all()
    assert (found.best_concept >= 0).all() and (found.vendor >= 0).all()


def test_a_concept_is_a_direction_whatever_the_length():
    head = judging.Cosine(8, 5)
    features = torch.rand(3, 8)
    torch.testing.assert_close(head(features), head(10 * features))
    assert head(head.weight.detach()).argmax(1).tolist() == list(range(5))


def test_paper_has_one_colour_and_no_ink():
    found = traits(torch.ones(2, 3, SIDE, SIDE))
    assert found.shape == (2, TRAITS)
    palette, ink = found.split([SHADES**3, 2 * SIDE], dim=1)
    assert torch.allclose(palette[:, -1], torch.ones(2)) and palette[:, :-1].abs().max() == 0
    assert ink.abs().max() == 0


def test_a_palette_is_shares_of_colours_and_margins_are_where_the_ink_is():
    red = torch.ones(1, 3, SIDE, SIDE)
    red[:, 1:, 16:48, 16:48] = -1  # a quarter of the picture
    palette, rows, columns = traits(red)[0].split([SHADES**3, SIDE, SIDE])
    assert palette[(SHADES - 1) * SHADES**2].item() == pytest.approx(0.25**0.5)
    assert palette.square().sum().item() == pytest.approx(1)
    assert rows.tolist() == [0.0] * 16 + [1.0] * 32 + [0.0] * 16
    assert torch.equal(rows, columns)


def test_a_palette_does_not_see_places():
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    moved = pixels.flatten(2)[..., torch.randperm(SIDE * SIDE)].view_as(pixels)
    cut = SHADES**3
    torch.testing.assert_close(traits(pixels)[:, :cut], traits(moved)[:, :cut])


def test_decide():
    probabilities = np.array([[0.6, 0.4], [0.2, 0.8]])
    assert decide(probabilities, 0.7).tolist() == [UNSURE, 1]


def test_a_judgement_does_not_depend_on_the_batch(small_judge):
    images = pictures(6)
    together = small_judge(images).concept_probs
    alone = np.concatenate([small_judge(images[i : i + 1]).concept_probs for i in range(6)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_pictures_are_averaged_down(small_judge):
    large = pictures(2, 64).repeat(2, axis=1).repeat(2, axis=2)
    small = small_judge(pictures(2, 64))
    np.testing.assert_allclose(small_judge(large).concept_probs, small.concept_probs, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 128, 128, 3)), "takes uint8"),
        (np.zeros((2, 128, 128), np.uint8), "takes uint8"),
        (np.zeros((2, 100, 100, 3), np.uint8), "multiple of 64"),
        (np.zeros((2, 128, 64, 3), np.uint8), "multiple of 64"),
    ],
)
def test_unfit_pictures_are_refused(small_judge, images, message):
    with pytest.raises(EssayError, match=message):
        small_judge(images)


def test_a_saved_judge_judges_alike(small_judge, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "Network", lambda c, v: Network(c, v, READERS))
    small_judge.save(tmp_path)
    again = Judge.load(tmp_path)
    images = pictures(3)
    np.testing.assert_allclose(
        again(images).concept_probs, small_judge(images).concept_probs, atol=2e-3
    )
    assert again.concepts == small_judge.concepts and again.threshold == small_judge.threshold


def test_a_damaged_judge_names_the_cure(small_judge, tmp_path):
    small_judge.save(tmp_path)
    weights = tmp_path / "judge.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(EssayError, match="essay train judge"):
        Judge.load(tmp_path)
    with pytest.raises(EssayError, match="incomplete"):
        Judge.load(tmp_path / "nowhere")


def test_the_judge_module_knows_nothing_of_clip():
    """Independence is a matter of what was learnt from; at the least, nothing is imported."""
    tree = ast.parse(inspect.getsource(judging))
    imported = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    imported += [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not [name for name in imported if "clip" in name.lower() or "transformers" in name]
