"""Figure and ground: scores made by hand, and the whole path on a tiny network."""

import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.statistics import unet


def scores(trained, untrained, colour, n=60, seed=0):
    rng = np.random.default_rng(seed)
    means = {"trained": trained, "untrained": untrained, "colour": colour}
    return {name: mean + 0.05 * rng.normal(size=(n, 3)) for name, mean in means.items()}


def test_a_network_that_sees_more_than_both_supports_the_claim():
    test = unet.figure(scores(0.7, 0.5, 0.55), draws=2000, resamples=500)
    assert test.estimate == pytest.approx(0.15, abs=0.03)
    assert test.low > 0.05 and test.p < 0.001 and test.n == test.drawn == 60


@pytest.mark.parametrize("rivals", [(0.7, 0.4), (0.4, 0.7)])
def test_one_rival_that_sees_as_much_contradicts_it(rivals):
    test = unet.figure(scores(0.7, *rivals), draws=2000, resamples=500)
    assert test.high < 0.05 and test.p > 0.01


def test_the_better_rival_is_the_better_on_average():
    found = scores(0.6, 0.5, 0.5)
    found["colour"] = found["untrained"] + np.linspace(-0.2, 0.21, 60)[:, None]
    test = unet.figure(found, draws=2000, resamples=500)
    lead = found["trained"].mean() - found["colour"].mean()
    assert test.estimate == pytest.approx(lead)


def test_all_three_are_needed():
    with pytest.raises(EssayError, match="are needed"):
        unet.figure({"trained": np.ones((4, 3)), "colour": np.ones((4, 3))})


def test_the_whole_path_on_a_tiny_network(tiny):
    """Blobs on an even ground in the latent itself: colour finds them at little noise."""
    rng = np.random.default_rng(0)
    latents = 0.05 * rng.normal(size=(4, 4, 16, 16)).astype(np.float32)
    masks = np.zeros((4, 32, 32), bool)
    latents[:, :, 4:12, 4:12] += 4
    masks[:, 8:24, 8:24] = True
    found = unet.overlaps(tiny("embedded"), latents, masks, timesteps=(20, 900))
    assert {name: part.shape for name, part in found.items()} == dict.fromkeys(
        ("trained", "untrained", "colour"), (4, 2)
    )
    assert found["colour"][:, 0].min() > 0.9 > found["colour"][:, 1].max()
    assert all(((part > 0) & (part <= 1)).all() for part in found.values())
