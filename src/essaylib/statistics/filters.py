"""`filters`: a cut-off on fit, applied to drawings by a CLIP that did not learn their concepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from essaylib import corpus, features
from essaylib.claims import Test
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, survival


@dataclass(frozen=True)
class Fit:
    """How well drawings fit their concepts' bare names, rows as in the corpus that was scored.

    `cosine` (n,) with the own name; `scorer` (n,) the half whose CLIP gave it, which is the half
    that the concept is not in. `told_apart` is, by scorer, the chance that a drawing's own name
    scores above a mismatched one: the claim's control.
    """

    cosine: np.ndarray
    scorer: np.ndarray
    told_apart: dict[str, float]


def fit(clips: Mapping[str, tuple[Any, Any]], data: corpus.Corpus) -> Fit:
    """Score drawings by the CLIP of the other half.

    clips: "first" and "second", each a model and its tokenizer as `models.load_clip` returns them,
        trained on that half of the concepts (`corpus.halves`).
    """
    if set(clips) != {"first", "second"}:
        raise EssayError(f"Two CLIPs are needed, first and second, not {', '.join(clips)}.")
    concepts = data.table.concept.to_numpy()
    unseen = dict(zip(("second", "first"), corpus.halves(concepts), strict=True))
    cosine, told_apart = np.empty(len(data)), {}
    scorer = np.where(np.isin(concepts, unseen["first"]), "first", "second")
    for name, (clip, words) in clips.items():
        rows = np.flatnonzero(scorer == name)
        if len(unseen[name]) < 2:
            raise EssayError(f"The {name} CLIP has fewer than two concepts to tell apart.")
        pictures = data.rgb(rows, size=clip.config.vision_config.image_size)
        names = _unit(features.clip_texts(clip, words, unseen[name]))
        every = _unit(features.clip_images(clip, pictures)) @ names.T
        own = np.equal.outer(concepts[rows], unseen[name])
        cosine[rows] = every[own]
        told_apart[name] = survival.told_apart(every[own], every[~own])
    return Fit(cosine, scorer, told_apart)


def gap(
    scores: np.ndarray,
    scorer: np.ndarray,
    draws: int = 10_000,
    resamples: int = 4000,
    seed: int = 0,
) -> Test:
    """The vendor that survives most less the one that survives least, beyond dealing at random.

    scores: (m, 4), one row a concept and one column a vendor; scorer: (m,) whose scores they are.
    Survival is averaged over the cut-offs that keep 10, 20, ..., 90 % of all pairs.
    """
    null = survival.dealt(survival.survival(scores, scorer), draws=draws, seed=seed)

    def excess(rows: np.ndarray) -> float:
        return survival.spread(survival.survival(scores[rows], scorer[rows])) - null.mean

    found = bootstrap.bootstrap(excess, len(scores), draws=resamples, seed=seed)
    return Test.of(found, null.p)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
