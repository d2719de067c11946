"""Draw up the ledgers of credit once, keep them, and check that they come out again.

Differentiating the U-Net for every training drawing takes hours, so a chapter cannot do it.
`essay sample credit` does, by what `data/runs/credit/ledgers.yml` declares:

    purpose: ...
    outputs: {run: copies, count: 100}   # the first images of a declared run
    seeds: 2                             # how often a ledger that draws noise is drawn up
    unet: {timestep: 250, draws: 2}
    gradient: {timesteps: [100, 400, 700], width: 10, damping: 0.1}
    until_frozen: {gradient: {timesteps: [400]}}   # what is spared as long as weights may change

Ledgers are compared on the drawings that they credit most, so for each output the scores are kept
of the drawings that any ledger has among its first hundred (float16). For a few outputs, the
*witnesses*, the directions are kept too along which gradients are credited: they rest on all
drawings at once, and with them an entry can be computed anew from two pictures.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from essaylib import (
    attribution,
    claims,
    corpus,
    features,
    models,
    paths,
    provenance,
    runs,
    store,
    weights,
)
from essaylib.errors import EssayError
from essaylib.measures import agreement

if TYPE_CHECKING:
    from essaylib.corpus import Corpus
    from essaylib.runs import Run

NAME = "credit"
COMMAND = f"essay sample {NAME}"
PLAN, KEPT = "ledgers.yml", "ledgers.safetensors"
WITNESSES = 4
TOLERANCE = 0.02
"""Largest difference of a score drawn up again, in standard deviations of its ledger."""

_PART = 64
_KEYS = {"purpose", "outputs", "seeds", "unet", "gradient", "until_frozen"}
_CHANGES = {"unet", "gradient"}


@dataclass(frozen=True)
class Plan:
    """What is declared: the first `outputs` of `run` are credited to the training drawings.

    `reading` holds the settings of `attribution.vectors`.
    """

    run: str
    outputs: int
    seeds: int
    reading: dict[str, Any]
    damping: float
    document: dict[str, Any]


@dataclass(frozen=True)
class Accounts:
    """The ledgers: `scores` by name, float32 (seeds, outputs, drawings).

    `outputs` are the images that credit is given for, `training` the drawings that get it, in the
    scores' order. `kept`, bool (outputs, drawings), says which entries are the ledger's own; all
    others belong to drawings that no ledger has among its first hundred, and hold the lowest score.
    `directions` (seeds, witnesses, D) are those of the first outputs' gradients.
    """

    plan: Plan
    outputs: Run
    training: Corpus
    scores: dict[str, np.ndarray]
    kept: np.ndarray
    directions: np.ndarray
    provenance: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        return self.provenance["seeds"]

    @property
    def first_seed(self) -> int:
        """The lowest seed that anything was drawn with, as `claims.record` asks for it."""
        return min(self.outputs.first_seed, *self.seeds)


def plan(final: bool | None = None) -> Plan:
    """Read what is declared; by default, whether the embedded model is frozen decides how much."""
    path = paths.runs() / NAME / PLAN
    if not path.is_file():
        raise EssayError(f"No ledgers are declared: {path} is missing; restore that file.")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        declared = dict(document)
        if unknown := set(declared) - _KEYS:
            raise EssayError(f"{path} has unknown keys {sorted(unknown)}.")
        less = declared.get("until_frozen", {})
        if not (claims.frozen() if final is None else final):
            if unknown := set(less) - _CHANGES:
                raise EssayError(f"{path}: `until_frozen` has unknown keys {sorted(unknown)}.")
            for part in _CHANGES:
                declared[part] = declared[part] | less.get(part, {})
        unet, gradient = declared["unet"], declared["gradient"]
        return Plan(
            str(declared["outputs"]["run"]),
            int(declared["outputs"]["count"]),
            int(declared["seeds"]),
            {
                "timestep": int(unet["timestep"]),
                "draws": int(unet["draws"]),
                "timesteps": [int(t) for t in gradient["timesteps"]],
                "width": int(gradient["width"]),
            },
            float(gradient["damping"]),
            document,
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise EssayError(f"{path} does not declare ledgers ({error!r}).") from error


def draw(
    model: str = "embedded", device: str = "auto", force: bool = False, progress: bool = True
) -> Accounts:
    """Draw the ledgers up, or go on where an interrupted drawing stopped.

    Nothing is done where they are there and weights, plan, corpus and the run of the outputs are
    still the same, unless `force`. Raises `EssayError` as `runs.load` does.
    """
    from tqdm.auto import tqdm

    wanted = plan()
    outputs = _outputs(wanted, model)
    training = _training()
    seeds = _seeds(wanted, model)
    folder, key = runs.folder_of(NAME, model), _key(wanted, outputs, model)
    if not force and runs.key_of(folder) == key:
        return load(model)
    parts = paths.build() / "runs" / f"{folder.name}-{key[:12]}"
    parts.mkdir(parents=True, exist_ok=True)
    pipe = models.load(model, device)
    clip, _ = models.load_clip()
    starts = range(0, len(training), _PART)
    with tqdm(total=len(training), unit="drawing", desc=NAME, disable=not progress) as bar:
        for start in starts:
            rows = range(start, min(start + _PART, len(training)))
            path = parts / f"{start:05d}.safetensors"
            if not path.is_file():
                _save(path, _of_drawings(wanted, seeds, pipe, clip, training.take(rows)))
            bar.update(len(rows))
    credited = attribution.joined(_load(parts / f"{start:05d}.safetensors") for start in starts)
    asked = _of_outputs(wanted, seeds, pipe, clip, outputs)
    asked["gradient"] = _directions(asked["gradient"], credited["gradient"], wanted.damping)
    _keep(attribution.scores(asked, credited), asked["gradient"], folder)
    described = provenance.provenance(pipe, plan=wanted.document) | {
        "key": key,
        "seeds": seeds,
        "run": outputs.provenance["key"],
        "ledgers_sha256": provenance.sha256(folder / KEPT),
    }
    store.write_json(folder / runs.PROVENANCE, described)
    shutil.rmtree(parts)
    return load(model)


def load(model: str = "embedded") -> Accounts:
    """Load the ledgers; raise `EssayError` where they are missing, damaged or stale."""
    wanted = plan()
    outputs = _outputs(wanted, model)
    folder = runs.folder_of(NAME, model)
    command = COMMAND + ("" if model == "embedded" else f" --model {model}")
    found = runs.key_of(folder)
    if found is None:
        raise EssayError(f"The ledgers have not been drawn up with {model}: `{command}`.")
    if found != _key(wanted, outputs, model):
        raise EssayError(
            "The ledgers are stale: weights, plan, corpus or the run of the outputs have changed "
            f"since they were drawn up. Draw them up again: `{command}`."
        )
    training = _training()
    try:
        stored = _load(folder / KEPT)
        bits = stored["kept"].astype(np.uint8)
        kept = np.unpackbits(bits, axis=1, count=len(training)).astype(bool)
        scores = {n: _spread(stored[f"scores.{n}"], kept) for n in attribution.LEDGERS}
        if len(kept) != len(outputs):
            raise ValueError("scores do not fit the outputs")
    except (OSError, KeyError, ValueError) as error:
        raise EssayError(
            f"The ledgers are damaged ({error}): restore {folder}, or `{command} --force`."
        ) from error
    record = json.loads((folder / runs.PROVENANCE).read_text(encoding="utf-8"))
    return Accounts(wanted, outputs, training, scores, kept, stored["directions"], record)


def recheck(accounts: Accounts, pipe: Any, clip: Any, n: int = 8, seed: int = 0) -> Any:
    """Score `n` drawings anew, chosen at random among those kept, for the witnesses, and compare.

    Returns a table: ledger, `entries` computed anew, and `difference`, the largest from a kept
    score, in standard deviations of the ledger's scores. Raises `EssayError` where one exceeds
    TOLERANCE (beyond the rounding of float16).
    """
    import pandas as pd

    few = range(accounts.directions.shape[1])
    known = np.flatnonzero(accounts.kept[few].any(0))
    rows = np.sort(np.random.default_rng(seed).choice(known, min(n, len(known)), replace=False))
    asked = _of_outputs(
        accounts.plan, accounts.seeds, pipe, clip, accounts.outputs.take(few), attribution.NEARNESS
    )
    asked["gradient"] = accounts.directions
    drawings = accounts.training.take(rows)
    credited = _of_drawings(accounts.plan, accounts.seeds, pipe, clip, drawings)
    again = attribution.scores(asked, credited)
    here = accounts.kept[few][:, rows]
    found = []
    for name, scores in accounts.scores.items():
        kept, new = scores[:, few][..., rows][:, here], again[name][:, here]
        off = np.maximum(np.abs(new - kept) - np.abs(kept) * 2.0**-10, 0)
        spread = scores[:, accounts.kept].std()
        found.append({"ledger": name, "entries": off.size, "difference": off.max() / spread})
    table = pd.DataFrame(found)
    if (table.difference > TOLERANCE).any():
        worst = table.loc[table.difference.idxmax()]
        raise EssayError(
            f"The ledger {worst.ledger!r} does not come out again: a score is off by "
            f"{worst.difference:.3g} of its standard deviation. Draw it up again: "
            f"`{COMMAND} --force`."
        )
    return table


def _of_drawings(
    wanted: Plan, seeds: list[int], pipe: Any, clip: Any, drawings: Corpus
) -> dict[str, np.ndarray]:
    latents = features.corpus_latents(pipe.vae, drawings)
    captions = list(map(corpus.caption, drawings.table.concept, drawings.table.vendor))
    images = drawings.rgb()
    return attribution.vectors(pipe, clip, images, latents, captions, seeds, **wanted.reading)


def _of_outputs(
    wanted: Plan,
    seeds: list[int],
    pipe: Any,
    clip: Any,
    outputs: Run,
    ledgers: Sequence[str] = attribution.LEDGERS,
) -> dict[str, np.ndarray]:
    return attribution.joined(
        attribution.vectors(
            pipe,
            clip,
            images,
            outputs.latents[rows].float(),
            list(outputs.table.prompt[rows]),
            seeds,
            ledgers=ledgers,
            **wanted.reading,
        )
        for rows, images in outputs.batches(pipe, _PART)
    )


def _directions(outputs: np.ndarray, training: np.ndarray, damping: float) -> np.ndarray:
    """Directions (seeds, outputs, D) of credit. It has no unit: each output's largest is one."""
    found = []
    for asked, credited in zip(outputs, training, strict=True):
        along = attribution.directions(asked, credited, damping)
        found.append(along / np.abs(attribution.pull(along, credited)).max(1, keepdims=True))
    return np.stack(found)


def _keep(scores: Mapping[str, np.ndarray], directions: np.ndarray, folder: Path) -> None:
    """Keep the scores of drawings that any ledger has among its first, and the witnesses."""
    halves = {name: values.astype(np.float16) for name, values in scores.items()}
    kept = np.zeros(next(iter(scores.values())).shape[1:], dtype=bool)
    for ledger in halves.values():
        for drawn_up in ledger:
            np.put_along_axis(kept, agreement.most(drawn_up.astype(np.float32)), True, axis=1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / runs.PROVENANCE).unlink(missing_ok=True)  # without its key, a cut leaves no ledgers
    _save(
        folder / KEPT,
        {f"scores.{name}": values[:, kept] for name, values in halves.items()}
        | {
            "kept": np.packbits(kept, axis=1),
            "directions": directions[:, :WITNESSES].astype(np.float32),
        },
    )


def _spread(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Scores (seeds, k) at their places: (seeds, outputs, drawings), the lowest everywhere else."""
    found = np.full((len(values), *kept.shape), values.min(), dtype=np.float32)
    found[:, kept] = values
    return found


def _outputs(wanted: Plan, model: str) -> Run:
    run = runs.load(wanted.run, model)
    if len(run) < wanted.outputs:
        raise EssayError(
            f"The run {wanted.run!r} has {len(run)} images and {wanted.outputs} are declared: "
            f"lower `outputs` in {paths.runs() / NAME / PLAN}."
        )
    return run.take(range(wanted.outputs))


def _training() -> Corpus:
    return corpus.load().where(split="train")


def _seeds(wanted: Plan, model: str) -> list[int]:
    return claims.seeds(wanted.seeds) if model == "embedded" else list(range(wanted.seeds))


def _key(wanted: Plan, outputs: Run, model: str) -> str:
    """Digest of all that the ledgers depend on; the run's own key covers weights and corpus."""
    clip = weights.component_files(paths.models() / "emoji-ldm" / "clip")
    document = {
        "plan": [wanted.document, wanted.reading],
        "run": outputs.provenance["key"],
        "clip": {path.name: provenance.sha256(path) for path in clip},
        "seeds": _seeds(wanted, model),
    }
    return store.key(document)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    store.write_whole(path, lambda part: save_file(whole, part))


def _load(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: x.astype(np.float32) for name, x in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
