"""The committed fingerprints of the figures, and whether a new run still meets them.

`book/figures.lock.json` holds, for each figure and model, the fingerprint of the data drawn.
`book/figures.yml` holds every id that was ever locked, so that none is used again for another.
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from essaylib import claims, figures, paths, store
from essaylib.errors import EssayError
from essaylib.publishing import cite
from essaylib.tolerance import CHANGED, MISSING, Comparison, compare, fingerprint

LONG_AGO = "1970-01-01T00:00:00+00:00"
REGISTRY_HEADER = """\
# Every figure id that was ever published, with its chapter and title. Ids are cited: none is
# removed, given to another chapter or used for another figure. A renamed figure keeps its old id
# as a redirect:
#
#   old-id: {redirect: new-id}
#
# `essay lock` adds new figures.
"""


@dataclass(frozen=True)
class Verified:
    """How one figure compares with the lock."""

    id: str
    chapter: str
    comparison: Comparison

    def __str__(self) -> str:
        return f"{self.id}: {self.comparison}"


def path() -> Path:
    return paths.book() / "figures.lock.json"


def read() -> dict[str, dict[str, Any]]:
    """The lock: by figure and model, the chapter and the fingerprint; no retired ids."""
    if not path().is_file():
        return {}
    try:
        return _in_use(json.loads(path().read_text(encoding="utf-8"))["figures"])
    except (ValueError, KeyError) as error:
        raise EssayError(
            f"{path()} cannot be read ({error}): restore it with `git checkout -- {path().name}`."
        ) from None


def _drawn() -> list[str]:
    """The ids of the figures that have been drawn, sorted; no retired ids."""
    return list(_in_use(dict.fromkeys(figures.ids())))


def _in_use(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out the ids that were retired: a figure goes by one id, whatever lies in `_build`."""
    registry = figures.registry()
    return {id: entry for id, entry in found.items() if "redirect" not in registry.get(id, {})}


def model_of(record: dict[str, Any]) -> str:
    """The model that a figure was drawn from, as the lock names it."""
    name = (record["model"] or {}).get("name") or record["parameters"].get("model", "embedded")
    return _short(name)


def _short(model: str | None) -> str:
    """A model's name; a folder's without the way to it, which is nobody else's."""
    return Path(model or "embedded").name


def status(id: str, model: str | None = None) -> Verified:
    """Compare a figure as it was last drawn with the lock, without running anything."""
    id = cite.current(id)
    locked = read().get(id, {})
    record = figures.load(id) if id in figures.ids() else None
    if model is None:
        model = model_of(record) if record else next(iter(locked), "embedded")
    model = _short(model)
    drawn = record if record and model_of(record) == model else None
    entry = locked.get(model)
    chapter = (drawn or entry or {}).get("chapter") or ""
    fresh = drawn["fingerprint"] if drawn else None
    return Verified(id, chapter, compare(entry["fingerprint"] if entry else None, fresh))


def accept(ids: Iterable[str] | None = None) -> list[Verified]:
    """Write the figures as last drawn into the lock and the registry; return what differed.

    Without `ids`, all that have been drawn; raises `EssayError` where none has. A retired id stands
    for the one that took its place.
    """
    entries, registry, differed = read(), figures.registry(), []
    chosen = list(dict.fromkeys(cite.current(id) for id in ids or _drawn()))
    if not chosen:
        raise EssayError("No figure has been drawn yet: `essay run` draws them.")
    for id in chosen:
        record = figures.load(id)
        if not record["chapter"]:
            raise EssayError(
                f"{id} was drawn outside of a chapter: only chapters' figures are kept."
            )
        found = status(id)
        model = model_of(record)
        kept = {
            "chapter": record["chapter"],
            "parameters": record["parameters"] | {"model": model},
            "fingerprint": record["fingerprint"],
        }
        if entries.get(id, {}).get(model) != kept:
            differed.append(found)
        entries.setdefault(id, {})[model] = kept
        registry[id] = {"chapter": record["chapter"], "title": record["title"]}
    store.write_text(path(), _lines({"figures": _ordered(entries)}, depth=6) + "\n")
    body = yaml.safe_dump(
        {"figures": _ordered(registry)}, allow_unicode=True, width=100, sort_keys=False
    )
    store.write_text(paths.book() / "figures.yml", REGISTRY_HEADER + body)
    return differed


def verify(
    ids: Iterable[str] | None = None,
    model: str | None = None,
    threads: int = 1,
    executor: Executor | None = None,
) -> list[Verified]:
    """Run the chapters of these figures again, or of all, and compare with the lock.

    Without ids, the claims are compared with their own lock too, and a figure that is drawn but not
    locked is reported. A chapter that fails leaves its figures *missing*. Raises `EssayError` for
    an unknown id, and for a chapter that fails and has no figure to report it by.
    """
    from essaylib.publishing import execute

    asked = [cite.current(id) for id in ids or ()]
    locked = read()
    chapters = {id: _chapter_of(id, locked) for id in asked or _of_model(locked, model)}
    started = datetime.now(UTC).replace(microsecond=0)
    report = execute.run(
        sorted(set(chapters.values())) if asked else None,
        execute.given(model=model),
        threads=threads,
        force=True,
        executor=executor,
    )
    if not asked:
        fresh = [id for id in _drawn() if _drawn_since(id, started)]
        chapters = {id: figures.load(id)["chapter"] for id in fresh} | chapters
        if any(e.status == "failed" and e.id not in chapters.values() for e in report.chapters):
            report.raise_for_failures()
    errors = {e.id: e.error["message"] for e in report.chapters if e.status == "failed"}
    found = [
        status(id, model)
        if _drawn_since(id, started)
        else _not_drawn(id, chapter, errors.get(chapter))
        for id, chapter in sorted(chapters.items())
    ]
    if not asked and _short(model) == "embedded":
        found += _claims(started)
    return found


def _of_model(locked: dict[str, dict[str, Any]], model: str | None) -> list[str]:
    return [id for id, entry in locked.items() if _short(model) in entry]


def _not_drawn(id: str, chapter: str, error: str | None) -> Verified:
    reason = f"its chapter failed: {error}" if error else "not drawn by its chapter"
    return Verified(id, chapter, Comparison(MISSING, reason=reason))


def _claims(started: datetime) -> list[Verified]:
    """How the claims that were just recorded compare with `book/claims.lock.json`."""
    known, found = recorded(), []
    for id, entry in claims.read_lock().items():
        now = known.get(id)
        if now is None or datetime.fromisoformat(now["started"] or LONG_AGO) < started:
            comparison = Comparison(MISSING, reason="not recorded by its chapter")
        else:
            tests = {part["id"]: part for part in now["parts"]}
            comparison = compare(
                _claim_fingerprint(entry["verdict"], entry["tests"]),
                _claim_fingerprint(now["verdict"], tests),
            )
        found.append(Verified(f"claim {id}", claims.load()[id].chapter, comparison))
    return found


def _claim_fingerprint(verdict: str, tests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if not tests:
        return fingerprint(pd.DataFrame({"verdict": [verdict]}))
    numbers = {
        key: [float(f"{test[key]:.6g}") for test in tests.values()]
        for key in ("estimate", "low", "high", "p")
    }
    table = pd.DataFrame({"verdict": verdict, "statistic": list(tests), **numbers})
    return fingerprint(table, {"p": {"absolute": 0.01}})


def table() -> list[str]:
    """The figures drawn or locked as aligned lines: id, chapter, claim, verdict, lock."""
    verdicts = recorded()
    rows = [("FIGURE", "CHAPTER", "CLAIM", "VERDICT", "LOCK")]
    for id in sorted({*_drawn(), *read()}):
        record = figures.load(id) if id in figures.ids() else {}
        found = status(id)
        claim = (record.get("claim") or {}).get("id", "–")
        verdict = verdicts.get(claim, {}).get("verdict", "–")
        rows.append((id, found.chapter or "–", claim, verdict, found.comparison.status))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def recorded() -> dict[str, dict[str, Any]]:
    """The verdicts that the chapters recorded, by claim; none in a book that registers no claim."""
    return claims.recorded() if (paths.book() / "claims.yml").is_file() else {}


def failures(found: Iterable[Verified]) -> list[Verified]:
    """Those that changed or are missing."""
    return [item for item in found if item.comparison.status in (CHANGED, MISSING)]


def summary(found: Iterable[Verified]) -> str:
    """The figures and claims that are not as locked, as a Markdown table for a job's summary."""
    found = list(found)
    differ = failures(found)
    if not differ:
        return f"All {len(found)} figures and claims are as locked.\n"
    rows = [
        f"| `{item.id}` | {item.chapter} | {str(item.comparison).replace('|', '&#124;')} |"
        for item in differ
    ]
    return "\n".join(
        [
            f"{len(differ)} of {len(found)} figures and claims differ from the locks.",
            "",
            "| Figure | Chapter | Compared with the lock |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def reused(versions: Sequence[dict[str, dict[str, str]]]) -> list[str]:
    """What breaks the promise that ids are permanent, in versions of the registry, oldest first."""
    broken = []
    for before, after in pairwise(versions):
        for id, entry in before.items():
            now = after.get(id)
            if now is None:
                broken.append(f"{id} was removed: keep it as a redirect.")
            elif "redirect" in entry and "redirect" not in now:
                broken.append(f"{id} was retired and is used again.")
            elif "redirect" not in now and now["chapter"] != entry["chapter"]:
                broken.append(f"{id} went from {entry['chapter']} to {now['chapter']}.")
    return broken


def _chapter_of(id: str, locked: dict[str, dict[str, Any]]) -> str:
    for entry in locked.get(id, {}).values():
        return entry["chapter"]
    if id in figures.registry():
        return figures.registry()[id]["chapter"]
    return figures.load(id)["chapter"]


def _drawn_since(id: str, started: datetime) -> bool:
    return id in figures.ids() and datetime.fromisoformat(figures.load(id)["created"]) >= started


def _ordered(entries: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(entries.items()))


def _lines(value: Any, depth: int, indent: int = 0) -> str:
    """JSON with one line a key down to `depth`, and what lies deeper on one line: a short diff."""
    if depth == 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    pad = " " * (indent + 1)
    items = (
        f"{pad}{json.dumps(key, ensure_ascii=False)}: {_lines(item, depth - 1, indent + 1)}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(items) + "\n" + " " * indent + "}"
