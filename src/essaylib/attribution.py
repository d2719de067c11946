"""Which training drawings an output is owed to: four ledgers, each by its own rule.

Three credit nearness: in pixels, in CLIP's space, in the U-Net's features. The fourth credits pull:
the drawings whose gradients point the way that the output's own does, each gradient projected at
random and their common directions discounted, in the manner of TRAK (Park et al. 2023) and of
D-TRAK (Zheng et al. 2024), whose measurement it takes: the squared length of the prediction in
place of the training loss. Only the weights of cross-attention and of `conv_out` are looked at.

A *vector* is what a ledger reads off one picture; `distances` and `pull` turn vectors into scores.
Noise is drawn once a seed and is the same for every picture, so that two vectors of one seed differ
by their pictures alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor

from essaylib import features, models
from essaylib.errors import EssayError
from essaylib.measures import neighbours
from essaylib.measures.checks import finite
from essaylib.trace import cross_attention_layers

SIDE = 32
TIMESTEP, TIMESTEPS = 250, (100, 250, 400, 550, 700, 850)
WIDTH, DAMPING = 10, 0.1

_PROJECTION = 2**40  # keeps the numbers of a seed's projections apart from those of its noise

NEARNESS = ("pixels", "clip", "unet")
LEDGERS = (*NEARNESS, "gradient")


def vectors(
    pipe: Any,
    clip: Any,
    images: np.ndarray,
    latents: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    timestep: int = TIMESTEP,
    draws: int = 2,
    timesteps: Sequence[int] = TIMESTEPS,
    width: int = WIDTH,
    ledgers: Sequence[str] = LEDGERS,
) -> dict[str, np.ndarray]:
    """Read pictures for `ledgers`: (seeds, n, d) by name, with one seed where it has none.

    images: uint8 (n, H, H, 3); latents: (n, C, h, w), the same pictures as the U-Net takes them.
    """
    readings = {
        "pixels": lambda: [pixel_vectors(images)],
        "clip": lambda: [clip_vectors(clip, images)],
        "unet": lambda: [unet_vectors(pipe, latents, seed, timestep, draws) for seed in seeds],
        "gradient": lambda: [
            gradient_vectors(pipe, latents, prompts, seed, timesteps, width) for seed in seeds
        ],
    }
    return {name: np.stack(readings[name]()) for name in ledgers}


def joined(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join `vectors` that were read a few pictures at a time."""
    read = list(parts)
    return {name: np.concatenate([part[name] for part in read], 1) for name in read[0]}


def scores(
    outputs: Mapping[str, np.ndarray], training: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Draw up the ledgers: (seeds, outputs, drawings) by name.

    From both sides' `vectors`; the outputs' gradients have been turned into `directions` before.
    """
    return {
        name: np.stack(
            [
                (pull if name == "gradient" else distances)(a, b)
                for a, b in zip(asked, training[name], strict=True)
            ]
        )
        for name, asked in outputs.items()
    }


def pixel_vectors(images: np.ndarray) -> np.ndarray:
    """Read pictures (n, H, H, 3), uint8, as grey levels on a grid of 32 x 32: (n, 3072)."""
    return neighbours.shrunk(images, SIDE).reshape(len(images), -1)


def clip_vectors(clip: Any, images: np.ndarray) -> np.ndarray:
    """Read pictures by CLIP's image tower, at unit length: (n, d)."""
    found = features.clip_images(clip, images)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@torch.no_grad()
def unet_vectors(
    pipe: Any, latents: Any, seed: int, timestep: int = TIMESTEP, draws: int = 2
) -> np.ndarray:
    """Read latents (n, C, h, w) in the U-Net's middle, noised and without a caption: (n, d).

    The mean over `draws` of noise. Where the network has no middle, at its narrowest block.
    """
    clean, unet = _clean(pipe, latents), pipe.unet
    narrowest = unet.mid_block if unet.mid_block is not None else unet.down_blocks[-1]
    empty = features.conditions(pipe, [""])
    seen: list[torch.Tensor] = []

    def look(_: Any, __: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).flatten(1).float().cpu())

    total = 0
    hook = narrowest.register_forward_hook(look)
    try:
        for noise in _noise(clean, seed, draws):
            t = torch.full((len(clean),), timestep, device=clean.device)
            noisy = pipe.scheduler.add_noise(clean, noise, t)
            unet(noisy, t, empty.expand(len(clean), -1, -1))
            total = total + seen.pop()
    finally:
        hook.remove()
    return (total / draws).numpy()


def gradient_vectors(
    pipe: Any,
    latents: Any,
    prompts: Sequence[str],
    seed: int,
    timesteps: Sequence[int] = TIMESTEPS,
    width: int = WIDTH,
) -> np.ndarray:
    """Read latents (n, C, h, w) with their captions as projected gradients: (n, D).

    The gradient of half the squared length of the prediction by the weights of each linear layer
    of cross-attention and of `conv_out`, each taken to `width` by `width` numbers by a random
    projection on either side of the matrix; averaged over `timesteps`, each with its own noise.
    """
    clean, text = _clean(pipe, latents), features.conditions(pipe, prompts)
    if len(text) != len(clean):
        raise EssayError(f"{len(clean)} latents and {len(text)} captions: each needs its own.")
    total = 0
    with _sketched(pipe.unet, seed, width) as found, torch.enable_grad():
        for t, noise in zip(timesteps, _noise(clean, seed, len(timesteps)), strict=True):
            at = torch.full((len(clean),), t, device=clean.device)
            # Inputs that need a gradient make one flow through every layer; weights need none.
            noisy = pipe.scheduler.add_noise(clean, noise, at).requires_grad_()
            words = text.clone().requires_grad_()
            half = pipe.unet(noisy, at, words).sample.float().square().sum() / 2
            torch.autograd.grad(half, [noisy, words])
            total = total + torch.cat([found[name] for name in sorted(found)], 1).cpu()
    return (total / len(timesteps)).numpy()


def distances(outputs: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Score training vectors (n, d) by nearness to each output's (m, d): minus the distance (m, n).

    Root mean square over the numbers of a vector.
    """
    a, b = finite(outputs, "outputs", 2), finite(training, "training", 2)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return -np.sqrt(np.maximum(squares, 0) / a.shape[1])


def directions(outputs: np.ndarray, training: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """Return the directions (m, D) along which `pull` credits: outputs by the inverse kernel.

    The kernel is the training vectors' second moment, with `damping` times its mean eigenvalue
    added to the diagonal: what all drawings pull at counts little, and what few do much.
    """
    a, b = finite(outputs, "outputs", 2, np.float32), finite(training, "training", 2, np.float32)
    kernel = (b.T @ b).astype(np.float64) / len(b)
    level = damping * np.trace(kernel) / len(kernel)
    if not level > 0:
        raise EssayError("Vectors that are all zero pull nowhere.")
    kernel[np.diag_indices_from(kernel)] += level
    return np.linalg.solve(kernel, a.T.astype(np.float64)).T


def pull(along: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Score training vectors (n, D) along `directions` (m, D): (m, n); negative is against."""
    return along @ training.T


def amounts(scores: np.ndarray) -> np.ndarray:
    """Turn scores by nearness, which are negative distances, into amounts to be paid.

    The inverse of the squared distance, which is a choice: nothing in a distance says what it is
    worth. Scores by pull are amounts already.
    """
    scores = finite(scores, "scores")
    if (scores > 0).any():
        raise EssayError("Distances are expected, with a minus.")
    return 1 / np.maximum(scores**2, 1e-12)


@contextmanager
def _sketched(unet: Any, seed: int, width: int) -> Iterator[dict[str, torch.Tensor]]:
    """While the U-Net is differentiated, keep each layer's projected gradients (n, d) by name.

    For a linear layer a picture's gradient is the sum over places of output gradient times input.
    Projecting the two factors projects their product, which is never formed.
    """
    device = next(unet.parameters()).device
    draw = torch.Generator().manual_seed(seed + _PROJECTION)
    found: dict[str, torch.Tensor] = {}
    layers = {
        f"{place}.{part}": layer
        for place, attention in sorted(cross_attention_layers(unet).items())
        for part, layer in attention.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }

    def project(size: int) -> torch.Tensor:
        return (torch.randn(size, width, generator=draw) / width**0.5).to(device)

    def watch(name: str, layer: torch.nn.Linear) -> Any:
        left, right = project(layer.out_features), project(layer.in_features)

        def keep(_: Any, inputs: tuple, output: torch.Tensor) -> None:
            x = inputs[0].detach().float() @ right
            output.register_hook(lambda grad: note(name, grad.float() @ left, x))

        return layer.register_forward_hook(keep)

    def watch_last(layer: torch.nn.Conv2d) -> Any:
        patch = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        right = project(patch)

        def keep(_: Any, inputs: tuple, output: torch.Tensor) -> None:
            unfolded = torch.nn.functional.unfold(
                inputs[0].detach().float(), layer.kernel_size, padding=layer.padding
            )
            x = unfolded.transpose(1, 2) @ right
            output.register_hook(
                lambda grad: note("conv_out", grad.float().flatten(2).transpose(1, 2), x)
            )

        return layer.register_forward_hook(keep)

    def note(name: str, grad: torch.Tensor, x: torch.Tensor) -> None:
        found[name] = torch.einsum("npl,npr->nlr", grad, x).flatten(1)

    # The fused kernel's backward is slow on a CPU for narrow heads.
    processors = unet.attn_processors
    with ExitStack() as stack:
        stack.callback(unet.set_attn_processor, processors)
        unet.set_attn_processor(AttnProcessor())
        for name, layer in layers.items():
            stack.callback(watch(name, layer).remove)
        stack.callback(watch_last(unet.conv_out).remove)
        yield found


def _clean(pipe: Any, latents: Any) -> torch.Tensor:
    models.require_unet(pipe, "attribution")
    clean = torch.as_tensor(latents).to(pipe.unet.device, pipe.unet.dtype)
    if clean.ndim != 4 or not len(clean):
        raise EssayError(f"Latents are (n, C, h, w), not {tuple(clean.shape)}.")
    return clean


def _noise(clean: torch.Tensor, seed: int, draws: int) -> Iterator[torch.Tensor]:
    """The same noise for every picture, drawn on the CPU."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        yield torch.randn(clean.shape[1:], generator=draw).to(clean).expand_as(clean)
