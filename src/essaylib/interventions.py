"""Change one thing in a generation, and leave the rest: the causes that maps only suggest.

    with ablate_tokens(pipe, "dog face, google", ["google"]):
        pipe("dog face, google", latents=noise)

    pipe(prompt, callback_on_step_end=edit_latents(step=5, edit=lambda x: x.flip(-1)))

Compare with the same call on the same noise without the intervention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from essaylib import models, repro
from essaylib.errors import EssayError
from essaylib.record import Token, find, tokens_of, words_of
from essaylib.trace import arguments, cross_attention_layers, wrap


@contextmanager
def scale_tokens(
    pipe: Any, prompt: str | Sequence[str], scales: Mapping[str, float]
) -> Iterator[None]:
    """Multiply the attention that words receive, in every layer and step, and renormalise.

    `scales` maps words or phrases of the prompt to factors from 0 (no attention at all) up; 1
    changes nothing. Each pixel's shares still sum to one. The unconditional branch is left alone.
    `prompt` must be what the pipeline is then called with, each several times if need be: another
    raises `EssayError`, and embeddings, which do not say what they are of, are taken on trust. The
    words' meaning has already spread to later tokens in the text encoder: what is scaled is this
    token's say, not the word's.
    """
    if any(not 0 <= scale < float("inf") for scale in scales.values()):
        raise EssayError(f"Scales must be finite and at least 0: {dict(scales)}.")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    factors = torch.ones(len(prompts), _tokenizer(pipe).model_max_length)
    for i, text in enumerate(prompts):
        for word, scale in scales.items():
            factors[i, positions(pipe, text, word)] = scale
    with _weighed(pipe, factors), _called_with(pipe, prompts):
        yield


def ablate_tokens(pipe: Any, prompt: str | Sequence[str], words: Sequence[str]):
    """Take all attention from words, as `scale_tokens` with factor 0: a context manager."""
    return scale_tokens(pipe, prompt, dict.fromkeys(words, 0.0))


@contextmanager
def ablate_positions(pipe: Any, places: Sequence[Sequence[int]]) -> Iterator[None]:
    """Take all attention from token positions, given prompt by prompt, in every layer and step.

    For a batch whose prompts lose different words; else as `ablate_tokens`.
    """
    factors = torch.ones(len(places), _tokenizer(pipe).model_max_length)
    for i, hidden in enumerate(places):
        factors[i, list(hidden)] = 0
    with _weighed(pipe, factors):
        yield


def positions(pipe: Any, prompt: str, text: str) -> list[int]:
    """Token positions of a word or phrase, every time that the prompt has it."""
    tokens = _tokens(pipe, prompt)
    return find(text, tokens, words_of(_tokenizer(pipe), tokens))


def last_padding(pipe: Any, prompt: str) -> list[int]:
    """The last token position, which is padding; `EssayError` where the prompt fills them all."""
    last = _tokenizer(pipe).model_max_length - 1
    if _tokens(pipe, prompt)[last].special != "padding":
        raise EssayError(f"{prompt!r} fills all {last + 1} positions and leaves no padding.")
    return [last]


@contextmanager
def _weighed(pipe: Any, factors: torch.Tensor) -> Iterator[None]:
    """Multiply the attention to each position by its factor, (prompts, T), and renormalise."""
    models.require_unet(pipe, "token scaling")
    bias = factors.log()

    def weigh(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden = args[0] if args else kwargs["hidden_states"]
        images = len(hidden) // (2 if pipe.do_classifier_free_guidance else 1)
        if images % len(bias):
            raise EssayError(
                f"The call draws {images} images for {len(bias)} prompts: call with the prompts "
                "that were given."
            )
        added = hidden.new_zeros(len(hidden), 1, bias.shape[-1])
        added[-images:, 0] = bias.to(hidden).repeat_interleave(images // len(bias), 0)
        mask = kwargs.get("attention_mask")
        return args, kwargs | {"attention_mask": added if mask is None else mask + added}

    with ExitStack() as hooks:
        for layer in cross_attention_layers(pipe.unet).values():
            hooks.callback(layer.register_forward_pre_hook(weigh, with_kwargs=True).remove)
        yield


@contextmanager
def _called_with(pipe: Any, prompts: list[str]) -> Iterator[None]:
    """Refuse a call with other prompts than these, whose words may stand at other positions."""

    def check(encode: Callable, *args: Any, **kwargs: Any) -> Any:
        called = arguments(type(pipe).encode_prompt, args, kwargs).get("prompt")
        called = [called] if isinstance(called, str) else called
        if called is not None and called != _repeated(prompts, len(called)):
            raise EssayError(
                f"The words were looked up in {prompts}, and the pipeline was called with "
                f"{called}: call it once with the prompts that were given, in their order."
            )
        return encode(*args, **kwargs)

    with ExitStack() as taps:
        wrap(taps, pipe, "encode_prompt", check)
        yield


def _repeated(prompts: list[str], count: int) -> list[str]:
    """Each prompt in turn, equally often, up to `count`: as the weights are dealt to images."""
    return [prompt for prompt in prompts for _ in range(count // len(prompts))]


def swap_seed(
    pipe: Any,
    seed: int,
    other: int,
    box: tuple[int, int, int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
) -> torch.Tensor:
    """Initial noise of `seed` with that of `other` inside `box`: (1, C, h, w) float32, CPU.

    `box` is (top, left, bottom, right) in pixels; None is the whole image. Pass the result as
    `latents=` to the pipeline. In a notebook this shows how far the noise alone decides on the
    composition: whether what `other` would have drawn in the box turns up in the picture of `seed`.
    """
    own, foreign = repro.latents(pipe, [seed, other], height, width).split(1)
    factor = pipe.vae_scale_factor
    rows, columns = own.shape[-2:]
    top, left, bottom, right = box or (0, 0, rows * factor, columns * factor)
    if not (0 <= top < bottom <= rows * factor and 0 <= left < right <= columns * factor):
        raise EssayError(
            f"The box {box} is empty or not within {rows * factor}×{columns * factor} pixels: "
            "give (top, left, bottom, right)."
        )
    inside = (
        slice(top // factor, -(-bottom // factor)),
        slice(left // factor, -(-right // factor)),
    )
    swapped = own.clone()
    swapped[..., inside[0], inside[1]] = foreign[..., inside[0], inside[1]]
    return swapped


def edit_latents(step: int, edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    """A `callback_on_step_end` that puts `edit(latents)` in place of the latents after one step.

    `step` counts from 0; latents are (B, C, h, w). The call raises `EssayError` where it has no
    such step, and where `edit` changes their shape.
    """

    def callback(pipe: Any, at: int, _: Any, given: dict[str, torch.Tensor]) -> dict:
        if not 0 <= step < pipe.num_timesteps:
            raise EssayError(
                f"This call has no step {step} to edit: choose from 0 to {pipe.num_timesteps - 1}."
            )
        if at != step:
            return given
        edited = edit(given["latents"])
        if edited.shape != given["latents"].shape:
            raise EssayError(
                f"The edit turned latents of shape {tuple(given['latents'].shape)} into "
                f"{tuple(edited.shape)}: return the same shape."
            )
        return given | {"latents": edited}

    return callback


@contextmanager
def scale_skips(unet: Any, factor: float) -> Iterator[None]:
    """Multiply what the encoder hands across to the decoder, in every up block; 0 cuts the skips.

    `unet` is a U-Net of diffusers, such as `pipe.unet`. What has come the long way, through the
    bottom, is left alone (FreeU scales both, Si et al. 2023).
    """

    def scale(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        handed = tuple(part * factor for part in kwargs["res_hidden_states_tuple"])
        return args, kwargs | {"res_hidden_states_tuple": handed}

    with ExitStack() as hooks:
        for block in unet.up_blocks:
            hooks.callback(block.register_forward_pre_hook(scale, with_kwargs=True).remove)
        yield


@torch.no_grad()
def autoencoder_rounds(
    pipe: Any, images: np.ndarray, rounds: int, batch_size: int = 16
) -> np.ndarray:
    """Encode and decode images again and again: uint8 (n, H, W, 3) to (rounds + 1, n, H, W, 3).

    Index 0 holds the originals. Takes the mean of the encoder's distribution, and rounds to whole
    pixel values each time, as a picture that is saved and passed on.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise EssayError(f"images must be uint8 (n, H, W, 3), not {images.dtype} {images.shape}.")
    factor = pipe.vae_scale_factor
    if any(side % factor for side in images.shape[1:3]):
        raise EssayError(
            f"Sides of {images.shape[1]}×{images.shape[2]} pixels do not fit the autoencoder: crop "
            f"them to multiples of {factor}."
        )
    if rounds < 0:
        raise EssayError(f"rounds must be 0 or more, not {rounds}.")
    repro.check_batch(batch_size)
    passed = [images]
    for _ in range(rounds):
        batches = np.split(passed[-1], range(batch_size, len(images), batch_size))
        passed.append(np.concatenate([_round_trip(pipe, batch) for batch in batches]))
    return np.stack(passed)


def _round_trip(pipe: Any, images: np.ndarray) -> np.ndarray:
    vae = pipe.vae
    device = models.execution_device(vae)
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).to(vae.dtype)
    decoded = vae.decode(vae.encode(pixels / 127.5 - 1).latent_dist.mode()).sample
    whole = ((decoded.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
    return whole.permute(0, 2, 3, 1).numpy()


def _tokenizer(pipe: Any) -> Any:
    return getattr(pipe, "tokenizer", None) or pipe.tokenizer_2


def _tokens(pipe: Any, prompt: str) -> list[Token]:
    words = _tokenizer(pipe)
    length = words.model_max_length
    ids = words(prompt, padding="max_length", max_length=length, truncation=True).input_ids
    return tokens_of(words, ids, prompt)
