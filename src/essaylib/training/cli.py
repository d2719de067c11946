"""`essay train`: from the corpus to the model folder, stage by stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from essaylib import memory, paths

app = typer.Typer(
    help="Make the corpus and the embedded model anew, stage by stage.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Steps = Annotated[int | None, typer.Option(help="Steps of the whole run; the recipe's if none.")]
Minutes = Annotated[float | None, typer.Option(help="End earlier, after so many minutes.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate; the recipe's if none.")]
Batch = Annotated[int | None, typer.Option(help="Drawings a step; the recipe's if none.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights and batches.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; all cores if none.")]
Parts = Annotated[Path, typer.Option(help="Working folder: checkpoints, logs, parts.")]
Committed = Annotated[
    bool, typer.Option("--from-committed", help="Go on from the weights under models/.")
]

PARTS = Path("checkpoints")


@app.command("corpus")
def corpus_(
    archives: Annotated[
        Path | None, typer.Option(help="Folder of `npm pack` archives; fetched with npm if none.")
    ] = None,
):
    """Build data/corpus from the npm packages that carry the drawings.

    Example: essay train corpus
    """
    from essaylib.training import corpus

    typer.echo(corpus.build(archives))


@app.command()
def tokenizer(parts: Parts = PARTS):
    """Learn the vocabulary from the captions (seconds).

    Example: essay train tokenizer
    """
    from essaylib.training import tokenizer as stage

    typer.echo(stage.run(parts / "tokenizer"))


@app.command()
def clip(
    steps: Steps = None,
    minutes: Minutes = None,
    lr: Rate = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = "auto",
    threads: Threads = None,
    parts: Parts = PARTS,
    from_committed: Committed = False,
    unnamed: Annotated[
        bool, typer.Option("--unnamed", help="Learn from captions that never name a vendor.")
    ] = False,
    half: Annotated[
        str | None,
        typer.Option(help="first or second: a small CLIP of that half of the concepts, unnamed."),
    ] = None,
    image_only: Annotated[
        bool, typer.Option("--image-only", help="Keep the text tower, which the U-Net reads.")
    ] = False,
):
    """Train CLIP on drawings and captions.

    Example: essay train clip --minutes 60
    """
    from essaylib.training import clip as stage

    name = f"clip-{half}" if half else "clip-unnamed" if unnamed else "clip"
    committed = {"clip": "emoji-ldm/clip", "clip-unnamed": "clip-unnamed"}
    start = paths.models() / committed.get(name, f"clip-halves/{half}")
    stage.run(
        schedule(stage.SCHEDULE, threads, steps, minutes, lr, batch, seed, device),
        parts,
        parts / "tokenizer",
        vendors=not (unnamed or half),
        rows=stage.rows_of(half) if half else None,
        start=start if from_committed else None,
        name=name,
        towers=stage.SMALL if half else stage.Towers(),
        image_only=image_only,
    ).save_pretrained(parts / name)


@app.command()
def autoencoder(
    steps: Steps = None,
    minutes: Minutes = None,
    lr: Rate = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = "auto",
    threads: Threads = None,
    parts: Parts = PARTS,
    from_committed: Committed = False,
    decoder_only: Annotated[
        bool, typer.Option("--decoder-only", help="Keep the latents, which the U-Net was taught.")
    ] = False,
):
    """Train the autoencoder on crops and whole drawings.

    Example: essay train autoencoder --minutes 60
    """
    from essaylib.training import autoencoder as stage

    stage.run(
        schedule(stage.SCHEDULE, threads, steps, minutes, lr, batch, seed, device),
        parts,
        paths.models() / "emoji-ldm" / "vae" if from_committed else None,
        decoder_only,
    ).save_pretrained(parts / "vae")


@app.command()
def judge(
    steps: Steps = None,
    minutes: Minutes = None,
    lr: Rate = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = "auto",
    threads: Threads = None,
    parts: Parts = PARTS,
    from_committed: Committed = False,
):
    """Train the judge on drawings and what the autoencoder makes of them.

    It has two readers of concepts, which learn one after the other: steps and minutes are for each.

    Example: essay train judge --minutes 20
    """
    from essaylib.training import judge as stage

    stage.run(
        schedule(stage.SCHEDULE, threads, steps, minutes, lr, batch, seed, device),
        parts,
        parts / "vae",
        paths.models() / "judge" if from_committed else None,
    ).save(parts / "judge")


@app.command()
def unet(
    steps: Steps = None,
    minutes: Minutes = None,
    lr: Rate = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = "auto",
    threads: Threads = None,
    parts: Parts = PARTS,
    from_committed: Committed = False,
    without: Annotated[str | None, typer.Option(help="Leave out one vendor's drawings.")] = None,
    name: Annotated[str, typer.Option(help="Name of the result in the working folder.")] = "unet",
    small: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the run on half-size drawings; the recipe's if none."
        ),
    ] = None,
):
    """Train the U-Net on the autoencoder's latents and CLIP's reading of the captions.

    Example: essay train unet --minutes 120
    """
    from essaylib.training import unet as stage

    stage.run(
        schedule(stage.SCHEDULE, threads, steps, minutes, lr, batch, seed, device),
        parts,
        parts,
        small=stage.SMALL if small is None else small,
        without=without,
        start=paths.models() / "emoji-ldm" / "unet" if from_committed else None,
        name=name,
    ).save_pretrained(parts / name)


@app.command()
def assemble(
    parts: Parts = PARTS,
    freeze: Annotated[bool, typer.Option("--freeze", help="Say that weights are final.")] = False,
):
    """Put the trained parts together as models/emoji-ldm and models/judge.

    Example: essay train assemble
    """
    from essaylib.training import assemble as stage

    typer.echo(stage.run(parts, frozen=freeze))


@app.command("all")
def everything(
    device: Device = "auto", threads: Threads = None, seed: Seed = None, parts: Parts = PARTS
):
    """Train every stage by its recipe, then assemble the model folder.

    A stage that was cut off takes up its checkpoint.

    Example: essay train all --device cuda
    """
    shared = {"device": device, "threads": threads, "seed": seed, "parts": parts}
    tokenizer(parts=parts)
    for stage in (clip, autoencoder, judge, unet):
        stage(**shared)
    assemble(parts=parts)


def schedule(recipe, threads: int | None, steps, minutes, lr, batch, seed, device):
    """Return a stage's recipe with what the command line changes."""
    import torch

    memory.keep_freed()
    if threads:
        torch.set_num_threads(threads)
    given = {"steps": steps, "minutes": minutes, "lr": lr, "batch": batch, "seed": seed}
    changes = {k: v for k, v in given.items() if v is not None}
    return replace(recipe, device=device, **changes)
