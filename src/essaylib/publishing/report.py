"""The state of the book: `_build/report.json`, one entry a chapter."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from essaylib import paths, store
from essaylib.errors import EssayError


@dataclass(frozen=True)
class Entry:
    """What became of one chapter; one entry of `_build/report.json`.

    `status` is ok (executed now), cached (nothing changed since it was) or failed. `seconds` and
    `peak_mb` (of the chapter's process, in MiB) are those of the run whose results are shown.
    """

    id: str
    status: str
    seconds: float = 0.0
    peak_mb: float = 0.0
    figures: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class Report:
    """The state of the book after a run: one entry a chapter, in the order of the book."""

    chapters: list[Entry]
    interrupted: bool = False

    def write(self) -> None:
        path = paths.build() / "report.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write_json(path, asdict(self))

    def raise_for_failures(self) -> Report:
        """Raise `EssayError` naming each failed chapter, its cell and its error."""
        failed = [entry for entry in self.chapters if entry.status == "failed"]
        if failed:
            raise EssayError("\n".join(f"{entry.id} failed: {_where(entry)}" for entry in failed))
        return self


def read_report() -> Report:
    """Return the last report; an empty one where there is none."""
    try:
        raw = json.loads((paths.build() / "report.json").read_text("utf-8"))
        return Report([Entry(**entry) for entry in raw["chapters"]], raw["interrupted"])
    except (OSError, ValueError, KeyError, TypeError):
        return Report([])


def _where(entry: Entry) -> str:
    error = entry.error or {}
    if error.get("cell") is None:
        kind = error.get("type", "EssayError")
        return error["message"] if kind == "EssayError" else f"{kind}: {error['message']}"
    place = f"code cell {error['cell']}"
    if "file" in error:
        place += f" ({error['file']}, line {error['line']})"
    return f"{place}: {error['type']}: {error['message']}"
