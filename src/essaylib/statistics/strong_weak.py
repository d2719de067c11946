"""The statistic of the claim `strong-weak`: is what lies near its group's centre drawn better?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from essaylib import claims
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, correlation
from essaylib.measures.checks import finite, labels

if TYPE_CHECKING:
    import pandas as pd

    from essaylib.corpus import Corpus
    from essaylib.judge import Judge


def pooled(pipe: Any, captions: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """Return the pooled output of the pipeline's text encoder for captions (n, d), float32."""
    import torch

    words, encoder = pipe.tokenizer, pipe.text_encoder
    found = []
    for start in range(0, len(captions), batch_size):
        ids = words(
            list(captions[start : start + batch_size]),
            padding="max_length",
            max_length=words.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        with torch.no_grad():
            found.append(encoder(ids.to(encoder.device)).pooler_output.float().cpu())
    return torch.cat(found).numpy()


def to_centre(embeddings: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return each row's cosine (n,) with the mean of the *other* rows of its group.

    embeddings (n, d), groups (n,). Raises `EssayError` where a row is alone in its group.
    """
    x = finite(embeddings, "embeddings", dims=2)
    _, index = np.unique(labels(groups, "groups", len(x)), return_inverse=True)
    sizes = np.bincount(index)
    if sizes.min() < 2:
        raise EssayError("A caption that is alone in its group has no centre to be near.")
    sums = np.stack([np.bincount(index, column) for column in x.T], axis=1)
    others = sums[index] - x  # the direction of their mean
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(others, axis=1)
    return (x * others).sum(1) / np.maximum(lengths, 1e-12)


def requested(judge: Judge, features: np.ndarray, concepts: Sequence[str]) -> np.ndarray:
    """Return the judge's probability (n,) of the concept asked for, from its kept features."""
    import torch

    index = torch.tensor([judge.concepts.index(name) for name in concepts])
    with torch.no_grad():
        logits = judge.network.concept(torch.from_numpy(np.asarray(features, dtype=np.float32)))
        probabilities = (logits / judge.temperature["concept"]).softmax(1)
    return probabilities[torch.arange(len(index)), index].numpy().astype(np.float64)


def quality(probability: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
    """Return the mean of two ranks, averaged over a concept's images: (n,), from 0 to 1.

    Both (n, seeds): the judge's probability of the concept asked for, the Laplacian's energy. Ranks
    run over all images.
    """
    probability, sharpness = finite(probability, "probability"), finite(sharpness, "sharpness")
    if probability.shape != sharpness.shape or probability.ndim != 2:
        raise EssayError(f"{probability.shape} and {sharpness.shape} must be (concepts, seeds).")
    ranks = [rankdata(values) / values.size for values in (probability, sharpness)]
    return np.mean(ranks, axis=0).reshape(probability.shape).mean(axis=1)


def drawings(data: Corpus, judge: Judge, concepts: Sequence[str]) -> pd.DataFrame:
    """Describe the training drawings of concepts, one row a concept, in their order.

    edges: mean density of edges; number: how many drawings; judged: the judge's mean probability of
    their concept. These are what the statistic holds fixed.
    """
    import pandas as pd

    from essaylib.measures.sharpness import edge_density

    table = data.table
    rows = np.flatnonzero((table.split == "train") & table.concept.isin(list(concepts)))
    parts = []
    for some in np.array_split(rows, -(-len(rows) // 256)):  # not all as pixels at once
        images = data.rgb(some)
        names = table.concept.to_numpy()[some]
        judged = requested(judge, judge(images).features, names)
        parts.append(
            pd.DataFrame({"concept": names, "edges": edge_density(images), "judged": judged})
        )
    grouped = pd.concat(parts).groupby("concept")
    found = grouped.mean().assign(number=grouped.size())
    return found.loc[list(concepts), ["edges", "number", "judged"]]


def centrality(
    central: np.ndarray,
    quality: np.ndarray,
    given: np.ndarray,
    groups: np.ndarray,
    draws: int = 10_000,
    resamples: int = 4000,
    seed: int = 0,
) -> claims.Test:
    """Return the partial rank correlation of centrality and quality, `given` held fixed.

    central, quality (n,), given (n, k), groups (n,), one row a concept. Null: what is left of
    centrality is permuted within groups (Freedman and Lane). Interval over concepts.
    """
    null = correlation.freedman_lane(central, quality, given, groups, draws=draws, seed=seed)

    def partial(rows: np.ndarray) -> float:
        return correlation.partial_spearman(central[rows], quality[rows], given[rows])

    estimate = bootstrap.bootstrap(partial, len(central), draws=resamples, seed=seed)
    return claims.Test.of(estimate, null.p)
