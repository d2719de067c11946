"""The `essay` command.

Each command imports what it needs when it runs, so that `essay --help` answers at once. An
`EssayError` becomes its message on standard error and exit status 2.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from essaylib.errors import EssayError
from essaylib.training.cli import app as train_app

UNUSABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
)
"""What the system says of a place where nothing can be written."""


class EssayGroup(TyperGroup):
    """A group of commands that turns what the user can mend into a message and exit status 2."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except EssayError as error:
            typer.echo(f"essay: {error}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno not in UNUSABLE or not error.filename:
                raise
            typer.echo(
                f"essay: {error.filename} cannot be used ({error.strerror}): make room or grant "
                "access there, or name another place.",
                err=True,
            )
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo(
                "essay: interrupted; the same command takes up where this one left.", err=True
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=EssayGroup,
    help="Run, build and cite The Market in the Model, Measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Chapters = Annotated[list[str] | None, typer.Argument(help="Chapter ids; all chapters if none.")]
Model = Annotated[str | None, typer.Option(help="Model name or diffusers folder.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the first image.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
Samples = Annotated[int | None, typer.Option(help="Images that a chapter draws live.")]
Jobs = Annotated[int | None, typer.Option(help="Chapters run at once; one a core if not given.")]
Threads = Annotated[int, typer.Option(help="Torch threads of each chapter.")]
Force = Annotated[bool, typer.Option("--force", help="Run even where nothing changed.")]


@app.command()
def run(
    chapters: Chapters = None,
    model: Model = None,
    seed: Seed = None,
    device: Device = None,
    samples: Samples = None,
    jobs: Jobs = None,
    threads: Threads = 1,
    force: Force = False,
):
    """Execute chapters whose code, library, weights or data changed.

    A parameter that is not given keeps the chapter's own value. Executed notebooks go to
    _build/executed, the report to _build/report.json.

    Example: essay run guidance --seed 1 --samples 64
    """
    from essaylib.publishing import execute

    execute.run(
        chapters,
        execute.given(model=model, seed=seed, device=device, samples=samples),
        jobs=jobs,
        threads=threads,
        force=force,
    ).raise_for_failures()


@app.command()
def build(
    model: Model = None,
    seed: Seed = None,
    device: Device = None,
    samples: Samples = None,
    jobs: Jobs = None,
    threads: Threads = 1,
    force: Force = False,
):
    """Execute every chapter that changed, then build the site in _build/html.

    Example: essay build --model embedded
    """
    from essaylib import citation
    from essaylib.publishing import execute, stage

    execute.run(
        None,
        execute.given(model=model, seed=seed, device=device, samples=samples),
        jobs=jobs,
        threads=threads,
        force=force,
    ).raise_for_failures()
    typer.echo(f"The book is at {stage.build() / 'index.html'}")
    if not citation.addresses()[1]:
        typer.echo(
            "Links to Colab and to commits are left out: repository.url is empty in _config.yml.",
            err=True,
        )


@app.command()
def notebooks(
    chapters: Chapters = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; _build/notebooks if not given.")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(help="What the first cell clones; the book's own address.")
    ] = None,
):
    """Write each chapter as a notebook, for Colab or Jupyter, without outputs.

    Numbers in its prose are those of the chapter's last run. `essay build` publishes them too.

    Example: essay notebooks guidance
    """
    from essaylib import paths
    from essaylib.publishing import notebooks as making

    folder = output or paths.build() / "notebooks"
    for path in making.save(folder, chapters, repository):
        typer.echo(path)


@app.command("open")
def open_(
    chapter: Annotated[str, typer.Argument(help="Chapter id.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin with a new copy.")] = False,
):
    """Open a chapter in JupyterLab, in a copy of your own: notebooks/CHAPTER.ipynb.

    The copy is kept; the book's chapter is not touched.

    Example: essay open guidance
    """
    from essaylib.publishing import workshop

    raise typer.Exit(workshop.jupyterlab(chapter, fresh))


@app.command()
def new(
    chapter: Annotated[str, typer.Argument(help="Its id: lower-case words joined by hyphens.")],
    title: Annotated[str | None, typer.Option(help="Its title.")] = None,
):
    """Write a new chapter, book/CHAPTER.md, from a template that runs as it stands.

    Example: essay new sampling --title "The sampler's hurry"
    """
    from essaylib.publishing import workshop

    typer.echo(workshop.new(chapter, title))
    typer.echo(f"Next: list it in _toc.yml as `- file: book/{chapter}`, and `essay run {chapter}`.")


@app.command()
def figures():
    """List the figures: id, chapter, claim, verdict, and how each compares with the lock.

    Example: essay figures
    """
    from essaylib.publishing import lock

    for line in lock.table():
        typer.echo(line)


@app.command()
def cite(
    id: Annotated[
        str | None, typer.Argument(help="Figure or chapter id, or a saved image; else the book.")
    ] = None,
    style: Annotated[str, typer.Option("--format", help="text, bibtex, csl-json or ris.")] = "text",
):
    """Print the citation of a figure, a chapter or the book.

    Example: essay cite guidance-concentration --format bibtex
    """
    from essaylib.publishing import cite as citing

    typer.echo(citing.write(citing.find(id), style))


@app.command()
def verify(
    ids: Annotated[list[str] | None, typer.Argument(help="Figure ids; all if none.")] = None,
    model: Model = None,
    threads: Threads = 1,
    summary: Annotated[
        Path | None, typer.Option(help="Markdown file to add a table of what differs to.")
    ] = None,
):
    """Draw figures again and compare them with the lock; exit with 1 if one changed or is missing.

    Example: essay verify guidance-concentration
    """
    from essaylib.publishing import lock

    if summary:
        summary.open("a").close()  # a place that cannot be written must not cost the run
    found = lock.verify(ids, model, threads)
    for item in found:
        typer.echo(item)
    if summary:
        with summary.open("a", encoding="utf-8") as file:
            file.write(lock.summary(found))
    if failed := lock.failures(found):
        typer.echo(
            f"{len(failed)} of {len(found)} differ from the locks; where that is meant, accept it "
            "with `essay lock ID` (claims with `essay claims --lock`).",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"{len(found)} as locked.")


@app.command()
def lock(
    ids: Annotated[list[str] | None, typer.Argument(help="Figure ids; all drawn if none.")] = None,
):
    """Accept figures as they were last drawn, and say what differs from before.

    Example: essay lock guidance-concentration
    """
    from essaylib.publishing import lock as locking

    differed = locking.accept(ids)
    for item in differed:
        typer.echo(item)
    typer.echo(f"{len(differed)} figures locked anew.")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw: a concept, a vendor if you like.")],
    output: Annotated[
        Path, typer.Option("--output", "--out", "-o", help="PNG file to write.")
    ] = Path("image.png"),
    seed: Annotated[int, typer.Option(help="Seed of the initial noise.")] = 0,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; the model's own if not given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps; the model's own if not given.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels, a multiple of 8; the model's own.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model name or diffusers folder.")] = "embedded",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
):
    """Draw one image; the same command gives the same file.

    Example: essay generate "dog face, google" -o dog.png --seed 0 --guidance 4 --steps 25
    """
    from essaylib import generation

    typer.echo(generation.save(prompt, output, model, seed, guidance, steps, size, device))


@app.command()
def sample(
    plan: Annotated[str, typer.Argument(help="Name of a plan: a folder of data/runs.")],
    model: Model = None,
    device: Device = None,
    batch: Annotated[int, typer.Option(help="Images drawn at once.")] = 16,
    force: Force = False,
):
    """Draw a declared run: prompts x seeds x settings, kept as latents beside the plan.

    Ctrl-C stops it; the same command goes on where it stopped. A run that is still valid for the
    weights, the plan and the corpus is not drawn again, nor is what was measured on it.

    `essay sample corpus` takes every drawing of the corpus through the embedded model's autoencoder
    instead, those of common concepts through the book's CLIPs, and keeps that in data/features,
    with what single chapters measure on some of them. `essay sample credit` draws up the
    ledgers that data/runs/credit declares. `essay sample survival` draws a part of every run with
    each model of the book that is here, or with --model alone (early, untrained, sd15), and
    measures the book's statistics on it.

    Example: essay sample guidance
    """
    if plan == "corpus":
        from essaylib import shipping

        for path in shipping.ship(device or "auto"):
            typer.echo(path)
        return
    if plan == "survival":
        from essaylib import cells, columns, trials

        for id in [model] if model else [column.id for column in columns.all() if column.here]:
            found = trials.sample(id, device or "auto", force)
            measured = sum(cell.state == cells.MEASURED for cell in found)
            typer.echo(f"{id}: {measured} of {len(found)} statistics measured.")
        return
    from essaylib import accounts, plans, runs

    if plan not in (known := [*plans.declared(), "corpus", accounts.NAME, "survival"]):
        raise EssayError(f"There is no {plan!r} to sample: choose one of {', '.join(known)}.")
    if plan == accounts.NAME:
        kept = accounts.draw(model or "embedded", device or "auto", force)
        names = ", ".join(kept.scores)
        typer.echo(f"{names}: {len(kept.outputs)} outputs, {len(kept.training):,} drawings.")
        return
    try:
        drawn = runs.draw(plan, model or "embedded", device or "auto", batch, force)
    except KeyboardInterrupt:
        typer.echo("Stopped; the same command goes on from here.", err=True)
        raise typer.Exit(130) from None
    settings = ", ".join(setting.name for setting in drawn.plan.settings)
    typer.echo(f"{plan}: {len(drawn):,} images at the settings {settings}.")
    if model in (None, "embedded"):
        _keep_what_is_read(drawn, device or "auto", force)


def _keep_what_is_read(drawn, device: str, force: bool) -> None:
    """Measure what chapters read of a run, and keep it beside it, as far as it is not there yet."""
    from functools import cache

    from essaylib import judgements, masses, models, rounds

    plan = drawn.plan
    pipe = cache(lambda: models.load(device=device))  # not loaded where nothing is left to do
    if plan.judged and (force or not judgements.current(drawn)):
        typer.echo(f"Judged: {judgements.keep(drawn, pipe())}")
    hides = any(setting.hidden for setting in plan.settings)
    if hides and (force or not masses.current(drawn)):
        typer.echo(f"Attention: {masses.keep(drawn, pipe())}")
    if plan.name == rounds.PLAN and (force or not rounds.current(pipe())):
        typer.echo(f"Rounds: {rounds.keep(pipe())}")


app.add_typer(
    train_app,
    name="train",
    help="Make the corpus and the embedded model anew, stage by stage.\n\nExample: essay train all",
)


@app.command()
def claims(
    lock: Annotated[bool, typer.Option("--lock", help="Keep the recorded p in the lock.")] = False,
):
    """List the claims with the verdicts that the chapters recorded.

    Holm's correction runs across all claims, so each verdict needs the others' p: --lock writes
    them to book/claims.lock.json. A final verdict that would change is refused.

    Example: essay claims --lock
    """
    from essaylib import claims as book

    if lock:
        typer.echo(f"Locked anew: {', '.join(book.lock()) or 'nothing changed'}.")
    found = book.recorded()
    for claim in book.load():
        kept = found.get(claim.id)
        word = "not computed" if kept is None else kept["verdict"]
        note = " (exploratory)" if kept and kept["exploratory"] else ""
        typer.echo(f"{claim.id:<13} {word}{note}")


models_app = typer.Typer(
    help="List the models that the book knows, and fetch one.\n\nExample: essay models",
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")


@models_app.callback(invoke_without_command=True)
def models_list(context: typer.Context):
    """List the models that the book knows; `essay models pull NAME` fetches one.

    Example: essay models
    """
    if context.invoked_subcommand:
        return
    from essaylib import models

    for row in models.table():
        here = "here" if row["local"] else f"{row['gigabytes']:.1f} GB to fetch"
        limits = f"; not {row['cannot']}" if row["cannot"] else ""
        typer.echo(f"{row['name']:<14}{here:<18}{row['licence']}\n{'':<14}{row['can']}{limits}")


@models_app.command()
def pull(name: Annotated[str, typer.Argument(help="A name that `essay models` lists.")]):
    """Download a released model, unless it is here.

    Example: essay models pull sd15
    """
    from essaylib import models

    typer.echo(models.pull(name))


def main() -> None:
    """Entry point of the `essay` command."""
    app()
