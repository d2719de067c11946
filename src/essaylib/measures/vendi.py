"""Vendi score: the number of effectively different images (Friedman and Dieng 2022).

exp of the entropy of the eigenvalues of K / n, where K is a similarity matrix with ones on its
diagonal: 1 for n copies of one image, n for n images with nothing in common.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import permutation
from essaylib.measures.checks import finite, labels
from essaylib.measures.permutation import Null


def vendi(features: np.ndarray) -> float:
    """Return the Vendi score of features (n, d) under the cosine kernel, between 1 and n."""
    features = finite(features, "features", dims=2)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if (norms == 0).any():
        raise EssayError(
            "A feature vector of zeros has no direction, hence no cosine: leave it out."
        )
    unit = features / norms
    # The smaller of the two Gram matrices has all eigenvalues that are not zero.
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    return _effective_number(gram / len(unit))


def vendi_of_kernel(kernel: np.ndarray) -> float:
    """Return the Vendi score of a symmetric similarity matrix (n, n) with a diagonal of ones."""
    kernel = finite(kernel, "kernel", dims=2)
    if kernel.shape[0] != kernel.shape[1] or not np.allclose(kernel, kernel.T):
        raise EssayError(f"A similarity matrix is square and symmetric; this is {kernel.shape}.")
    if not np.allclose(np.diag(kernel), 1):
        raise EssayError("Every image must be wholly similar to itself: ones on the diagonal.")
    if np.linalg.eigvalsh(kernel).min() < -1e-8 * len(kernel):
        raise EssayError("A similarity matrix has no negative eigenvalue; this one has.")
    return _effective_number(kernel / len(kernel))


def per_prompt(features: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct prompts (p,) and the Vendi score of each one's images (p,)."""
    prompts = labels(prompts, "prompts", len(features))
    distinct = np.unique(prompts)
    return distinct, np.array([vendi(features[prompts == prompt]) for prompt in distinct])


def ceiling(features: np.ndarray, prompts: np.ndarray, draws: int = 2000, seed: int = 0) -> Null:
    """Deal the images to the prompts at random: mean score if a prompt bound nothing.

    `observed` is the mean score over the actual prompts. The floor is 1, by definition.
    """
    features = finite(features, "features", dims=2)
    return permutation.permute(
        lambda dealt: per_prompt(features, dealt)[1].mean(), prompts, draws=draws, seed=seed
    )


def _effective_number(density: np.ndarray) -> float:
    weights = np.linalg.eigvalsh(density)
    weights = weights[weights > 1e-12]
    return float(np.exp(-(weights * np.log(weights)).sum()))
