"""The statistic of the claim `attention`: does a word's mass say what it decides?

It takes a run whose prompts were drawn whole and without each of their content words
(`data/runs/attention/plan.yml`), and the attention of the whole images (`essaylib.masses`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from essaylib.claims import Test
from essaylib.errors import EssayError
from essaylib.measures import bootstrap, correlation, permutation
from essaylib.plans import PADDING

if TYPE_CHECKING:
    import pandas as pd

    from essaylib.runs import Run

LEFT_OUT = ("<start>", "<padding>")


def changes(run: Run) -> pd.DataFrame:
    """How far the final latent moves when something is hidden: prompt, hidden, change.

    Mean squared difference from the whole image of the same noise, mean over the seeds.
    """
    table = run.table.reset_index(drop=True)
    latents = run.latents.float().flatten(1).numpy()
    whole = table.index[table.hidden.isna()]
    place = {(table.prompt[i], table.seed[i]): i for i in whole}
    hidden = table[table.hidden.notna()]
    pairs = [place[key] for key in zip(hidden.prompt, hidden.seed, strict=True)]
    moved = ((latents[hidden.index] - latents[pairs]) ** 2).mean(1)
    groups = hidden.assign(change=moved).groupby(["prompt", "hidden"], sort=False)
    return groups.change.mean().reset_index()


def words(run: Run, masses: pd.DataFrame) -> pd.DataFrame:
    """One row a content word: prompt, word, mass, change, relative_mass, relative_change.

    mass: the word's share of the attention that neither the start token nor the padding took, mean
    over the seeds. change: as in `changes`. The last two are multiples of the prompt's geometric
    mean, NaN or infinite where a word has no mass or no effect at all.
    """
    kept = masses[~masses.token.isin(LEFT_OUT)]
    sums = kept.groupby(["prompt", "token"]).share.sum()
    shares = (sums / sums.groupby(level="prompt").transform("sum")).rename("mass").reset_index()
    found = changes(run)
    found = found[found.hidden != PADDING].rename(columns={"hidden": "word"})
    found = found.merge(shares.rename(columns={"token": "word"}), on=["prompt", "word"], how="left")
    lost = found[found.mass.isna()]
    if len(lost):
        word, prompt = lost.word.iloc[0], lost.prompt.iloc[0]
        raise EssayError(f"No attention was measured for {word!r} of {prompt!r}.")
    found = found[["prompt", "word", "mass", "change"]]
    for name in ("mass", "change"):
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(found[name])
            found[f"relative_{name}"] = np.exp(logs - logs.groupby(found.prompt).transform("mean"))
    return found


def mass(
    run: Run, masses: pd.DataFrame, draws: int = 10_000, resamples: int = 4000, seed: int = 0
) -> Test:
    """Correlation of log mass with log change, both centred within their prompt.

    Null: masses are permuted among the content words of a prompt. Interval: prompts resampled. n
    counts words. Raises `EssayError` where a word has no mass or no effect at all, since neither
    has a logarithm then.
    """
    table = words(run, masses)
    nothing = table[(table.mass <= 0) | (table.change <= 0)]
    if len(nothing):
        raise EssayError(
            f"{nothing.word.iloc[0]!r} of {nothing.prompt.iloc[0]!r} has no attention or no effect "
            "at all: there is no logarithm to correlate."
        )
    x, y = np.log(table.mass.to_numpy()), np.log(table.change.to_numpy())
    prompts = table.prompt.to_numpy()
    found = bootstrap.bootstrap(
        lambda rows: correlation.within_groups(x[rows], y[rows], prompts[rows]),
        prompts,
        resamples,
        seed=seed,
    )
    null = permutation.permute(
        lambda shuffled: correlation.within_groups(shuffled, y, prompts), x, prompts, draws, seed
    )
    return Test(found.estimate, found.low, found.high, null.p, n=len(table))


@dataclass(frozen=True)
class Control:
    """What the instrument must manage. padding, word: median changes. missing: share not seen."""

    padding: float
    word: float
    missing: float

    @property
    def passed(self) -> bool:
        """A position of padding changes less than a quarter of a word; every share was seen."""
        return self.padding < self.word / 4 and self.missing <= 2e-3


def control(run: Run, masses: pd.DataFrame) -> Control:
    """Compare hiding a position of padding with hiding a word; add up every image's shares.

    The shares are stored in half precision, so that their sum may be off by a thousandth or so.
    """
    found = changes(run)
    padding = found.hidden == PADDING
    sums = masses.groupby(["prompt", "seed"]).share.sum()
    drawn = run.table[run.table.hidden.isna()].set_index(["prompt", "seed"]).index
    missing = (1 - sums.reindex(drawn)).abs().fillna(1.0)
    return Control(
        float(found.change[padding].median()),
        float(found.change[~padding].median()),
        float(missing.max()),
    )
