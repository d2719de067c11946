"""Can a seed be recognised across prompts? A four-way question, chance 0.25 (after Xu et al. 2024).

Each image is compared, by correlation, with four mean images: the one that its own seed gives with
all other prompts, and those of three other seeds. No three are picked: the answer is the share of
all choices of three rivals in which the own seed comes out nearest.
"""

from math import comb

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite
from essaylib.measures.permutation import Null, enough

CHANCE = 0.25
RIVALS = 3


def seeds_recognised(x: np.ndarray) -> np.ndarray:
    """Return how often each image's seed is recognised, (P, S), for images x (P, S, ...).

    The prompt's own mean over seeds is taken off first, or it would drown the seed. Ties count in
    part. Raises `EssayError` for fewer than two prompts or four seeds.
    """
    products = _products(x)
    prompts, seeds = products.shape[:2]
    return _recognised(products, np.broadcast_to(np.arange(seeds), (prompts, seeds)))


def unlabelled(x: np.ndarray, draws: int = 10_000, seed: int = 0) -> Null:
    """The share recognised, less chance, when seed labels are permuted within every prompt."""
    enough(draws)
    products = _products(x)
    prompts, seeds = products.shape[:2]
    rng = np.random.default_rng(seed)
    labels = np.broadcast_to(np.arange(seeds), (prompts, seeds))
    observed = _recognised(products, labels).mean() - CHANCE
    found = [
        _recognised(products, rng.permuted(labels, axis=1)).mean() - CHANCE for _ in range(draws)
    ]
    return Null(float(observed), np.array(found))


def _products(x: np.ndarray) -> np.ndarray:
    """Inner products of all images, centred by prompt and over their values: (P, S, P, S)."""
    x = finite(x, "x")
    if x.ndim < 3 or x.shape[0] < 2 or x.shape[1] <= RIVALS:
        raise EssayError(f"Recognition needs two prompts and four seeds; this is {x.shape[:2]}.")
    prompts, seeds = x.shape[:2]
    x = x.reshape(prompts, seeds, -1)
    x = x - x.mean(1, keepdims=True)
    x = x - x.mean(-1, keepdims=True)  # so that a product of two is a correlation, but for lengths
    flat = x.reshape(prompts * seeds, -1)
    return (flat @ flat.T).reshape(prompts, seeds, prompts, seeds)


def _recognised(products: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each seed wins, (P, S), where `labels` (P, S) say which image carries which seed.

    The products suffice: an image's product with a mean over prompts is a mean of its products.
    """
    prompts, seeds = labels.shape
    p = np.arange(prompts)[:, None]
    carried = (labels[:, None, :] == np.arange(seeds)[:, None]).reshape(-1, seeds).astype(float)
    sums = products.reshape(len(carried), -1) @ carried  # a product is faster than picking is
    with_all = sums.reshape(prompts, seeds, seeds)[p, labels]
    with_own = products[p[:, :, None], labels[:, :, None], p[:, :, None], labels[:, None, :]]
    with_others = with_all - with_own
    square, all_square = np.einsum("pss->ps", with_own), np.einsum("pss->ps", with_all)
    length = np.sqrt(np.maximum(square, 0))
    others = np.sqrt(np.maximum(all_square.sum(0) - 2 * all_square + square, 0))
    return _answers(with_others, length, others)


def _answers(products: np.ndarray, length: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Turn products of images with the seeds' means, (P, S, S), into chances to win, (P, S)."""
    tiny = 1e-12
    scores = products / np.maximum(length[:, :, None], tiny) / np.maximum(others[:, None], tiny)
    own = np.einsum("pss->ps", scores)[:, :, None]
    below = (scores < own - tiny).sum(-1)
    tied = (scores <= own + tiny).sum(-1) - below - 1
    return _wins(products.shape[1] - 1)[below, tied]


def _wins(rivals: int) -> np.ndarray:
    """The chance to win against three of `rivals`, by how many are below and how many are tied."""
    table = np.zeros((rivals + 1, rivals + 1))
    for below in range(rivals + 1):
        for tied in range(rivals + 1 - below):
            ways = (comb(tied, k) * comb(below, RIVALS - k) / (1 + k) for k in range(RIVALS + 1))
            table[below, tied] = sum(ways) / comb(rivals, RIVALS)
    return table
