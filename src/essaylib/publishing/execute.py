"""Run chapters: each in a process of its own, by papermill, and only where something changed.

`run` reads the chapters, leaves out those whose key (see `cache`) equals that of their last run and
whose figures and verdicts lie in `_build` as that run left them, gives the others to a
`concurrent.futures.Executor`, and writes `_build/report.json`. A chapter that fails does not stop
the others. An executor on other machines may take the place of the local processes, if it shares
the file system: a job is a plain dataclass, and progress goes by files.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, Timeout

from essaylib import claims, models, paths, store
from essaylib.errors import EssayError
from essaylib.provenance import sha256
from essaylib.publishing import cache, worker
from essaylib.publishing.chapters import (
    Chapter,
    chapters,
    check_parameters,
    check_ranges,
    code_cells,
    defaults,
    read,
)
from essaylib.publishing.progress import Progress
from essaylib.publishing.report import Entry, Report, read_report

if TYPE_CHECKING:
    from nbformat import NotebookNode


def given(**parameters: Any) -> dict[str, Any]:
    """Return the parameters that were given, those that are None left out."""
    return {name: value for name, value in parameters.items() if value is not None}


def run(
    ids: list[str] | None = None,
    parameters: dict[str, Any] | None = None,
    *,
    jobs: int | None = None,
    threads: int = 1,
    force: bool = False,
    executor: Executor | None = None,
) -> Report:
    """Bring these chapters up to date, or all of them, and return what became of each.

    `parameters` are set in each chapter that declares them. Raises `EssayError` for an unknown
    chapter and for a parameter out of range, before anything is run or recorded. A chapter that
    fails is an entry of the report, and the others are run. The written report keeps the entries
    of chapters that this run did not touch.
    """
    parameters = parameters or {}
    if threads < 1 or (jobs is not None and jobs < 1):
        raise EssayError("--jobs and --threads must be 1 or more.")
    check_ranges(parameters)
    if "model" in parameters and (path := models.resolve(parameters["model"]).path):
        parameters = parameters | {"model": str(path)}
    chosen = chapters(ids)
    (paths.build() / "executed").mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.build() / "executed" / ".lock")
    with Progress(len(chosen)) as progress, _held(lock, progress):
        entries: dict[str, Entry] = {}
        waiting = []
        for chapter in chosen:
            planned = _plan(chapter, parameters, threads, force)
            if isinstance(planned, Entry):
                entries[chapter.id] = planned
                progress.finished(planned.id, planned.status, planned.seconds, planned.peak_mb)
            else:
                waiting.append(planned)
                progress.waiting(chapter.id, planned.reasons)
        try:
            for plan, outcome in _execute(waiting, jobs, executor, progress):
                entry = _keep(plan, outcome)
                entries[entry.id] = entry
                progress.finished(entry.id, entry.status, entry.seconds, entry.peak_mb)
        except KeyboardInterrupt:
            _merge(entries, interrupted=True).write()
            raise
        _merge(entries, interrupted=False).write()
    return Report([entries[chapter.id] for chapter in chosen])


@contextmanager
def _held(lock: BaseFileLock, progress: Progress) -> Iterator[None]:
    """Hold the lock: two runs at once would write the same files."""
    with suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        progress.say("another run is going on; waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Plan:
    """A chapter that has to be run, and the key that its results will be kept under."""

    chapter: Chapter
    notebook: NotebookNode
    job: worker.Job
    key: dict[str, str]
    expected_seconds: float
    reasons: list[str]


def _plan(chapter: Chapter, given: dict[str, Any], threads: int, force: bool) -> Plan | Entry:
    """Return what to run; or the entry of a chapter that needs no run, or cannot be run."""
    try:
        notebook = read(chapter)
        declared = defaults(notebook)
        parameters = check_parameters(declared, given)
    except EssayError as error:
        failure = {"cell": None, "type": "EssayError", "message": str(error)}
        return Entry(chapter.id, "failed", error=failure)
    key = cache.key(notebook, parameters, threads)
    record = _record(chapter)
    reasons = _reasons(record, key, force)
    if not reasons:
        import nbformat

        kept = nbformat.read(chapter.executed, as_version=4)
        store.write_text(chapter.executed, nbformat.writes(_attach(notebook, kept)))
        return replace(Entry(**record["entry"]), status="cached")
    job = worker.Job(
        id=chapter.id,
        source=_work(chapter) / "source.ipynb",
        executed=_work(chapter) / "executed.ipynb",
        progress=_work(chapter) / "progress",
        root=paths.root(),
        parameters={n: v for n, v in parameters.items() if v != declared[n]},
        threads=threads,
    )
    expected = record["entry"]["seconds"] if record else float("inf")
    return Plan(chapter, notebook, job, key, expected, reasons)


def _reasons(record: dict[str, Any] | None, key: dict[str, str], force: bool) -> list[str]:
    """Name what makes a run necessary; nothing where the last one still holds."""
    if record is None:
        return ["not run before"]
    found = cache.changed(record["key"], key)
    if not _as_left(record):
        found.append("its figures or verdicts")
    return found or ["asked for"] * force


def _execute(plans: list[Plan], jobs: int | None, executor: Executor | None, progress: Progress):
    """Run the plans, the longest first, and yield (plan, outcome) as each ends."""
    import nbformat

    if not plans:
        return
    for plan in plans:
        plan.job.source.parent.mkdir(parents=True, exist_ok=True)
        source = nbformat.from_dict(plan.notebook)
        del source.metadata["source_map"]
        nbformat.write(source, plan.job.source)
        plan.job.progress.unlink(missing_ok=True)
    executor = executor or _local_processes(min(jobs or _cores(), len(plans)))
    futures: dict[Future, Plan] = {}
    try:
        for plan in sorted(plans, key=lambda plan: -plan.expected_seconds):
            futures[executor.submit(worker.execute, plan.job)] = plan
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                yield futures[future], _outcome(future)
            for future in pending:
                progress.running(futures[future].job.id, futures[future].job.progress)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    executor.shutdown()


def _local_processes(count: int) -> ProcessPoolExecutor:
    # A fresh process a chapter, so that no chapter sees another's memory or peak.
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        count,
        mp_context=spawn,
        initializer=worker.leave_interrupts_to_parent,
        max_tasks_per_child=1,
    )


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _outcome(future: Future) -> worker.Outcome:
    """Return how a run ended, also where it ended outside the notebook."""
    error = future.exception()
    if error is None:
        return future.result()
    message = str(error)
    if isinstance(error, BrokenExecutor):
        message = f"the chapter's process was ended from outside; is there memory left? ({error})"
    return worker.Outcome(0, 0, {"cell": None, "type": type(error).__name__, "message": message})


def _keep(plan: Plan, outcome: worker.Outcome) -> Entry:
    """Put a chapter's results in their place, with the key they answer to."""
    import nbformat

    chapter, job = plan.chapter, plan.job
    entry = Entry(
        id=chapter.id,
        status="failed" if outcome.error else "ok",
        seconds=round(outcome.seconds, 2),
        peak_mb=round(outcome.peak_mb, 1),
        parameters=check_parameters(defaults(plan.notebook), job.parameters),
        threads=job.threads,
        versions=cache.versions(),
    )
    failed = chapter.executed.with_suffix(".failed.ipynb")
    if outcome.error:
        if job.executed.is_file():
            os.replace(job.executed, failed)
        entry = replace(entry, error=outcome.error | _source_line(plan, outcome.error))
    else:
        notebook = _attach(plan.notebook, nbformat.read(job.executed, as_version=4))
        entry = replace(entry, figures=figures(notebook))
        store.write_text(chapter.executed, nbformat.writes(notebook))
        results = _results(notebook, entry.parameters)
        record = {"key": plan.key, "results": results, "entry": asdict(entry)}
        store.write_json(chapter.record, record)
        failed.unlink(missing_ok=True)
    shutil.rmtree(_work(chapter), ignore_errors=True)
    return entry


def figures(notebook: NotebookNode) -> list[str]:
    """Return the ids of the figures that an executed notebook shows, in order."""
    from essaylib.figures import MIME

    return _marked(notebook, MIME)


def _marked(notebook: NotebookNode, mark: str) -> list[str]:
    """Return the ids in those outputs of an executed notebook whose metadata has this key."""
    return [
        output.metadata[mark]["id"]
        for _, cell in code_cells(notebook)
        for output in cell.outputs
        if mark in output.get("metadata", {})
    ]


def shown() -> dict[str, str]:
    """The figures that the executed chapters show, each with its chapter, in the book's order."""
    found: dict[str, str] = {}
    for chapter in chapters():
        for id in figures(executed(chapter)):
            if id in found:
                raise EssayError(
                    f"Figure id {id} is used by {found[id]} and {chapter.id}: ids are unique, "
                    "rename the newer one."
                )
            found[id] = chapter.id
    return found


def executed(chapter: Chapter) -> NotebookNode:
    """A chapter with the outputs of its last run; an empty notebook where it was not run."""
    import nbformat

    if not chapter.executed.is_file():
        return nbformat.v4.new_notebook()
    return nbformat.read(chapter.executed, as_version=4)


def _attach(source: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Return the chapter as it reads now, with the outputs of its run.

    The code cells are the same in both, but for the cell that papermill adds where parameters
    differ from the chapter's own: that one is kept, so that the page shows what was run.
    """
    import nbformat

    ran = iter([cell for _, cell in code_cells(executed)])
    result = nbformat.from_dict(source)
    cells, lines = [], []
    for line, cell in zip(source.metadata.source_map, result.cells, strict=True):
        cells.append(cell)
        lines.append(line)
        if cell.cell_type == "code":
            done = next(ran)
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
            if "parameters" in cell.metadata.get("tags", ()) and _has_injected(executed):
                injected = next(ran)
                injected.metadata.pop("papermill", None)
                cells.append(injected)
                lines.append(line)
    result.cells, result.metadata["source_map"] = cells, lines
    for name in {"language_info", "widgets"} & executed.metadata.keys():
        result.metadata[name] = executed.metadata[name]
    return result


def _has_injected(notebook: NotebookNode) -> bool:
    return any("injected-parameters" in cell.metadata.get("tags", ()) for cell in notebook.cells)


def _record(chapter: Chapter) -> dict[str, Any] | None:
    try:
        record = json.loads(chapter.record.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    whole = {"key", "results", "entry"} <= record.keys()
    return record if whole and chapter.executed.is_file() else None


def _results(notebook: NotebookNode, parameters: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of every file of the figures that a run drew, and of the verdicts it recorded.

    The keys are paths in `_build`.
    """
    from essaylib.figures import folder

    drawn = [path for id in figures(notebook) for path in sorted(folder(id).glob("*"))]
    model = parameters.get("model", "embedded")
    verdicts = [claims.path_of(id, model) for id in _marked(notebook, claims.MIME)]
    return {
        path.relative_to(paths.build()).as_posix(): sha256(path)
        for path in [*drawn, *verdicts]
        if path.is_file()
    }


def _as_left(record: dict[str, Any]) -> bool:
    """Whether the results of a run lie there unchanged.

    A run that failed after it drew, or a reader's own notebook, puts others in their place.
    """
    return all(
        (path := paths.build() / name).is_file() and sha256(path) == digest
        for name, digest in record["results"].items()
    )


def _merge(entries: dict[str, Entry], interrupted: bool) -> Report:
    """Join this run's entries with those of chapters that it did not touch."""
    known = {entry.id: entry for entry in read_report().chapters} | entries
    order = [chapter.id for chapter in chapters()]
    return Report([known[id] for id in order if id in known], interrupted)


def _source_line(plan: Plan, error: dict[str, Any]) -> dict[str, Any]:
    cells = code_cells(plan.notebook)
    if error["cell"] is None or error["cell"] > len(cells):
        return {}
    return {"line": cells[error["cell"] - 1][0], "file": f"{plan.chapter.page}.md"}


def _work(chapter: Chapter) -> Path:
    return paths.build() / "executed" / ".running" / chapter.id
