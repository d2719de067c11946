"""The decoder's features: what the hooks keep is what the blocks pass on."""

import numpy as np
import pytest
import torch

from essaylib import activations, features, interventions


@pytest.fixture
def pipe(tiny):
    return tiny("embedded")


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(3, 4, 16, 16)).astype(np.float32)


def test_noise_is_mixed_in_as_in_training(pipe, latents):
    noisy = activations.noised(pipe, latents, 400, seed=7)
    share = pipe.scheduler.alphas_cumprod[400]
    noise = torch.randn(4, 16, 16, generator=torch.Generator("cpu").manual_seed(8))
    wanted = share.sqrt() * torch.from_numpy(latents[1]) + (1 - share).sqrt() * noise
    assert torch.allclose(noisy[1], wanted, atol=1e-6)


def test_the_last_block_is_what_the_output_is_made_of(pipe, latents):
    noisy = activations.noised(pipe, latents, 200)
    blocks = activations.decoder(pipe, noisy, 200, batch_size=2)
    assert [block.shape for block in blocks] == [(3, 64, 8, 8), (3, 32, 16, 16), (3, 16, 16, 16)]
    unet = pipe.unet
    words = pipe.encode_prompt("", "cpu", 1, False)[0].expand(3, -1, -1)
    with torch.no_grad():
        wanted = unet(noisy, 200, encoder_hidden_states=words).sample
        last = torch.from_numpy(blocks[-1])
        found = unet.conv_out(unet.conv_act(unet.conv_norm_out(last)))
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not unet.up_blocks[0]._forward_hooks


def test_another_network_can_look_instead(pipe, latents):
    noisy = activations.noised(pipe, latents, 200)
    born = features.untrained(pipe.unet, seed=1)
    own, other = (activations.decoder(pipe, noisy, 200, unet)[-1] for unet in (None, born))
    assert own.shape == other.shape and not np.allclose(own, other)


def test_cut_skips_are_as_if_the_encoder_had_handed_nothing_across(pipe, latents):
    noisy = activations.noised(pipe, latents, 200)
    before = activations.decoder(pipe, noisy, 200)
    with interventions.scale_skips(pipe.unet, 1.0):
        same = activations.decoder(pipe, noisy, 200)
    handed = []

    def listen(_module, _args, kwargs):
        handed.extend(kwargs["res_hidden_states_tuple"])

    with interventions.scale_skips(pipe.unet, 0.0):
        ears = pipe.unet.up_blocks[0].register_forward_pre_hook(listen, with_kwargs=True)
        cut = activations.decoder(pipe, noisy, 200)
        ears.remove()
    after = activations.decoder(pipe, noisy, 200)
    assert np.array_equal(same[-1], before[-1]) and np.array_equal(after[-1], before[-1])
    assert not np.allclose(cut[-1], before[-1])
    assert handed and all((part == 0).all() for part in handed)


def test_every_block_is_heard_alike_whatever_its_width():
    rng = np.random.default_rng(0)
    blocks = [100 * rng.normal(size=(2, 8, 4, 4)) + 50, rng.normal(size=(2, 3, 8, 8))]
    found = activations.joined(blocks)
    assert found.shape == (2, 11, 8, 8)
    for part in (found[:, :8], found[:, 8:]):
        assert part.mean((2, 3)) == pytest.approx(np.zeros(part.shape[:2]), abs=1e-5)
        assert (part**2).sum(1).mean((1, 2)) == pytest.approx(np.ones(2), rel=1e-4)


def test_parting_then_enlarging_equals_enlarging_then_parting():
    from essaylib.measures import overlap

    held = np.random.default_rng(0).normal(size=(2, 6, 8, 8)).astype(np.float32)
    held[:, :, 2:6, 2:6] += 3
    found = activations.parted(held, (32, 32), seed=3)
    large = activations.enlarged(held, (32, 32))
    for own, wide, parts in zip(held, large, found, strict=True):
        line, offset = overlap.two_means(own.reshape(6, -1).T, seed=3)
        assert np.array_equal(np.einsum("chw,c->hw", wide, line) > offset, parts)
    assert found[0, 16, 16] != found[0, 0, 0]
