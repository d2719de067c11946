"""What a run shows while it goes: bars on a terminal, one line an event elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

_REASONS = 3
"""How many reasons for a run are named before the rest is counted."""


class Progress:
    """Progress of a whole run on standard error; a context manager."""

    def __init__(self, chapters: int):
        self._console = Console(file=sys.stderr, highlight=False)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._total = self._bars.add_task("chapters", total=chapters)
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_) -> None:
        self._bars.stop()

    def waiting(self, id: str, reasons: list[str]) -> None:
        """A chapter will be run, for these reasons."""
        more = len(reasons) - _REASONS
        named = ", ".join(reasons[:_REASONS]) + (f" and {more} more" if more > 0 else "")
        self.say(f"{id}: to run ({named})")

    def running(self, id: str, progress: Path) -> None:
        """A chapter is at the cell that its progress file names ("3/12"), if it has begun."""
        try:
            cell, cells = (int(part) for part in progress.read_text("utf-8").split("/"))
        except (OSError, ValueError):
            return
        if id not in self._tasks:
            self._tasks[id] = self._bars.add_task(f"  {id}", total=cells)
        self._bars.update(self._tasks[id], completed=cell, total=cells)

    def finished(self, id: str, status: str, seconds: float, peak_mb: float) -> None:
        """A chapter ended: ok, cached or failed."""
        if id in self._tasks:
            self._bars.remove_task(self._tasks.pop(id))
        self._bars.advance(self._total)
        cost = f" in {seconds:.1f} s, {peak_mb:,.0f} MB" if status == "ok" else ""
        self.say(f"{id}: {status}{cost}")

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, soft_wrap=True, markup=False)
