"""A drawing as the model holds it: latents of the autoencoder, vectors of CLIP's image tower.

Both take pictures as the corpus gives them, uint8 (n, h, w, 3) on white, and return float32 arrays,
one row a picture, without noise: the same picture gives the same numbers. `untrained` makes the
floor that a learned space is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from essaylib.errors import EssayError


def latents(vae: Any, images: np.ndarray) -> np.ndarray:
    """Encode pictures to latents (n, C, h / 8, w / 8), scaled as the U-Net takes them.

    The mean of the posterior is returned, not a draw from it.
    """
    scale = vae.config.scaling_factor

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        # Channels last and a few pictures at a time: half the time on a CPU.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return vae.encode(pixels).latent_dist.mode() * scale

    return _apply(encode, vae, images, batch=4)


def clip_images(clip: Any, images: np.ndarray) -> np.ndarray:
    """Embed pictures by CLIP's image tower, projected into the space of captions (n, d).

    Pictures that are larger than the tower takes are averaged over blocks of pixels.
    """
    side = clip.config.vision_config.image_size
    height, width = images.shape[1:3]
    if height % side or width % side or height != width:
        raise EssayError(f"This CLIP takes {side} x {side} pixels, or squares of a multiple of it.")

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        pixels = torch.nn.functional.avg_pool2d(pixels, height // side)
        hidden = clip.vision_model(pixel_values=pixels).pooler_output
        return clip.visual_projection(hidden)

    return _apply(embed, clip, images, batch=64)


def untrained(network: Any, seed: int = 0) -> Any:
    """The same architecture with the weights that it would have been given before training."""
    kind = type(network)
    make = kind.from_config if hasattr(kind, "from_config") else kind
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(network.config).eval()


@torch.no_grad()
def _apply(
    function: Callable[[torch.Tensor], torch.Tensor], network: Any, images: np.ndarray, batch: int
) -> np.ndarray:
    """Apply a function of signed pixels (b, 3, h, w), `batch` pictures at a time."""
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise EssayError(f"Pictures are uint8 (n, h, w, 3), not {images.dtype} {images.shape}.")
    where = next(network.parameters())
    found = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2)
        found.append(function((pixels.float() / 127.5 - 1).to(where)).float().cpu())
    return torch.cat(found).numpy()
