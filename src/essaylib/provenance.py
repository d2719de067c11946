"""Where a number comes from: code, model, corpus, machine and settings, as plain JSON."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from essaylib import paths
from essaylib.errors import EssayError

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "essaylib")


def provenance(pipe: Any = None, **parameters: Any) -> dict[str, Any]:
    """Describe what a result was computed with.

    `pipe` is the diffusers pipeline that took part; without one, the parameter `model` names it.
    `parameters` are the settings to be kept, such as `seed` and `guidance_scale`.
    """
    return {
        "parameters": {name: plain(value) for name, value in parameters.items()},
        "model": _model(pipe, parameters.get("model")),
        "corpus": corpus(),
        "machine": machine(),
        "versions": versions(),
        "git": git(),
    }


def plain(value: Any) -> Any:
    """`value` as JSON knows it; anything else by its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.item() if getattr(value, "ndim", None) == 0 else str(value)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The versions that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, system, threads and determinism flags of this process."""
    found: dict[str, Any] = {"system": platform.system(), "processor": platform.machine()}
    torch = sys.modules.get("torch")
    if torch is None:
        return found
    found["threads"] = torch.get_num_threads()
    found["deterministic"] = torch.are_deterministic_algorithms_enabled()
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return found


def git() -> dict[str, Any] | None:
    """The commit of the book and whether its files are as committed; None outside of git.

    Asked once a process, whose code stays what it was when it was read.
    """
    return _state(paths.root())


@lru_cache(maxsize=8)
def _state(root: Path) -> dict[str, Any] | None:
    status = _git(root, "status", "--porcelain=v2", "--branch")
    if status is None:
        return None
    lines = status.splitlines()
    commit = lines[0].removeprefix("# branch.oid ")
    if commit == "(initial)":  # nothing has been committed yet
        return None
    return {"commit": commit, "clean": all(line.startswith("#") for line in lines)}


def corpus() -> dict[str, str] | None:
    """The corpus by its SHA-256; None where it has not been built."""
    return {"sha256": sha256(paths.corpus())} if paths.corpus().is_file() else None


def sha256(path: Path) -> str:
    """SHA-256 of a file, remembered as long as its size and time stay the same."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model(pipe: Any, name: str | None) -> dict[str, Any] | None:
    if pipe is None and name is None:
        return None
    from essaylib import hub, models, weights

    if pipe is not None:
        return models.describe(pipe)
    try:
        spec = models.resolve(name)
        place = models.folder(spec)
        digests = weights.hashes(place) if place else {}
    except EssayError:  # built in memory, or not whole: whoever loads it is told what is wrong
        return {"name": str(name)}
    return {
        "name": spec.name,
        "hub_id": spec.hub_id,
        "revision": hub.revision(place) if place else None,
        "licence": spec.licence,
        "weights": digests,
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
