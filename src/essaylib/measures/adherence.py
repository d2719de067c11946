"""Adherence: does the judge see in the image what the prompt asked for?

The judge is not the CLIP that conditions the model, so it cannot be flattered by it. What it is
unsure of (-1) counts as not seen.
"""

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import bootstrap, permutation
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.checks import labels
from essaylib.measures.permutation import Null


def hits(seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return whether each image (n,) shows what was asked for; class indices, -1 for unsure."""
    seen, asked = labels(seen, "seen"), labels(asked, "asked")
    if len(seen) != len(asked) or not len(seen):
        raise EssayError(f"{len(seen)} images seen and {len(asked)} asked for: they must pair.")
    if not (np.issubdtype(seen.dtype, np.integer) and np.issubdtype(asked.dtype, np.integer)):
        raise EssayError("Classes are whole numbers: positions in the judge's list.")
    if (asked < 0).any():
        raise EssayError("A prompt must ask for a class that the judge knows, not for -1.")
    return seen == asked


def adherence(
    seen: np.ndarray, asked: np.ndarray, prompts: np.ndarray | None = None, **options
) -> Estimate:
    """Return the share of images that show what was asked for, with its interval over prompts.

    seen, asked: (n,) class indices. prompts: (n,) the prompt of each image; what was asked for by
    default. Options go to `bootstrap.mean`.
    """
    right = hits(seen, asked)
    return bootstrap.mean(right.astype(float), asked if prompts is None else prompts, **options)


def chance(seen: np.ndarray, asked: np.ndarray, draws: int = 10_000, seed: int = 0) -> Null:
    """Deal the requests to the images at random: the adherence that popular answers alone give."""
    hits(seen, asked)
    return permutation.permute(lambda dealt: np.mean(seen == dealt), asked, draws=draws, seed=seed)
