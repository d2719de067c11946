"""Classifier-free guidance, opened up: what it adds, and three ways to do without some of it.

At each step the U-Net predicts twice, without the prompt (u) and with it (c), and the sampler
follows u + w (c − u) (Ho & Salimans 2022). `decompose` measures the parts that a trace holds;
`reguide` recombines them at another w. The context managers leave the pipeline's call as it is:

    with interval_guidance(pipe, low=200, high=800):
        pipe(prompt, guidance_scale=7.5)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from essaylib import models
from essaylib.errors import EssayError
from essaylib.record import Trace


def decompose(trace: Trace) -> pd.DataFrame:
    """Norms and angles of guidance, one row a step and image.

    Columns: step, image, timestep, guidance_scale; the norms `uncond` |u|, `text` |c|,
    `difference` |c − u| and `guided` |u + w (c − u)|; `cosine` of c − u with c; `parallel` and
    `perpendicular`, the lengths of what guidance adds to the text prediction, (w − 1)(c − u),
    along c and across it. All over the C·h·w numbers of a latent.
    """
    u, c = _branches(trace)
    scale = trace.guidance_scale.to(u)[:, None, None]
    u, c, guided = u.flatten(2), c.flatten(2), trace.noise_pred.flatten(2)
    added = (scale - 1) * (c - u)
    along = (added * c).sum(-1) / c.norm(dim=-1)
    steps, images = u.shape[:2]
    columns = {
        "uncond": u.norm(dim=-1),
        "text": c.norm(dim=-1),
        "difference": (c - u).norm(dim=-1),
        "guided": guided.norm(dim=-1),
        "cosine": torch.cosine_similarity(c - u, c, dim=-1),
        "parallel": along,
        "perpendicular": (added.square().sum(-1) - along.square()).clamp(min=0).sqrt(),
    }
    index = pd.MultiIndex.from_product([range(steps), range(images)], names=["step", "image"])
    table = pd.DataFrame({n: v.flatten().numpy() for n, v in columns.items()}, index=index)
    table.insert(0, "timestep", trace.timesteps.repeat_interleave(images).numpy())
    table.insert(1, "guidance_scale", trace.guidance_scale.repeat_interleave(images).numpy())
    return table.reset_index()


@dataclass(frozen=True)
class Reguided:
    """Latents (S + 1, B, C, h, w) at another guidance scale, from stored predictions.

    `exact[i]` says whether latents[i] is what the model itself would have reached: true for the
    starting latent and the first step after it. Later ones are *counterfactual*: they use
    predictions made at the latents of the original run.
    """

    guidance_scale: float
    start: int
    latents: torch.Tensor
    exact: list[bool]


@torch.no_grad()
def reguide(trace: Trace, scheduler: Any, guidance_scale: float, start: int = 0) -> Reguided:
    """Follow a recorded generation from step `start` at another guidance scale.

    `scheduler` is the pipeline's; a copy of it is stepped. Raises `EssayError` where it does not
    reproduce the recorded step, as a stochastic scheduler cannot. For what the model really does
    after the first step, run the pipeline again.
    """
    u, c = _branches(trace)
    if not 0 <= start < trace.steps:
        raise EssayError(f"start must be a step from 0 to {trace.steps - 1}, not {start}.")
    stepper, times = _rewound(scheduler, trace)

    for at in range(start):  # a multistep scheduler needs what came before
        _step(stepper, times[at], trace.noise_pred[at], trace.latents[at])
    again = _step(
        copy.deepcopy(stepper), times[start], trace.noise_pred[start], trace.latents[start]
    )
    if not torch.allclose(again, trace.latents[start + 1], rtol=1e-2, atol=1e-2):
        raise EssayError(
            f"{type(scheduler).__name__} does not repeat the recorded step: it adds noise, or the "
            "latents were edited on the way. Record with DDIM or Euler."
        )
    latents = [trace.latents[start]]
    for at in range(start, trace.steps):
        guided = u[at] + guidance_scale * (c[at] - u[at])
        latents.append(_step(stepper, times[at], guided, latents[-1]))
    exact = [True, True] + [False] * (len(latents) - 2)
    return Reguided(guidance_scale, start, torch.stack(latents), exact)


def _rewound(scheduler: Any, trace: Trace) -> tuple[Any, torch.Tensor]:
    """A copy of the scheduler before the recorded steps, and their timesteps."""
    stepper = copy.deepcopy(scheduler)
    stepper.set_timesteps(trace.provenance["parameters"]["steps"])
    skipped = len(stepper.timesteps) - trace.steps  # image-to-image starts on the way
    times = stepper.timesteps[max(skipped, 0) :]
    if len(times) != trace.steps or not torch.allclose(times.float(), trace.timesteps.float()):
        raise EssayError(
            "This scheduler does not give the recorded timesteps: pass the one that the trace was "
            "recorded with."
        )
    if skipped and hasattr(stepper, "set_begin_index"):
        stepper.set_begin_index(skipped)
    return stepper, times


def _step(stepper: Any, time: torch.Tensor, prediction: torch.Tensor, latents: torch.Tensor):
    latents = latents.clone()
    stepper.scale_model_input(latents, time)  # lets some schedulers find their place
    return stepper.step(prediction, time, latents, return_dict=False)[0]


@contextmanager
def interval_guidance(pipe: Any, low: float, high: float) -> Iterator[None]:
    """Guide only at timesteps from `low` to `high` (of 0 … 999, noise at the top).

    Kynkäänniemi et al. 2024. Outside of the interval the unconditional prediction is replaced by
    the conditional one, so that u + w (c − u) = c whatever w is. It still costs two predictions.
    """
    models.require_unet(pipe, "interval guidance")
    if not low <= high:
        raise EssayError(f"The interval from {low} to {high} is empty: give low ≤ high.")

    def drop_guidance(_: Any, args: tuple, kwargs: dict, output: Any) -> Any:
        timestep = float(kwargs["timestep"] if len(args) < 2 else args[1])
        if low <= timestep <= high:
            return None
        _, text = _halves(pipe, output[0])
        return _like(output, torch.cat([text, text]))

    hook = pipe.unet.register_forward_hook(drop_guidance, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def autoguidance(pipe: Any, weak_unet: torch.nn.Module) -> Iterator[None]:
    """Guide by a weaker U-Net with the same prompt, instead of by no prompt.

    Karras et al. 2024: the sampler follows k + w (c − k), where k is the prediction of
    `weak_unet` (an earlier version, or a smaller one) for the same latents and prompt.
    """
    models.require_unet(pipe, "autoguidance")

    @torch.no_grad()
    def guide_by_weak(_: Any, args: tuple, kwargs: dict, output: Any) -> Any:
        _, text = _halves(pipe, output[0])
        half = len(text)
        args = tuple(_second_half(value, half) for value in args)
        kwargs = {name: _second_half(value, half) for name, value in kwargs.items()}
        weak = weak_unet(*args, **kwargs)[0]
        return _like(output, torch.cat([weak.to(text), text]))

    hook = pipe.unet.register_forward_hook(guide_by_weak, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _branches(trace: Trace) -> tuple[torch.Tensor, torch.Tensor]:
    if trace.noise_pred_uncond is None:
        raise EssayError(
            "This trace ran without guidance, so there is no unconditional prediction: record "
            "with guidance_scale above 1."
        )
    return trace.noise_pred_uncond, trace.noise_pred_text


def _halves(pipe: Any, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The unconditional and the text prediction, in diffusers' order."""
    if not pipe.do_classifier_free_guidance:
        raise EssayError("There is no guidance to change here: call with guidance_scale above 1.")
    uncond, text = prediction.chunk(2)
    return uncond, text


def _second_half(value: Any, half: int) -> Any:
    """The text half of whatever the U-Net was given by batch; anything else as it is."""
    if isinstance(value, dict):
        return {name: _second_half(item, half) for name, item in value.items()}
    if isinstance(value, torch.Tensor) and value.ndim and len(value) == 2 * half:
        return value[half:]
    return value


def _like(output: Any, prediction: torch.Tensor) -> Any:
    return (prediction, *output[1:]) if isinstance(output, tuple) else type(output)(prediction)
