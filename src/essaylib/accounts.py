"""Draw up the ledgers of credit once, keep them, and check that they come out again.

Differentiating the U-Net for every training drawing takes the better part of an hour, so a chapter
cannot do it. `essay credit` does, by what `data/runs/credit/ledgers.yml` declares:

    purpose: ...
    outputs: {run: copies, count: 100}   # the first images of a declared run
    seeds: 2                             # how often a ledger that draws noise is drawn up
    unet: {timestep: 250, draws: 2}
    gradient: {timesteps: [100, 400, 700], width: 10, damping: 0.1}
    until_frozen: {drawings: 1200}       # explores with some of the training drawings

What is kept are the scores (seeds x outputs x drawings, float16) and what they are the products of
on the outputs' side, so that a drawing's column can be computed anew from the drawing alone. Scores
in pixels take a second and are not kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from essaylib import claims, corpus, models, paths, provenance, runs, weights
from essaylib.errors import EssayError

if TYPE_CHECKING:
    from essaylib.corpus import Corpus
    from essaylib.runs import Run

NAME = "credit"
PLAN, KEPT, PROVENANCE = "ledgers.yml", "ledgers.safetensors", "provenance.json"
TOLERANCE = 0.02
"""Largest difference of a score drawn up again, in standard deviations of its ledger."""

_PART = 64
_KEYS = {"purpose", "outputs", "seeds", "unet", "gradient", "until_frozen"}
_CHANGES = {"drawings", "gradient", "unet"}


@dataclass(frozen=True)
class Plan:
    """What is declared: `outputs` are taken from `run`, `drawings` of the training set compared.

    `reading` holds the settings of `attribution.vectors`.
    """

    run: str
    outputs: int
    seeds: int
    reading: dict[str, Any]
    damping: float
    drawings: int | None
    document: dict[str, Any]


@dataclass(frozen=True)
class Accounts:
    """The ledgers: `scores` by name, float32 (seeds, outputs, drawings).

    `outputs` are the images that credit is given for, `training` the drawings that get it, in the
    scores' order. `asked` is the outputs' side of each product, by name.
    """

    plan: Plan
    outputs: Run
    training: Corpus
    scores: dict[str, np.ndarray]
    asked: dict[str, np.ndarray]
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
        document = yaml.safe_load(path.read_text())
        declared = dict(document)
        if unknown := set(declared) - _KEYS:
            raise EssayError(f"{path} has unknown keys {sorted(unknown)}.")
        less = declared.get("until_frozen", {})
        if not (claims.frozen() if final is None else final):
            if unknown := set(less) - _CHANGES:
                raise EssayError(f"{path}: `until_frozen` has unknown keys {sorted(unknown)}.")
            for part in ("unet", "gradient"):
                declared[part] = declared[part] | less.get(part, {})
            declared["drawings"] = less.get("drawings")
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
            declared.get("drawings"),
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
    training = _training(wanted)
    seeds = _seeds(wanted, model)
    folder, key = _folder(model), _key(wanted, outputs, model)
    if not force and _key_of(folder) == key:
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
    read = [_load(parts / f"{start:05d}.safetensors") for start in starts]
    credited = {name: np.concatenate([part[name] for part in read], 1) for name in read[0]}
    asked = _of_outputs(wanted, seeds, pipe, clip, outputs)
    _keep(wanted, outputs, asked, credited, seeds, folder, key, pipe)
    shutil.rmtree(parts)
    return load(model)


def load(model: str = "embedded") -> Accounts:
    """Load the ledgers; raise `EssayError` where they are missing, damaged or stale."""
    wanted = plan()
    outputs = _outputs(wanted, model)
    folder = _folder(model)
    command = f"essay {NAME}" + ("" if model == "embedded" else f" --model {model}")
    found = _key_of(folder)
    if found is None:
        raise EssayError(f"The ledgers have not been drawn up with {model}: `{command}`.")
    if found != _key(wanted, outputs, model):
        raise EssayError(
            "The ledgers are stale: weights, plan, corpus or the run of the outputs have changed "
            f"since they were drawn up. Draw them up again: `{command}`."
        )
    training = _training(wanted)
    try:
        kept = _load(folder / KEPT)
        scores = {name[7:]: x for name, x in kept.items() if name.startswith("scores.")}
        asked = {name[6:]: x for name, x in kept.items() if name.startswith("asked.")}
        fits = all(x.shape[1:] == (len(outputs), len(training)) for x in scores.values())
        if not scores or not fits:
            raise ValueError("scores do not fit outputs and drawings")
    except (OSError, ValueError) as error:
        raise EssayError(
            f"The ledgers are damaged ({error}): restore {folder}, or `{command} --force`."
        ) from error
    record = json.loads((folder / PROVENANCE).read_text())
    return Accounts(wanted, outputs, training, scores, asked, record)


def recheck(accounts: Accounts, pipe: Any, clip: Any, n: int = 8, seed: int = 0) -> Any:
    """Score `n` training drawings anew, chosen at random, for all outputs, and compare.

    Returns a table: ledger, and `difference`, the largest from a kept score, in standard deviations
    of the ledger's scores. Raises `EssayError` where one exceeds TOLERANCE (beyond the rounding of
    float16).
    """
    import pandas as pd

    count = len(accounts.training)
    rows = np.sort(np.random.default_rng(seed).choice(count, min(n, count), replace=False))
    drawings = accounts.training.take(rows)
    again = _scores(
        accounts.asked, _of_drawings(accounts.plan, accounts.seeds, pipe, clip, drawings)
    )
    found = []
    for name, kept in accounts.scores.items():
        spread = float(kept.std())
        off = np.abs(again[name] - kept[..., rows]) - np.abs(kept[..., rows]) * 2.0**-10
        found.append({"ledger": name, "difference": max(0.0, float(off.max())) / spread})
    table = pd.DataFrame(found)
    if (table.difference > TOLERANCE).any():
        worst = table.loc[table.difference.idxmax()]
        raise EssayError(
            f"The ledger {worst.ledger!r} does not come out again: a score is off by "
            f"{worst.difference:.3g} of its standard deviation. Draw it up again: "
            f"`essay {NAME} --force`."
        )
    return table


def _of_drawings(
    wanted: Plan, seeds: list[int], pipe: Any, clip: Any, drawings: Corpus
) -> dict[str, np.ndarray]:
    from essaylib import attribution, features

    images = drawings.rgb()
    latents = features.latents(pipe.vae, images)
    captions = list(map(corpus.caption, drawings.table.concept, drawings.table.vendor))
    read = attribution.vectors(pipe, clip, images, latents, captions, seeds, **wanted.reading)
    del read["pixels"]
    return read


def _of_outputs(
    wanted: Plan, seeds: list[int], pipe: Any, clip: Any, outputs: Run
) -> dict[str, np.ndarray]:
    from essaylib import attribution

    read = []
    for rows, images in outputs.batches(pipe, _PART):
        prompts = list(outputs.table.prompt[rows])
        latents = outputs.latents[rows].float()
        read.append(
            attribution.vectors(pipe, clip, images, latents, prompts, seeds, **wanted.reading)
        )
    return {name: np.concatenate([part[name] for part in read], 1) for name in read[0]}


def _scores(
    asked: Mapping[str, np.ndarray], credited: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Scores from `asked`, in which the gradient's directions have been solved for already."""
    from essaylib import attribution

    return {
        name: np.stack(
            [
                (attribution.pull if name == "gradient" else attribution.distances)(a, b)
                for a, b in zip(asked[name], credited[name], strict=True)
            ]
        )
        for name in credited
    }


def _keep(
    wanted: Plan,
    outputs: Run,
    asked: dict[str, np.ndarray],
    credited: dict[str, np.ndarray],
    seeds: list[int],
    folder: Path,
    key: str,
    pipe: Any,
) -> None:
    """Keep scores and the outputs' side; the key is written last, so that a cut leaves nothing."""
    from essaylib import attribution

    def rounded(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float16).astype(np.float32)

    asked = {name: rounded(asked[name]) for name in credited}
    pulls = []
    for own, drawn in zip(asked["gradient"], credited["gradient"], strict=True):
        along = attribution.directions(own, drawn, wanted.damping)
        # Credit has no unit: each output's largest is one.
        pulls.append(along / np.abs(attribution.pull(along, drawn)).max(1, keepdims=True))
    asked["gradient"] = np.stack(pulls).astype(np.float32)
    kept = {f"scores.{name}": x.astype(np.float16) for name, x in _scores(asked, credited).items()}
    kept |= {f"asked.{n}": x if n == "gradient" else x.astype(np.float16) for n, x in asked.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROVENANCE).unlink(missing_ok=True)
    _save(folder / KEPT, kept)
    described = provenance.provenance(pipe, plan=wanted.document)
    described |= {
        "key": key,
        "seeds": seeds,
        "run": outputs.provenance["key"],
        "ledgers_sha256": provenance.sha256(folder / KEPT),
    }
    (folder / PROVENANCE).write_text(json.dumps(described, indent=1) + "\n")


def _outputs(wanted: Plan, model: str) -> Run:
    run = runs.load(wanted.run, model)
    if len(run) < wanted.outputs:
        raise EssayError(f"The run {wanted.run!r} has {len(run)} images of {wanted.outputs}.")
    table = run.table.iloc[: wanted.outputs].reset_index(drop=True)
    return runs.Run(run.plan, table, run.latents[: wanted.outputs], run.provenance)


def _training(wanted: Plan) -> Corpus:
    drawings = corpus.load().where(split="train")
    if wanted.drawings is None:
        return drawings
    order = np.random.default_rng(0).permutation(len(drawings))
    return drawings.take(np.sort(order[: wanted.drawings]))


def _seeds(wanted: Plan, model: str) -> list[int]:
    return claims.seeds(wanted.seeds) if model == "embedded" else list(range(wanted.seeds))


def _folder(model: str) -> Path:
    """The embedded model's ledgers lie beside their plan; another model's in `_build/runs`."""
    if model == "embedded":
        return paths.runs() / NAME
    return paths.build() / "runs" / f"{NAME}@{Path(model).name}"


def _key(wanted: Plan, outputs: Run, model: str) -> str:
    """Digest of all that the ledgers depend on; the run's own key covers weights and corpus."""
    clip = weights.component_files(paths.models() / "emoji-ldm" / "clip")
    document = {
        "plan": [wanted.document, wanted.drawings, wanted.reading],
        "run": outputs.provenance["key"],
        "clip": {path.name: provenance.sha256(path) for path in clip},
        "seeds": _seeds(wanted, model),
    }
    return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _key_of(folder: Path) -> str | None:
    path = folder / PROVENANCE
    try:
        return json.loads(path.read_text()).get("key") if path.is_file() else None
    except ValueError:
        return None


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    unfinished = path.with_suffix(".part")
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, unfinished)
    unfinished.replace(path)


def _load(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return {name: x.astype(np.float32) for name, x in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
