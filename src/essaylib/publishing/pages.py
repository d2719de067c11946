"""The pages that no one writes: a page for each figure, and the lists of figures, claims and runs.

`files` returns them as the stage takes them, by path. A figure's page stands alone: one HTML file
beside its image, data, provenance and citations, which asks no other host for anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from essaylib import citation, claims, figures, paths
from essaylib.errors import EssayError
from essaylib.provenance import sha256
from essaylib.publishing import cite, execute, lock, notebooks
from essaylib.publishing.chapters import pages as contents
from essaylib.publishing.templating import render
from essaylib.tolerance import Tolerance

PREVIEW_ROWS = 12
SCHEMA = "figure.schema.json"
FORMAT_NAMES = {"text": "Plain text", "bibtex": "BibTeX", "csl-json": "CSL-JSON", "ris": "RIS"}


def files() -> dict[str, bytes]:
    """Every generated page and what it links to, as {path in the stage: content}.

    A page of the book is made where the table of contents lists it: `book/figures`, `book/claims`,
    `book/report` and `book/bibliography`.
    """
    verdicts = lock.recorded()
    records = [_completed(record, verdicts) for record in published()]
    pages: dict[str, Callable[[], str]] = {
        "book/figures": lambda: figures_page(records),
        "book/claims": lambda: claims_page(records, verdicts),
        "book/report": report_page,
        "book/bibliography": lambda: render("bibliography.md"),
    }
    listed = set(contents())
    found: dict[str, str | bytes] = {
        f"{page}.md": make() for page, make in pages.items() if page in listed
    }
    if "book/figures" in listed:
        found["_extra/fig/index.html"] = render("redirect.html", target="../book/figures.html")
    for record in records:
        found |= _bundle(record)
    if records:
        found["_extra/fig/schema.json"] = Path(figures.__file__).with_name(SCHEMA).read_bytes()
    for id, entry in figures.registry().items():
        if "redirect" in entry:
            target = f"../{cite.current(id)}/"
            found[f"_extra/fig/{id}/index.html"] = render("redirect.html", target=target)
    return {
        path: content if isinstance(content, bytes) else content.encode()
        for path, content in found.items()
    }


def published() -> list[dict[str, Any]]:
    """The provenance of every figure that the executed chapters show, numbered in book order."""
    return [
        figures.load(id) | {"number": str(number)}
        for number, id in enumerate(execute.shown(), start=1)
    ]


def figure_page(record: dict[str, Any]) -> str:
    """One figure's page, as HTML."""
    cited = figures.cited(record)
    site, repository = citation.addresses()
    claim = record["claim"] and _claim(record["claim"]["id"], lock.recorded())
    return render(
        "figure.html",
        figure=record,
        cited=cited,
        formats=[
            {
                "id": style,
                "name": FORMAT_NAMES[style],
                "text": cite.write(cited, style),
                "file": f"citation.{cite.SUFFIXES[style]}",
            }
            for style in cite.FORMATS
        ],
        book=citation.book(),
        chapter=_chapter_title(record["chapter"]),
        claim=claim,
        preview=_preview(record),
        provenance=provenance_rows(record),
        tolerances=[
            (name, _tolerance(column["tolerance"]))
            for name, column in record["fingerprint"]["columns"].items()
        ],
        lock=lock.status(record["id"]).comparison,
        commit_url=_at_commit(record, repository),
        notebook=record["chapter"] and f"../../{notebooks.place(record['chapter'])}",
        colab=record["chapter"]
        and notebooks.colab(record["chapter"], notebooks.figure_cell(record["id"])),
        site=site,
    )


def provenance_rows(record: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """A provenance as label and values, in words; what is not known is left out."""
    model, machine = record["model"] or {}, record["machine"]
    git = record["git"] or {}
    state = "" if git.get("clean", True) else ", with local changes"
    rows = {
        "Model": [model.get("name")],
        "Model revision": [model.get("revision")],
        "Weights (SHA-256)": [f"{f}: {digest}" for f, digest in model.get("weights", {}).items()],
        "Sampler": [(model.get("scheduler") or {}).get("class")],
        "Corpus (SHA-256)": [(record["corpus"] or {}).get("sha256")],
        "Parameters": [f"{name} = {value}" for name, value in record["parameters"].items()],
        "Device and type": [" ".join(filter(None, (model.get("device"), model.get("dtype"))))],
        "Machine": [f"{machine['system']}, {machine['processor']}", machine.get("cpu_capability")],
        "Torch threads": [machine.get("threads")],
        "Deterministic algorithms": [_yes(machine.get("deterministic"))],
        "Versions": [f"{name} {version}" for name, version in record["versions"].items()],
        "Commit": [f"{git['commit']}{state}" if git else None],
        "Drawn": [record["created"]],
        "Seconds since the chapter began": [record["wall_seconds"]],
        "Peak memory": [record["peak_mb"] and f"{record['peak_mb']:,.0f} MiB"],
        "Image (SHA-256)": [record["image"]["sha256"]],
        "Data (SHA-256)": [record["data"]["sha256"]],
    }
    known = {
        label: [str(value) for value in values if value not in (None, "")]
        for label, values in rows.items()
    }
    return [(label, values) for label, values in known.items() if any(values)]


def figures_page(records: list[dict[str, Any]]) -> str:
    """The list of figures, with thumbnails."""
    return render("figures.md", figures=[_summary(record) for record in records])


def claims_page(records: list[dict[str, Any]], verdicts: dict[str, dict[str, Any]]) -> str:
    """Every claim with its rule, statistic, interval and verdict."""
    shown = [
        _claim(claim.id, verdicts)
        | {
            "figures": [r["id"] for r in records if r["claim"] and r["claim"]["id"] == claim.id],
            "chapter_title": _chapter_title(claim.chapter),
        }
        for claim in claims.load()
    ]
    counts = {word: 0 for word in claims.VERDICTS}
    for entry in shown:
        if entry["found"]:
            counts[entry["found"]["verdict"]] += 1
    return render("claims.md", claims=shown, counts=counts, rules=claims.load())


def report_page() -> str:
    """How each chapter ran: status, seconds, peak memory, device, versions."""
    report = execute.read_report()
    rows = [
        {
            "id": entry.id,
            "title": _chapter_title(entry.id),
            "status": "failed" if entry.status == "failed" else "executed",
            "error": (entry.error or {}).get("message", ""),
            "seconds": entry.seconds,
            "peak_mb": entry.peak_mb,
            "device": entry.parameters.get("device", ""),
            "parameters": entry.parameters,
            "threads": entry.threads,
            "versions": entry.versions,
            "figures": entry.figures,
        }
        for entry in report.chapters
    ]
    return render("report.md", rows=rows, seconds=sum(row["seconds"] for row in rows))


def _completed(record: dict[str, Any], verdicts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The provenance as published: its claim with the verdict."""
    if record["claim"]:
        verdict = verdicts.get(record["claim"]["id"], {}).get("verdict")
        record = record | {"claim": record["claim"] | {"verdict": verdict}}
    return record


def _bundle(record: dict[str, Any]) -> dict[str, str | bytes]:
    """A figure's folder in the site: page, image, data, provenance, citations."""
    source, place = figures.folder(record["id"]), f"_extra/fig/{record['id']}"
    cited = figures.cited(record)
    found: dict[str, str | bytes] = {
        f"{place}/index.html": figure_page(record),
        f"{place}/provenance.json": json.dumps(record, indent=2, ensure_ascii=False) + "\n",
    }
    for style in cite.FORMATS:
        found[f"{place}/citation.{cite.SUFFIXES[style]}"] = cite.write(cited, style) + "\n"
    for part in ("image", "data"):
        path = source / record[part]["file"]
        if not path.is_file() or sha256(path) != record[part]["sha256"]:
            raise EssayError(
                f"{path} is not the {part} that was drawn: draw it again with "
                f"`essay run {record['chapter']} --force`."
            )
        found[f"{place}/{path.name}"] = path.read_bytes()
    return found


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    return record | {
        "chapter_title": _chapter_title(record["chapter"]),
        "lock": lock.status(record["id"]).comparison.status,
    }


def _claim(id: str, verdicts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A claim and, where it has been computed, what was found."""
    return {"claim": claims.load()[id], "found": verdicts.get(id)}


def _preview(record: dict[str, Any]) -> dict[str, Any]:
    """The first rows of a figure's data, as text, numbers at six significant figures."""
    import pandas as pd

    path = figures.folder(record["id"]) / record["data"]["file"]
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    table = read(path).head(PREVIEW_ROWS)
    rows = [[_cell(value) for value in row] for row in table.astype(object).to_numpy()]
    return {"columns": list(table.columns), "rows": rows}


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _tolerance(found: Any) -> str:
    """A tolerance in words."""
    if found == "unlocked":
        return "measured anew each time, never compared"
    tolerance = Tolerance.parse(found, "number")
    if tolerance.value == 0:
        return "none: the same again"
    return tolerance.write() + (" of the value" if tolerance.kind == "relative" else "")


def _at_commit(record: dict[str, Any], repository: str) -> str:
    if not repository or not record["git"] or not record["chapter"]:
        return ""
    return f"{repository}/blob/{record['git']['commit']}/book/{record['chapter']}.md"


def _chapter_title(id: str | None) -> str:
    path = paths.book() / f"{id}.md"
    return cite.heading(path) if path.is_file() else ""


def _yes(flag: bool | None) -> str | None:
    return None if flag is None else ("yes" if flag else "no")
