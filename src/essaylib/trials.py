"""The book's primary statistics on several models, at equal units, computed once and kept.

`data/runs/survival/trials.yml` declares how much of each run every model draws. `essay sample
survival` draws it (resumable), measures every statistic and keeps both: latents in
`<column>.safetensors`, the cells of the matrix in `<column>.json`, keyed by the weights. The
embedded model draws nothing: its images are those of the declared runs, of which it takes the same
part. A chapter draws some of the images again, measures a cell or two again, and gets an error
where they differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from essaylib import cells, claims, columns, paths, plans, provenance, runs, store
from essaylib.errors import EssayError

if TYPE_CHECKING:
    import pandas as pd

    from essaylib.cells import Bench, Cell
    from essaylib.columns import Column
    from essaylib.runs import Run

NAME = "survival"
PLAN = "trials.yml"
_PARTS = {"runs", "ledger", "composites", "loss", "rounds", "credit"}
_BATCH = 12

FOREIGN = ("sd15", "sd-turbo", "sdxl")
"""Models that the matrix has a column for and that this book's machine cannot run."""

AGREE = 0.05
"""Share of a cell's interval by which it may differ when it is measured again."""


@dataclass(frozen=True)
class Share:
    """What part of a declared run is drawn: its first prompts, their first seeds, some settings."""

    prompts: int
    seeds: int
    settings: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """What is declared. `runs` is by run; the others count units (see trials.yml)."""

    runs: dict[str, Share]
    ledger: int
    composites: int
    loss: int
    rounds: int
    credit: dict[str, Any]


def plan(final: bool | None = None) -> Plan:
    """Read what is declared; by default, whether the embedded model is frozen decides how much.

    Raises `EssayError` that names the key at fault.
    """
    path = paths.runs() / NAME / PLAN
    if not path.is_file():
        raise EssayError(f"No trials are declared: {path} is missing; restore that file.")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        declared = {key: value for key, value in document.items() if key in _PARTS}
        less = document.get("until_frozen", {})
        if unknown := (set(document) - _PARTS - {"purpose", "until_frozen"}) | (set(less) - _PARTS):
            raise EssayError(f"{path} has unknown keys {sorted(unknown)}.")
        if not (claims.frozen() if final is None else final):
            shares = {
                name: share | less.get("runs", {}).get(name, {})
                for name, share in declared["runs"].items()
            }
            declared = declared | less | {"runs": shares}
        shares = {name: _share(entry) for name, entry in declared.pop("runs").items()}
        return Plan(shares, **declared)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise EssayError(f"{path} does not declare trials ({error!r}).") from error


def sample(id: str, device: str = "auto", force: bool = False, progress: bool = True) -> list[Cell]:
    """Draw a column's images, measure every statistic on it, and keep both.

    Goes on where an interrupted sampling stopped. Nothing is done where weights, plan, runs and
    corpus are still the same, unless `force`. Raises `EssayError` where the weights are not here,
    and for the embedded model where a declared run is missing or stale.
    """
    column = columns.find(id)
    path = _folder(column) / f"{id}.json"
    key = _cells_key(plan(), column)
    if not force and _read(path).get("key") == key:
        return load(id)
    parts = _parts(column, key)
    if force:
        shutil.rmtree(parts, ignore_errors=True)
    draw(id, device, force, progress)
    on = bench(id, device)
    found: list[Cell] = []
    for claim in _measured(column):
        kept = parts / f"{claim}.json"
        if not kept.is_file():
            store.write_json(kept, [asdict(cell) for cell in cells.measure(on, claim)])
        found += [cells.Cell(**entry) for entry in json.loads(kept.read_text(encoding="utf-8"))]
    store.write_json(
        path, {"key": key, "cells": [asdict(cell) for cell in found], **_described(on)}
    )
    shutil.rmtree(parts)
    return found


def draw(
    id: str, device: str = "auto", force: bool = False, progress: bool = True
) -> dict[str, Run]:
    """Draw what the plan asks of a column, or go on where an interrupted drawing stopped.

    Returns the runs by name. The embedded model draws nothing: its declared runs must be there.
    """
    wanted, column = plan(), columns.find(id)
    if id == columns.FINAL:
        return drawn(id)
    path, key = _folder(column) / f"{id}.safetensors", _key(wanted, column)
    if not force and _key_of(path) == key:
        return drawn(id)
    parts = _parts(column, key)
    pipe = columns.load(id, device).pipe
    latents = {
        name: _draw_run(wanted, name, pipe, parts, progress) for name in _asked(wanted, column)
    }
    _save(path, latents, {"key": key})
    shutil.rmtree(parts)
    return drawn(id)


def drawn(id: str) -> dict[str, Run]:
    """What a column has drawn, by run; raise `EssayError` where it is missing, stale or damaged."""
    wanted, column = plan(), columns.find(id)
    return _own(wanted) if id == columns.FINAL else _kept(wanted, column)


def bench(id: str, device: str = "auto") -> Bench:
    """Put a column's model on the bench, with the images that it has drawn."""
    return cells.Bench(columns.load(id, device), drawn(id), plan())


def load(id: str) -> list[Cell]:
    """The kept cells of a column; raise `EssayError` where they are missing or stale.

    Only those that were measured on this model: `matrix` fills in the rest.
    """
    column = columns.find(id)
    path = _folder(column) / f"{id}.json"
    kept = _read(path)
    _check(path, kept.get("key"), _cells_key(plan(), column), column)
    return [cells.Cell(**entry) for entry in kept["cells"]]


def agree(kept: list[Cell], again: list[Cell]) -> float:
    """Return by how much of its interval a cell measured again differs, at most.

    Raises `EssayError` where one differs by more than a twentieth of its interval's width, or in
    what can be computed at all.
    """
    known = {(cell.claim, cell.statistic): cell for cell in kept}
    worst = 0.0
    for cell in again:
        was = known[cell.claim, cell.statistic]
        if was.state != cell.state:
            raise EssayError(f"{cell.claim}, {cell.statistic}: {was.state}, now {cell.state}.")
        if cell.state != cells.MEASURED:
            continue
        wide = max(was.high - was.low, 1e-9)
        off = max(abs(getattr(cell, k) - getattr(was, k)) for k in ("estimate", "low", "high"))
        worst = max(worst, off / wide)
    if worst > AGREE:
        raise EssayError(
            f"A cell comes out otherwise, by {worst:.0%} of its interval: measure all again with "
            f"`essay sample {NAME} --force`."
        )
    return worst


def matrix(ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the matrix, one row a column and statistic: all columns of the book, or `ids`.

    Columns: column, title, claim, statistic, state, note, control, n, delta, estimate, low, high,
    and `effect`, `effect_low`, `effect_high`, the same in units of the statistic's delta. Where a
    model shares the parts that a statistic rests on with the embedded one, the embedded one's
    numbers stand in its row. A foreign model that nobody has run, and a column without weights,
    have the numbers NaN and say so.
    """
    import pandas as pd

    book = claims.load()
    final = {(cell.claim, cell.statistic): cell for cell in load(columns.FINAL)}
    wanted = [c.id for c in columns.all()] + list(FOREIGN) if ids is None else ids
    rows = []
    for column in map(columns.find, wanted):
        own = _cells_of(column)
        for claim in cells.TRIALS:
            for part in book[claim].primary:
                cell = own.get((claim, part.id)) or _unmeasured(column, final[claim, part.id])
                rows.append(_row(column, cell, part.delta))
    return pd.DataFrame(rows)


def _cells_of(column: Column) -> dict[tuple[str, str], Cell]:
    """The cells that were measured on a column, none where it is not trained or not run."""
    if not column.here or (
        column.foreign and not (_folder(column) / f"{column.id}.json").is_file()
    ):
        return {}
    return {(cell.claim, cell.statistic): cell for cell in load(column.id)}


def _unmeasured(column: Column, final: Cell) -> Cell:
    """What stands where a column has no cell of its own."""
    if column.foreign:
        note = f"`{_command(column)}`"
        return cells.Cell(final.claim, final.statistic, cells.ELSEWHERE, note)
    if not column.here:
        note = f"There is no models/{column.folder}."
        return cells.Cell(final.claim, final.statistic, cells.UNTRAINED, note)
    if not cells.shared(column, final.claim):
        raise EssayError(
            f"The trials of {column.id!r} lack {final.claim}: `{_command(column)} --force`."
        )
    if final.state != cells.MEASURED:
        return final
    note = f"It rests on parts that this model has in common with {columns.FINAL}."
    return replace(final, state=cells.SAME, note=note)


def _row(column: Column, cell: Cell, delta: float) -> dict[str, Any]:
    of_model = {"column": column.id, "title": column.title, "delta": delta}
    numbers = {
        name: np.nan if getattr(cell, name) is None else getattr(cell, name)
        for name in ("estimate", "low", "high")
    }
    estimate, low, high = (value / delta for value in numbers.values())
    effect = {"effect": estimate, "effect_low": low, "effect_high": high}
    return of_model | asdict(cell) | numbers | effect


def _measured(column: Column) -> list[str]:
    """The claims that are measured on a column: those that rest on a part in which it differs."""
    every = list(cells.TRIALS)
    if column.foreign or column.id == columns.FINAL:
        return every
    return [claim for claim in every if not cells.shared(column, claim)]


def _described(on: Bench) -> dict[str, Any]:
    found = provenance.provenance(on.pipe, plan=asdict(on.plan))
    return found | {"column": asdict(on.model.column), "first_seed": on.first}


def _share(entry: Mapping[str, Any]) -> Share:
    settings = entry.get("settings")
    return Share(
        int(entry["prompts"]), int(entry["seeds"]), settings and tuple(str(s) for s in settings)
    )


def _asked(wanted: Plan, column: Column) -> list[str]:
    """The runs that a column draws: a foreign model only those that need no word of the judge."""
    return ["prompt-seed", "attention"] if column.foreign else list(wanted.runs)


def _draw_run(wanted: Plan, name: str, pipe: Any, parts: Path, progress: bool) -> Any:
    """Draw one run's share, or go on with it: latents float16 (n, ...)."""
    source = plans.load(name)
    table = _table(source, wanted.runs[name])
    return runs.draw_parts(source, table, pipe, parts / name, _BATCH, progress)


def _table(source: plans.Plan, share: Share) -> pd.DataFrame:
    """The table of a run's share, drawn with the first seed that is allowed now."""
    table = source.table(claims.seeds(1)[0])
    return table.iloc[_rows(source, table, share)].reset_index(drop=True)


def _rows(source: plans.Plan, table: pd.DataFrame, share: Share) -> np.ndarray:
    """Which rows of a run's table belong to the share, in the table's order."""
    prompts = table.concept.fillna(table.prompt)
    first = set(prompts.drop_duplicates().iloc[: share.prompts])
    seeds = table.seed - claims.seeds(1)[0]
    kept = prompts.isin(first) & (seeds % source.seeds < share.seeds)
    if share.settings is not None:
        kept &= table.setting.isin([source.setting(name).name for name in share.settings])
    if prompts.nunique() < share.prompts or source.seeds < share.seeds:
        raise EssayError(
            f"{PLAN} asks for {share.prompts} prompts and {share.seeds} seeds of the run "
            f"{source.name!r}, which has fewer: lower them."
        )
    return np.flatnonzero(kept)


def _own(wanted: Plan) -> dict[str, Run]:
    """The embedded model's part of the declared runs, as they were drawn for their chapters."""
    found = {}
    for name, share in wanted.runs.items():
        run = runs.load(name)
        kept = run.take(_rows(run.plan, run.table, share))
        found[name] = replace(kept, plan=replace(run.plan, seeds=share.seeds))
    return found


def _kept(wanted: Plan, column: Column) -> dict[str, Run]:
    """What another column than the embedded model's has drawn."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _folder(column) / f"{column.id}.safetensors"
    _check(path, _key_of(path), _key(wanted, column), column)
    try:
        latents = load_file(path)
    except (SafetensorError, OSError) as error:
        raise EssayError(
            f"{path} is damaged ({error}): restore it, or `{_command(column)} --force`."
        ) from error
    found = {}
    for name in _asked(wanted, column):
        source, share = plans.load(name), wanted.runs[name]
        table = _table(source, share)
        if len(table) != len(latents.get(name, ())):
            raise EssayError(
                f"{path} has not the images of {name!r}: `{_command(column)} --force`."
            )
        # Errors of `runs` name the command that draws the images, which is this module's.
        less = replace(source, name=NAME, seeds=share.seeds)
        found[name] = runs.Run(less, table, latents[name], {"key": _key(wanted, column)})
    return found


def _key(wanted: Plan, column: Column) -> str:
    """Digest of all that a column's images depend on: plans, weights, corpus and first seed."""
    document = {
        "runs": {name: asdict(share) for name, share in wanted.runs.items()},
        "plans": {name: plans.load(name).document for name in wanted.runs},
        "column": [column.id, column.parts],
        "weights": columns.files(column),
        "corpus": provenance.corpus(),
        "first_seed": claims.seeds(1)[0],
    }
    return store.key(document)


def _cells_key(wanted: Plan, column: Column) -> str:
    """Digest of all that a column's cells depend on, beside the code."""
    judge = {} if column.foreign else columns.judge()
    return store.key({"images": _key(wanted, column), "plan": asdict(wanted), "judge": judge})


def _key_of(path: Path) -> str | None:
    """The key under which latents were kept; None where there are none or they are damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("key")
    except (SafetensorError, OSError):
        return None


def _check(path: Path, found: str | None, key: str, column: Column) -> None:
    if found is None:
        raise EssayError(f"The trials of {column.id!r} are not in {path}: `{_command(column)}`.")
    if found != key:
        raise EssayError(
            f"The trials of {column.id!r} are stale: weights, plan, runs or corpus have changed "
            f"since. Draw and measure them again: `{_command(column)}`."
        )


def _command(column: Column) -> str:
    return f"essay sample {NAME} --model {column.id}"


def _folder(column: Column) -> Path:
    """The book's columns lie beside the plan; another model's in `_build/runs`."""
    return paths.build() / "runs" / NAME if column.foreign else paths.runs() / NAME


def _parts(column: Column, key: str) -> Path:
    """Where an interrupted sampling leaves what it has."""
    parts = paths.build() / "runs" / f"{NAME}-{column.id}-{key[:12]}"
    parts.mkdir(parents=True, exist_ok=True)
    return parts


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}


def _save(path: Path, latents: Mapping[str, Any], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    store.write_whole(path, lambda part: save_file(dict(latents), part, metadata))
