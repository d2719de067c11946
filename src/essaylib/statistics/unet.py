"""The statistic of the claim `unet`: does the decoder part figure from ground?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from essaylib import activations, claims, features
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, overlap, permutation

TIMESTEPS = (200, 400, 600)
TRAINED, UNTRAINED, COLOUR = "trained", "untrained", "colour"


def overlaps(
    pipe: Any,
    latents: np.ndarray,
    masks: np.ndarray,
    seed: int = 0,
    timesteps: Sequence[int] = TIMESTEPS,
) -> dict[str, np.ndarray]:
    """Return the overlap with the masks, (n, timesteps), of each way of parting a noised drawing.

    latents (n, C, h, w) of composites; masks bool (n, H, W) of where their figures are. `trained`
    and `untrained` part the decoder's features by two-means, `colour` the noised latent itself.
    Drawing i keeps one noise (seed + i) throughout, and of both labellings the better counts.
    """
    born = features.untrained(pipe.unet, seed).to(pipe.unet.device)
    found: dict[str, list[np.ndarray]] = {TRAINED: [], UNTRAINED: [], COLOUR: []}
    for timestep in timesteps:
        noisy = activations.noised(pipe, latents, timestep, seed)
        seen = {
            TRAINED: activations.joined(activations.decoder(pipe, noisy, timestep)),
            UNTRAINED: activations.joined(activations.decoder(pipe, noisy, timestep, born)),
            COLOUR: noisy.numpy(),
        }
        for name, held in seen.items():
            parts = activations.parted(held, masks.shape[1:], seed)
            found[name].append(overlap.best_labelling(parts, masks)[0])
    return {name: np.stack(columns, axis=1) for name, columns in found.items()}


def figure(
    scores: Mapping[str, np.ndarray], draws: int = 10_000, resamples: int = 4000, seed: int = 0
) -> claims.Test:
    """Return the trained network's overlap less that of the better of its two rivals.

    scores: (n, timesteps) for "trained", "untrained" and "colour", as `overlaps` gives; averaged
    over the timesteps. Which rival is the better is asked anew in every resample of drawings.
    Against either, the scores are exchanged drawing by drawing, and the larger p counts.
    """
    if not {TRAINED, UNTRAINED, COLOUR} <= set(scores):
        raise EssayError(f"Scores of {', '.join(scores)}: trained, untrained, colour are needed.")
    own = np.asarray(scores[TRAINED]).mean(axis=1)
    leads = [own - np.asarray(scores[rival]).mean(axis=1) for rival in (UNTRAINED, COLOUR)]

    def lead(rows: np.ndarray) -> float:
        return min(float(against[rows].mean()) for against in leads)

    estimate = bootstrap.bootstrap(lead, len(own), draws=resamples, seed=seed)
    nulls = [permutation.sign_flip(against, draws=draws, seed=seed) for against in leads]
    return claims.Test.of(estimate, max(null.p for null in nulls))
