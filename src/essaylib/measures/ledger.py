"""The displacement ledger: what of a drawing can still be read at a stage of the model.

Three matched four-way questions, chance 0.25, asked of the same drawings at every stage (pixels,
latents, CLIP, noised, denoised, generated), each after reduction to the same 64 dimensions:

- concept: which of four drawings by another vendor, same subgroup, shows this concept?
- vendor: who drew it?
- source: which of four drawings by one vendor, same subgroup, was this?

All are answered by linear readings that were fitted on other concepts. Concept: the nearest
drawing, after the directions in which drawings of one concept differ were scaled down (Fisher
1936). Vendor: ridge regression on the four classes. Source: ridge regression on the drawing's
pixels, then the nearest of the four. A low score means *harder to read linearly*; only where
`probe="nonlinear"` (random Fourier features beside the 64, Rahimi and Recht 2007) fails too may one
say "lost".

Floors: `shuffled`, the same with the drawings' features dealt out at random;
`projection="random"`; `probe="distance"`, nearest neighbours with nothing fitted (`source` is 1
there by construction, for a drawing is nearest to itself); and the features of an untrained
network, which the caller passes in.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from essaylib.errors import EssayError
from essaylib.measures import bootstrap
from essaylib.measures.bootstrap import Estimate
from essaylib.measures.checks import finite

QUESTIONS = ("concept", "vendor", "source")
DIMENSIONS = 64
CHANCE = 0.25
FOLDS = 5

RIDGE = 0.1
"""Strength of ridge regression, and of the shrinkage of a covariance, relative to its trace."""

TINY = 1e-12

FOURIER = 512
"""Random Fourier features of the non-linear probe."""


@dataclass(frozen=True)
class Questions:
    """The questions, drawn once so that every stage answers the same ones.

    `rows` (n,) are positions in the caller's table, the drawings of concepts that all vendors
    drew; everything else counts within `rows`. `concept`, `vendor`, `fold` (n,) are indices; a
    question's choices all lie in one fold, for a fitted space is kinder to what it was fitted on;
    `concept_choices`, `source_choices` (n, 4) are drawings, the right one first; `reference`
    (n, 64) are the drawings' own pixels, reduced.
    """

    rows: np.ndarray
    concept: np.ndarray
    vendor: np.ndarray
    fold: np.ndarray
    concept_choices: np.ndarray
    source_choices: np.ndarray
    reference: np.ndarray
    names: np.ndarray


@dataclass(frozen=True)
class Ledger:
    """One stage's answers: `answers` (m, 3), share right by concept and question.

    `concepts` (m,) names them, so that two stages can be compared concept by concept.
    """

    concepts: np.ndarray
    answers: np.ndarray

    def of(self, question: str) -> np.ndarray:
        """Share of right answers of each concept (m,)."""
        if question not in QUESTIONS:
            raise EssayError(f"Unknown question {question!r}: ask for {', '.join(QUESTIONS)}.")
        return self.answers[:, QUESTIONS.index(question)]

    def score(self, question: str, **options) -> Estimate:
        """Mean score with its interval over concepts; options go to `bootstrap.mean`."""
        return bootstrap.mean(self.of(question), **options)


def selection(table: pd.DataFrame, concepts: int | None = None, seed: int = 0) -> np.ndarray:
    """Rows of the drawings of the concepts that all four vendors drew, by concept and vendor.

    With `concepts`, of that many at most, in whole subgroups drawn by lot (wrong choices are
    peers), but of one subgroup at least.
    """
    table = table.reset_index(drop=True)
    kept = table[table.groupby("concept").vendor.transform("nunique") == 4]
    if concepts is not None and concepts < kept.concept.nunique():
        sizes = kept.groupby("subgroup").concept.nunique()
        sizes = sizes[sizes >= 4].sample(frac=1, random_state=seed)
        within = sizes.index[sizes.cumsum() <= max(concepts, sizes.iloc[0])]
        kept = kept[kept.subgroup.isin(within)]
    return kept.sort_values(["concept", "vendor"]).index.to_numpy()


def questions(table: pd.DataFrame, pixels: np.ndarray, seed: int = 0) -> Questions:
    """Draw the questions for the concepts that all vendors of `table` drew.

    table: concept, vendor, subgroup, group, one row a drawing. pixels: (rows of table, ...) the
    drawings that `source` is asked of. Wrong choices come from the same subgroup; subgroups with
    fewer than four concepts are joined within their group, and left out where that is too few.
    """
    if len(table) != len(pixels):
        raise EssayError(f"{len(table)} drawings and {len(pixels)} images: they must pair.")
    names = np.unique(table.vendor)
    if len(names) != 4:
        raise EssayError(f"The questions are four-way: the table has {len(names)} vendors.")
    kept = table.reset_index(drop=True).drop_duplicates(["concept", "vendor"])
    kept = kept[kept.groupby("concept").vendor.transform("nunique") == 4]
    kept = kept.assign(pool=_pools(kept)).dropna(subset="pool")
    if not len(kept):
        raise EssayError("No four concepts of one group were drawn by all four vendors.")
    rows = kept.index.to_numpy()
    labels, concept = np.unique(kept.concept, return_inverse=True)
    vendor = np.searchsorted(names, kept.vendor)
    rng = np.random.default_rng(seed)
    pool = kept.pool.to_numpy()[np.unique(concept, return_index=True)[1]]
    fold = _balanced_folds(pool, rng)
    place = np.empty((len(labels), 4), dtype=int)
    place[concept, vendor] = np.arange(len(kept))
    asked = (vendor + rng.integers(1, 4, len(kept))) % 4  # another vendor than the drawing's own
    others = [np.setdiff1d(np.flatnonzero(pool == pool[c]), c) for c in range(len(labels))]
    choices, sources = (
        np.array([[c, *rng.choice(others[c], 3, replace=False)] for c in concept]) for _ in range(2)
    )
    reference = _reduce(_rows(pixels, rows, "pixels"), "pca", seed)
    return Questions(
        rows,
        concept,
        vendor,
        fold[concept],
        place[choices, asked[:, None]],
        place[sources, vendor[:, None]],
        reference,
        labels,
    )


def ledger(
    features: np.ndarray,
    asked: Questions,
    probe: str = "linear",
    projection: str = "pca",
    seed: int = 0,
) -> Ledger:
    """Answer the questions from `features` (rows of the table, ...).

    probe: "linear", "nonlinear" or "distance". projection: "pca" or "random", both to 64
    dimensions (features with fewer keep what they have; with "distance" all are used).
    """
    if probe == "distance":
        return _by_distance(_rows(features, asked.rows, "features").astype(np.float64), asked)
    x = _reduce(_rows(features, asked.rows, "features"), projection, seed)
    if probe == "nonlinear":
        x = _fourier(x, seed)
    elif probe != "linear":
        raise EssayError(f"Unknown probe {probe!r}: use linear, nonlinear or distance.")
    right = np.empty((len(x), 3))
    for fold in range(FOLDS):
        test = asked.fold == fold
        train = ~test
        metric = x @ _within(x[train], asked.concept[train], asked.vendor[train])
        centred = metric - _vendor_means(metric, train, asked.vendor)[asked.vendor]
        right[test, 0] = _first_is_nearest(centred[test], centred[asked.concept_choices[test]])
        scores = _ridge(x, np.eye(4)[asked.vendor], train)
        right[test, 1] = _is_largest(scores[test], asked.vendor[test])
        drawn = _ridge(x, asked.reference, train)
        choices = asked.reference[asked.source_choices[test]]
        right[test, 2] = _first_is_nearest(drawn[test], choices)
    return _by_concept(right, asked)


def reduced(
    features: np.ndarray, asked: Questions, projection: str = "pca", seed: int = 0
) -> np.ndarray:
    """Reduce features once that will be read several times: (rows of the table, at most 64).

    `ledger` and `shuffled` take sixty-four columns as they are. Rows that are not asked about are
    left at zero.
    """
    x = _reduce(_rows(features, asked.rows, "features"), projection, seed)
    found = np.zeros((len(features), x.shape[1]))
    found[asked.rows] = x
    return found


def shuffled(features: np.ndarray, asked: Questions, seed: int = 0, **options) -> Ledger:
    """The floor: features dealt to the drawings at random, so that nothing can be read."""
    order = np.random.default_rng(seed).permutation(len(asked.rows))
    dealt = np.array(features)
    dealt[asked.rows] = dealt[asked.rows][order]
    return ledger(dealt, asked, seed=seed, **options)


def table(
    stages: dict[str, Ledger], floors: dict[str, Ledger] | None = None, **options
) -> pd.DataFrame:
    """One row a stage and question: stage, question, score, score_low, score_high, n.

    `floors` holds some stages as `shuffled` reads them: then there is a column `score_null`, NaN
    for the others.
    """
    rows = []
    for stage, found in stages.items():
        for question in QUESTIONS:
            score = found.score(question, **options)
            rows.append((stage, question, score.estimate, score.low, score.high, score.n))
    columns = ["stage", "question", "score", "score_low", "score_high", "n"]
    written = pd.DataFrame(rows, columns=columns)
    if floors is None:
        return written
    null = {(s, q): floor.of(q).mean() for s, floor in floors.items() for q in QUESTIONS}
    pairs = zip(written.stage, written.question, strict=True)
    return written.assign(score_null=[null.get(pair, np.nan) for pair in pairs])


def _pools(table: pd.DataFrame) -> pd.Series:
    """Whom a drawing's wrong choices come from: its subgroup, or what is left of its group.

    A subgroup with fewer than four concepts joins the others of its group that are as small; the
    pool is None where even these are too few.
    """

    def size(key: pd.Series) -> pd.Series:
        return table.groupby(key).concept.transform("nunique")

    small = table.group + ", small subgroups"
    pool = table.subgroup.where(size(table.subgroup) >= 4, small)
    return pool.where(size(pool) >= 4)


def _balanced_folds(pools: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal whole pools to folds, the largest first, each to the fold that is emptiest."""
    names, sizes = np.unique(pools, return_counts=True)
    fold, filled = {}, np.zeros(FOLDS, dtype=int)
    for i in np.lexsort((rng.random(len(names)), -sizes)):
        fold[names[i]] = int(filled.argmin())
        filled[fold[names[i]]] += sizes[i]
    return np.array([fold[pool] for pool in pools])


def _rows(values: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """The rows as one vector each: a copy, in float32 unless they came with more digits."""
    values = np.asarray(values)
    kind = np.float64 if values.dtype == np.float64 else np.float32
    return finite(values[rows].reshape(len(rows), -1), name, dtype=kind)


def _reduce(x: np.ndarray, projection: str, seed: int) -> np.ndarray:
    """Centre, reduce to 64 dimensions, and scale to unit total variance a dimension: float64.

    Overwrites x, which may be half a gigabyte of pixels.
    """
    x -= x.mean(0)
    if projection not in ("pca", "random"):
        raise EssayError(f"Unknown projection {projection!r}: use pca or random.")
    if not x.any():
        return np.zeros((len(x), min(DIMENSIONS, x.shape[1])))
    if x.shape[1] > DIMENSIONS:
        if projection == "pca":
            from sklearn.decomposition import PCA

            solver = "randomized" if min(x.shape) > 4 * DIMENSIONS else "full"
            count = min(DIMENSIONS, len(x))
            x = PCA(count, svd_solver=solver, random_state=seed).fit_transform(x)
        else:
            x = x @ np.random.default_rng(seed).normal(size=(x.shape[1], DIMENSIONS))
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean())


def _fourier(x: np.ndarray, seed: int) -> np.ndarray:
    """x beside random Fourier features of a Gaussian kernel, twice the usual distance wide."""
    rng = np.random.default_rng(seed)
    a, b = x[rng.integers(len(x), size=(2, 2000))]
    width = 2 * np.median(np.linalg.norm(a - b, axis=1))
    frequencies = rng.normal(size=(x.shape[1], FOURIER)) / max(width, TINY)
    waves = np.cos(x @ frequencies + rng.uniform(0, 2 * np.pi, FOURIER)) * np.sqrt(2.0 / FOURIER)
    return np.hstack([x / np.sqrt(x.shape[1]), waves - waves.mean(0)])


def _within(x: np.ndarray, concept: np.ndarray, vendor: np.ndarray) -> np.ndarray:
    """A matrix that whitens how drawings of one concept differ, the vendors' means aside."""
    centred = x - _vendor_means(x, np.ones(len(x), bool), vendor)[vendor]
    _, index = np.unique(concept, return_inverse=True)
    sums = np.zeros((index.max() + 1, x.shape[1]))
    np.add.at(sums, index, centred)
    centred -= (sums / np.bincount(index)[:, None])[index]
    covariance = centred.T @ centred / len(x)
    values, vectors = np.linalg.eigh(covariance)
    shrink = RIDGE * max(values.mean(), TINY)
    return vectors / np.sqrt(np.maximum(values, 0) + shrink)


def _vendor_means(x: np.ndarray, rows: np.ndarray, vendor: np.ndarray) -> np.ndarray:
    return np.array([x[rows & (vendor == v)].mean(0) for v in range(4)])


def _ridge(x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Predict y (n, k) for all rows from x (n, d), fitted on `train`."""
    centre_x, centre_y = x[train].mean(0), y[train].mean(0)
    a, b = x[train] - centre_x, y[train] - centre_y
    gram = a.T @ a
    strength = RIDGE * max(np.trace(gram) / len(gram), TINY)
    weights = np.linalg.solve(gram + strength * np.eye(len(gram)), a.T @ b)
    return (x - centre_x) @ weights + centre_y


def _first_is_nearest(x: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """Whether the first of four choices (n, 4, d) is nearest to x (n, d); ties count in part."""
    return _is_largest(-((choices - x[:, None]) ** 2).sum(-1), np.zeros(len(x), dtype=int))


def _is_largest(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    best = scores >= scores.max(1, keepdims=True) - 1e-12
    return best[np.arange(len(scores)), right] / best.sum(1)


def _by_distance(x: np.ndarray, asked: Questions) -> Ledger:
    """Nothing fitted: the nearest choice, and the vendor of the nearest drawing of a concept that
    is not in the same fold."""
    right = np.empty((len(x), 3))
    right[:, 0] = _first_is_nearest(x, x[asked.concept_choices])
    right[:, 2] = _first_is_nearest(x, x[asked.source_choices])
    squares = (x**2).sum(1)
    for fold in range(FOLDS):
        test, train = asked.fold == fold, np.flatnonzero(asked.fold != fold)
        near = (squares[train] - 2 * x[test] @ x[train].T).argmin(1)
        right[test, 1] = asked.vendor[train[near]] == asked.vendor[test]
    return _by_concept(right, asked)


def _by_concept(right: np.ndarray, asked: Questions) -> Ledger:
    sums = np.zeros((len(asked.names), 3))
    np.add.at(sums, asked.concept, right)
    return Ledger(asked.names, sums / np.bincount(asked.concept)[:, None])
