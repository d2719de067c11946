"""Does the order of words matter? The same words, exchanged (after Yuksekgonul et al. 2023)."""

from collections.abc import Sequence

import numpy as np

from essaylib.errors import EssayError
from essaylib.measures import bootstrap
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.checks import finite


def exchanged(name: str) -> str | None:
    """Return a name with its first and last word in each other's place.

    None where that gives no other name, or where punctuation would be left in the wrong place.

    >>> exchanged("dog face"), exchanged("dog"), exchanged("kiss: woman, man")
    ('face dog', None, None)
    """
    words = name.split()
    if len(words) < 2 or not all(word.isalnum() for word in words):
        return None
    words[0], words[-1] = words[-1], words[0]
    other = " ".join(words)
    return None if other == name else other


def preferred(right: np.ndarray, wrong: np.ndarray, names: Sequence[str], **options) -> Estimate:
    """Return how often the name as it is fits a picture better than the exchanged one.

    right, wrong: (n,) cosines of n pictures with the two; ties count half, chance is one half. The
    interval resamples names; options go to `bootstrap.mean`.
    """
    right, wrong = finite(right, "right", dims=1), finite(wrong, "wrong", dims=1)
    if len(right) != len(wrong):
        raise EssayError(f"{len(right)} cosines and {len(wrong)}: they must pair.")
    return bootstrap.mean((right > wrong) + (right == wrong) / 2, np.asarray(names), **options)
