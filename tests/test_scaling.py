"""Latents brought to the mean and spread that the noise expects."""

import torch

from essaylib import corpus, scaling
from essaylib.training import autoencoder


@torch.no_grad()
def posterior(vae, pixels):
    return vae.encode(pixels).latent_dist


def test_normalised_latents_have_unit_spread_and_decode_alike():
    torch.manual_seed(0)
    vae = autoencoder.build().eval()
    data = corpus.load().where(split="train").take(range(12))
    pixels = autoencoder.to_signed(torch.from_numpy(data.rgb()))
    before, old = autoencoder.round_trip(vae, pixels), posterior(vae, pixels)
    scaling.normalise(vae, data.rgb())
    new = posterior(vae, pixels)
    latents = new.mode()
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-2
    assert torch.allclose(autoencoder.round_trip(vae, pixels), before, atol=1e-4)
    shrink = old.mode().std(dim=(0, 2, 3), keepdim=True)
    assert torch.allclose(new.std, old.std / shrink, rtol=1e-3)
