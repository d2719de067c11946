"""The one training loop: schedule, averaged weights, log, checkpoints.

A stage gives its modules and a function that returns the loss of one step; everything that the
stages share is here. Training is deterministic given the seed and the number of threads, as far
as torch's CPU kernels are: resuming starts a new stretch of the random stream, so a run that was
interrupted differs from one that was not.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from essaylib.errors import EssayError
from essaylib.training.muon import Muon

OUTER = (
    "embedding",
    "conv_in",
    "conv_out",
    "quant_conv",
    "stem",
    "concept",
    "vendor",
    "_projection",
)
"""Parts of names of the layers between a network and the world."""


@dataclass
class Schedule:
    """How long and how fast to learn.

    `steps` is the length of the run; `minutes`, where given, ends it earlier, and the learning
    rate follows whichever of the two is further along: linear warm-up over `warmup` steps,
    constant, then a cosine to zero over the last `decay` of the run.
    """

    steps: int
    lr: float
    batch: int
    warmup: int = 100
    decay: float = 0.5
    minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    ema: float = 0.998

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise EssayError("Training needs at least one step and a batch of at least one.")
        if self.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise EssayError("There is no CUDA device here: use --device cpu, or auto.")

    def progress(self, step: int, seconds: float) -> float:
        """Return how much of the run is over, in [0, 1]."""
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, by_time))

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate as a share of `lr`."""
        warm = min(1.0, (step + 1) / self.warmup)
        left = min(1.0, (1 - progress) / self.decay)
        return warm * 0.5 * (1 - math.cos(math.pi * left))


@dataclass
class Stage:
    """A stage of training: what learns, from what, and where it is kept.

    `loss(step, progress)` returns the loss of one fresh batch, to be differentiated, and a dict of
    numbers for the log. `validate()`, where given, is called with the averaged weights in place and
    the modules in evaluation mode. `start` is where the weights came from, if training goes on from
    some. `limit()`, where given, is called after every step and may hold weights within bounds.
    `facts` are what the record says beside the schedule.
    """

    name: str
    modules: nn.Module
    loss: Callable[[int, float], tuple[torch.Tensor, dict]]
    folder: Path
    validate: Callable[[], dict] | None = None
    every: int = 200
    start: Path | None = None
    limit: Callable[[], None] | None = None
    facts: dict = field(default_factory=dict)


def train(stage: Stage, schedule: Schedule) -> dict:
    """Run a stage to its end, or on from its checkpoint, and leave averaged weights in place.

    Writes `<folder>/<name>.csv` (step, seconds, rate, loss and the stage's own numbers) and
    `<folder>/<name>.pt` (weights, averages, optimiser, step). Returns what `record` returns.
    """
    torch.manual_seed(schedule.seed)
    stage.folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in stage.modules.parameters() if p.requires_grad]
    optimisers = build_optimisers(stage.modules, schedule.lr)
    averages = [p.detach().clone() for p in parameters]
    checkpoint = stage.folder / f"{stage.name}.pt"
    step, seconds = restore(checkpoint, stage.modules, optimisers, averages)
    log = Log(stage.folder / f"{stage.name}.csv")
    bar = tqdm(total=schedule.steps, initial=step, desc=stage.name, mininterval=2, unit="step")
    start = time.monotonic() - seconds
    stage.modules.train()
    while (progress := schedule.progress(step, time.monotonic() - start)) < 1:
        rate = schedule.rate(step, progress)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * rate
        with precision(schedule.device):
            loss, numbers = stage.loss(step, progress)
        stage.modules.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise EssayError(
                f"{stage.name}: the loss is no longer finite at step {step}. Lower --lr and resume "
                f"from the last checkpoint, {checkpoint}."
            )
        for optimiser in optimisers:
            optimiser.step()
        if stage.limit:
            stage.limit()
        step += 1
        keep = min(schedule.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - keep)
        log.add(loss=loss.item(), **{k: float(v) for k, v in numbers.items()})
        bar.update()
        if step % stage.every == 0:
            with swapped(parameters, averages):
                stage.modules.eval()
                extra = stage.validate() if stage.validate else {}
                stage.modules.train()
            row = log.write(step, time.monotonic() - start, schedule.lr * rate, extra)
            bar.set_postfix({k: f"{v:.3g}" for k, v in row.items() if k not in ("step", "seconds")})
            save(checkpoint, stage.modules, optimisers, averages, step, time.monotonic() - start)
    bar.close()
    seconds = time.monotonic() - start
    save(checkpoint, stage.modules, optimisers, averages, step, seconds)
    for parameter, average in zip(parameters, averages, strict=True):
        parameter.data.copy_(average)
    return record(stage, schedule, step, seconds)


def made(part: Path) -> Path:
    """The folder that an earlier stage left; raise `EssayError` where it did not."""
    if not part.is_dir():
        stage = {"vae": "autoencoder"}.get(part.name, part.name)
        raise EssayError(
            f"There is no {part}: `essay train {stage}` makes it; --parts names another working "
            "folder."
        )
    return part


def record(stage: Stage, schedule: Schedule, step: int, seconds: float) -> dict:
    """Write `<folder>/<name>.json`, how a stage was trained, and return it."""
    facts = {
        "steps": step,
        "batch": schedule.batch,
        "seconds": round(seconds),
        "lr": schedule.lr,
        "seed": schedule.seed,
        "device": schedule.device,
        "threads": torch.get_num_threads(),
        "from_committed": stage.start is not None,
        "parameters": sum(p.numel() for p in stage.modules.parameters()),
        **stage.facts,
    }
    (stage.folder / f"{stage.name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def build_optimisers(module: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for hidden matrices and kernels, AdamW for the rest.

    The rest is what maps to or from the world (token and position tables, the first and last
    layers) and all vectors. Muon's rate is 20 times AdamW's, as its updates are of unit scale.
    """
    learn = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    hidden = [p for name, p in learn if p.ndim > 1 and not any(w in name for w in OUTER)]
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in learn if id(p) not in chosen]
    optimisers = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
    if hidden:
        optimisers.append(Muon(hidden, lr=20 * lr))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def precision(device: str):
    """Return autocast to bfloat16 where the hardware multiplies it fast, else full precision."""
    kind = torch.device(device).type
    fast = kind == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=fast)


class swapped:
    """Put other values into parameters for the length of a `with` block."""

    def __init__(self, parameters: list, values: list) -> None:
        self.parameters, self.values = parameters, values

    def __enter__(self) -> None:
        self.kept = [p.detach().clone() for p in self.parameters]
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.data.copy_(value)

    def __exit__(self, *_) -> None:
        for parameter, value in zip(self.parameters, self.kept, strict=True):
            parameter.data.copy_(value)


class Log:
    """A CSV of means since the last row, appended to."""

    def __init__(self, path: Path) -> None:
        self.path, self.sums, self.count = path, {}, 0

    def add(self, **numbers: float) -> None:
        for key, value in numbers.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)
        self.count += 1

    def write(self, step: int, seconds: float, rate: float, extra: dict) -> dict:
        row = {"step": step, "seconds": round(seconds), "lr": float(f"{rate:.3g}")}
        row |= {k: float(f"{v / self.count:.5g}") for k, v in self.sums.items()}
        row |= {k: float(f"{v:.5g}") for k, v in extra.items()}
        self.sums, self.count = {}, 0
        new = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        return row


def save(path: Path, modules, optimisers, averages, step: int, seconds: float) -> None:
    """Write a checkpoint beside the old one, then take its place: a cut leaves one whole."""
    part = path.with_suffix(".part")
    torch.save(
        {
            "modules": modules.state_dict(),
            "optimisers": [o.state_dict() for o in optimisers],
            "averages": averages,
            "step": step,
            "seconds": seconds,
        },
        part,
    )
    part.replace(path)


def restore(path: Path, modules, optimisers, averages) -> tuple[int, float]:
    """Take up a checkpoint where there is one; return its step and seconds."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    modules.load_state_dict(state["modules"])
    for optimiser, value in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(value)
    for average, value in zip(averages, state["averages"], strict=True):
        average.copy_(value)
    torch.manual_seed(state["step"])
    return state["step"], state["seconds"]
