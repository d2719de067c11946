"""What the judge said of a declared run, kept beside it and checked on the way in.

Decoding thousands of latents takes minutes, so a run is judged once, when it is drawn
(`essay sample`), and its sharpness measured while its images are in hand. A chapter that asks for
the answers has some of the images decoded and judged again, chosen at random, and an error where
they differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib import paths, store
from essaylib.errors import EssayError
from essaylib.judge import Judge
from essaylib.measures.sharpness import laplacian_energy
from essaylib.provenance import sha256

if TYPE_CHECKING:
    from essaylib.runs import Run

FILE = "judgements.npz"
AGREE = 0.97
"""Share of the answers that must come out again: one on a threshold may fall either way."""
NAMES = ("concept", "vendor", "best_concept", "best_vendor", "confidence", "features", "sharpness")


def keep(run: Run, pipe: Any, judge: Judge | None = None) -> Path:
    """Judge every image of a run and keep the answers beside it; return the file."""
    judge = judge or Judge.load()
    found = [_answers(judge, images) for _, images in run.batches(pipe)]
    joined = {name: np.concatenate([part[name] for part in found]) for name in NAMES}
    path = _path(run)
    store.save_arrays(path, key=_key(run), **joined)
    return path


def current(run: Run) -> bool:
    """Whether answers are kept that belong to the run and the judge as they are now."""
    try:
        return bool(_kept(run))
    except EssayError:
        return False


def load(run: Run, pipe: Any, check: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the judge's answers, one row an image of the run.

    concept, vendor (-1 where unsure), best_concept, best_vendor, confidence (the concept's
    probability), features (n, 512), sharpness (the Laplacian's energy). `check` images are judged
    again first. Raises `EssayError` where the answers are missing or damaged, belong to other
    weights, or do not come out again.
    """
    kept = _kept(run)
    rows = np.random.default_rng(seed).choice(len(run), min(check, len(run)), replace=False)
    again = _answers(Judge.load(), _decode(run, pipe, rows))
    for name in ("best_concept", "best_vendor", "sharpness"):
        same = float(np.mean(np.isclose(again[name], kept[name][rows], rtol=0.02)))
        if same < AGREE:
            raise EssayError(
                f"Of {len(rows)} images judged again, {same:.0%} get the {name} that was kept with "
                f"the run {run.plan.name!r}: {_cure(run)}"
            )
    return kept


def _kept(run: Run) -> dict[str, np.ndarray]:
    path, cure = _path(run), _cure(run)
    if not path.is_file():
        raise EssayError(f"The run {run.plan.name!r} has not been judged: {cure}")
    stored = store.load_arrays(path, cure)
    if str(stored.get("key")) != _key(run):
        raise EssayError(f"The judge or the run {run.plan.name!r} has changed: {cure}")
    if missing := set(NAMES) - set(stored):
        raise EssayError(f"{path} is damaged ({', '.join(sorted(missing))} missing): {cure}")
    return {name: stored[name] for name in NAMES}


def _cure(run: Run) -> str:
    return f"`essay sample {run.plan.name}` judges it again."


def _answers(judge: Judge, images: np.ndarray) -> dict[str, np.ndarray]:
    found = judge(images)
    return {
        "concept": found.concept.astype(np.int16),
        "vendor": found.vendor.astype(np.int8),
        "best_concept": found.best_concept.astype(np.int16),
        "best_vendor": found.best_vendor.astype(np.int8),
        "confidence": found.concept_probs.max(1).astype(np.float16),
        "features": found.features.astype(np.float16),
        "sharpness": laplacian_energy(images).astype(np.float32),
    }


def _decode(run: Run, pipe: Any, rows: np.ndarray) -> np.ndarray:
    from essaylib import repro

    return repro.decode(pipe, run.latents[rows].float())


def _path(run: Run) -> Path:
    return paths.runs() / run.plan.name / FILE


def _key(run: Run) -> str:
    """The run's own key and the judge's weights and settings."""
    judge = paths.models() / "judge"
    parts = [sha256(judge / name) for name in ("judge.safetensors", "judge.json")]
    return json.dumps([run.provenance["key"], *parts])
