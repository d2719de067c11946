"""What the U-Net's decoder holds while it looks: its features, taken by hooks on `unet.up_blocks`.

One forward pass is enough. Nothing is generated; a picture is noised to a timestep, shown to the
network once, and what the decoder's blocks pass on is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from essaylib import models
from essaylib.errors import EssayError
from essaylib.measures import overlap


def noised(
    pipe: Any, latents: np.ndarray, timestep: int, seed: int | Sequence[int] = 0
) -> torch.Tensor:
    """Mix latents (n, C, h, w) with noise as training does at `timestep`; float32 on the CPU.

    Drawing i gets the noise of seed + i, or of the i-th of n seeds, the same at every timestep.
    """
    clean = torch.from_numpy(np.ascontiguousarray(latents, dtype=np.float32))
    seeds = range(seed, seed + len(clean)) if np.isscalar(seed) else seed
    generators = (torch.Generator("cpu").manual_seed(int(own)) for own in seeds)
    noise = torch.stack([torch.randn(clean.shape[1:], generator=own) for own in generators])
    return pipe.scheduler.add_noise(clean, noise, torch.full((len(clean),), timestep))


@torch.no_grad()
def decoder(
    pipe: Any,
    noisy: torch.Tensor,
    timestep: int,
    unet: Any = None,
    prompt: str = "",
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Show the U-Net latents (n, C, h, w) once; return each up block's output (n, c, h', w').

    The prompt is empty by default: nobody says what there is to be seen. `unet` looks in place of
    the pipeline's own (an untrained one, for a floor). Deepest block first; float32.
    """
    models.require_unet(pipe, "decoder features")
    unet = pipe.unet if unet is None else unet
    where = next(unet.parameters())
    words = pipe.encode_prompt(prompt, pipe.unet.device, 1, False)[0].to(where)
    kept: list[list[torch.Tensor]] = [[] for _ in unet.up_blocks]
    with ExitStack() as hooks:
        for block, own in zip(unet.up_blocks, kept, strict=True):

            def keep(_module: Any, _args: Any, output: torch.Tensor, own: list = own) -> None:
                own.append(output.float().cpu())

            hooks.callback(block.register_forward_hook(keep).remove)
        for batch in noisy.split(batch_size):
            unet(batch.to(where), timestep, encoder_hidden_states=words.expand(len(batch), -1, -1))
    if not all(kept):
        raise EssayError("A block of the decoder was never called: there are no features to show.")
    return [torch.cat(own).numpy() for own in kept]


def joined(blocks: list[np.ndarray]) -> np.ndarray:
    """Join blocks' features on the finest of their grids: (n, sum of c, h, w).

    Coarser ones are enlarged bilinearly. Every block is centred and scaled to one unit of variance
    in every drawing, so that none is heard for its width or its loudness.
    """
    finest = max((block.shape[2:] for block in blocks), key=lambda size: size[0] * size[1])
    parts = []
    for block in blocks:
        block = enlarged(block, finest)
        block = block - block.mean(axis=(2, 3), keepdims=True)
        loudness = np.sqrt((block**2).sum(axis=1, keepdims=True).mean(axis=(2, 3), keepdims=True))
        parts.append(block / np.maximum(loudness, 1e-12))
    return np.concatenate(parts, axis=1)


def enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge maps (n, c, h, w) bilinearly to `size` (height, width)."""
    if maps.shape[2:] == tuple(size):
        return maps
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))
    return torch.nn.functional.interpolate(
        tensor, size=tuple(size), mode="bilinear", align_corners=False
    ).numpy()


def parted(features: np.ndarray, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Part every drawing's features (n, c, h, w) in two by two-means: bool (n, *size).

    The centres are fitted on the features' own grid. The features are then enlarged bilinearly to
    `size` and go to the nearer centre. Which of the parts is True is chance.
    """
    scores = []
    for own in features:
        points = own.reshape(len(own), -1).T
        line, offset = overlap.two_means(points, seed=seed)
        scores.append((points @ line - offset).reshape(1, *own.shape[1:]))
    # The nearer centre is the sign of a weighted sum, and enlarging commutes with sums.
    return enlarged(np.stack(scores), size)[:, 0] > 0
