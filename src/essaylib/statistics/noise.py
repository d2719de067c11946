"""`noise`: in which order the ledger's answers go as noise is added to the latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from essaylib.claims import Test
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, decay, ledger
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.ledger import QUESTIONS, Questions

COUNT = 20
"""Timesteps at which the ledger is read, evenly spaced up to the last, beside the clean latents."""


@dataclass(frozen=True)
class Decay:
    """The ledger as noise is added: `answers` (m, 1 + T, 3), by concept, timestep and question.

    `timesteps` (1 + T,) begin with 0, the clean latents. `floors` (3,) are the shuffled scores,
    averaged over the timesteps: of what was dealt at random nothing can be read at any of them.
    """

    timesteps: np.ndarray
    answers: np.ndarray
    floors: np.ndarray

    def scores(self, question: str) -> np.ndarray:
        """Share of right answers at each timestep (1 + T,)."""
        return self.answers[:, :, QUESTIONS.index(question)].mean(0)

    def floor(self, question: str) -> float:
        return float(self.floors[QUESTIONS.index(question)])

    def curves(self, question: str) -> np.ndarray:
        """Each concept's decay (m, 1 + T): excess over the floor, in units of the clean excess."""
        answers = self.answers[:, :, QUESTIONS.index(question)]
        return decay.excess(answers, self.floor(question))


def noised(latents: np.ndarray, share: float, seed: int | tuple[int, ...] = 0) -> np.ndarray:
    """Mix latents with noise: sqrt(share) of them and sqrt(1 - share) of it, float32."""
    noise = np.random.default_rng(seed).standard_normal(latents.shape, dtype=np.float32)
    return np.sqrt(np.float32(share)) * latents + np.sqrt(np.float32(1 - share)) * noise


def read(latents: np.ndarray, asked: Questions, alphas_cumprod: np.ndarray, seed: int = 0) -> Decay:
    """Read the ledger on clean latents (rows of the table, ...) and at 20 timesteps.

    alphas_cumprod: the schedule, (1000,) as a scheduler holds it. Every drawing and timestep has a
    noise of its own. Timestep t counts from 1, as in Ho, Jain and Abbeel (2020).
    """
    schedule = np.asarray(alphas_cumprod, dtype=np.float64)
    if len(schedule) < COUNT:
        raise EssayError(f"A schedule of {len(schedule)} timesteps has no {COUNT} to read.")
    timesteps = np.linspace(0, len(schedule), COUNT + 1).round().astype(int)
    answers, floors = [], []
    for t in timesteps:
        held = noised(latents, schedule[t - 1], (seed, int(t))) if t else latents
        held = ledger.reduced(held, asked, seed=seed)
        answers.append(ledger.ledger(held, asked, seed=seed).answers)
        floors.append(ledger.shuffled(held, asked, seed=seed + int(t)).answers.mean(0))
    return Decay(timesteps, np.stack(answers, axis=1), np.mean(floors, axis=0))


def order(found: Decay, draws: int = 10_000, resamples: int = 4000, seed: int = 0) -> Test:
    """Half-life of the concept score less half-life of the vendor score, in timesteps.

    Raises `EssayError` where one of them cannot be read on clean latents, or never falls to half.
    """
    curves = found.curves("concept"), found.curves("vendor")
    estimate = decay.outlives(found.timesteps, *curves, draws=resamples, seed=seed)
    null = decay.null(found.timesteps, *curves, draws=draws, seed=seed)
    return Test.of(estimate, null.p)


def half_life(found: Decay, question: str, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The half-life of one score with its interval over concepts, in timesteps."""
    curves = found.curves(question)

    def life(rows: np.ndarray) -> float:
        mean = curves[rows].mean(0)
        return decay.half_life(found.timesteps, mean / mean[0])

    return bootstrap.bootstrap(life, len(curves), draws=resamples, seed=seed)


def table(found: Decay, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """What is left of each clean score: question, timestep, left, left_low, left_high.

    1 on clean latents, 0 at the floor; 95 % intervals over concepts.
    """
    m = len(found.answers)
    counts = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=resamples)
    rows = []
    for question in QUESTIONS:
        curves = found.curves(question)
        drawn = counts @ curves
        low, high = np.quantile(drawn / drawn[:, :1], [0.025, 0.975], axis=0)
        part = {"timestep": found.timesteps, "left": curves.mean(0)}
        rows.append(pd.DataFrame(part | {"left_low": low, "left_high": high, "question": question}))
    return pd.concat(rows, ignore_index=True)


def readable(found: Decay) -> dict[str, tuple[float, float]]:
    """Excess over the floor on clean latents and at the last timestep, for concept and vendor.

    The claim's control asks for at least 0.10 at the first and at most 0.05 at the second.
    """
    ends = {q: found.scores(q)[[0, -1]] - found.floor(q) for q in ("concept", "vendor")}
    return {question: (float(first), float(last)) for question, (first, last) in ends.items()}


def passed(found: Decay) -> bool:
    """Whether the claim's control holds."""
    return all(first >= 0.10 and abs(last) <= 0.05 for first, last in readable(found).values())
