"""Give an autoencoder's latents a mean of 0 and a spread of 1, as the noise expects them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from essaylib import features


@torch.no_grad()
def normalise(vae: Any, images: np.ndarray) -> None:
    """Fold each latent channel's mean and spread into the 1 × 1 convolutions, in place.

    Afterwards the latents of these pictures, uint8 (n, h, w, 3), have mean 0 and standard deviation
    1 in every channel, and a user needs to know nothing else (where `scaling_factor` is 1).
    """
    scaled = torch.from_numpy(features.latents(vae, images)).to(next(vae.parameters()))
    latents = scaled / vae.config.scaling_factor
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    quant, post, k = vae.quant_conv, vae.post_quant_conv, latents.shape[1]
    # Posterior log-variances shrink with their means, by the square of the spread.
    quant.weight[:k] /= std[:, None, None, None]
    quant.bias[:k] = (quant.bias[:k] - mean) / std
    quant.bias[k:] -= 2 * std.log()
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]
