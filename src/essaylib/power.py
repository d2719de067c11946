"""How many units a claim needs before it is tested.

A claim is supported when two things happen together: its permutation p passes Holm's first and
strictest step, and its 95 % interval lies above the smallest interesting effect. A sample is large
enough when each of the two happens with the stated power, if the effect is the one assumed.
"""

from math import atanh, ceil

import numpy as np
from scipy.stats import beta, binom, norm

from essaylib.errors import EssayError

ALPHA = 0.05
"""Family-wise error of the test, and one minus the interval's coverage."""

FAMILY = 20
"""Primary statistics that share Holm's correction in `book/claims.yml`."""

POWER = 0.9


def sample_size(
    design: str, *, effect: float, delta: float, sd: float = 1.0, family: int = FAMILY
) -> int:
    """Return the number of units (concepts, prompts, languages, claims) that a design needs.

    design: "mean" for the mean of independent units with standard deviation `sd`, on the scale of
        `effect`; "correlation" for a correlation, by Fisher's z (variance 1 / (n - 3)); "share" for
        the share of units with a property, by the exact (Clopper-Pearson) interval.
    effect: the true value assumed. delta: the smallest interesting effect, which the interval must
        exceed. The null value is 0 for means and correlations.
    Raises `EssayError` where the assumed effect does not exceed delta: no sample would do.
    """
    if not effect > delta >= 0:
        raise EssayError(
            f"The assumed effect ({effect}) must exceed the smallest interesting effect ({delta}): "
            "no sample size could place an interval above it otherwise."
        )
    if not sd > 0 or (design != "mean" and not effect < 1):
        raise EssayError("A standard deviation is above zero; a correlation or share is below one.")
    if design == "mean":
        return _normal(effect, delta, sd, family)
    if design == "correlation":
        return 3 + _normal(atanh(effect), atanh(delta), 1.0, family)
    if design == "share":
        return next(n for n in range(2, 100_000) if share_power(n, effect, delta) >= POWER)
    raise EssayError(f"Unknown design {design!r}: use mean, correlation or share.")


def _normal(effect: float, delta: float, sd: float, family: int) -> int:
    power = norm.ppf(POWER)
    interval = (norm.ppf(1 - ALPHA / 2) + power) * sd / (effect - delta)
    test = (norm.ppf(1 - ALPHA / family) + power) * sd / effect
    return ceil(max(interval, test) ** 2)


def share_power(n: int, effect: float, delta: float) -> float:
    """Chance that the exact 95 % interval of a share lies above delta, with n units."""
    counts = np.arange(n + 1)
    low = np.where(counts > 0, beta.ppf(ALPHA / 2, np.maximum(counts, 1), n - counts + 1), 0.0)
    return float(binom.pmf(counts, n, effect)[low > delta].sum())


def concentration_sd(
    images: int, leader: float, spread: float, vendors: int = 4, seed: int = 0
) -> tuple[float, float]:
    """Simulate the guidance premium of one prompt; return its mean and standard deviation.

    Before guidance every vendor is equally likely. After it, one vendor's share is `leader` on
    average, and differs from prompt to prompt (normal, standard deviation `spread`, clipped to
    [1 / vendors, 1]). Each time `images` outputs are drawn; the premium is the difference between
    the two unbiased Herfindahl indices, (n H - 1) / (n - 1).
    """
    rng = np.random.default_rng(seed)
    prompts = 20_000
    share = np.clip(rng.normal(leader, spread, prompts), 1 / vendors, 1)
    rest = np.repeat((1 - share)[:, None] / (vendors - 1), vendors - 1, axis=1)
    after = rng.multinomial(images, np.column_stack([share, rest]))
    before = rng.multinomial(images, np.full(vendors, 1 / vendors), size=prompts)

    def unbiased(counts: np.ndarray) -> np.ndarray:
        return (counts * (counts - 1)).sum(1) / (images * (images - 1))

    premium = unbiased(after) - unbiased(before)
    return float(premium.mean()), float(premium.std())


def crossed_sd(
    prompts: int,
    seeds: int,
    prompt_share: float,
    seed_share: float,
    dims: int = 8,
    seed: int = 0,
) -> float:
    """Simulate the standard error of (prompt share - seed share) in a crossed design.

    One image a cell, its prompt, seed and interaction components drawn independently in `dims`
    effective dimensions; shares are ANOVA variance components, as in `measures.variance`.
    """
    rng = np.random.default_rng(seed)
    draws = 400
    scale = np.sqrt([prompt_share, seed_share, 1 - prompt_share - seed_share])
    found = np.empty(draws)
    for i in range(draws):
        rows = scale[0] * rng.normal(size=(prompts, 1, dims))
        columns = scale[1] * rng.normal(size=(1, seeds, dims))
        x = rows + columns + scale[2] * rng.normal(size=(prompts, seeds, dims))
        centred = x - x.mean((0, 1))
        by_row, by_column = centred.mean(1, keepdims=True), centred.mean(0, keepdims=True)
        residual = ((centred - by_row - by_column) ** 2).sum() / ((prompts - 1) * (seeds - 1))
        row = ((by_row**2).sum() / (prompts - 1)) - residual / seeds
        column = ((by_column**2).sum() / (seeds - 1)) - residual / prompts
        found[i] = (row - column) / (row + column + residual)
    return float(found.std())
