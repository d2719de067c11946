"""How much attention each word of a declared run took, kept beside it and checked on the way in.

Where a run hides words (see `essaylib.plans`), its whole images are traced once, when it is drawn
(`essay sample`): shares of all cross-attention, as `attention.shares` gives them. A chapter that
asks for them has some of the images traced again, and an error where the shares differ.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib import paths, store
from essaylib.errors import EssayError

if TYPE_CHECKING:
    import pandas as pd

    from essaylib.plans import Plan, Setting
    from essaylib.runs import Run

FILE = "masses.parquet"
RELATIVE, ABSOLUTE = 0.02, 1e-4
"""How far a share measured again may stray: across devices, scalars agree within 2 %."""


def measure(run: Run, pipe: Any, batch_size: int = 16) -> pd.DataFrame:
    """Trace the images of which nothing is hidden; one row an image and part of its prompt.

    Columns: prompt, seed, token, share. The tokens are "<start>", each word in lower case (all
    occurrences together), "<end>" and "<padding>"; an image's shares sum to one. Means over layers,
    heads, steps and places, of the branch that is given the prompt.
    """
    return _measured(run.plan, _whole(run), pipe, batch_size)


def keep(run: Run, pipe: Any) -> Path:
    """Measure the whole images of a run and keep their shares beside it; return the file."""
    table = measure(run, pipe)
    table.attrs = {"key": run.provenance["key"]}
    path = _path(run)
    store.write_whole(path, lambda part: table.to_parquet(part, index=False))
    return path


def current(run: Run) -> bool:
    """Whether shares are kept that belong to the run as it is now."""
    try:
        return not _kept(run).empty
    except EssayError:
        return False


def load(run: Run, pipe: Any, check: int = 8, seed: int = 0) -> pd.DataFrame:
    """Return the kept shares, `check` images of them measured again first.

    Raises `EssayError` where they are missing or damaged, belong to other weights, or do not come
    out again.
    """
    kept = _kept(run)
    whole = _whole(run)
    rows = np.random.default_rng(seed).choice(len(whole), min(check, len(whole)), replace=False)
    again = _measured(run.plan, whole.iloc[np.sort(rows)], pipe)
    both = again.merge(kept, on=["prompt", "seed", "token"], how="left", suffixes=("", "_kept"))
    off = (both.share - both.share_kept).abs() - RELATIVE * both.share - ABSOLUTE
    if not (off <= 0).all():
        worst = both.iloc[int(off.fillna(np.inf).argmax())]
        raise EssayError(
            f"In the run {run.plan.name!r}, {worst.token!r} of {worst.prompt!r} took "
            f"{worst.share_kept:.4f} of the attention, and now takes {worst.share:.4f}: "
            f"{_cure(run)}"
        )
    return kept


def _kept(run: Run) -> pd.DataFrame:
    import pandas as pd

    path, cure = _path(run), _cure(run)
    if not path.is_file():
        raise EssayError(f"The attention of the run {run.plan.name!r} was not measured: {cure}")
    try:
        kept = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise EssayError(f"{path} is damaged ({error}): {cure}") from error
    if kept.attrs.get("key") != run.provenance["key"]:
        raise EssayError(f"The run {run.plan.name!r} has changed since it was measured: {cure}")
    return kept


def _cure(run: Run) -> str:
    return f"`essay sample {run.plan.name}` measures it again."


def _whole(run: Run) -> pd.DataFrame:
    """The table's rows of which nothing is hidden."""
    names = [setting.name for setting in run.plan.settings if setting.method == "ordinary"]
    found = run.table[run.table.setting.isin(names)]
    if found.empty:
        raise EssayError(f"No image of the run {run.plan.name!r} was drawn whole.")
    return found


def _measured(plan: Plan, rows: pd.DataFrame, pipe: Any, batch_size: int = 16) -> pd.DataFrame:
    import pandas as pd

    found = []
    for name, table in rows.groupby("setting", sort=False):
        for start in range(0, len(table), batch_size):
            found += _traced(pipe, plan.setting(name), table.iloc[start : start + batch_size])
    return pd.DataFrame(found, columns=["prompt", "seed", "token", "share"])


def _traced(pipe: Any, setting: Setting, rows: pd.DataFrame) -> list[tuple[str, int, str, float]]:
    """Draw the rows again, listening, and list their shares."""
    from essaylib import attention, repro
    from essaylib.trace import Capture, trace

    capture = Capture(cross_attention=True, image=False, spans=False)
    with trace(pipe, capture) as tr:
        repro.generate(
            pipe,
            list(rows.prompt),
            [int(seed) for seed in rows.seed],
            steps=setting.steps,
            guidance_scale=setting.guidance_scale,
            batch_size=len(rows),
            output="latent",
            negative_prompt=setting.negative_prompt,
        )
    found = []
    for image, (prompt, seed) in enumerate(zip(rows.prompt, rows.seed, strict=True)):
        shares: dict[str, float] = {}
        for name, share in attention.shares(tr, image=image).items():
            token = re.sub(r" \(\d+\)$", "", name).casefold()  # a word's second time
            shares[token] = shares.get(token, 0.0) + share
        found += [(prompt, int(seed), token, share) for token, share in shares.items()]
    return found


def _path(run: Run) -> Path:
    return paths.runs() / run.plan.name / FILE
