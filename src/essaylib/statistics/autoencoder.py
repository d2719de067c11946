"""`autoencoder`: whether what the round trip drops says more of the maker than of the thing.

A score's *retained part* in the residual is its excess over the shuffled floor there, divided by
its excess in pixels.
"""

from __future__ import annotations

import numpy as np

from essaylib.claims import Test
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, permutation
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.ledger import QUESTIONS, Ledger

CONCEPT = QUESTIONS.index("concept")
MAKER = [QUESTIONS.index("vendor"), QUESTIONS.index("source")]


def dropped(
    pixels: Ledger,
    residual: Ledger,
    pixels_floor: Ledger,
    residual_floor: Ledger,
    draws: int = 10_000,
    resamples: int = 4000,
    seed: int = 0,
) -> Test:
    """The mean retained part of vendor and source, less the retained part of concept.

    All four ledgers answer the same questions; the floors are `ledger.shuffled` of the same
    features. The interval (BCa) resamples concepts, numerators and denominators together. For the
    null, a concept's normalised answers to the one question and to the other two are exchanged.
    """
    answers = _stacked(pixels, residual, pixels_floor, residual_floor)
    parts = _by_concept(answers)
    difference = parts[:, MAKER].mean(1) - parts[:, CONCEPT]
    null = permutation.sign_flip(difference, draws=draws, seed=seed)
    found = _interval(
        answers, lambda part: part[:, MAKER].mean(1) - part[:, CONCEPT], resamples, seed
    )
    return Test.of(found, null.p)


def retained(
    pixels: Ledger,
    residual: Ledger,
    pixels_floor: Ledger,
    residual_floor: Ledger,
    resamples: int = 4000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The retained part of each question, with its interval over concepts (BCa)."""
    answers = _stacked(pixels, residual, pixels_floor, residual_floor)
    return {
        question: _interval(answers, lambda part, i=i: part[:, i], resamples, seed)
        for i, question in enumerate(QUESTIONS)
    }


def readable(pixels: Ledger, pixels_floor: Ledger) -> dict[str, float]:
    """Each score's excess over its shuffled floor: the claim's control asks for 0.10 of each."""
    excess = (pixels.answers - pixels_floor.answers).mean(0)
    return dict(zip(QUESTIONS, map(float, excess), strict=True))


def _stacked(*ledgers: Ledger) -> np.ndarray:
    """Answers (m, 4, 3): concepts, ledgers, questions."""
    first = ledgers[0]
    if any(not np.array_equal(first.concepts, other.concepts) for other in ledgers):
        raise EssayError("The ledgers were asked about different concepts.")
    answers = np.stack([found.answers for found in ledgers], axis=1)
    if (_excess(answers.mean(0))[0] <= 0).any():
        raise EssayError(
            "In pixels a score does not exceed its shuffled floor: there is nothing of which a "
            "part could be retained."
        )
    return answers


def _excess(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Excess over the floor in pixels and in the residual (..., 3), from means (..., 4, 3)."""
    return means[..., 0, :] - means[..., 2, :], means[..., 1, :] - means[..., 3, :]


def _by_concept(answers: np.ndarray) -> np.ndarray:
    """Each concept's share in the retained parts (m, 3); their mean over concepts is the parts."""
    return (answers[:, 1] - answers[:, 3]) / _excess(answers.mean(0))[0]


def _interval(answers: np.ndarray, statistic, resamples: int, seed: int) -> Estimate:
    """BCa interval over concepts of a function of retained parts, (n, 3) to (n,)."""
    m = len(answers)
    if m < 2:
        raise EssayError(f"An interval needs at least two concepts, not {m}.")
    flat = answers.reshape(m, -1)

    def parts(means: np.ndarray) -> np.ndarray:
        in_pixels, in_residual = _excess(means.reshape(-1, *answers.shape[1:]))
        return statistic(in_residual / in_pixels)

    counts = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=resamples)
    left_out = (flat.sum(0) - flat) / (m - 1)
    estimate = float(parts(flat.mean(0))[0])
    found, left_out = parts(counts @ flat / m), parts(left_out)
    if not (np.isfinite(found).all() and np.isfinite(left_out).all()):
        raise EssayError("Some resample has nothing readable in pixels: use more concepts.")
    return bootstrap.interval(estimate, found, m, left_out)
