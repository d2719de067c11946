"""The two statistics of the claim `prompt-seed`: who decides more, and is the noise recognised?

Both take the final latents of a crossed design, (P, S, C, h, w): every prompt with every seed, at
guidance 4 and 25 steps.
"""

from dataclasses import dataclass

import numpy as np

from essaylib.claims import Test
from essaylib.measures import bootstrap, identification, variance


def order(latents: np.ndarray, draws: int = 10_000, resamples: int = 4000, seed: int = 0) -> Test:
    """Share of variance that the prompt explains less the share of the seed.

    Null: images are dealt to prompts at random within every seed. Interval: prompts and seeds
    resampled independently. n counts prompts.
    """
    lead = variance.over_both(latents, resamples, seed).lead
    return Test.of(lead, variance.dealt(latents, draws, seed).p)


def static(latents: np.ndarray, draws: int = 10_000, resamples: int = 4000, seed: int = 0) -> Test:
    """Share of images whose seed is recognised among four, less the chance of 0.25.

    Null: seed labels are permuted within every prompt. Interval: prompts and seeds resampled
    independently, each image keeping its answer. n counts prompts.
    """
    gain = identification.seeds_recognised(latents) - identification.CHANCE
    found = bootstrap.crossed(
        lambda prompts, seeds: gain[np.ix_(prompts, seeds)].mean(), *gain.shape, resamples, seed
    )
    return Test.of(found, identification.unlabelled(latents, draws, seed).p)


@dataclass(frozen=True)
class Dealt:
    """What the instrument reads where there is nothing to read: means over several dealings."""

    prompt: float
    seed: float
    recognised: float

    @property
    def passed(self) -> bool:
        """Both shares within 0.02 of zero, recognition within 0.03 of chance."""
        shares = max(abs(self.prompt), abs(self.seed))
        return shares <= 0.02 and abs(self.recognised - identification.CHANCE) <= 0.03


def control(latents: np.ndarray, deals: int = 40, seed: int = 0) -> Dealt:
    """Deal all images to prompts and seeds at random, `deals` times, and measure again."""
    rng = np.random.default_rng(seed)
    images = latents.reshape(-1, *latents.shape[2:])
    found = []
    for _ in range(deals):
        table = rng.permutation(images).reshape(latents.shape)
        shares = variance.shares(table)
        recognised = identification.seeds_recognised(table).mean()
        found.append((shares.rows, shares.columns, recognised))
    return Dealt(*(float(mean) for mean in np.mean(found, axis=0)))
