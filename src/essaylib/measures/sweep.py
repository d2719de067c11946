"""One row a setting: what a declared run shows as guidance, steps or method change."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from essaylib.errors import EssayError
from essaylib.measures import adherence, bootstrap, concentration, vendi
from essaylib.measures.bootstrap import Estimate


def sweep(table: pd.DataFrame, seen: Mapping[str, Any], concepts: list[str]) -> pd.DataFrame:
    """Return adherence, concentration and variety of each setting, with 95 % intervals.

    table: a run's table (setting, prompt, concept, seed). seen: the judge's answers, one an image
    (`judgements.load`). concepts: the judge's list. Columns: setting, `named` (share of images
    with a vendor), and adherence, concentration and variety (mean Vendi score of a prompt's images
    in the judge's features), each with `_low` and `_high`. Intervals resample prompts.
    Concentration is NaN where fewer than two prompts have enough images that the judge is sure of.
    """
    if len(table) != len(seen["vendor"]):
        raise EssayError(f"{len(seen['vendor'])} answers for {len(table)} images: they must pair.")
    asked = table.concept.map({name: i for i, name in enumerate(concepts)}).to_numpy()
    rows = []
    for setting in table.setting.unique():
        here = (table.setting == setting).to_numpy()
        prompts = table.prompt[here].to_numpy()
        vendors = _per_prompt(seen["vendor"][here], prompts)
        scores = vendi.per_prompt(seen["features"][here].astype(float), prompts)[1]
        measured = {
            "adherence": adherence.adherence(seen["concept"][here], asked[here], prompts),
            "concentration": _concentration(vendors),
            "variety": bootstrap.mean(scores),
        }
        row = {"setting": setting, "images": int(here.sum()), "named": float((vendors >= 0).mean())}
        for name, value in measured.items():
            row |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _concentration(vendors: np.ndarray) -> Estimate:
    if not concentration.measurable(vendors):
        return Estimate(np.nan, np.nan, np.nan, 0)
    return concentration.concentration(vendors)


def _per_prompt(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Arrange (n,) as (prompts, images); every prompt has as many."""
    distinct, counts = np.unique(prompts, return_counts=True)
    if counts.min() != counts.max():
        raise EssayError("Every prompt needs as many images: select whole prompts.")
    return np.stack([values[prompts == prompt] for prompt in distinct])
