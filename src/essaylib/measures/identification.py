"""Can a seed be recognised across prompts? A four-way question, chance 0.25 (after Xu et al. 2024).

Each image is compared, by correlation, with four mean images: the one that its own seed gives with
all other prompts, and those of three other seeds.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite

CHANCE = 0.25


def seeds_recognised(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return whether each image's seed is recognised, (P, S), for images or latents x (P, S, ...).

    The prompt's own mean over seeds is taken off first, or it would drown the seed. Ties count in
    part. Raises `EssayError` for fewer than two prompts or four seeds.
    """
    x = finite(x, "x")
    if x.ndim < 3 or x.shape[0] < 2 or x.shape[1] < 4:
        raise EssayError(f"Recognition needs two prompts and four seeds; this is {x.shape[:2]}.")
    x = x.reshape(*x.shape[:2], -1)
    x = x - x.mean(1, keepdims=True)
    prompts, seeds, _ = x.shape
    rng = np.random.default_rng(seed)
    total = x.sum(0)
    right = np.empty((prompts, seeds))
    for p in range(prompts):
        others = _unit(total - x[p])
        likeness = _unit(x[p]) @ others.T
        for s in range(seeds):
            rivals = rng.choice(np.delete(np.arange(seeds), s), 3, replace=False)
            scores = likeness[s, [s, *rivals]]
            best = scores >= scores.max() - 1e-12
            right[p, s] = best[0] / best.sum()
    return right


def _unit(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
