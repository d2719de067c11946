"""What the benchmarks share: the clock, the machine, the table and the verdict."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Bar:
    """A measurement and its limit: `value` at most (or, with `least`, at least) `limit`.

    `value` None means that it could not be measured, for the reason in `note`.
    """

    name: str
    value: float | None
    limit: float
    least: bool = False
    note: str = ""

    @property
    def passed(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def row(self) -> list[str]:
        sign = "≥" if self.least else "≤"
        verdict = {True: "holds", False: "fails", None: "not comparable"}[self.passed]
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        return [self.name, f"{sign} {self.limit:g}", value, verdict, self.note]


def interleaved(variants: dict[str, Callable[[], float]], passes: int) -> dict[str, list[float]]:
    """Seconds of each variant in each pass, in turn forwards and backwards (A B … B A)."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(passes):
        order = list(variants)[:: -1 if turn % 2 else 1]
        for name in order:
            seconds[name].append(variants[name]())
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, to: str) -> float:
    """Median over passes of one variant's time over another's in the same pass."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def machine() -> str:
    """The processor and the versions that times depend on."""
    threads = torch.get_num_threads()
    capability = torch.backends.cpu.get_cpu_capability()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "diffusers"))
    return f"{platform.machine()} with {capability}, {threads} threads; {versions}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def keep(script: str, table: str) -> None:
    """Write a benchmark's table to results, with the machine that it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{script}.md").write_text(
        f"{table}\n*Measured by `python benchmarks/{script}.py` on {machine()}.*\n",
        encoding="utf-8",
    )
