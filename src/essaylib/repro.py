"""Generation that comes out the same: noise from the CPU, checked settings, fixed algorithms.

Promised: bit-identical on one machine at one thread count. Across devices in float32, at most 25
steps: latents within 1e-2, images within 2/255 on average, printed scalars within 2 %. In float16
only statistics agree.
"""

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch

from essaylib import models
from essaylib.errors import EssayError
from essaylib.provenance import provenance
from essaylib.tolerance import Comparison, compare, fingerprint, image_summary

__all__ = [
    "Comparison",
    "compare",
    "decode",
    "deterministic",
    "fingerprint",
    "generate",
    "image_summary",
    "latents",
    "provenance",
]


def deterministic(threads: int | None = 1) -> None:
    """Ask torch for the same sums in the same order: one thread, no autotuning, no TF32.

    An operation without a deterministic version warns and goes on. `threads=None` keeps the number
    that torch uses.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if threads is not None:
        torch.set_num_threads(threads)


def latents(
    pipe: Any, seeds: int | Sequence[int], height: int | None = None, width: int | None = None
) -> torch.Tensor:
    """Initial noise (n, C, h, w), float32 on the CPU, one generator a seed.

    So a seed's noise depends neither on the device nor on the other seeds of its batch. `height`
    and `width` are in pixels; the model's own size by default.
    """
    models.require_unet(pipe, "initial noise")
    seeds = _listed(seeds, "seed")
    for seed in seeds:
        if not _whole(seed) or not 0 <= seed < 2**63:
            raise EssayError(f"Seed {seed!r} is not a whole number from 0 to 2^63 - 1.")
    height, width = _size(pipe, height, width)
    factor = pipe.vae_scale_factor
    shape = (pipe.unet.config.in_channels, height // factor, width // factor)
    generators = (torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds)
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def generate(
    pipe: Any,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int],
    steps: int = 25,
    guidance_scale: float = 4.0,
    batch_size: int = 16,
    output: str = "pil",
    negative_prompt: str | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Any:
    """Call `pipe` once a batch with checked settings and noise drawn on the CPU.

    One prompt or one seed serves all of the other. Returns a list of PIL images (`"pil"`), uint8
    (n, H, W, 3) (`"np"`), or float32 latents (n, C, h, w) on the CPU (`"latent"`). Raises
    `EssayError` for settings that make no picture; warns of a prompt that the tokenizer cuts.
    """
    models.require_unet(pipe, "generation")
    prompts, seeds = _listed(prompts, "prompt"), _listed(seeds, "seed")
    prompts, seeds = _matched(prompts, seeds)
    _check_settings(pipe, steps, guidance_scale, batch_size, output, negative_prompt)
    height, width = _size(pipe, height, width)
    for text in dict.fromkeys([*prompts, *([negative_prompt] if negative_prompt else [])]):
        _warn_if_cut(pipe.tokenizer, text)
    noise = latents(pipe, seeds, height, width)
    results = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        drawn = pipe(
            batch,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            negative_prompt=None if negative_prompt is None else [negative_prompt] * len(batch),
            latents=noise[start : start + batch_size].to(pipe.unet.device, pipe.unet.dtype),
            output_type=output,
        ).images
        results.append(drawn.float().cpu() if output == "latent" else drawn)
    if output == "latent":
        return torch.cat(results)
    if output == "np":
        return _uint8(np.concatenate(results))
    return [image for batch in results for image in batch]


@torch.no_grad()
def decode(pipe: Any, latents: torch.Tensor, batch_size: int = 16) -> np.ndarray:
    """Decode scaled latents (n, C, h, w), as `generate(output="latent")` gives, to uint8 images.

    Returns (n, H, W, 3). Raises `EssayError` where there are none.
    """
    check_batch(batch_size)
    _check_latents(latents, pipe.vae.config.latent_channels)
    where = models.execution_device(pipe.vae), pipe.vae.dtype
    images = []
    for start in range(0, len(latents), batch_size):
        batch = latents[start : start + batch_size].to(*where)
        decoded = pipe.vae.decode(batch / pipe.vae.config.scaling_factor).sample
        images.append(pipe.image_processor.postprocess(decoded, output_type="np"))
    return _uint8(np.concatenate(images))


def check_batch(batch_size: int) -> None:
    """Raise `EssayError` where this many cannot be taken at a time."""
    if not _whole(batch_size) or batch_size < 1:
        raise EssayError(f"batch_size must be a whole number of at least 1, not {batch_size!r}.")


def _check_latents(latents: Any, channels: int) -> None:
    given = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
    if isinstance(given, str) or len(given) != 4 or given[1] != channels or not len(latents):
        raise EssayError(
            f"Latents to decode are a tensor (n, {channels}, h, w), n at least 1, not {given}."
        )


def _uint8(images: np.ndarray) -> np.ndarray:
    return (images * 255).round().astype(np.uint8)


def _listed(values: Any, what: str) -> list[Any]:
    several = isinstance(values, Iterable) and not isinstance(values, str)
    values = list(values) if several else [values]
    if not values:
        raise EssayError(f"No {what} given: pass at least one.")
    if what == "prompt" and not all(isinstance(value, str) for value in values):
        raise EssayError("A prompt must be text; for an unconditional image pass ''.")
    return values


def _matched(prompts: list[str], seeds: list[int]) -> tuple[list[str], list[int]]:
    if len(prompts) == 1:
        prompts = prompts * len(seeds)
    if len(seeds) == 1:
        seeds = seeds * len(prompts)
    if len(prompts) != len(seeds):
        raise EssayError(
            f"{len(prompts)} prompts and {len(seeds)} seeds do not pair: pass as many of one as of "
            "the other, or a single one."
        )
    return prompts, seeds


def _check_settings(
    pipe: Any,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    output: str,
    negative_prompt: str | None,
) -> None:
    most = pipe.scheduler.config.num_train_timesteps
    if not _whole(steps) or steps < 1:
        raise EssayError(f"steps must be a whole number of at least 1, not {steps!r}; try 25.")
    if steps > most:
        raise EssayError(f"The model knows {most} steps of noise, fewer than {steps}; try 25.")
    if not _finite(guidance_scale) or guidance_scale < 0:
        raise EssayError(
            f"guidance_scale must be a finite number of at least 0, not {guidance_scale!r}; 1 is "
            "no guidance, 4 the book's default."
        )
    check_batch(batch_size)
    if output not in ("pil", "np", "latent"):
        raise EssayError(f"Unknown output {output!r}: choose 'pil', 'np' or 'latent'.")
    if not isinstance(negative_prompt, str | None):
        raise EssayError(f"negative_prompt is one text for all images, not {negative_prompt!r}.")


def _size(pipe: Any, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width in pixels, checked against the autoencoder's factor."""
    factor = pipe.vae_scale_factor
    default = pipe.unet.config.sample_size
    default = (default, default) if isinstance(default, int) else tuple(default)
    sizes = []
    for name, value, own in (("height", height, default[0]), ("width", width, default[1])):
        value = own * factor if value is None else value
        if not isinstance(value, (int, np.integer)) or value < factor or value % factor:
            lower = max(factor, int(value) // factor * factor) if _finite(value) else factor
            raise EssayError(
                f"{name} {value!r} does not fit the autoencoder, which takes multiples of "
                f"{factor}: try {lower} or {lower + factor}."
            )
        sizes.append(int(value))
    return sizes[0], sizes[1]


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def _warn_if_cut(tokenizer: Any, prompt: str) -> None:
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(ids) > tokenizer.model_max_length:
        cut = tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1])
        warnings.warn(
            f"The prompt is too long for the tokenizer ({len(ids)} tokens of at most "
            f"{tokenizer.model_max_length}); this was cut: {cut!r}.",
            stacklevel=3,
        )
