"""The statistic of the claim `loss`: whose mean is the estimate?

Under every noise lies one of the concept's own drawings, each vendor's in turn. So the network is
shown what it was trained on, and the estimate that its loss asks for has, on average, weights equal
to the training shares. Noise with nothing under it would not do: any network, a perfect one too,
would favour what looks most like nothing, a small drawing on much white.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib import activations, claims, estimates
from essaylib.corpus import VENDORS, Corpus
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, mixture
from essaylib.measures.agreement import total_variation
from essaylib.measures.checks import finite, labels

if TYPE_CHECKING:
    import pandas as pd

TIMESTEPS = (999, 900, 800)


def complete(data: Corpus, n: int, seed: int = 0) -> Corpus:
    """Draw n concepts with four training drawings by lot: their 4 n drawings, vendor by vendor.

    Concepts stand in the order of the lot, a concept's vendors in the order of `corpus.VENDORS`.
    """
    table = data.table[data.table.split == "train"]
    counts = table.groupby("concept").vendor.nunique()
    names = counts.index[counts == len(VENDORS)].to_numpy()
    if len(names) < n:
        raise EssayError(f"{len(names)} concepts have four training drawings; {n} were asked for.")
    places = table.reset_index().set_index(["concept", "vendor"])["index"]
    lot = np.random.default_rng(seed).permutation(names)[:n]
    return data.take([places[name, vendor] for name in lot for vendor in VENDORS])


def believed(
    pipe: Any,
    latents: np.ndarray,
    concepts: Sequence[str],
    seed: int = 0,
    timesteps: Sequence[int] = TIMESTEPS,
    beneath: bool = True,
    places: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the one-step estimates (n, timesteps, k, C, h, w) for n bare captions.

    latents (n, k, C, h, w): the concept's drawings, one of them under each of k noises; with
    `beneath` False the noises are pure. Noise j of concept i has the seed `seed` + k i + j, the
    same at every timestep. Of a selection, `places` (n,) says which i a row was given.
    """
    n, k = latents.shape[:2]
    places = np.arange(n) if places is None else np.asarray(places)
    seeds = (seed + k * places[:, None] + np.arange(k)).ravel()
    flat = latents.reshape(n * k, *latents.shape[2:])
    captions = np.repeat(np.asarray(concepts), k)
    found = []
    for timestep in timesteps:
        noisy = activations.noised(pipe, flat if beneath else 0 * flat, timestep, seeds)
        if not beneath:
            noisy = noisy / float(1 - pipe.scheduler.alphas_cumprod[timestep]) ** 0.5
        found.append(estimates.one_step(pipe, noisy, timestep, captions).reshape(latents.shape))
    return np.stack(found, axis=1)


def weights(believed: np.ndarray, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the convex weights (n, timesteps, k) of estimates on drawings, mean over the noises.

    Also the distance (n, timesteps) of the estimates from the mixtures, root mean square. believed
    (n, timesteps, k, ...), latents (n, k, ...).
    """
    parts = [_at(believed[:, at], latents) for at in range(believed.shape[1])]
    return np.stack([w for w, _ in parts], 1), np.stack([d for _, d in parts], 1)


def by_vendor(held: Mapping[str, np.ndarray], seed: int = 0) -> pd.DataFrame:
    """Return mean weights with intervals over concepts: one row an entry of `held` and a vendor.

    held: convex weights (n, 4) by what they are the weights of. Columns of, vendor, weight,
    weight_low, weight_high.
    """
    import pandas as pd

    rows = []
    for what, weights in held.items():
        for vendor, column in zip(VENDORS, weights.T, strict=True):
            found = bootstrap.mean(column, seed=seed)
            rows.append((what, vendor, found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=["of", "vendor", "weight", "weight_low", "weight_high"])


def lean(
    weights: np.ndarray,
    shares: np.ndarray,
    draws: int = 10_000,
    resamples: int = 4000,
    seed: int = 0,
) -> claims.Test:
    """Return how far the mean weights are from the training shares, beyond what chance does.

    weights, shares (n, k), one row a concept. Total variation of their means, less its mean where
    every concept's weights are dealt to the vendors at random; interval over concepts.
    """
    weights, shares = finite(weights, "weights", dims=2), finite(shares, "shares", dims=2)
    null = mixture.lean(weights, shares, draws=draws, seed=seed)

    def excess(rows: np.ndarray) -> float:
        return total_variation(weights[rows].mean(0), shares[rows].mean(0)) - null.mean

    estimate = bootstrap.bootstrap(excess, len(weights), draws=resamples, seed=seed)
    return claims.Test.of(estimate, null.p)


def dealt(weights: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the range (2.5 % and 97.5 %) of a mean weight if no vendor had any of its own.

    weights (n, k), dealt to the vendors at random within every concept.
    """
    rng = np.random.default_rng(seed)
    weights = finite(weights, "weights", dims=2)
    means = [rng.permuted(weights, axis=1).mean(axis=0) for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def of_everything(latents: np.ndarray) -> np.ndarray:
    """Return the convex weights (n, k) of the mean of all drawings on each concept's own.

    latents (n, k, ...). So would an estimate be that knows no caption: a lean that it shows, too,
    comes from whose drawings are the most ordinary.
    """
    everything = np.broadcast_to(latents.mean(axis=(0, 1)), (len(latents), *latents.shape[2:]))
    return mixture.convex_weights(everything, latents)[0]


def planted(latents: np.ndarray, residual: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the mean error (k,) with which the weights of planted mixtures are recovered.

    latents (n, k, ...). Each concept's drawings are mixed with weights drawn evenly from the
    simplex, and noise of the root mean square `residual` (n,) is laid over the mixture.
    """
    rng = np.random.default_rng(seed)
    n, k = latents.shape[:2]
    true = rng.dirichlet(np.ones(k), size=n)
    mixed = np.einsum("nk,nk...->n...", true, latents)
    loud = np.asarray(residual).reshape(n, *[1] * (mixed.ndim - 1))
    found, _ = mixture.convex_weights(mixed + loud * rng.normal(size=mixed.shape), latents)
    return np.abs(found - true).mean(axis=0)


def at_home(
    believed: np.ndarray,
    latents: np.ndarray,
    distances: np.ndarray,
    subgroup: np.ndarray,
    seed: int = 0,
) -> np.ndarray:
    """Return whether each concept's estimates lie nearer to its own drawings' hull than another's.

    believed (n, timesteps, k, ...), latents (n, k, ...), distances (n, timesteps) from the own
    hull, as `weights` gives them. The other concept is drawn by lot from the same subgroup (n,);
    concepts that are alone in theirs are left out.
    """
    other = others(labels(subgroup, "subgroup", len(latents)), seed)
    _, foreign = weights(believed, latents[other])
    return nearer(distances, foreign, other)


def others(subgroup: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw for each concept another of its subgroup (n,): (n,) positions, its own if it is alone.

    Raises `EssayError` where all are.
    """
    rng = np.random.default_rng(seed)
    drawn = np.arange(len(subgroup))
    for i, own in enumerate(subgroup):
        peers = np.setdiff1d(np.flatnonzero(subgroup == own), i)
        if len(peers):
            drawn[i] = rng.choice(peers)
    if (drawn == np.arange(len(drawn))).all():
        raise EssayError("No two concepts share a subgroup: there is no other hull to be near.")
    return drawn


def nearer(distances: np.ndarray, foreign: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return whether the own hull is the nearer one, leaving out who has no `other` but itself.

    distances, foreign (n, timesteps), from the own hull and the other's; other (n,).
    """
    kept = other != np.arange(len(other))
    return distances[kept].mean(axis=1) < foreign[kept].mean(axis=1)


def _at(believed: np.ndarray, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n, k) and distances (n,) at one timestep, mean over its noises (n, noises, ...)."""
    parts = [mixture.convex_weights(believed[:, j], latents) for j in range(believed.shape[1])]
    return np.mean([w for w, _ in parts], axis=0), np.mean([d for _, d in parts], axis=0)
