"""The statistic of the claim `unet`: does the decoder part figure from ground?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from essaylib import activations, claims, features
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, overlap, permutation
from essaylib.rechecked import ALL, Rows

TIMESTEPS = (200, 400, 600)
TRAINED, UNTRAINED, COLOUR = METHODS = ("trained", "untrained", "colour")


def overlaps(
    pipe: Any,
    latents: np.ndarray,
    masks: np.ndarray,
    seed: int = 0,
    timesteps: Sequence[int] = TIMESTEPS,
    rows: Rows = ALL,
) -> dict[str, np.ndarray]:
    """Return the overlap with the masks, (n, timesteps), of each way of parting a noised drawing.

    latents (n, C, h, w) of composites; masks bool (n, H, W) of where their figures are. `trained`
    and `untrained` part the decoder's features by two-means, `colour` the noised latent itself.
    rows: the drawings that are asked for, each as it is parted among all.
    """
    born = features.untrained(pipe.unet, seed).to(pipe.unet.device)
    return {
        TRAINED: of_network(pipe, latents, masks, seed, timesteps, rows=rows),
        UNTRAINED: of_network(pipe, latents, masks, seed, timesteps, born, rows),
        COLOUR: of_colour(pipe, latents, masks, seed, timesteps, rows),
    }


def of_network(
    pipe: Any,
    latents: np.ndarray,
    masks: np.ndarray,
    seed: int = 0,
    timesteps: Sequence[int] = TIMESTEPS,
    unet: Any = None,
    rows: Rows = ALL,
) -> np.ndarray:
    """Return the overlap (n, timesteps) of two clusters of a decoder's features with the masks.

    Drawing i keeps one noise (seed + i) throughout, and of both labellings the better counts.
    `unet` looks in place of the pipeline's own.
    """

    def held(noisy: torch.Tensor, timestep: int) -> np.ndarray:
        return activations.joined(activations.decoder(pipe, noisy, timestep, unet))

    return _overlap(pipe, latents, masks, seed, timesteps, held, rows)


def of_colour(
    pipe: Any,
    latents: np.ndarray,
    masks: np.ndarray,
    seed: int = 0,
    timesteps: Sequence[int] = TIMESTEPS,
    rows: Rows = ALL,
) -> np.ndarray:
    """Return the overlap (n, timesteps) of two clusters of the noised latent with the masks."""
    return _overlap(pipe, latents, masks, seed, timesteps, lambda noisy, _: noisy.numpy(), rows)


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


def _overlap(
    pipe: Any,
    latents: np.ndarray,
    masks: np.ndarray,
    seed: int,
    timesteps: Sequence[int],
    held: Callable[[torch.Tensor, int], np.ndarray],
    rows: Rows,
) -> np.ndarray:
    columns, masks = [], masks[rows]
    seeds = seed + np.arange(len(latents))[rows]
    for timestep in timesteps:
        noisy = activations.noised(pipe, latents[rows], timestep, seeds)
        parts = activations.parted(held(noisy, timestep), masks.shape[1:], seed)
        columns.append(overlap.best_labelling(parts, masks)[0])
    return np.stack(columns, axis=1)
