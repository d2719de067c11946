"""The arrays that ship with the book, made for the weights that are here: `essay sample corpus`."""

from __future__ import annotations

from pathlib import Path

from essaylib import (
    beliefs,
    claims,
    corpus,
    duplicates,
    features,
    models,
    partings,
    paths,
    residuals,
)
from essaylib.measures import ledger
from essaylib.statistics import loss

CONCEPTS = 400
"""How many concepts the chapter on loss asks about."""


def ship(device: str = "auto") -> list[Path]:
    """Put everything in data/features, in place of other weights'; return the files.

    The autoencoder's latents and residuals; the vectors of the CLIP that conditions the embedded
    model and of the one that never heard of vendors; what was read of the U-Net's estimates; the
    overlaps of the chapter on the U-Net and the near-duplicates of the one on copies.
    """
    pipe, data = models.load(device=device), corpus.load()
    files = residuals.ship(pipe.vae)
    common = data.take(ledger.selection(data.table))
    clips = [models.load_clip(place)[0] for place in (None, paths.models() / "clip-unnamed")]
    files += features.ship_clip_images(clips, common)
    first = claims.seeds(1)[0]
    drawn = loss.complete(data, CONCEPTS, first)
    latents = features.corpus_latents(pipe.vae, drawn)
    latents = latents.reshape(CONCEPTS, -1, *latents.shape[1:])
    other = loss.others(drawn.table.subgroup.to_numpy()[:: len(corpus.VENDORS)])
    files += beliefs.ship(pipe, drawn, latents, other, first)
    return [*files, duplicates.ship(pipe), partings.ship(pipe)]
