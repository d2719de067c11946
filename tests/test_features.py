import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPConfig, CLIPModel

from essaylib import features
from essaylib.errors import EssayError


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return AutoencoderKL(
        **kinds, block_out_channels=(8, 8), norm_num_groups=4, scaling_factor=0.5
    ).eval()


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision = small | {"image_size": 16, "patch_size": 8, "num_attention_heads": 2}
    text = small | {"vocab_size": 50, "num_attention_heads": 2, "eos_token_id": 49}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def test_latents_are_the_scaled_mean_of_the_posterior(vae, images):
    found = features.latents(vae, images)
    assert found.shape == (6, 4, 16, 16) and found.dtype == np.float32
    with torch.no_grad():
        pixels = torch.from_numpy(images[5:]).permute(0, 3, 1, 2) / 127.5 - 1
        wanted = vae.encode(pixels).latent_dist.mean * 0.5
    assert found[5:] == pytest.approx(wanted.numpy(), abs=1e-4)


def test_clip_sees_a_larger_picture_as_its_block_means(clip, images):
    found = features.clip_images(clip, images)
    assert found.shape == (6, 12)
    blocks = images.reshape(6, 16, 2, 16, 2, 3).mean((2, 4))
    pixels = torch.from_numpy(blocks).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        wanted = clip.get_image_features(pixel_values=pixels).pooler_output
    assert found == pytest.approx(wanted.numpy(), abs=1e-4)


def test_an_untrained_network_has_the_shape_and_not_the_weights(clip, vae, images):
    state = torch.get_rng_state()
    fresh = features.untrained(clip, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(
        features.clip_images(fresh, images),
        features.clip_images(features.untrained(clip, seed=1), images),
    )
    assert not np.allclose(features.clip_images(fresh, images), features.clip_images(clip, images))
    assert features.latents(features.untrained(vae), images).shape == (6, 4, 16, 16)


def test_what_is_no_picture_is_refused(clip, vae, images):
    with pytest.raises(EssayError, match="uint8"):
        features.latents(vae, images / 255)
    with pytest.raises(EssayError, match="16 x 16"):
        features.clip_images(clip, images[:, :20, :20])
