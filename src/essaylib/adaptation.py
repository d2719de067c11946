"""Put another U-Net into a pipeline, and train it a little further on a few drawings.

Whether a style that was left out of training stays out depends on how many examples bring it back
(Ren et al. 2025 asked this of art). A pipeline's text tower and autoencoder are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from essaylib import features, models
from essaylib.errors import EssayError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@contextmanager
def using(pipe: Any, unet: UNet2DConditionModel) -> Iterator[None]:
    """Draw with another U-Net for the length of a `with` block."""
    own, pipe.unet = pipe.unet, unet
    try:
        yield
    finally:
        pipe.unet = own


def finetune(
    pipe: Any,
    unet: UNet2DConditionModel,
    images: np.ndarray,
    captions: Sequence[str],
    steps: int = 40,
    batch_size: int = 8,
    lr: float = 3e-4,
    seed: int = 0,
) -> list[float]:
    """Train `unet` further, in place, on a few pictures with captions; return the losses.

    images: uint8 (n, H, W, 3). The pipeline's autoencoder and text tower encode them once. The loss
    is the one that the network was trained with, the mean squared error of the scheduler's target
    at logit-normal timesteps (Esser et al. 2024); AdamW, the rate falling to zero along a line.
    The result depends on `seed` alone. Raises `EssayError` where pictures and captions do not pair.
    """
    if len(images) != len(captions) or not len(images):
        raise EssayError(f"{len(images)} pictures and {len(captions)} captions do not pair.")
    models.require_unet(pipe, "fine-tuning")
    clean = torch.from_numpy(features.latents(pipe.vae, images)).to(unet.device)
    context = features.conditions(pipe, captions).float().to(unet.device)
    noise = pipe.scheduler
    last = noise.config.num_train_timesteps
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=lr, weight_decay=0.0)
    losses = []
    for step in range(steps):
        chosen = torch.randint(len(images), (batch_size,), generator=draw)
        t = (torch.sigmoid(torch.randn(batch_size, generator=draw)) * last).long()
        eps = torch.randn(batch_size, *clean.shape[1:], generator=draw).to(unet.device)
        noisy = noise.add_noise(clean[chosen], eps, t.to(unet.device))
        target = _target(noise, clean[chosen], eps, t.to(unet.device))
        predicted = unet(noisy, t.to(unet.device), context[chosen]).sample
        loss = torch.nn.functional.mse_loss(predicted, target)
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def _target(noise: Any, clean: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """What the network is to predict: the noise, or the velocity v of Salimans and Ho (2022)."""
    kind = noise.config.prediction_type
    if kind == "epsilon":
        return eps
    if kind == "v_prediction":
        return noise.get_velocity(clean, eps, t)
    raise EssayError(f"A network that predicts {kind!r} cannot be trained further here.")
