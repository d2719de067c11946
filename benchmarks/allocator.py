"""What `essaylib.memory.keep_freed` saves: decoding with freed memory kept, over decoding without.

    python benchmarks/allocator.py

Two processes, one with and one without, are asked in turn, forwards and backwards, for the same
decode on a warm model and one thread; the median over passes of the ratio within a pass counts.
Prints a table, writes it to benchmarks/results/allocator.md, and exits with 1 where the bar fails.
"""

from __future__ import annotations

import subprocess
import sys
import time

from common import Bar, interleaved, keep, markdown, ratio

IMAGES, PASSES = 16, 9


def main() -> int:
    if "--worker" in sys.argv:
        return worker("--kept" in sys.argv)
    workers = {name: start(flag) for name, flag in (("kept", ["--kept"]), ("returned", []))}
    variants = {name: lambda w=w: ask(w) for name, w in workers.items()}
    for warm in variants.values():
        warm()
    seconds = interleaved(variants, PASSES)
    for process in workers.values():
        process.stdin.close()
        process.wait()
    note = f"{IMAGES} latents decoded, 1 thread, {PASSES} passes"
    bar = Bar(
        "time, freed memory kept / returned", ratio(seconds, "kept", "returned"), 1, note=note
    )
    table = markdown(["bar", "limit", "measured", "verdict", "conditions"], [bar.row])
    print(table)
    keep("allocator", table)
    print("the bar holds" if bar.passed else "the bar fails")
    return 0 if bar.passed else 1


def start(flags: list[str]) -> subprocess.Popen:
    command = [sys.executable, __file__, "--worker", *flags]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen) -> float:
    """One decode in a worker; its seconds."""
    process.stdin.write("decode\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def worker(kept: bool) -> int:
    """Decode once for every line that comes in, and answer with the seconds."""
    import torch
    from diffusers import AutoencoderKL

    from essaylib import memory, paths

    if kept:
        memory.keep_freed()
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(paths.models() / "emoji-ldm" / "vae").float().eval()
    latents = torch.randn(IMAGES, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for _ in sys.stdin:
        began = time.perf_counter()
        with torch.inference_mode():
            vae.decode(latents)
        print(time.perf_counter() - began, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
