"""How well the drawings of the chapter `unet` are parted in two, kept with the book and checked.

Two hundred drawings, each shown to three networks at three noise levels and parted by two-means,
take a minute and a half. So their overlaps ship (see `rechecked`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from essaylib import claims, composites, features, interventions, models, rechecked, store
from essaylib.corpus import Corpus
from essaylib.corpus import load as load_corpus
from essaylib.statistics import unet

KIND = "partings"
CUT = "skips cut"
SPLITS = ["validation", "held_out"]
DRAWINGS = 200
"""As many as the chapter takes, so that those that ship are those that it asks for."""


def overlaps(
    pipe: Any, drawn: Corpus, latents: np.ndarray, masks: np.ndarray, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return each drawing's overlaps (n, timesteps), by method, as `measured` does.

    drawn: the drawings, whose composites with `composites.grounds` of the same seed became
    `latents` (n, C, h, w) and whose figures `masks` (n, H, W) are. Overlaps that ship with the
    book are read, and some computed again: `EssayError` if they differ. Others are computed.
    """

    def make(rows: rechecked.Rows) -> dict[str, np.ndarray]:
        return measured(pipe, latents, masks, seed, rows)

    return rechecked.load(KIND, _key(pipe, drawn, seed), len(masks), make)


def measured(
    pipe: Any,
    latents: np.ndarray,
    masks: np.ndarray,
    seed: int = 0,
    rows: rechecked.Rows = rechecked.ALL,
) -> dict[str, np.ndarray]:
    """Return the overlaps (rows, timesteps) of `unet.overlaps`, and those with the skips cut."""
    found = unet.overlaps(pipe, latents, masks, seed, rows=rows)
    with interventions.scale_skips(pipe.unet, 0):
        found[CUT] = unet.of_network(pipe, latents, masks, seed, rows=rows)
    return found


def ship(pipe: Any) -> Path:
    """Put the overlaps of the chapter's drawings with the book; return the file."""
    seed = claims.seeds(1)[0]
    drawn = composites.chosen(load_corpus().where(split=SPLITS), DRAWINGS, seed)
    pictures = composites.set_on(drawn.rgba(), composites.grounds(DRAWINGS, seed))
    latents = features.latents(pipe.vae, composites.fitted(pictures, pipe))
    found = measured(pipe, latents, composites.masks(drawn.rgba()), seed)
    return rechecked.ship(KIND, _key(pipe, drawn, seed), found)


def _key(pipe: Any, drawn: Corpus, seed: int) -> str:
    """A digest of all that the overlaps depend on: the model's weights among it."""
    weights = sorted(models.describe(pipe)["weights"].items())
    drawings = (drawn.sha256, list(drawn.table.id))
    return store.digest("partings", weights, drawings, seed, unet.TIMESTEPS)
