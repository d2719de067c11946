"""The `essay` command.

Each command imports what it needs when it runs, so that `essay --help` answers at once. An
`EssayError` becomes its message on standard error and exit status 2.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from essaylib.errors import EssayError


class EssayGroup(TyperGroup):
    """A group of commands that turns `EssayError` into a message and exit status 2."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except EssayError as error:
            typer.echo(f"essay: {error}", err=True)
            raise typer.Exit(2) from None


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
    from essaylib.publishing import execute, stage

    execute.run(
        None,
        execute.given(model=model, seed=seed, device=device, samples=samples),
        jobs=jobs,
        threads=threads,
        force=force,
    ).raise_for_failures()
    typer.echo(f"The book is at {stage.build() / 'index.html'}")


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
):
    """Draw figures again and compare them with the lock; exit with 1 if one changed or is missing.

    Example: essay verify guidance-concentration
    """
    from essaylib.publishing import lock

    found = lock.verify(ids, model, threads)
    for item in found:
        typer.echo(item)
    if failed := lock.failures(found):
        typer.echo(
            f"{len(failed)} of {len(found)} figures differ from book/figures.lock.json; where that "
            "is meant, accept it with `essay lock ID`.",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"{len(found)} figures as locked.")


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


def main() -> None:
    """Entry point of the `essay` command."""
    app()
