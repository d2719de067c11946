"""Run one chapter, in the process that this is called in."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Job:
    """A notebook to run: where it lies, where the result goes, what it is run with."""

    id: str
    source: Path
    executed: Path
    progress: Path
    root: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `peak_mb` is the largest resident memory of its process, in MiB.

    It is 0 where the system keeps no count of it.
    `error` is None, or {"cell": number among the code cells from 1, or None, "type", "message",
    "traceback"}.
    """

    seconds: float
    peak_mb: float
    error: dict[str, Any] | None = None


def leave_interrupts_to_parent() -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal: the parent ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def execute(job: Job) -> Outcome:
    """Run a notebook by papermill; an error in the notebook is part of the outcome."""
    os.environ |= dict.fromkeys(_THREAD_VARIABLES, str(job.threads)) | {
        "ESSAY_CHAPTER": job.id,
        "ESSAY_ROOT": str(job.root),
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    started = time.monotonic()
    error = _run(job)
    return Outcome(time.monotonic() - started, _children_peak_mb(), error)


def _run(job: Job) -> dict[str, Any] | None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from traitlets.config import Config

    class Engine(NBClientEngine):
        """Papermill's engine, which also tells in a file which cell it has come to."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            counts = [_is_chapter_code(cell) for cell in nb_man.nb.cells]
            begin = nb_man.cell_start

            def cell_start(cell, cell_index, **rest):
                reached = f"{sum(counts[: cell_index + 1])}/{sum(counts)}"
                job.progress.write_text(reached, encoding="utf-8")
                return begin(cell, cell_index, **rest)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("essay", Engine)
    sockets = tempfile.TemporaryDirectory(prefix="essay-")
    try:
        papermill.execute_notebook(
            job.source,
            job.executed,
            parameters=job.parameters,
            engine_name="essay",
            kernel_name="python3",
            language="python",
            start_timeout=300,  # a loaded machine takes its time
            # Sockets in a folder of this run's own: ports chosen by two chapters at once can clash.
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets.name}/kernel"}}),
            cwd=job.root,
            # A kernel that is interrupted before it is shut down complains on the terminal.
            shutdown_kernel="immediate",
            progress_bar=False,
            request_save_on_cell_execute=False,
        )
    except papermill.PapermillExecutionError as error:
        return {
            "cell": cell_reached(job.progress),
            "type": error.ename,
            "message": error.evalue,
            "traceback": "\n".join(error.traceback),
        }
    except DeadKernelError as error:
        return {
            "cell": cell_reached(job.progress),
            "type": type(error).__name__,
            "message": "the kernel died; it may have run out of memory: try smaller `samples`",
        }
    finally:
        sockets.cleanup()
    return None


def cell_reached(progress: Path) -> int | None:
    """Return the number of the code cell that a run has come to; None before the first."""
    try:
        return int(progress.read_text(encoding="utf-8").split("/")[0]) or None
    except (OSError, ValueError):
        return None


def _is_chapter_code(cell: Any) -> bool:
    tags = cell.metadata.get("tags", ())
    return cell.cell_type == "code" and "injected-parameters" not in tags


def _children_peak_mb() -> float:
    """Return the largest resident memory that a child of this process had: the kernel's."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
