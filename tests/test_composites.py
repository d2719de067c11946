from types import SimpleNamespace

import numpy as np
import pytest

from essaylib import composites, corpus
from essaylib.errors import EssayError


@pytest.fixture(scope="module")
def unseen():
    return corpus.load().where(split=["validation", "held_out"])


def test_a_ground_comes_out_again_and_no_two_are_alike():
    one, two = composites.grounds(6, seed=3), composites.grounds(6, seed=3)
    assert np.array_equal(one, two) and one.shape == (6, 128, 128, 3) and one.dtype == np.uint8
    assert len({ground.tobytes() for ground in one}) == 6
    assert not np.array_equal(one, composites.grounds(6, seed=4))


def test_a_ground_has_grain_about_a_colour_that_is_neither_white_nor_black():
    grounds = composites.grounds(30, seed=0).astype(float)
    means = grounds.mean((1, 2))
    assert means.min() > 30 and means.max() < 226
    depth = grounds.std((1, 2)).mean(1)
    assert depth.min() > 5 and depth.max() < 45


def test_a_drawing_keeps_its_own_pixels_and_lets_the_ground_through():
    rgba = np.zeros((1, 4, 4, 4), np.uint8)
    rgba[0, :2] = (200, 100, 0, 255)
    rgba[0, 2] = (200, 100, 0, 51)
    ground = np.full((1, 4, 4, 3), 50, np.uint8)
    found = composites.set_on(rgba, ground)
    assert (found[0, :2] == (200, 100, 0)).all() and (found[0, 3] == 50).all()
    assert (found[0, 2] == (80, 60, 40)).all()  # a fifth of the drawing, four fifths of the ground
    assert composites.masks(rgba)[0].sum() == 8


def test_drawings_are_drawn_by_lot_one_a_concept_and_leave_a_ground(unseen):
    found = composites.chosen(unseen, 40, seed=1)
    assert found.table.concept.is_unique and len(found) == 40
    covered = composites.masks(found.rgba()).mean((1, 2))
    assert (covered <= 1 - composites.GROUND).all()
    again, other = (composites.chosen(unseen, 40, seed=seed) for seed in (1, 2))
    assert list(again.table.id) == list(found.table.id) != list(other.table.id)


def test_a_larger_model_is_shown_larger_pictures():
    pipe = SimpleNamespace(
        unet=SimpleNamespace(config=SimpleNamespace(sample_size=64)), vae_scale_factor=8
    )
    pictures = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    found = composites.fitted(pictures, pipe)
    assert found.shape == (1, 512, 512, 3) and (found[0, :256, 256:] == (3, 4, 5)).all()
    pipe.unet.config.sample_size = 8
    large = np.zeros((1, 128, 128, 3), np.uint8)
    assert composites.fitted(large, pipe).shape == large.shape


def test_what_does_not_fit_is_refused(unseen):
    with pytest.raises(EssayError, match="one or more"):
        composites.grounds(0)
    with pytest.raises(EssayError, match="do not fit"):
        composites.set_on(np.zeros((1, 4, 4, 4), np.uint8), np.zeros((1, 5, 5, 3), np.uint8))
    with pytest.raises(EssayError, match="leave room"):
        composites.chosen(unseen.take(range(5)), 6)
