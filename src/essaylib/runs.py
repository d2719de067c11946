"""Draw a declared run once, keep its latents, and check that they come out again.

On two cores an image costs a good part of a second, so a chapter cannot draw as many as a verdict
needs. `essay sample PLAN` draws them; the latents (2 KB an image, float16) lie beside the plan with
a table and provenance, keyed by the weights. A chapter loads the run, draws a few of its images
again, asserts that they agree, and measures all of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib import claims, models, paths, plans, provenance, store, weights
from essaylib.errors import EssayError

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from essaylib.plans import Plan, Setting

LATENTS, TABLE, PROVENANCE = "latents.safetensors", "table.parquet", "provenance.json"
TOLERANCE = 1e-2
"""Largest difference of a latent drawn again, beyond float16's rounding (see `repro`)."""

SPARE = 50_000_000
"""Bytes to leave free on the disk."""


@dataclass(frozen=True)
class Run:
    """A drawn run: `table` has one row an image, in the order of `latents` float16 (n, C, h, w)."""

    plan: Plan
    table: pd.DataFrame
    latents: torch.Tensor
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def first_seed(self) -> int:
        """The lowest seed, as `claims.record` asks for it."""
        return int(self.table.seed.min())

    def where(self, **columns: Any) -> Run:
        """Return the images whose columns equal a value, or are among a list of values."""
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in columns.items():
            if name not in self.table.columns:
                known = ", ".join(self.table.columns)
                raise EssayError(f"A run's table has no column {name!r}; it has {known}.")
            wanted = [wanted] if np.isscalar(wanted) else list(wanted)
            keep &= self.table[name].isin(wanted).to_numpy()
        return self.take(np.flatnonzero(keep))

    def take(self, rows: Sequence[int] | np.ndarray) -> Run:
        """Return the images at these positions, in this order."""
        rows = np.asarray(rows, dtype=int)
        table = self.table.iloc[rows].reset_index(drop=True)
        return Run(self.plan, table, self.latents[rows], self.provenance)

    def by_setting(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Arrange one value an image, (n, ...), as (prompts, seeds, ...) for each setting.

        Prompts and seeds stand in the same order at every setting, so that they can be paired.
        Where words are hidden, the first axis counts words instead, prompt by prompt.
        """
        values = np.asarray(values)
        if len(values) != len(self):
            raise EssayError(f"{len(values)} values for the {len(self)} images of the run.")
        found = {}
        for name in self.table.setting.unique():
            here = np.flatnonzero(self.table.setting == name)
            if len(here) % self.plan.seeds:
                raise EssayError("Prompts must be whole: select settings and prompts, not seeds.")
            found[name] = values[here].reshape(-1, self.plan.seeds, *values.shape[1:])
        return found

    def images(self, pipe: Any, batch_size: int = 32) -> np.ndarray:
        """Decode the images, uint8 (n, H, W, 3), by the pipeline's autoencoder."""
        from essaylib import repro

        return repro.decode(pipe, self.latents.float(), batch_size)

    def batches(self, pipe: Any, batch_size: int = 64) -> Iterator[tuple[slice, np.ndarray]]:
        """Decode a part at a time: (rows, uint8 images), where all would fill the memory."""
        from essaylib import repro

        for start in range(0, len(self), batch_size):
            rows = slice(start, min(start + batch_size, len(self)))
            yield rows, repro.decode(pipe, self.latents[rows].float(), batch_size)


def draw(
    name: str,
    model: str = "embedded",
    device: str = "auto",
    batch_size: int = 16,
    force: bool = False,
    progress: bool = True,
) -> Run:
    """Draw the plan `name`, or go on where an interrupted drawing stopped; return the run.

    Nothing is drawn where the run is there and its weights, plan and corpus are still the same,
    unless `force` (which goes on with its own interrupted drawing, too). An image depends on its
    prompt, seed and setting, not on its batch. Raises `EssayError` for an unknown plan, a missing
    model, a batch of none, too little disk or an unwritable folder.
    """
    if batch_size < 1:
        raise EssayError("--batch must be 1 or more.")
    plan = plans.load(name)
    folder, key = folder_of(name, model), _key(plan, model)
    if not force and key_of(folder) == key:
        return load(name, model)
    table = plan.table(_first_seed(model))
    parts = paths.build() / "runs" / f"{folder.name}-{key[:12]}"
    pipe = models.load(model, device)
    _check_disk(folder, parts, len(table) * _bytes_each(pipe))
    latents = draw_parts(plan, table, pipe, parts, batch_size, progress)
    _keep(plan, table, latents, pipe, folder, key, model)
    shutil.rmtree(parts)
    return load(name, model)


def load(name: str, model: str = "embedded") -> Run:
    """Load a drawn run; raise `EssayError` where it is missing, damaged or stale.

    A run is stale when the weights, the plan or the corpus are no longer those that it was drawn
    with.
    """
    plan = plans.load(name)
    folder = folder_of(name, model)
    command = f"essay sample {name}" + ("" if model == "embedded" else f" --model {model}")
    found = key_of(folder)
    if found is None:
        raise EssayError(f"The run {name!r} has not been drawn with {model}: `{command}`.")
    if found != _key(plan, model):
        raise EssayError(
            f"The run {name!r} is stale: weights, plan or corpus have changed since it was drawn. "
            f"Draw it again: `{command}`."
        )
    import pandas as pd
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        latents = load_file(folder / LATENTS)["latents"]
        table = pd.read_parquet(folder / TABLE)
    except (SafetensorError, OSError, ValueError) as error:
        raise EssayError(
            f"The run {name!r} is damaged ({error}): restore {folder}, or `{command} --force`."
        ) from error
    if len(latents) != len(table):
        raise EssayError(
            f"The run {name!r} has {len(table)} rows and {len(latents)} latents: "
            f"restore {folder}, or `{command} --force`."
        )
    return Run(plan, table, latents, json.loads((folder / PROVENANCE).read_text(encoding="utf-8")))


def recheck(run: Run, pipe: Any, n: int = 16, seed: int = 0) -> pd.DataFrame:
    """Draw `n` images of the run again, chosen at random, and compare.

    Returns the chosen rows with `difference`, the largest absolute difference of a latent from the
    kept one. Raises `EssayError` where one exceeds 1e-2 (beyond the rounding of float16).
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(run), size=min(n, len(run)), replace=False))
    chosen = run.table.iloc[rows].copy()
    kept = run.latents[rows].float()
    difference = np.empty(len(rows))
    allowed = np.empty(len(rows))
    for name in chosen.setting.unique():
        here = np.flatnonzero(chosen.setting == name)
        again = generate(pipe, run.plan.setting(name), chosen.iloc[here], len(here))
        off = (again - kept[here]).abs()
        difference[here] = off.amax(dim=(1, 2, 3)).numpy()
        # Half of float16's spacing at the latent's own size.
        rounding = kept[here].abs().amax(dim=(1, 2, 3)).numpy() * 2.0**-11
        allowed[here] = TOLERANCE + rounding
    chosen["difference"] = difference
    if (difference > allowed).any():
        worst = int(np.argmax(difference - allowed))
        raise EssayError(
            f"The run {run.plan.name!r} does not come out again: {chosen.prompt.iloc[worst]!r}, "
            f"seed {chosen.seed.iloc[worst]}, setting {chosen.setting.iloc[worst]!r} is off by "
            f"{difference[worst]:.3g}. Draw it again: `essay sample {run.plan.name} --force`."
        )
    return chosen


def generate(pipe: Any, setting: Setting, rows: pd.DataFrame, batch_size: int) -> torch.Tensor:
    """Draw rows of a plan's table by the setting's method: latents float32 (n, C, h, w)."""
    from essaylib import repro

    with _method(pipe, setting, rows):
        return repro.generate(
            pipe,
            list(rows.prompt),
            [int(seed) for seed in rows.seed],
            steps=setting.steps,
            guidance_scale=setting.guidance_scale,
            batch_size=batch_size,
            output="latent",
            negative_prompt=setting.negative_prompt,
        )


def _method(pipe: Any, setting: Setting, rows: pd.DataFrame) -> AbstractContextManager[None]:
    from essaylib import guidance, interventions

    if setting.method == "interval":
        return guidance.interval_guidance(pipe, *setting.interval)
    if setting.method == "autoguidance":
        return guidance.autoguidance(pipe, _guide(setting.guide, pipe.device, pipe.dtype))
    if setting.method == "ablation":
        places = [
            interventions.last_padding(pipe, prompt)
            if hidden == plans.PADDING
            else interventions.positions(pipe, prompt, hidden)
            for prompt, hidden in zip(rows.prompt, rows.hidden, strict=True)
        ]
        return interventions.ablate_positions(pipe, places)
    return nullcontext()


def draw_parts(
    plan: Plan,
    table: pd.DataFrame,
    pipe: Any,
    parts: Path,
    batch_size: int,
    progress: bool,
) -> torch.Tensor:
    """Draw a table of the plan, or go on with it: latents float16 (n, C, h, w), row by row.

    Every batch becomes a file of its own in `parts`; those that are there already are kept. Files
    of another batch size stand for other rows and do not count.
    """
    import torch
    from tqdm.auto import tqdm

    found = []
    with tqdm(total=len(table), unit="image", desc=plan.name, disable=not progress) as bar:
        for setting in plan.settings:
            rows = table[table.setting == setting.name]
            for start in range(0, len(rows), batch_size):
                batch = rows.iloc[start : start + batch_size]
                path = parts / f"{batch.index[0]:07d}-{batch.index[-1]:07d}.safetensors"
                found.append(_part(path, partial(generate, pipe, setting, batch, batch_size)))
                bar.update(len(batch))
    return torch.cat(found)


def _part(path: Path, draw: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The latents float16 kept in a file; drawn and kept first where it is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        return load_file(path)["latents"]
    except (FileNotFoundError, SafetensorError):
        latents = draw().half().contiguous()
        store.write_whole(path, lambda part: save_file({"latents": latents}, part))
        return latents


def _keep(
    plan: Plan,
    table: pd.DataFrame,
    latents: torch.Tensor,
    pipe: Any,
    folder: Path,
    key: str,
    model: str,
) -> None:
    """Put a drawn run beside its plan; the key is written last, so that a cut leaves no run."""
    from safetensors.torch import save_file

    (folder / PROVENANCE).unlink(missing_ok=True)
    save_file({"latents": latents}, folder / LATENTS)
    table.to_parquet(folder / TABLE, index=False)
    described = provenance.provenance(
        pipe, plan=plan.document, settings=[asdict(setting) for setting in plan.settings]
    )
    described |= {
        "key": key,
        "frozen": model == "embedded" and claims.frozen(),
        "guides": _guides(plan),
        "images": len(table),
        "latents_sha256": provenance.sha256(folder / LATENTS),
    }
    store.write_json(folder / PROVENANCE, described)


def folder_of(name: str, model: str) -> Path:
    """Where a run is kept: the embedded model's beside its plan, another's in `_build/runs`."""
    if model == "embedded":
        return paths.runs() / name
    return paths.build() / "runs" / f"{name}@{Path(model).name}"


def key_of(folder: Path) -> str | None:
    """The key under which a folder's run was kept; None where there is none or it is damaged."""
    path = folder / PROVENANCE
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("key")
    except ValueError:
        return None


def _first_seed(model: str) -> int:
    return claims.seeds(1)[0] if model == "embedded" else 0


def _key(plan: Plan, model: str) -> str:
    """Digest of all that the run depends on: plan, weights, corpus and first seed."""
    document = {
        "plan": plan.document,
        "weights": _weights(model),
        "guides": _guides(plan),
        "corpus": provenance.corpus(),
        "first_seed": _first_seed(model),
    }
    return store.key(document)


def _weights(model: str) -> dict[str, str]:
    spec = models.resolve(model)
    folder = models.folder(spec)
    if folder is None:
        raise EssayError(f"The model {model} is not here: `essay models` says how to get it.")
    return weights.hashes(folder)


def _guides(plan: Plan) -> dict[str, dict[str, str]]:
    """SHA-256 of the weights that guide instead of the empty prompt, by folder and file."""
    names = sorted({setting.guide for setting in plan.settings if setting.guide})
    return {
        name: {path.name: provenance.sha256(path) for path in _guide_files(name)} for name in names
    }


def _guide_files(name: str) -> list[Path]:
    folder = paths.models() / name
    if not folder.is_dir():
        raise EssayError(
            f"The plan is guided by the U-Net in {folder}, which is not there: restore the folder, "
            "or take that setting out of the plan."
        )
    return weights.component_files(folder)


@lru_cache(maxsize=1)
def _guide(name: str, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    return models.load_unet(name, device, dtype)


def _bytes_each(pipe: Any) -> int:
    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return 2 * pipe.unet.config.in_channels * height * width


def _check_disk(folder: Path, parts: Path, needed: int) -> None:
    """Make both folders; raise where they cannot be written or hold the latents (twice)."""
    for place in (folder, parts):
        try:
            place.mkdir(parents=True, exist_ok=True)
            probe = place / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise EssayError(
                f"{place} cannot be written ({error.strerror}): make it writable, or set "
                "ESSAY_ROOT to a clone that is."
            ) from error
        free = shutil.disk_usage(place).free
        if free < needed + SPARE:
            raise EssayError(
                f"Not enough disk: the run needs {needed / 1e6:.0f} MB and {SPARE / 1e6:.0f} MB to "
                f"spare, and {place} has {free / 1e6:.0f} MB free. Make room, or ask for fewer "
                "seeds in its plan."
            )
