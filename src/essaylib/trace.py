"""Open a latent diffusion model without disturbing it.

    with trace(pipe, Capture(cross_attention=True)) as tr:
        pipe("dog face, google", num_inference_steps=25)
    tr.latents                      # (S + 1, B, C, h, w), from noise to image
    tr.attention("dog", step=3)     # by layer

The pipeline's own loop runs; nothing in it is replaced. What is recorded comes from taps:

    pipe.encode_prompt   the prompt's text                    wrapped
    text_encoder         token ids                            forward hook
    unet                 prediction before guidance, prompt   forward hooks
    attn2                queries and keys → attention         forward hooks, also on to_q and to_k
    scheduler.step       latents, guided prediction, x0       wrapped
    vae.decode           image                                wrapped

All are removed when the block ends, even by an exception. One block records one generation.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from essaylib import models
from essaylib.errors import EssayError
from essaylib.provenance import provenance
from essaylib.record import Maps, Span, Token, Trace, tokens_of, words_of

__all__ = ["Capture", "Maps", "Span", "Token", "Trace", "cross_attention_layers", "trace"]


WAITING = 64 * 1024**2
"""Bytes of queries and keys that may wait for their attention to be computed."""


@dataclass(frozen=True)
class Capture:
    """What to record beside latents and predictions, which always are.

    `cross_attention`: True for every layer, or module paths or parts of them ("up_blocks", "mid").
    `heads`: "mean" or "all". `tokens`: "all" positions, or "prompt": then the last column holds
    the sum over the padding that all prompts share. `branch`: "text" or "uncond".
    `max_bytes`: refuse a record larger than this or, with `coarsen`, reduce it by the first of
    these that suffice: mean over heads, padding summed, each map averaged over 2×2 pixels. What
    was done is listed in `Trace.reductions`. None is no limit.
    """

    cross_attention: bool | str | Sequence[str] = False
    heads: str = "mean"
    tokens: str = "all"
    branch: str = "text"
    max_bytes: int | None = 2 * 1024**3
    coarsen: bool = False
    image: bool = True
    spans: bool = True

    def __post_init__(self) -> None:
        choices = {
            "heads": ("mean", "all"),
            "tokens": ("all", "prompt"),
            "branch": ("text", "uncond"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise EssayError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}.")


@contextmanager
def trace(pipe: Any, capture: Capture | None = None) -> Iterator[Trace]:
    """Record the one generation that `pipe` makes in the block.

    The `Trace` is complete when the block ends. Raises `EssayError` where `pipe` has no U-Net,
    where attention cannot be had (fused projections) or was not captured, and where the record
    would be larger than `capture.max_bytes`.
    """
    recorder = _Recorder(pipe, capture or Capture())
    with ExitStack() as taps:
        recorder.attach(taps)
        yield recorder.trace
    recorder.finish()


def cross_attention_layers(unet: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The U-Net's cross-attention modules by module path."""
    return {name: module for name, module in unet.named_modules() if name.endswith("attn2")}


def clean_latents(
    kind: str, share: float, sample: torch.Tensor, output: torch.Tensor
) -> torch.Tensor:
    """x0 by what the network predicts from `sample`: `kind`, as diffusers names it.

    `share` is the image's part of the sample's variance, ᾱ, from 0 to 1.
    """
    signal, noise = share**0.5, (1 - share) ** 0.5
    if kind == "sample":
        return output
    if kind == "v_prediction":
        return signal * sample - noise * output
    return (sample - noise * output) / signal


class _Recorder:
    """The taps and what they have seen so far."""

    def __init__(self, pipe: Any, capture: Capture) -> None:
        models.require_unet(pipe, "a trace")
        self.pipe, self.capture, self.trace = pipe, capture, Trace()
        self.layers = _chosen_layers(pipe.unet, capture)
        self.clock = _Clock(models.execution_device(pipe.unet), capture.spans)
        self.calls = 0  # U-Net calls so far: the step being recorded is the last of them
        self.prediction: torch.Tensor | None = None  # the U-Net's output until scheduler.step
        self.prompts: dict[str, Any] = {}
        self.ids: list[list[int]] | None = None
        self.series: dict[str, _Series] = {}
        self.taps: list[_AttentionTap] = []
        self.waiting = 0  # bytes of queries and keys whose attention is still to be computed
        self.times: list[tuple[Any, int | None]] = []  # timestep, index into the sigmas
        self.scales: list[float] = []
        self.seed: Any = None

    def attach(self, taps: ExitStack) -> None:
        """Add every tap, and its removal to `taps`."""
        pipe = self.pipe
        wrap(taps, pipe, "encode_prompt", self._encode_prompt)
        wrap(taps, pipe.scheduler, "step", self._scheduler_step)
        wrap(taps, pipe.vae, "decode", self._decode)
        encoder = getattr(pipe, "text_encoder", None) or getattr(pipe, "text_encoder_2", None)
        if encoder is not None:
            hook = encoder.register_forward_hook(self._text_encoded, with_kwargs=True)
            taps.callback(hook.remove)
        unet = pipe.unet
        before = unet.register_forward_pre_hook(self._before_unet, with_kwargs=True)
        taps.callback(before.remove)
        taps.callback(unet.register_forward_hook(self._after_unet, with_kwargs=True).remove)
        for name, layer in self.layers.items():
            tap = _AttentionTap(self, name, layer)
            self.taps.append(tap)
            taps.callback(layer.register_forward_hook(tap.after, with_kwargs=True).remove)
            if self.capture.spans:
                taps.callback(layer.register_forward_pre_hook(tap.before).remove)
            for part, keep in ((layer.to_q, tap.keep_query), (layer.to_k, tap.keep_key)):
                taps.callback(part.register_forward_hook(keep).remove)

    # Taps, in the order in which a pipeline reaches them.

    def _encode_prompt(self, encode: Callable, *args: Any, **kwargs: Any) -> Any:
        given = arguments(type(self.pipe).encode_prompt, args, kwargs)
        texts = {name: given.get(name) for name in ("prompt", "negative_prompt")}
        self.prompts = {name: text for name, text in texts.items() if text is not None}
        with self.clock.span("text_encoder"):
            return encode(*args, **kwargs)

    def _text_encoded(self, _: Any, args: tuple, kwargs: dict, __: Any) -> None:
        """The first call has the prompt, the second the negative prompt."""
        if self.ids is None and self.prompts.get("prompt") is not None:
            self.ids = (args[0] if args else kwargs["input_ids"]).tolist()

    def _before_unet(self, _: Any, args: tuple, kwargs: dict) -> None:
        sample = args[0] if args else kwargs["sample"]
        embeds = kwargs["encoder_hidden_states"] if len(args) < 3 else args[2]
        if self.calls == 0:
            self._begin(sample, embeds)
        if self.calls == self.steps:
            raise EssayError("A trace records one generation: open another for the next call.")
        if self.prediction is not None:
            raise EssayError("The U-Net was called twice in one step: trace one call a step.")
        self.calls += 1
        self.clock.start("unet")

    def _after_unet(self, _: Any, __: tuple, ___: dict, output: Any) -> None:
        self.clock.stop("unet", self.calls - 1)
        self.prediction = output[0]

    def _scheduler_step(self, step: Callable, *args: Any, **kwargs: Any) -> Any:
        if self.prediction is None:
            return step(*args, **kwargs)
        given = arguments(type(self.pipe.scheduler).step, args, kwargs)
        guided, t, sample = given["model_output"], given["timestep"], given["sample"]
        at = self.calls - 1
        self._put("latents", at, sample, extra=1)
        self._put("noise_pred", at, guided)
        self._split_branches(at, len(guided))
        with self.clock.span("scheduler", at):
            result = step(*args, **kwargs)
        stepped = result if isinstance(result, tuple) else tuple(result.values())
        index = getattr(self.pipe.scheduler, "step_index", None)
        self.times.append((t, None if index is None else index - 1))
        clean = stepped[1] if len(stepped) > 1 else self._clean(sample, guided)
        self._put("latents", at + 1, stepped[0], extra=1)
        self._put("pred_original_sample", at, clean)
        self.seed = _seed(given.get("generator"))
        self.prediction = None
        return result

    def _decode(self, decode: Callable, *args: Any, **kwargs: Any) -> Any:
        with self.clock.span("decode"):
            result = decode(*args, **kwargs)
        if self.capture.image:
            pixels = result[0].detach().float().div(2).add(0.5).clamp(0, 1).mul(255).round()
            self.trace.image = pixels.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
        return result

    # What the taps share.

    @property
    def guided(self) -> bool:
        return bool(getattr(self.pipe, "do_classifier_free_guidance", False))

    def _begin(self, sample: torch.Tensor, embeds: torch.Tensor) -> None:
        """At the first U-Net call: label the prompt, and see that the record fits."""
        self.steps = getattr(self.pipe, "num_timesteps", None) or len(self.pipe.scheduler.timesteps)
        self.images = len(sample) // (2 if self.guided else 1)
        halves = embeds.detach().float().cpu().split(self.images)
        self.trace.prompt_embeds = halves[-1].clone()
        self.trace.negative_prompt_embeds = halves[0].clone() if self.guided else None
        self._label_tokens()
        self.latent_size = tuple(sample.shape[-2:])
        self.plan = _plan(self, sample, embeds.shape[1])
        self.trace.reductions = self.plan.reductions

    def _label_tokens(self) -> None:
        if self.ids is None:
            return
        texts = self.prompts["prompt"]
        texts = [texts] * len(self.ids) if isinstance(texts, str) else list(texts)
        words = getattr(self.pipe, "tokenizer", None) or self.pipe.tokenizer_2
        each = self.images // len(self.ids)
        for ids, text in zip(self.ids, texts, strict=True):
            tokens = tokens_of(words, ids, text)
            self.trace.tokens += [tokens] * each
            self.trace.words += [words_of(words, tokens)] * each

    def _split_branches(self, at: int, images: int) -> None:
        """Keep the prediction before guidance; diffusers orders it [unconditional, text]."""
        raw = self.prediction
        if len(raw) == 2 * images:
            uncond, text = raw.chunk(2)
            self._put("noise_pred_uncond", at, uncond)
        elif len(raw) == images:
            text = raw
        else:
            raise EssayError(
                f"The U-Net predicted {len(raw)} latents for {images} images: a trace knows "
                "pipelines with one branch (text) or two (unconditional and text)."
            )
        self._put("noise_pred_text", at, text)
        self.scales.append(float(self.pipe.guidance_scale) if len(raw) > images else 1.0)

    def _clean(self, sample: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """x0 by the model's own parametrisation, for a scheduler that does not return it."""
        scheduler = self.pipe.scheduler
        share = _alpha_cumprod(scheduler, *self.times[-1])
        return clean_latents(scheduler.config.prediction_type, share, sample, output)

    def _put(self, name: str, at: int, value: torch.Tensor, extra: int = 0) -> None:
        if name not in self.series:
            self.series[name] = _Series(self.steps + extra, value, torch.float32)
        self.series[name].put(at, value)

    def finish(self) -> None:
        """Complete the record; raise `EssayError` where something asked for was not seen."""
        record, calls = self.trace, self.calls
        if "latents" not in self.series:
            raise EssayError("Nothing was traced: call the pipeline inside the `with` block.")
        self.compute_attention()
        record.spans = self.clock.finish()
        for name, series in self.series.items():
            if name not in self.layers:
                setattr(record, name, series.buffer[: calls + (name == "latents")])
        scheduler = self.pipe.scheduler
        alphas = [_alpha_cumprod(scheduler, t, index) for t, index in self.times]
        record.timesteps = torch.tensor([float(t) for t, _ in self.times])
        record.alphas_cumprod = torch.tensor(alphas, dtype=torch.float64)
        record.guidance_scale = torch.tensor(self.scales)
        record.cross_attention = {name: self._maps(name) for name in self.layers}
        record.provenance = provenance(
            self.pipe,
            **self.prompts,
            seed=self.seed,
            steps=self.pipe.scheduler.num_inference_steps,
            initial_noise_sha256=hashlib.sha256(record.latents[0].numpy().tobytes()).hexdigest(),
        )

    def compute_attention(self) -> None:
        """Turn the queries and keys that wait into maps, many steps at a time."""
        for tap in self.taps:
            tap.compute()
        self.waiting = 0

    def _maps(self, layer: str) -> Maps:
        series = self.series.get(layer)
        seen = series.puts if series else 0
        if seen < self.calls:
            raise EssayError(
                f"Attention was captured at {layer} in {seen} of {self.calls} steps (branch "
                f"{self.capture.branch!r}). Its processor bypasses to_q and to_k, or the pipeline "
                "ran without guidance: use diffusers' default processors, and branch='text'."
            )
        place = layer.partition("_")[0]
        heads = self.layers[layer].heads
        return Maps(layer, place, self.capture.branch, heads, series.buffer[: self.calls])


class _AttentionTap:
    """Recompute one layer's attention from the queries and keys that it computes anyway.

    They wait until there are `WAITING` bytes of them: one product over many steps takes less time
    than many over one.
    """

    def __init__(self, recorder: _Recorder, name: str, layer: torch.nn.Module) -> None:
        self.recorder, self.name, self.layer = recorder, name, layer
        self.query: torch.Tensor | None = None
        self.key: torch.Tensor | None = None
        self.waiting: list[tuple[torch.Tensor | None, ...]] = []

    def before(self, *_: Any) -> None:
        self.recorder.clock.start(self.name)

    def keep_query(self, _: Any, __: Any, query: torch.Tensor) -> None:
        self.query = query

    def keep_key(self, _: Any, __: Any, key: torch.Tensor) -> None:
        self.key = key

    def after(self, _: Any, __: tuple, kwargs: dict, ___: Any) -> None:
        recorder = self.recorder
        recorder.clock.stop("cross_attention", recorder.calls - 1, self.name)
        rows = recorder.images
        uncond = recorder.capture.branch == "uncond"
        query, key, self.query, self.key = self.query, self.key, None, None
        if query is None or key is None or (uncond and len(query) == rows):
            return
        half = slice(0, rows) if uncond else slice(len(query) - rows, None)
        bias = kwargs.get("attention_mask")
        bias = None if bias is None else bias[half].detach()
        self.waiting.append((query[half].detach(), key[half].detach(), bias))
        recorder.waiting += query.nbytes + key.nbytes
        if recorder.waiting >= WAITING:
            recorder.compute_attention()

    @torch.no_grad()
    def compute(self) -> None:
        """Compute and keep the maps of the steps that wait."""
        if not self.waiting:
            return
        recorder, steps = self.recorder, len(self.waiting)
        query, key, bias = (
            None if parts[0] is None else torch.cat(parts)
            for parts in zip(*self.waiting, strict=True)
        )
        self.waiting.clear()
        shares = _probabilities(self.layer, query, key, bias)
        shares = recorder.plan.reduce(shares, _grid(recorder.latent_size, query.shape[1]))
        shares = shares.unflatten(0, (steps, -1))
        if self.name not in recorder.series:
            recorder.series[self.name] = _Series(recorder.steps, shares[0], torch.float16)
        series = recorder.series[self.name]
        series.put(slice(series.puts, series.puts + steps), shares)


def _probabilities(
    layer: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """softmax(q kᵀ · scale + bias) in float32: (B, H, h_l · w_l, T)."""
    query, key = (x.unflatten(-1, (layer.heads, -1)) for x in (query, key))
    if layer.norm_q is not None:
        query = layer.norm_q(query)
    if layer.norm_k is not None:
        key = layer.norm_k(key)
    with torch.autocast(query.device.type, enabled=False):
        # einsum reads the heads where they are; a matmul would first copy them apart.
        scores = torch.einsum("bqhd,bkhd->bhqk", query.float(), key.float() * layer.scale)
    if bias is not None:
        scores += bias.unsqueeze(1)
    return scores.softmax(-1)


def _grid(latent_size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Height and width of a feature map, from the latent's by halving (rounded up)."""
    height, width = latent_size
    while height * width > pixels:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != pixels:
        raise EssayError(f"A layer of {pixels} pixels does not follow from {latent_size} latents.")
    return height, width


@dataclass
class _Plan:
    """How maps are reduced so that the record fits; see `Capture`."""

    mean_heads: bool
    kept: int | None  # columns; the last is then a sum over padding
    halve: bool
    reductions: list[str]

    def reduce(self, shares: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, H, h_l · w_l, T) to (B, H or 1, h_l, w_l, N)."""
        if self.mean_heads:
            shares = shares.mean(1, keepdim=True)
        if self.kept is not None:
            rest = shares[..., self.kept - 1 :].sum(-1, keepdim=True)
            shares = torch.cat([shares[..., : self.kept - 1], rest], -1)
        shares = shares.unflatten(2, grid)
        if self.halve:
            flat = shares.permute(0, 1, 4, 2, 3).flatten(0, 1)
            pooled = torch.nn.functional.avg_pool2d(flat, 2, ceil_mode=True)
            shares = pooled.unflatten(0, shares.shape[:2]).permute(0, 1, 3, 4, 2)
        return shares


def _plan(recorder: _Recorder, sample: torch.Tensor, positions: int) -> _Plan:
    """The least reduction under which the record fits; raise `EssayError` where none does."""
    capture, record = recorder.capture, recorder.trace
    padded = _first_padding(record.tokens, positions)
    kept = padded + 1 if capture.tokens == "prompt" and padded is not None else None
    mean = capture.heads == "mean"
    options = [_Plan(mean, kept, False, [])]
    if capture.coarsen:
        said = [] if mean else ["attention: mean over heads"]
        options.append(_Plan(True, kept, False, list(said)))
        if padded is not None and kept is None:
            kept = padded + 1
            said.append("attention: padding summed into the last column")
            options.append(_Plan(True, kept, False, list(said)))
        said.append("attention: averaged over 2×2 pixels")
        options.append(_Plan(True, kept, True, said))
    sizes = [_record_bytes(recorder, sample, positions, option) for option in options]
    for option, size in zip(options, sizes, strict=True):
        if capture.max_bytes is None or size <= capture.max_bytes:
            return option
    raise EssayError(
        f"This trace would take {sizes[-1] / 1e9:.3g} GB, more than max_bytes "
        f"({capture.max_bytes / 1e9:.3g} GB): name fewer layers, use heads='mean', "
        "tokens='prompt' or coarsen=True, or raise max_bytes."
    )


def _first_padding(tokens: list[list[Token]], positions: int) -> int | None:
    """The first position that is padding in every image's prompt; None where there is none."""
    if not tokens:
        return None
    ends = [sum(t.special != "padding" and not t.truncated for t in each) for each in tokens]
    return max(ends) if max(ends) < positions else None


def _record_bytes(recorder: _Recorder, sample: torch.Tensor, positions: int, plan: _Plan) -> int:
    """Size of the record, before anything is run."""
    batch, channels, height, width = len(sample), *sample.shape[1:]
    core = 4 * recorder.steps * channels * height * width * (3 * recorder.images + batch)
    levels = len(recorder.pipe.unet.config.block_out_channels)
    maps = 0
    for name, layer in recorder.layers.items():
        level = _level(name, levels) + plan.halve
        pixels = -(-height // 2**level) * -(-width // 2**level)
        heads = 1 if plan.mean_heads else layer.heads
        maps += heads * pixels * (plan.kept or positions)
    return core + 2 * recorder.steps * recorder.images * maps


def _level(layer: str, levels: int) -> int:
    """How often the latent has been halved where a layer stands."""
    place, _, rest = layer.partition("_blocks.")
    if place == "down":
        return int(rest.partition(".")[0])
    return levels - 1 - (int(rest.partition(".")[0]) if place == "up" else 0)


def _chosen_layers(unet: torch.nn.Module, capture: Capture) -> dict[str, torch.nn.Module]:
    wanted = capture.cross_attention
    if not wanted:
        return {}
    layers = cross_attention_layers(unet)
    if wanted is not True:
        parts = [wanted] if isinstance(wanted, str) else list(wanted)
        chosen = {n: m for n, m in layers.items() if any(part in n for part in parts)}
        if not chosen:
            raise EssayError(f"No layer matches {parts}; there are: {', '.join(layers)}.")
        layers = chosen
    if not layers:
        raise EssayError("This U-Net has no cross-attention (no attn2 modules) to capture.")
    fused = [n for n, m in layers.items() if type(m.processor).__name__.startswith("Fused")]
    if fused:
        raise EssayError(
            f"{fused[0]} has fused projections, which bypass to_q and to_k: call "
            "`pipe.unfuse_qkv_projections()` before tracing attention."
        )
    return layers


def _alpha_cumprod(scheduler: Any, t: Any, index: int | None) -> float:
    """ᾱ of a step: from its sigma where the scheduler has sigmas, else by timestep."""
    if index is not None and hasattr(scheduler, "sigmas"):
        return 1 / (1 + float(scheduler.sigmas[index]) ** 2)
    return float(scheduler.alphas_cumprod[int(t)])


def arguments(method: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """A call's arguments by name, whatever someone may have wrapped around the method."""
    return _signature(method).bind(None, *args, **kwargs).arguments


_signature = functools.cache(inspect.signature)


def _seed(generator: Any) -> Any:
    if generator is None:
        return None
    if isinstance(generator, list):
        return [one.initial_seed() for one in generator]
    return generator.initial_seed()


def wrap(taps: ExitStack, owner: Any, name: str, tap: Callable) -> None:
    """Put `tap(original, …)` before a method of one object, until `taps` closes.

    Where someone wraps it again meanwhile, their wrapper stays, and ours only passes calls on.
    """
    original, own, tapped = getattr(owner, name), name in vars(owner), True

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return tap(original, *args, **kwargs) if tapped else original(*args, **kwargs)

    def restore() -> None:
        nonlocal tapped
        tapped = False
        if vars(owner).get(name) is not wrapped:
            return
        setattr(owner, name, original) if own else delattr(owner, name)

    setattr(owner, name, wrapped)
    taps.callback(restore)


class _Series:
    """One tensor a step, each copied once, straight into its place on the host.

    From CUDA the copies are asynchronous, into pinned memory; `_Clock.finish` waits for them.
    """

    def __init__(self, length: int, like: torch.Tensor, dtype: torch.dtype) -> None:
        shape = (length, *like.shape)
        self.buffer = torch.full(shape, torch.nan, dtype=dtype, pin_memory=like.is_cuda)
        self.puts = 0

    def put(self, at: int | slice, value: torch.Tensor) -> None:
        self.buffer[at].copy_(value.detach(), non_blocking=True)
        self.puts += 1 if isinstance(at, int) else len(value)


class _Clock:
    """Spans by CUDA events, read after one synchronisation; by the host's clock elsewhere."""

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.cuda = device.type == "cuda"
        self.device, self.enabled = device, enabled
        self.started: dict[str, Any] = {}
        self.resident = 0
        self.spans: list[tuple[str, int | None, str | None, Any, Any, int]] = []
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(device)

    def start(self, key: str) -> None:
        if self.enabled:
            self.started[key] = self._now()

    def stop(self, operation: str, step: int | None = None, layer: str | None = None) -> None:
        if self.enabled:
            began = self.started.pop(layer or operation)
            span = (operation, step, layer, began, self._now(), self._peak(operation))
            self.spans.append(span)

    @contextmanager
    def span(self, operation: str, step: int | None = None) -> Iterator[None]:
        self.start(operation)
        yield
        self.stop(operation, step)

    def finish(self) -> list[Span]:
        if self.cuda:
            torch.cuda.synchronize(self.device)
        return [Span(o, s, n, self._seconds(a, b), peak) for o, s, n, a, b, peak in self.spans]

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, began: Any, ended: Any) -> float:
        return began.elapsed_time(ended) / 1e3 if self.cuda else ended - began

    def _peak(self, operation: str) -> int:
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.device)
        if operation in ("text_encoder", "unet", "decode"):  # a system call: not in every layer
            self.resident = peak_resident_bytes()
        return self.resident


def peak_resident_bytes() -> int:
    """The most memory that this process has held so far."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
