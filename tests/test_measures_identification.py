from itertools import combinations

import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures.identification import seeds_recognised, unlabelled


def images(prompt, seed, own, prompts=30, seeds=8, d=50, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    return (
        prompt * rng.normal(size=(prompts, 1, d))
        + seed * rng.normal(size=(1, seeds, d))
        + own * rng.normal(size=(prompts, seeds, d))
    )


def test_a_seed_that_shapes_the_image_is_recognised_through_any_prompt():
    assert seeds_recognised(images(10, 1, 0.1)).mean() > 0.99


def test_without_an_effect_recognition_is_at_chance():
    means = [seeds_recognised(images(3, 0, 1, rng_seed=s)).mean() for s in range(6)]
    # 1,440 images; those of one seed share its mean image.
    assert np.mean(means) == pytest.approx(0.25, abs=0.04)


def test_a_stronger_seed_is_recognised_more_often():
    weak, strong = (seeds_recognised(images(1, s, 1)).mean() for s in (0.1, 0.5))
    assert 0.25 < weak < strong < 1


def test_images_that_ignore_the_seed_tie():
    x = np.repeat(np.random.default_rng(0).normal(size=(5, 1, 9)), 4, axis=1)
    assert seeds_recognised(x) == pytest.approx(np.full((5, 4), 0.25))


def test_brightness_and_contrast_of_an_image_do_not_matter():
    x = images(0, 1, 1)
    x -= x.mean(1, keepdims=True)
    assert (seeds_recognised(x) == seeds_recognised(4 * x + 1)).all()


def test_it_matches_picking_rivals_by_hand():
    x = images(1, 0.4, 1, prompts=5, seeds=6, d=20)
    found = seeds_recognised(x)
    x = x - x.mean(1, keepdims=True)
    for p, s in ((0, 0), (2, 3), (4, 5)):
        others = np.delete(x, p, axis=0).mean(0)
        likeness = [np.corrcoef(x[p, s], other)[0, 1] for other in others]
        rivals = combinations([t for t in range(6) if t != s], 3)
        wins = [likeness[s] > max(likeness[t] for t in three) for three in rivals]
        assert found[p, s] == pytest.approx(np.mean(wins))


def test_permuted_labels_are_the_null():
    x = images(3, 0, 1, prompts=12, seeds=6)
    null = unlabelled(x, draws=2000, seed=1)
    assert null.observed == pytest.approx(seeds_recognised(x).mean() - 0.25)
    assert null.mean == pytest.approx(0, abs=0.01) and null.p > 0.01
    labels = np.random.default_rng(1).permuted(np.broadcast_to(np.arange(6), (12, 6)), axis=1)
    by_hand = seeds_recognised(x[np.arange(12)[:, None], labels]).mean() - 0.25
    assert null.draws[0] == pytest.approx(by_hand)
    assert unlabelled(images(1, 0.5, 1), draws=2000).p < 0.001
    with pytest.raises(EssayError, match="too few"):
        unlabelled(x, draws=100)


def test_too_few_seeds_or_bad_numbers_are_refused():
    with pytest.raises(EssayError, match="four seeds"):
        seeds_recognised(np.ones((5, 3, 2)))
    with pytest.raises(EssayError, match="NaN"):
        seeds_recognised(np.full((5, 4, 2), np.nan))
