"""Concentration of vendors among the images of a prompt that names none.

The Herfindahl index H is the chance that two draws, with replacement, hit the same vendor. Among n
images it is too high by construction; (n H - 1) / (n - 1) is the chance that two *different* images
share a vendor, and its mean does not depend on n. Vendors drew unequal numbers of concepts, so the
floor is drawn from each prompt's own training shares.
"""

from dataclasses import dataclass

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import bootstrap
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.permutation import Null, enough

UNSURE = -1
"""The judge names no vendor; such images are left out of the index and counted apart."""

MINIMUM = 4
"""Fewest sure images with which a prompt takes part."""


@dataclass(frozen=True)
class Premium:
    """How much more concentrated one setting is than another, with its null."""

    difference: Estimate
    null: Null
    kept: np.ndarray
    """Whether each prompt had enough sure images at both settings."""


def unbiased(counts: np.ndarray) -> np.ndarray:
    """Return (n H - 1) / (n - 1) of counts (..., vendors); NaN where n is below two.

    Equal to the share of pairs of images that have the same vendor.
    """
    counts = np.asarray(counts, dtype=float)
    if (counts < 0).any() or not np.isfinite(counts).all():
        raise EssayError("Counts of images are whole numbers from zero up.")
    n = counts.sum(-1)
    pairs = n * (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (counts * (counts - 1)).sum(-1) / pairs, np.nan)


def count(vendors: np.ndarray, of: int = 4) -> np.ndarray:
    """Return how many images each vendor has, (..., of), from vendor indices (..., images)."""
    return _one_hot(vendors, of).sum(-2)


def concentration(vendors: np.ndarray, minimum: int = MINIMUM, of: int = 4, **options) -> Estimate:
    """Return the mean unbiased index over prompts that have at least `minimum` sure images.

    vendors: (prompts, images) vendor indices, -1 for unsure. Options go to `bootstrap.mean`.
    """
    if np.ndim(vendors) != 2:
        raise EssayError(f"Vendors come as (prompts, images), not as {np.shape(vendors)}.")
    counts = count(vendors, of)
    index = unbiased(counts)[counts.sum(-1) >= max(2, minimum)]
    _enough(index)
    return bootstrap.mean(index, **options)


def premium(
    after: np.ndarray,
    before: np.ndarray,
    minimum: int = MINIMUM,
    of: int = 4,
    draws: int = 10_000,
    seed: int = 0,
) -> Premium:
    """Return the mean difference of the index between two settings of the same prompts and seeds.

    after, before: (prompts, seeds) vendor indices, -1 for unsure, paired image by image.
    Null: the two images of a prompt and seed are exchanged at random. Interval: BCa over prompts.
    """
    a, b = _one_hot(after, of), _one_hot(before, of)
    if a.shape != b.shape:
        raise EssayError(f"Prompts and seeds must pair: {a.shape[:2]} and {b.shape[:2]} do not.")
    enough(draws)

    def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        sure = np.minimum(a.sum(-1), b.sum(-1)) >= max(2, minimum)
        return np.where(sure, unbiased(a) - unbiased(b), np.nan)

    observed = differences(a.sum(-2), b.sum(-2))
    kept = np.isfinite(observed)
    _enough(observed[kept])
    estimate = bootstrap.mean(observed[kept], draws=draws, method="bca", seed=seed)
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, draws, 250):
        swap = rng.random((min(250, draws - start), *a.shape[:2])) < 0.5
        moved = np.einsum("dps,psv->dpv", swap.astype(float), b - a)
        found.append(np.nanmean(differences(a.sum(-2) + moved, b.sum(-2) - moved), axis=1))
    return Premium(estimate, Null(estimate.estimate, np.concatenate(found)), kept)


def measurable(*settings: np.ndarray, minimum: int = MINIMUM) -> bool:
    """Whether two prompts or more have `minimum` sure images at each setting (prompts, images)."""
    sure = [(np.asarray(vendors) != UNSURE).sum(1) >= max(2, minimum) for vendors in settings]
    return int(np.all(sure, axis=0).sum()) >= 2


def floor(shares: np.ndarray, images: np.ndarray | int, draws: int = 2000, seed: int = 0) -> Null:
    """Draw each prompt's images from its own training shares: the index of a mere mirror.

    shares: (prompts, vendors) training shares or counts; images: sure images a prompt. `observed`
    is the exact expectation, the mean over prompts of the sum of squared shares.
    """
    shares = np.asarray(shares, dtype=float)
    if shares.ndim != 2 or (shares < 0).any() or not (shares.sum(1) > 0).all():
        raise EssayError("Each prompt needs at least one training drawing to have shares.")
    shares = shares / shares.sum(1, keepdims=True)
    n = np.broadcast_to(images, len(shares))
    if (n < 2).any():
        raise EssayError("Two images a prompt are the fewest that can share a vendor.")
    rng = np.random.default_rng(seed)
    found = [unbiased(rng.multinomial(n, shares)).mean() for _ in range(draws)]
    return Null(float((shares**2).sum(1).mean()), np.array(found))


def _one_hot(vendors: np.ndarray, of: int) -> np.ndarray:
    vendors = np.asarray(vendors)
    if not np.issubdtype(vendors.dtype, np.integer) or vendors.size == 0:
        raise EssayError("Vendors are whole numbers: positions in corpus.VENDORS, -1 for unsure.")
    if vendors.min() < UNSURE or vendors.max() >= of:
        raise EssayError(f"A vendor index lies outside -1 to {of - 1}.")
    return (vendors[..., None] == np.arange(of)).astype(float)


def _enough(index: np.ndarray) -> None:
    if len(index) < 2:
        raise EssayError(
            f"{len(index)} prompts have enough images that the judge is sure of: draw more seeds."
        )
