"""Give an autoencoder's latents a mean of 0 and a spread of 1, as the noise expects them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


@torch.no_grad()
def normalise(vae: Any, images: np.ndarray) -> None:
    """Fold each latent channel's mean and spread into the 1 × 1 convolutions, in place.

    Afterwards the latents of these pictures, uint8 (n, h, w, 3), have mean 0 and standard deviation
    1 in every channel, and a user needs to know nothing else (where `scaling_factor` is 1).
    """
    where = next(vae.parameters())
    found = []
    for batch in torch.from_numpy(images).split(8):
        pixels = (batch.permute(0, 3, 1, 2).float() / 127.5 - 1).to(where)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        found.append(vae.encode(pixels).latent_dist.mode())
    latents = torch.cat(found)
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    quant, post, k = vae.quant_conv, vae.post_quant_conv, latents.shape[1]
    # Posterior log-variances shrink with their means, by the square of the spread.
    quant.weight[:k] /= std[:, None, None, None]
    quant.bias[:k] = (quant.bias[:k] - mean) / std
    quant.bias[k:] -= 2 * std.log()
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]
