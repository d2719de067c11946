"""How far near-duplicates of the chapter `copies` lie from their originals, kept and checked.

To take them through the autoencoder is a quarter of a chapter's time. So their distances ship (see
`rechecked`), and the thresholds are made of those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from essaylib import rechecked, store
from essaylib.corpus import Corpus
from essaylib.corpus import load as load_corpus
from essaylib.statistics import copies

KIND = "duplicates"
COUNT = 128
"""Training drawings whose near-duplicates set the thresholds."""


def chosen(training: Corpus, seed: int = 0) -> Corpus:
    """Draw the training drawings by lot."""
    rows = np.random.default_rng(seed).choice(len(training), COUNT, replace=False)
    return training.take(rows)


def limits(pipe: Any, drawn: Corpus, seed: int = 0) -> copies.Limits:
    """Return the thresholds that the drawings' near-duplicates set (`copies.limits`).

    Distances that ship with the book are read, and some computed again: `EssayError` if they
    differ. Others are computed.
    """

    def make(rows: rechecked.Rows) -> dict[str, np.ndarray]:
        return measured(pipe, drawn, seed, rows)

    return copies.limits_of(**rechecked.load(KIND, _key(pipe, drawn, seed), len(drawn), make))


def measured(
    pipe: Any, drawn: Corpus, seed: int = 0, rows: rechecked.Rows = rechecked.ALL
) -> dict[str, np.ndarray]:
    """Return the distances, `whole` and `pieces` (see `copies.apart`), of these near-duplicates."""
    drawings = drawn.rgb()
    doubles = copies.near_duplicates(pipe, drawings, seed, rows)
    whole, pieces = copies.apart(drawings[rows], doubles)
    return {"whole": whole, "pieces": pieces}


def ship(pipe: Any, seed: int = 0) -> Path:
    """Put the distances that the chapter asks for with the book; return the file."""
    drawn = chosen(load_corpus().where(split="train"), seed)
    return rechecked.ship(KIND, _key(pipe, drawn, seed), measured(pipe, drawn, seed))


def _key(pipe: Any, drawn: Corpus, seed: int) -> str:
    """A digest of all that the distances depend on: the autoencoder's weights among it."""
    settings = (copies.SIDE, copies.PATCH, copies.SHIFT, seed)
    drawings = (drawn.sha256, list(drawn.table.id))
    return store.digest("duplicates", store.weights_hash(pipe.vae), drawings, settings)
