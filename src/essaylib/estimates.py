"""What the U-Net believes a picture to be, in one step: its estimate of x0 for a caption.

A sampler takes many such steps and trusts each a little. Taken alone, from noise that hides nearly
everything, the estimate is the network's answer to its training loss and to nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from essaylib import models
from essaylib.errors import EssayError


@torch.no_grad()
def one_step(
    pipe: Any,
    noisy: torch.Tensor,
    timestep: int,
    captions: Sequence[str],
    batch_size: int = 32,
) -> np.ndarray:
    """Return the estimates of x0 (n, C, h, w) for latents noised to `timestep`, float32.

    One caption a latent, no guidance. By the model's own parametrisation (noise, velocity, sample).
    """
    models.require_unet(pipe, "one-step estimates")
    if len(captions) != len(noisy):
        raise EssayError(f"{len(captions)} captions and {len(noisy)} latents do not pair.")
    names, index = np.unique(np.asarray(captions), return_inverse=True)
    words = _read(pipe, list(names))
    where = pipe.unet.device, pipe.unet.dtype
    found = []
    for rows in np.array_split(np.arange(len(noisy)), -(-len(noisy) // batch_size)):
        sample = noisy[rows].to(*where)
        output = pipe.unet(sample, timestep, encoder_hidden_states=words[index[rows]]).sample
        found.append(_clean(pipe.scheduler, sample.float(), output.float(), timestep).cpu())
    return torch.cat(found).numpy()


def _read(pipe: Any, captions: list[str]) -> torch.Tensor:
    """The captions as the pipeline gives them to its U-Net (n, T, D)."""
    parts = [
        pipe.encode_prompt(captions[start : start + 64], pipe.unet.device, 1, False)[0]
        for start in range(0, len(captions), 64)
    ]
    return torch.cat(parts).to(pipe.unet.dtype)


def _clean(
    scheduler: Any, sample: torch.Tensor, output: torch.Tensor, timestep: int
) -> torch.Tensor:
    share = float(scheduler.alphas_cumprod[timestep])
    signal, noise = share**0.5, (1 - share) ** 0.5
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return output
    if kind == "v_prediction":
        return signal * sample - noise * output
    return (sample - noise * output) / signal
