"""The models that the book's statistics are tried on: the embedded one, and it with a part changed.

    pipe = columns.load("early").pipe

Each differs from the embedded model in the parts that it names and in nothing else, so that what
rests on other parts is the same by construction. `untrained` has every part as it was born: text
tower, image tower, autoencoder and U-Net of the same shapes, their weights drawn with one seed.
Its latents are brought to the mean and spread that every autoencoder's are brought to when its
training ends; that takes a few drawings and no training, and without it the noise would be too loud
or too quiet for it and nothing could be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from essaylib import corpus, features, models, paths, provenance, scaling, weights
from essaylib.errors import EssayError

FINAL, UNTRAINED = "final", "untrained"
SEED = 1_000_003
"""Seed of the untrained weights: none that a statistic draws its own untrained rival with."""

SCALED_ON = 128
"""Training drawings that the untrained autoencoder's latents are scaled by."""

TEXT, AUTOENCODER, UNET, IMAGE = PARTS = ("text tower", "autoencoder", "U-Net", "image tower")
_FOLDERS = {
    TEXT: "emoji-ldm/text_encoder",
    IMAGE: "emoji-ldm/clip",
    AUTOENCODER: "emoji-ldm/vae",
    UNET: "emoji-ldm/unet",
}
_WITHOUT = "unet-without-"


@dataclass(frozen=True)
class Column:
    """One model: its `id`, what the figure calls it, and the `parts` in which it is another.

    `folder`, relative to models/, holds the part; None for the embedded model and the untrained
    one. A `foreign` column is a model that did not learn from the corpus.
    """

    id: str
    title: str
    parts: tuple[str, ...] = ()
    folder: str | None = None
    foreign: bool = False

    @property
    def here(self) -> bool:
        """Whether its weights are."""
        if self.foreign:
            return models.folder(models.resolve(self.id)) is not None
        return self.folder is None or (paths.models() / self.folder / "config.json").is_file()


@dataclass
class Model:
    """A column's model as loaded: `pipe` draws; the towers are read by the statistics.

    `clip` is the pair of towers whose text tower conditions the pipeline; `unnamed` the CLIP that
    never heard of vendors. Both are None where the column is foreign.
    """

    column: Column
    pipe: Any
    clip: Any = None
    unnamed: Any = None


def all() -> list[Column]:
    """The columns of the book in their order, trained or not."""
    gone = sorted(path.name for path in paths.models().glob(f"{_WITHOUT}*"))
    vendor = gone[0].removeprefix(_WITHOUT) if gone else ""
    return [
        Column(FINAL, "final"),
        Column("early", "earlier U-Net", (UNET,), "unet-early"),
        Column("seed-1", "second seed", (UNET,), "unet-seed-1"),
        Column("unnamed", "unnamed CLIP", (TEXT,), "clip-unnamed"),
        Column("without", f"without {vendor or 'a vendor'}", (UNET,), f"{_WITHOUT}{vendor or '*'}"),
        Column(UNTRAINED, "untrained", PARTS),
    ]


def find(id: str) -> Column:
    """A column of the book by its id, or any model that `essay models` lists, as a foreign one."""
    for column in all():
        if column.id == id:
            return column
    known = [spec for spec in models.SPECS if spec != "embedded"]
    if id not in known:
        raise EssayError(
            f"Unknown model {id!r}: choose {', '.join(c.id for c in all())}, {', '.join(known)}."
        )
    return Column(id, id, foreign=True)


def load(id: str, device: str = "auto") -> Model:
    """Load a column's model. Raises `EssayError` where its weights are not here."""
    column = find(id)
    if column.foreign:
        return Model(column, models.load(id, device))
    if not column.here:
        raise EssayError(f"The model {id!r} is not trained: models/{column.folder} is missing.")
    pipe = models.load("embedded", device)
    clip, _ = models.load_clip()
    unnamed, _ = models.load_clip(paths.models() / "clip-unnamed")
    found = Model(column, pipe, clip, unnamed)
    if column.parts == PARTS:
        _unlearn(found)
    elif UNET in column.parts:
        pipe.unet = models.load_unet(column.folder, pipe.device, pipe.dtype)
    elif TEXT in column.parts:
        _read_by(pipe, unnamed)
    return found


def files(column: Column) -> dict[str, str]:
    """SHA-256 of all weights that a column is made of, by where they lie.

    Those of a part that it has replaced are not among them: training the embedded U-Net further
    leaves a column with another U-Net as it is.
    """
    if column.foreign:
        return weights.hashes(models.folder(models.resolve(column.id)))
    if column.parts == PARTS:  # made of shapes and a seed
        return {}
    folders = [folder for part, folder in _FOLDERS.items() if part not in column.parts]
    folders += ["clip-unnamed"]
    if column.folder and column.folder not in folders:
        folders.append(column.folder)
    return _hashes(folders)


def judge() -> dict[str, str]:
    """SHA-256 of the judge's weights and settings."""
    return _hashes(["judge"]) | {
        "judge.json": provenance.sha256(paths.models() / "judge" / "judge.json")
    }


def _hashes(folders: list[str]) -> dict[str, str]:
    return {
        f"{name}/{path.name}": provenance.sha256(path)
        for name in folders
        for path in weights.component_files(paths.models() / name)
    }


def _unlearn(model: Model) -> None:
    """Put weights in place of all parts that nobody trained."""
    pipe = model.pipe
    for name in ("text_encoder", "unet", "vae"):
        old = getattr(pipe, name)
        setattr(pipe, name, features.untrained(old, SEED).to(old.device))
    model.clip = features.untrained(model.clip, SEED)
    model.unnamed = features.untrained(model.unnamed, SEED)
    drawings = corpus.load().where(split="train")
    scaling.normalise(pipe.vae, drawings.rgb(range(SCALED_ON)))


def _read_by(pipe: Any, clip: Any) -> None:
    """Let another CLIP's text tower read the captions; it must be of the shape of the old one."""
    new, old = clip.text_model, pipe.text_encoder
    wanted, given = old.config.to_dict(), clip.config.text_config.to_dict()
    for key in ("vocab_size", "hidden_size", "max_position_embeddings", "eos_token_id"):
        if wanted[key] != given[key]:
            raise EssayError(
                f"The text towers differ in {key} ({wanted[key]} and {given[key]}): the U-Net "
                "cannot read the other one."
            )
    old.load_state_dict(new.state_dict())
