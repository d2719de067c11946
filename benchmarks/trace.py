"""What tracing costs: time, memory, and agreement with DAAM, against the bars of the book.

    python benchmarks/trace.py

Every time is taken in one process on a warm model, the variants in turn forwards and backwards, and
the median over passes of the ratio within a pass is what counts. Prints a table, writes it to
benchmarks/results/trace.md, and exits with 1 where a bar fails. DAAM is installed beside the
project, in _build/daam, since its pinned dependencies conflict with the book's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from common import Bar, interleaved, keep, markdown, ratio

from essaylib import attention, models, paths, repro
from essaylib.trace import Capture, peak_resident_bytes, trace

PROMPT = "dog face, google"
MODES = {
    "core": Capture(),
    "head mean": Capture(cross_attention=True),
    "all heads": Capture(cross_attention=True, heads="all"),
}


def generator(pipe, images: int, steps: int, capture: Capture | None = None) -> Callable:
    """A function that draws the same images and returns their latents."""
    noise = repro.latents(pipe, range(images))

    def draw():
        arguments = {"num_inference_steps": steps, "guidance_scale": 4.0, "latents": noise}
        if capture is None:
            return pipe([PROMPT] * images, **arguments, output_type="np").images
        with trace(pipe, capture):
            return pipe([PROMPT] * images, **arguments, output_type="np").images

    return draw


def timed(draw: Callable) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        draw()
        return time.perf_counter() - began

    return run


def equality(pipe, steps: int) -> Bar:
    """Traced against untraced latents, bit by bit, with everything recorded."""
    arguments = {"num_inference_steps": steps, "output_type": "latent"}
    noise = repro.latents(pipe, range(4))
    plain = pipe([PROMPT] * 4, latents=noise, **arguments).images
    with trace(pipe, MODES["all heads"]):
        traced = pipe([PROMPT] * 4, latents=noise, **arguments).images
    return Bar("traced latents equal untraced", float(torch.equal(plain, traced)), 1, least=True)


def times(pipe, images: int, steps: int, passes: int) -> tuple[list[Bar], float]:
    """Each way of tracing over none; and the seconds of a plain generation."""
    variants = {"plain": timed(generator(pipe, images, steps))}
    for name, capture in MODES.items():
        variants[name] = timed(generator(pipe, images, steps, capture))
    for warm in variants.values():
        warm()
    seconds = interleaved(variants, passes)
    limits = {"core": 1.03, "head mean": 1.10, "all heads": 1.25}
    note = f"{images} images × {steps} steps, {passes} passes"
    bars = [
        Bar(f"time, {name} / untraced", ratio(seconds, name, "plain"), limit, note=note)
        for name, limit in limits.items()
    ]
    return bars, statistics.median(seconds["plain"])


def utilisation(pipe, images: int, steps: int, seconds: float) -> Bar:
    """Share of the processor's own fp32 matrix-product rate that a generation reaches."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        generator(pipe, images, steps)()
    rate, peak = counter.get_total_flops() / seconds, matmul_rate()
    note = f"{seconds:.1f} s; {rate / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s"
    return Bar("share of the fp32 matmul peak", rate / peak, 0.5, least=True, note=note)


def matmul_rate(size: int = 2048, repeats: int = 7) -> float:
    """The best rate of a large square fp32 product, in FLOP/s."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    best = min(timed(lambda: a @ b)() for _ in range(repeats))
    return 2 * size**3 / best


def memory(arguments: argparse.Namespace) -> Bar:
    """Peak resident memory of a fresh process that traces all heads over one that does not."""
    peak = {mode: worker(arguments, "memory", mode)["peak"] for mode in ("plain", "all heads")}
    note = f"{peak['plain'] / 1e6:.0f} MB untraced"
    return Bar(
        "peak memory, all heads / untraced", peak["all heads"] / peak["plain"], 1.15, note=note
    )


def daam(arguments: argparse.Namespace) -> list[Bar]:
    """Time and maps against DAAM on the same U-Net, in a process that can import both."""
    speed, agreement = "time, essaylib / DAAM", "cosine distance of DAAM-compatible maps"
    try:
        install_daam()
        found = worker(arguments, "daam", "")
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or str(error)).strip().splitlines()[-1]
        return [
            Bar(name, None, limit, note=reason)
            for name, limit in ((speed, 0.95), (agreement, 1e-4))
        ]
    note = f"1 image × {arguments.steps} steps, {found['passes']} passes; DAAM {found['version']}"
    note += f"; untraced / DAAM {found['floor']:.3f}"
    return [
        Bar(speed, found["ratio"], 0.95, note=note),
        Bar(agreement, found["distance"], 1e-4, note="every token, at the latent's size"),
    ]


def daam_folder():
    return paths.build() / "daam"


def install_daam() -> None:
    """DAAM without its pins, and the one library of its imports that the book does not have."""
    if (daam_folder() / "spacy").is_dir() and (daam_folder() / "daam").is_dir():
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(daam_folder())]
    subprocess.run([*pip, "spacy"], check=True, capture_output=True, text=True)
    subprocess.run([*pip, "--no-deps", "daam==0.2.0"], check=True, capture_output=True, text=True)


def worker(arguments: argparse.Namespace, task: str, mode: str) -> dict:
    """Run one task of this file in a process of its own; return what it prints as JSON."""
    command = [sys.executable, __file__, "--task", task, "--mode", mode, "--model", arguments.model]
    command += ["--images", str(arguments.images), "--steps", str(arguments.steps)]
    command += ["--passes", str(arguments.passes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def task_memory(arguments: argparse.Namespace) -> dict:
    pipe = models.load(arguments.model, device="cpu")
    generator(pipe, arguments.images, arguments.steps, MODES.get(arguments.mode))()
    return {"peak": peak_resident_bytes()}


def task_daam(arguments: argparse.Namespace) -> dict:
    """Both tools draw one image and compute the maps of its prompt's tokens."""
    sys.path.append(str(daam_folder()))  # after the book's own packages, which stay in use
    import daam

    pipe = models.load(arguments.model, device="cpu")
    noise = repro.latents(pipe, [0])
    settings = {"num_inference_steps": arguments.steps, "guidance_scale": 4.0, "latents": noise}

    def theirs() -> torch.Tensor:
        hooker = daam.trace(pipe)
        height, width = noise.shape[-2:]
        hooker.latent_hw = height * width  # DAAM knows 64² and 96² only
        for module in hooker.module:
            if hasattr(module, "latent_hw"):
                module.latent_hw = height * width
                module.context_size = pipe.tokenizer.model_max_length
        with hooker:
            pipe(PROMPT, output_type="latent", **settings)
            return hooker.compute_global_heat_map(PROMPT).heat_maps

    def ours() -> torch.Tensor:
        capture = Capture(cross_attention=True, heads="all", spans=False)  # DAAM times nothing
        with trace(pipe, capture) as tr:
            pipe(PROMPT, output_type="latent", **settings)
        return attention.daam(tr)

    expected, found = theirs(), ours()
    found = found[: len(expected)]
    distance = 1 - torch.cosine_similarity(expected.flatten(1), found.flatten(1), dim=1)
    # One image is drawn in a second, in which chance weighs more: hence more passes. Untraced, the
    # pipeline sets the floor: no way of tracing can come below it.
    passes = 3 * arguments.passes
    variants = {"untraced": lambda: pipe(PROMPT, output_type="latent", **settings)}
    variants |= {"ours": ours, "theirs": theirs}
    seconds = interleaved({name: timed(draw) for name, draw in variants.items()}, passes)
    return {
        "passes": passes,
        "ratio": ratio(seconds, "ours", "theirs"),
        "floor": ratio(seconds, "untraced", "theirs"),
        "distance": float(distance.max()),
        "version": daam.__version__,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="model name or diffusers folder")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--task", choices=["memory", "daam"], help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        task = {"memory": task_memory, "daam": task_daam}[arguments.task]
        print(json.dumps(task(arguments)))
        return 0
    pipe = models.load(arguments.model, device="cpu")
    bars = [equality(pipe, arguments.steps)]
    ratios, seconds = times(pipe, arguments.images, arguments.steps, arguments.passes)
    bars += ratios
    bars.append(utilisation(pipe, arguments.images, arguments.steps, seconds))
    del pipe
    bars.append(memory(arguments))
    bars += daam(arguments)
    columns = ["bar", "limit", "measured", "verdict", "conditions"]
    table = markdown(columns, [bar.row for bar in bars])
    print(table)
    keep("trace", table)
    failed = [bar.name for bar in bars if bar.passed is False]
    print(
        f"{len(bars) - len(failed)} of {len(bars)} bars hold or do not apply"
        if failed
        else f"all {len(bars)} bars hold or do not apply"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
