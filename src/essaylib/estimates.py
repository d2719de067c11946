"""What the U-Net believes a picture to be, in one step: its estimate of x0 for a caption.

A sampler takes many such steps and trusts each a little. Taken alone, from noise that hides nearly
everything, the estimate is the network's answer to its training loss and to nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from essaylib import features, models
from essaylib.errors import EssayError
from essaylib.trace import clean_latents


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
    few = [names[start : start + 64] for start in range(0, len(names), 64)]
    words = torch.cat([features.conditions(pipe, each) for each in few]).to(pipe.unet.dtype)
    where = pipe.unet.device, pipe.unet.dtype
    kind = pipe.scheduler.config.prediction_type
    share = float(pipe.scheduler.alphas_cumprod[timestep])
    found = []
    for rows in np.array_split(np.arange(len(noisy)), -(-len(noisy) // batch_size)):
        sample = noisy[rows].to(*where)
        output = pipe.unet(sample, timestep, encoder_hidden_states=words[index[rows]]).sample
        found.append(clean_latents(kind, share, sample.float(), output.float()).cpu())
    return torch.cat(found).numpy()
