"""`clip`: how far the maker is harder to read in a space that was learned from names alone."""

from __future__ import annotations

import numpy as np

from essaylib.claims import Test
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, permutation
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.ledger import Ledger


def fall(
    pixels: Ledger,
    untrained: Ledger,
    unnamed: Ledger,
    draws: int = 10_000,
    resamples: int = 4000,
    seed: int = 0,
) -> Test:
    """The smaller of two falls of the vendor score: from pixels, and from the untrained tower.

    Both end in `unnamed`, the ledger of the CLIP that was trained without vendor names; all three
    answer the same questions. The larger of the two p counts: both falls must be real.
    """
    falls = np.stack([_less(start, unnamed, "vendor") for start in (pixels, untrained)])
    p = max(permutation.sign_flip(one, draws=draws, seed=seed).p for one in falls)
    found = bootstrap.bootstrap(
        lambda rows: falls[:, rows].mean(1).min(), falls.shape[1], draws=resamples, seed=seed
    )
    return Test.of(found, p)


def gained(untrained: Ledger, unnamed: Ledger, resamples: int = 4000, seed: int = 0) -> Estimate:
    """What training gained in concept score, with its interval: the claim's control."""
    return bootstrap.mean(_less(unnamed, untrained, "concept"), draws=resamples, seed=seed)


def _less(a: Ledger, b: Ledger, question: str) -> np.ndarray:
    """Share of right answers in a less that in b, concept by concept."""
    if not np.array_equal(a.concepts, b.concepts):
        raise EssayError("The two ledgers were asked about different concepts.")
    return a.of(question) - b.of(question)
