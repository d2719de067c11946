"""Load a latent diffusion model: the embedded one, a released one by name, or a local folder.

    pipe = models.load("embedded")
    image = pipe("dog face, google", num_inference_steps=25, guidance_scale=4.0).images[0]

What comes back is a plain diffusers pipeline; nothing of it is replaced. `describe(pipe)` says
which weights, device and scheduler a result came from.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from essaylib import hub, memory, paths, weights
from essaylib.errors import EssayError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTokenizer

SMALL = 100_000_000
UNET = "U-Net latent diffusion"
FLOW = "flow transformer"


@dataclass(frozen=True)
class ModelSpec:
    """A model and the settings that it was made for.

    `download` is in bytes and approximate. `revision` is a commit of the hub, or None: then the
    hub's current one is used, and recorded by `describe`. `can` and `cannot` say what a chapter may
    expect of it.
    """

    name: str
    hub_id: str | None
    family: str
    licence: str
    steps: int
    guidance_scale: float
    scheduler: str
    download: int
    revision: str | None = None
    path: Path | None = None
    can: str = "every chapter"
    cannot: str = ""


OPENRAIL = "CreativeML OpenRAIL-M"
SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "embedded", None, UNET, "see models/emoji-ldm/README.md", 25, 4.0, "DDIM",
            50_000_000, cannot="anything but emoji",
        ),
        ModelSpec(
            "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", UNET, OPENRAIL, 25, 7.5,
            "DDIM", 2_100_000_000, can="prompts, guidance, attention; a free Colab T4 runs it",
            cannot="the chapters on training: its corpus is not here",
        ),
        ModelSpec(
            "sd-turbo", "stabilityai/sd-turbo", UNET, "Stability AI Community Licence", 1, 0.0,
            "Euler, trailing", 2_600_000_000, can="one to four steps",
            cannot="guidance: it was distilled without",
        ),
        ModelSpec(
            "bk-sdm-tiny", "nota-ai/bk-sdm-tiny", UNET, OPENRAIL, 25, 7.5, "DDIM",
            1_300_000_000, can="as sd15, with a smaller U-Net", cannot="the mid block: it has none",
        ),
        ModelSpec(
            "bk-sdm-small", "nota-ai/bk-sdm-small", UNET, OPENRAIL, 25, 7.5, "DDIM",
            2_000_000_000, can="as sd15, with a smaller U-Net", cannot="the mid block: it has none",
        ),
        ModelSpec(
            "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", UNET, "CreativeML OpenRAIL++-M",
            25, 5.0, "Euler", 7_000_000_000, can="loading and tracing",
            cannot="a free Colab T4 in full size; in float16 its decoder is run in float32",
        ),
    )
}  # fmt: skip


def resolve(model: str | Path = "embedded") -> ModelSpec:
    """The specification of a name, of "auto", or of a local diffusers folder.

    "auto" is `sd15` where there are a GPU and a reachable hub (or `sd15` is already here), else
    `embedded`. Raises `EssayError` for an unknown name, with the list, and for a file of weights.
    """
    if model == "auto":
        return SPECS["sd15" if _auto_sd15() else "embedded"]
    if str(model) in SPECS:
        return SPECS[str(model)]
    path = Path(model).expanduser()
    if path.is_dir():
        return _local_spec(path.resolve())
    if path.suffix in weights.PICKLES:
        raise EssayError(
            f"{model} is a pickle, which can run any code when opened: essaylib reads diffusers "
            "folders of safetensors only."
        )
    if path.is_file():
        raise EssayError(f"{model} is a single file: essaylib reads diffusers folders.")
    raise EssayError(
        f"Unknown model {str(model)!r}: choose auto, {', '.join(SPECS)}, or the path of a "
        "diffusers folder."
    )


def folder(spec: ModelSpec) -> Path | None:
    """The local folder of a model, or None where it must first be pulled."""
    if spec.path is not None:
        return spec.path
    if spec.hub_id is None:
        embedded = paths.models() / "emoji-ldm"
        return embedded if embedded.is_dir() else None
    return hub.snapshot(spec.hub_id, spec.revision)


def load(
    model: str | Path = "embedded",
    device: str = "auto",
    dtype: torch.dtype | str | None = None,
) -> DiffusionPipeline:
    """Load a pipeline, ready to call: progress bar off, no safety checker, DDIM instead of PNDM.

    `device` is "auto" (CUDA, then MPS, then CPU) or one of them. `dtype` defaults to float32 on the
    CPU and for the embedded model, to float16 elsewhere. Where the GPU's memory does not hold the
    model, its parts are moved there one at a time. A hub model that is not here is pulled.

    Raises `EssayError` for a model that is unknown, absent, damaged or pickled, for a device that
    is not there, and where memory does not suffice.
    """
    spec = resolve(model)
    device = pick_device(device)
    memory.keep_freed()
    place = folder(spec) or _fetch(spec)
    used = weights.files(place)
    weights.check(place, used)
    count = sum(map(weights.parameters, used))
    chosen = _dtype(dtype, count, device)
    offload = _offload(spec, count * chosen.itemsize, device)
    with _quietly():
        import diffusers

        unused = {name: None for name in weights.UNUSED if name in weights.index(place)}
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            place,
            variant=weights.variant(place),
            use_safetensors=True,
            local_files_only=True,
            **{_dtype_argument(diffusers.__version__): chosen},
            **unused,
            **({"requires_safety_checker": False} if "safety_checker" in unused else {}),
        )
    if type(pipe.scheduler).__name__ == "PNDMScheduler":
        # The book's sampler: deterministic, and one U-Net call a step (PNDM makes one more).
        pipe.scheduler = diffusers.DDIMScheduler.from_config(
            pipe.scheduler.config, clip_sample=False
        )
    pipe.set_progress_bar_config(disable=True)
    if offload:
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)
    return pipe


def load_clip(path: str | Path | None = None) -> tuple[CLIPModel, CLIPTokenizer]:
    """The CLIP that conditions the embedded model, both towers, in float32 on the CPU.

    `path` is a `CLIPModel` folder (by default models/emoji-ldm/clip). Its tokenizer is in the
    folder, or beside it in `tokenizer`, or else the embedded model's, which the other CLIPs of the
    repository (models/clip-unnamed, models/clip-halves) share. Checked against SHA256SUMS as `load`
    does.
    """
    place = Path(path) if path is not None else paths.models() / "emoji-ldm" / "clip"
    if not (place / "config.json").is_file():
        raise EssayError(f"No CLIP at {place}: it ships with the repository; restore that folder.")
    weights.check_component(place)
    with _quietly():
        import torch
        from transformers import CLIPModel, CLIPTokenizer

        model = CLIPModel.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    beside, shared = place.parent / "tokenizer", paths.models() / "emoji-ldm" / "tokenizer"
    own = any(place.glob("tokenizer*")) or (place / "vocab.json").is_file()
    words = CLIPTokenizer.from_pretrained(place if own else beside if beside.is_dir() else shared)
    if len(words) != (size := model.config.text_config.vocab_size):
        raise EssayError(f"{place} reads {size} tokens, and its tokenizer has {len(words)}.")
    return model.eval(), words


def load_unet(
    name: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> UNet2DConditionModel:
    """A U-Net that lies alone in the folder `name` of models/, in float32 by default.

    Each call loads it anew, so that it may be trained further. Raises `EssayError` where it is
    missing or damaged.
    """
    place = paths.models() / name
    if not (place / "config.json").is_file():
        raise EssayError(f"There is no U-Net in {place}: restore the folder, or train it.")
    weights.check_component(place)
    with _quietly():
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel.from_pretrained(
            place, use_safetensors=True, local_files_only=True
        )
    return unet.to(device, dtype).eval()


def pull(model: str) -> Path:
    """Download a released model with a progress bar, unless it is here; return its folder."""
    spec = resolve(model)
    return folder(spec) or _fetch(spec, ask=True)


def describe(pipe: DiffusionPipeline) -> dict[str, Any]:
    """What a result came from, as plain JSON: name, revision, weights, device, dtype, scheduler.

    `weights` maps each file to its SHA-256. A pipeline built in memory has neither name nor
    weights to report (None and {}).
    """
    place, spec = _origin(pipe)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    return {
        "name": spec.name if spec else None,
        "hub_id": spec.hub_id if spec else None,
        "revision": hub.revision(place) if place else None,
        "licence": spec.licence if spec else None,
        "weights": weights.hashes(place) if place else {},
        "pipeline": type(pipe).__name__,
        "device": str(execution_device(denoiser)),
        "dtype": str(next(denoiser.parameters()).dtype).removeprefix("torch."),
        "scheduler": {"class": type(pipe.scheduler).__name__, **_plain(pipe.scheduler.config)},
    }


def table() -> list[dict[str, Any]]:
    """One row a registered model: name, licence, gigabytes, whether it is here, can and cannot."""
    return [
        {
            "name": spec.name,
            "licence": spec.licence,
            "gigabytes": spec.download / 1e9,
            "local": folder(spec) is not None,
            "can": spec.can,
            "cannot": spec.cannot,
        }
        for spec in SPECS.values()
    ]


def pick_device(device: str = "auto") -> str:
    """ "auto" as the best device there is; a device that is not there raises `EssayError`."""
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, available in there.items() if available)
    kind = str(device).partition(":")[0]
    if kind not in there:
        raise EssayError(f"Unknown device {device!r}: choose auto, cuda, mps or cpu.")
    if not there[kind]:
        raise EssayError(
            f"This machine, or this build of PyTorch, has no {kind.upper()} device: use "
            "`--device cpu` (device='cpu'), or install a PyTorch built for your GPU."
        )
    return str(device)


def execution_device(module: torch.nn.Module) -> torch.device:
    """Where a pipeline's module computes, also while it waits in the host's memory for its turn."""
    import torch

    turn = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return next(module.parameters()).device if turn is None else torch.device(turn)


def require_unet(pipe: Any, purpose: str) -> None:
    """Raise `EssayError` where `pipe` is no U-Net latent diffusion, such as a flow transformer."""
    if getattr(pipe, "unet", None) is None:
        kind = FLOW if getattr(pipe, "transformer", None) is not None else "pipeline without U-Net"
        raise EssayError(
            f"{type(pipe).__name__} is a {kind}, not a {UNET}: {purpose} cannot be had from it. "
            f"Use one of {', '.join(SPECS)}."
        )


def _auto_sd15() -> bool:
    if pick_device("auto") == "cpu":
        return False
    return folder(SPECS["sd15"]) is not None or hub.reachable()


def _local_spec(path: Path) -> ModelSpec:
    """A specification read from the folder: its own scheduler and family."""
    parts = weights.index(path)
    flow = "transformer" in parts and "unet" not in parts
    return ModelSpec(
        path.name, None, FLOW if flow else UNET, "as its folder says", 25, 7.5,
        parts.get("scheduler", [None, "unknown"])[1], 0, path=path,
    )  # fmt: skip


def _fetch(spec: ModelSpec, ask: bool = False) -> Path:
    if spec.hub_id is None:
        raise EssayError(
            "The embedded model is missing: models/emoji-ldm ships with the repository. Restore it "
            "(`git checkout -- models/emoji-ldm`), or train it with `essay train`."
        )
    if not ask and not hub.reachable():
        here = [name for name in SPECS if folder(SPECS[name]) is not None]
        raise EssayError(
            f"{spec.name} is not on this machine and the hub cannot be reached. Here: "
            f"{', '.join(here) or 'none'}. With a network, `essay models pull {spec.name}` fetches "
            f"it (about {spec.download / 1e9:.1f} GB)."
        )
    return hub.pull(spec)


def _dtype(dtype: torch.dtype | str | None, count: int, device: str) -> torch.dtype:
    """The dtype asked for; else float32 on the CPU and for models too small to gain by less."""
    import torch

    if dtype is None:
        return torch.float32 if device == "cpu" or count < SMALL else torch.float16
    named = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    named |= {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    chosen = named.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in named.values():
        raise EssayError(f"Unknown dtype {dtype!r}: choose float32, float16 or bfloat16.")
    return chosen


def _dtype_argument(version: str) -> str:
    """What diffusers calls the dtype of `from_pretrained`: renamed in 0.42."""
    return "dtype" if Version(version) >= Version("0.42") else "torch_dtype"


def _offload(spec: ModelSpec, stored: int, device: str) -> bool:
    """Whether the parts must take turns on the GPU; raise `EssayError` where nothing helps.

    The estimate is the weights and a third more for activations; taking turns needs about two
    thirds of it there, for the U-Net, and the whole in the host's memory.
    """
    needed = int(stored * 4 / 3) + 200_000_000
    host = _free_memory("cpu")
    if device.startswith("cuda"):
        free = _free_memory(device)
        if needed <= free:
            return False
        if needed * 2 // 3 <= free and needed <= host:
            return True
        _refuse_memory(spec, needed * 2 // 3, free, device)
    if needed > host:
        _refuse_memory(spec, needed, host, device)
    return False


def _free_memory(device: str) -> int:
    """Bytes that can be had on the device now."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def _refuse_memory(spec: ModelSpec, needed: int, free: int, device: str) -> None:
    smaller = [s.name for s in SPECS.values() if s.download * 2 < min(free, spec.download or free)]
    raise EssayError(
        f"{spec.name} needs about {needed / 1e9:.1f} GB on {device} and {free / 1e9:.1f} GB are "
        f"free. Close other programs, or use a smaller model: {', '.join(smaller) or 'embedded'}."
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Import and load without notices, and without collecting garbage (a fifth of the time)."""
    collecting = gc.isenabled()
    gc.disable()
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    verbosity = transformers_log.get_verbosity()
    transformers_log.set_verbosity_error()
    for log in (diffusers_log, transformers_log):
        log.disable_progress_bar()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for log in (diffusers_log, transformers_log):
            log.enable_progress_bar()
        transformers_log.set_verbosity(verbosity)


def _origin(pipe: DiffusionPipeline) -> tuple[Path | None, ModelSpec | None]:
    """The folder that a pipeline was loaded from, and the model that it is."""
    name = pipe.config.get("_name_or_path")
    if not name:
        return None, None
    place = Path(name) if Path(name).is_dir() else hub.snapshot(str(name))
    if place is None:
        return None, None
    place = place.absolute()
    for spec in SPECS.values():
        if spec.hub_id and f"models--{spec.hub_id.replace('/', '--')}" in place.parts:
            return place, spec
        if spec.hub_id is None and place == (paths.models() / "emoji-ldm").absolute():
            return place, spec
    return place, _local_spec(place)


def _plain(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}
