"""What was read of the U-Net's one-step estimates, for every concept of the chapter on loss.

To ask the network about hundreds of concepts, at three timesteps and under four noises, takes more
than a minute. So what the claim needs of each concept's estimates is kept (see `store`), and where
it ships with the book some concepts are asked about again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from essaylib import features, models, store
from essaylib.corpus import VENDORS, Corpus
from essaylib.corpus import load as load_corpus
from essaylib.statistics import loss

READER = ("eos_token_id", "hidden_act", "layer_norm_eps", "num_attention_heads")
"""What a text tower's configuration says beyond the shapes of its weights."""


@dataclass(frozen=True)
class Readings:
    """Of n concepts' estimates at each timestep, means over their noises.

    `weights` (n, timesteps, 4): convex weights on the concept's own drawings. `distances` and
    `foreign` (n, timesteps): how far the estimates lie from the mixtures of its own drawings and of
    another's, root mean square of latents.
    """

    weights: np.ndarray
    distances: np.ndarray
    foreign: np.ndarray


def load(
    pipe: Any, drawn: Corpus, latents: np.ndarray, other: np.ndarray, seed: int = 0
) -> Readings:
    """Read the estimates for the concepts of `drawn`, as `loss.complete` gives them.

    latents (n, 4, C, h, w), theirs; other (n,), which concept each is compared with
    (`loss.others`); seed, that of the noises. Computed at the first call (a minute and a half for
    four hundred concepts on one thread) and kept by all that this depends on. Of a file that ships
    with the book some rows are computed again: `EssayError` if they differ.
    """
    found = _rows(pipe, drawn, latents, other, seed)
    return Readings(found[..., :-2], found[..., -2], found[..., -1])


def ship(
    pipe: Any, drawn: Corpus, latents: np.ndarray, other: np.ndarray, seed: int = 0
) -> list[Path]:
    """Put the readings with the book, in place of other weights'; return the file."""
    found = _rows(pipe, drawn, latents, other, seed)
    name = file_of(pipe, drawn, other, seed)
    return store.ship("beliefs-*.npy", {name: lambda part: features.save(part, found)})


def file_of(pipe: Any, drawn: Corpus, other: np.ndarray, seed: int = 0) -> str:
    """Name of the file that keeps the readings: float32 (n, timesteps, 4 + 2)."""
    encoder = features.file_of(pipe.vae, load_corpus(drawn.source))
    reader = {name: getattr(pipe.text_encoder.config, name) for name in READER}
    noise = pipe.scheduler
    key = store.digest(
        "beliefs",
        store.weights_hash(pipe.unet),
        store.weights_hash(pipe.text_encoder, config=reader),
        pipe.tokenizer(list(drawn.table.concept)).input_ids,
        encoder,
        list(drawn.table.id),
        list(map(int, other)),
        noise.config.prediction_type,
        [round(float(noise.alphas_cumprod[t]), 9) for t in loss.TIMESTEPS],
        loss.TIMESTEPS,
        seed,
    )
    return f"beliefs-{key}.npy"


def _rows(
    pipe: Any, drawn: Corpus, latents: np.ndarray, other: np.ndarray, seed: int
) -> np.ndarray:
    models.require_unet(pipe, "one-step estimates")
    names = drawn.table.concept.to_numpy()[:: len(VENDORS)]

    def read(rows: np.ndarray) -> np.ndarray:
        believed = loss.believed(pipe, latents[rows], names[rows], seed, places=rows)
        weights, distances = loss.weights(believed, latents[rows])
        _, foreign = loss.weights(believed, latents[other[rows]])
        parts = [weights, distances[..., None], foreign[..., None]]
        return np.concatenate(parts, axis=-1).astype(np.float32)

    return features.kept(file_of(pipe, drawn, other, seed), len(names), read)
