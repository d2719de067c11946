"""What a cosine means in a given space: nothing, until the space's own floor is measured.

Two random images of one encoder may have a cosine of 0.7 (a narrow cone: Ethayarajh 2019; for
CLIP, Liang et al. 2022). Berry (2026) makes that floor the first thing to report.
"""

from dataclasses import dataclass

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures.checks import finite


@dataclass(frozen=True)
class Floor:
    """Cosines of random pairs in one space, sorted (pairs,)."""

    cosines: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.cosines.mean())

    @property
    def low(self) -> float:
        return float(np.quantile(self.cosines, 0.025))

    @property
    def high(self) -> float:
        return float(np.quantile(self.cosines, 0.975))

    def rank(self, cosine: np.ndarray | float) -> np.ndarray:
        """Share of random pairs that are less alike: 0.5 for a pair like any other."""
        below = np.searchsorted(self.cosines, cosine, side="left")
        until = np.searchsorted(self.cosines, cosine, side="right")
        return (below + until) / (2 * len(self.cosines))


def floor(features: np.ndarray, pairs: int = 20_000, seed: int = 0) -> Floor:
    """Return the cosines of random pairs of different rows of `features` (n, d).

    All pairs where there are no more than `pairs`.
    """
    unit = _unit(features)
    n = len(unit)
    if n < 2 or pairs < 1:
        raise EssayError("A floor needs at least two images, and at least one pair of them.")
    if n * (n - 1) // 2 <= pairs:
        i, j = np.triu_indices(n, 1)
    else:
        rng = np.random.default_rng(seed)
        i = rng.integers(n, size=pairs)
        j = (i + rng.integers(1, n, size=pairs)) % n
    return Floor(np.sort((unit[i] * unit[j]).sum(1)))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of a with the same row of b, both (n, d)."""
    return (_unit(a) * _unit(b)).sum(1)


def modality_gap(images: np.ndarray, texts: np.ndarray) -> float:
    """Return how far the mean image lies from the mean text, both on the unit sphere, in [0, 2].

    images (n, d), texts (m, d) in one space. Liang et al. 2022: it is there before training.
    """
    return float(np.linalg.norm(_unit(images).mean(0) - _unit(texts).mean(0)))


def effective_rank(features: np.ndarray) -> float:
    """Return the number of directions in use: exp of the entropy of the singular values' shares.

    Roy and Vetterli 2007, on centred features (n, d); between 1 and min(n - 1, d).
    """
    features = finite(features, "features", dims=2)
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    if values.max() <= 1e-12 * max(1.0, np.abs(features).max()):
        raise EssayError("All features are the same: no direction is in use.")
    weights = values / values.sum()
    weights = weights[weights > 1e-12]
    return float(np.exp(-(weights * np.log(weights)).sum()))


def _unit(features: np.ndarray) -> np.ndarray:
    features = finite(features, "features", dims=2)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if (norms == 0).any():
        raise EssayError("A feature vector of zeros has no direction, hence no cosine.")
    return features / norms
