"""Pictures handed back to the autoencoder again and again, and how far they move.

Sixty-four pictures for twenty rounds take a minute, so their distances are kept beside the run
`delivery`, where `essay sample delivery` puts them. A chapter takes a few of the pictures round
again and gets an error where they move otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib import corpus, interventions, paths, repro, store
from essaylib.errors import EssayError
from essaylib.measures import drift

if TYPE_CHECKING:
    from essaylib.runs import Run

PLAN, SOURCE, SETTING = "delivery", "guidance", "4"
FILE = "rounds.npz"
CURE = f"`essay sample {PLAN}` takes the pictures round again."
ROUNDS = 20
PICTURES = 64
TOLERANCE = 0.05
"""Share of a picture's largest distance by which another machine's may differ: a rounded pixel may
fall either way, and the later rounds enlarge what the first ones did."""


def given(run: Run, pipe: Any) -> np.ndarray:
    """Return 32 held-out drawings, then 32 generated pictures: uint8 (64, H, W, 3).

    run: the run `guidance`, whose images at w = 4 the generated ones are; its first seed draws
    both, so that verdicts rest on pictures that no exploration has seen.
    """
    rng = np.random.default_rng(run.first_seed)
    unseen = corpus.load().where(split="held_out")
    drawn = rng.choice(len(unseen), PICTURES // 2, replace=False)
    made = run.where(setting=SETTING).latents
    made = made[rng.choice(len(made), PICTURES // 2, replace=False)]
    return np.concatenate([unseen.rgb(drawn), repro.decode(pipe, made.float())])


def measured(pipe: Any, images: np.ndarray) -> np.ndarray:
    """Take pictures round; return their distances (n, 21, 21) in grey levels.

    One picture at a time, so that none depends on its neighbours in a batch.
    """
    found = [
        drift.distances(interventions.autoencoder_rounds(pipe, image[None], ROUNDS))
        for image in images
    ]
    return np.concatenate(found)


def keep(pipe: Any) -> Path:
    """Take the pictures round and keep their distances beside the run; return the file."""
    from essaylib import runs

    run = runs.load(SOURCE)
    between = measured(pipe, given(run, pipe)).astype(np.float32)
    path = _path()
    store.save_arrays(path, key=_key(run, pipe), between=between)
    return path


def current(pipe: Any) -> bool:
    """Whether distances are kept that belong to the autoencoder and the pictures as they are."""
    from essaylib import runs

    try:
        return len(_kept(runs.load(SOURCE), pipe)) == PICTURES
    except EssayError:
        return False


def load(run: Run, pipe: Any, rows: list[int], again: np.ndarray) -> np.ndarray:
    """Return the kept distances of the pictures that `given` gives: (64, 21, 21).

    again: what `drift.distances` says of the pictures `rows`, taken round anew. Raises `EssayError`
    where nothing is kept or it is damaged, where it belongs to other weights or pictures, and where
    it differs.
    """
    between = _kept(run, pipe)
    off = np.abs(between[rows] - again).max(axis=(1, 2)) / again.max(axis=(1, 2))
    if (off > TOLERANCE).any():
        raise EssayError(f"Pictures taken round again are off by {off.max():.1%}: {CURE}")
    return between


def _kept(run: Run, pipe: Any) -> np.ndarray:
    path = _path()
    if not path.is_file():
        raise EssayError(f"No pictures have been taken round the autoencoder: {CURE}")
    stored = store.load_arrays(path, CURE)
    if str(stored.get("key")) != _key(run, pipe):
        raise EssayError(f"The autoencoder or the run {run.plan.name!r} has changed: {CURE}")
    return stored["between"].astype(float)


def _path() -> Path:
    return paths.runs() / PLAN / FILE


def _key(run: Run, pipe: Any) -> str:
    """What the distances depend on; not the decoded pixels, which another machine may round."""
    vae = store.weights_hash(pipe.vae)
    return store.digest("rounds", vae, run.provenance["key"], run.first_seed, PICTURES, ROUNDS)
