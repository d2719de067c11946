"""What runs where: seconds an image and peak memory, on the accelerator of this machine.

    python benchmarks/gpu.py                 # CUDA
    python benchmarks/gpu.py --device cpu    # the embedded model only

Models: the embedded one in float32, and Stable Diffusion 1.5's U-Net with random weights, which
cost what the released ones cost (its text encoder and autoencoder are small stand-ins), in float16,
whole and with its parts taking turns. Times are
CUDA events around whole generations, read after one synchronisation, the median of seven after a
warm-up; memory is the allocator's peak (on the CPU: the wall clock, and the process's peak). Writes
benchmarks/results/what_runs_where.md, where a row that nobody has run says *not measured*.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import RESULTS, machine, markdown

from essaylib import models, repro
from essaylib.errors import EssayError
from essaylib.trace import Capture, peak_resident_bytes, trace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

TABLE = RESULTS / "what_runs_where.md"
KEPT = RESULTS / "what_runs_where.json"
NOT_MEASURED = "*not measured*"
COLUMNS = ["model", "device", "dtype", "size", "traced", "seconds an image", "peak memory"]
CASES = {
    "embedded, CPU": ("embedded", "CPU", "float32", "128"),
    "embedded, CUDA": ("embedded", "CUDA", "float32", "128"),
    "SD 1.5 shape, CUDA": ("SD 1.5 U-Net", "CUDA", "float16", "512"),
    "SD 1.5 shape, CUDA, parts taking turns": ("SD 1.5 U-Net, offloaded", "CUDA", "float16", "512"),
}


def generation(pipe, images: int, steps: int, capture: Capture | None) -> Callable[[], None]:
    noise = repro.latents(pipe, range(images)).to(pipe._execution_device, pipe.unet.dtype)
    arguments = {"num_inference_steps": steps, "guidance_scale": 4.0, "latents": noise}

    def draw() -> None:
        if capture is None:
            pipe(["a dog"] * images, **arguments)
            return
        with trace(pipe, capture):
            pipe(["a dog"] * images, **arguments)

    return draw


def measure(draw: Callable[[], None], device: str, repeats: int = 7) -> tuple[float, int]:
    """Median seconds of a call, and the peak of memory in bytes, after a warm-up."""
    draw()
    if device != "cuda":
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            draw()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds), peak_resident_bytes()
    torch.cuda.reset_peak_memory_stats()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        draw()
        mark.record()
    torch.cuda.synchronize()
    milliseconds = [a.elapsed_time(b) for a, b in zip(marks, marks[1:], strict=False)]
    return statistics.median(milliseconds) / 1e3, torch.cuda.max_memory_allocated()


def load(case: str, folder: Path):
    device = CASES[case][1].lower()
    if case.startswith("embedded"):
        return models.load("embedded", device=device)
    import checkpoints

    if not (folder / "model_index.json").is_file():
        checkpoints.build_full_size(folder)
    turns = "turns" in case
    pipe = models.load(folder, device="cpu" if turns else device, dtype="float16")
    if turns:
        pipe.enable_model_cpu_offload()
    return pipe


def run(device: str, images: int, steps: int) -> dict[str, list[str]]:
    """Rows measured on this machine, by case and whether traced."""
    rows = {}
    with TemporaryDirectory() as folder:
        for case, (model, place, dtype, size) in CASES.items():
            if place.lower() != device:
                continue
            pipe = load(case, Path(folder))
            for traced in ("no", "yes"):
                capture = Capture(cross_attention=True) if traced == "yes" else None
                seconds, peak = measure(generation(pipe, images, steps, capture), device)
                cost = [f"{seconds / images:.3g}", f"{peak / 1e9:.2f} GB"]
                rows[f"{case}, {traced}"] = [model, place_name(place), dtype, size, traced, *cost]
                print(" | ".join(rows[f"{case}, {traced}"]), flush=True)
            del pipe
            if device == "cuda":
                torch.cuda.empty_cache()
    return rows


def place_name(place: str) -> str:
    return torch.cuda.get_device_name() if place == "CUDA" else place


def write(measured: dict[str, list[str]]) -> None:
    """The whole table: what was ever measured, and *not measured* for the rest."""
    rows = []
    for case, facts in CASES.items():
        for traced in ("no", "yes"):
            unknown = [*facts, traced, NOT_MEASURED, NOT_MEASURED]
            rows.append(measured.get(f"{case}, {traced}", unknown))
    RESULTS.mkdir(exist_ok=True)
    TABLE.write_text(markdown(COLUMNS, rows), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument(
        "--table-only", action="store_true", help="write the table, measure nothing"
    )
    arguments = parser.parse_args()
    measured = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    if not arguments.table_only:
        try:
            models.pick_device(arguments.device)
            measured |= run(arguments.device, arguments.images, arguments.steps)
        except EssayError as error:
            print(f"not measured: {error}")
            return 1
        KEPT.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(machine())
    write(measured)
    table = TABLE.relative_to(RESULTS.parents[1])
    print(f"{len(measured)} of {2 * len(CASES)} rows measured: {table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
