import numpy as np
import pytest
import torch

from essaylib import activations, estimates
from essaylib.errors import EssayError
from essaylib.trace import clean_latents


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(3, 4, 16, 16)).astype(np.float32)


def test_a_velocity_is_turned_into_the_picture_that_it_points_to(tiny, latents):
    pipe = tiny("embedded")
    noisy = activations.noised(pipe, latents, 800)
    found = estimates.one_step(pipe, noisy, 800, ["dog", "a cat", "dog"], batch_size=2)
    words = pipe.encode_prompt(["dog", "a cat", "dog"], "cpu", 1, False)[0]
    with torch.no_grad():
        output = pipe.unet(noisy, 800, encoder_hidden_states=words).sample
    pipe.scheduler.set_timesteps(1000)
    wanted = pipe.scheduler.step(output, 800, noisy).pred_original_sample
    assert found == pytest.approx(wanted.numpy(), abs=1e-4)


def test_a_perfect_prediction_gives_back_the_drawing(latents):
    from diffusers import DDIMScheduler

    clean, noise = torch.from_numpy(latents), torch.randn(3, 4, 16, 16)
    at = torch.full((3,), 900)
    for kind in ("epsilon", "v_prediction", "sample"):
        scheduler = DDIMScheduler(prediction_type=kind)
        noisy = scheduler.add_noise(clean, noise, at)
        output = {
            "epsilon": noise,
            "v_prediction": scheduler.get_velocity(clean, noise, at),
            "sample": clean,
        }[kind]
        share = float(scheduler.alphas_cumprod[900])
        found = clean_latents(kind, share, noisy, output)
        assert torch.allclose(found, clean, atol=1e-3), kind


def test_a_caption_is_needed_for_each(tiny, latents):
    with pytest.raises(EssayError, match="do not pair"):
        estimates.one_step(tiny("embedded"), torch.from_numpy(latents), 900, ["dog"])
