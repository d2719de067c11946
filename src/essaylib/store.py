"""Arrays that take minutes to compute and that several chapters need: made once, kept in a file.

A file's name holds a digest of all that it depends on, so a stale one is never read. What ships
with the book lies in `data/features`; the rest is made on first use, in `_build/features`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from essaylib import paths
from essaylib.errors import EssayError

T = TypeVar("T")

_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged .npz file may raise."""


def digest(*parts: Any) -> str:
    """A short name for what an array depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def key(document: Any) -> str:
    """SHA-256 of what JSON can say, whatever the order of its names."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def weights_hash(
    network: Any, parts: tuple[str, ...] = ("",), config: Mapping[str, Any] | None = None
) -> str:
    """SHA-256 of a network's configuration and weights as they are in memory.

    parts: what the names of the weights that count begin with; by default all count.
    config: what counts of the configuration; by default all that is not private.
    """
    import torch

    if config is None:
        config = {k: v for k, v in dict(network.config).items() if not k.startswith("_")}
    found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    weights = {k: v for k, v in network.state_dict().items() if k.startswith(parts)}
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()


def shipped() -> Path:
    """Where the features lie that are part of the book."""
    return paths.root() / "data" / "features"


def find(name: str, read: Callable[[Path], T | None]) -> T | None:
    """What the file `name` holds, or None where nobody has made it yet."""
    for place in (shipped(), paths.build() / "features"):
        if (found := read(place / name)) is not None:
            return found
    return None


def kept(
    name: str,
    read: Callable[[Path], T | None],
    write: Callable[[Path, T], None],
    compute: Callable[[], T],
) -> T:
    """What the file `name` holds; computed and written first where nobody did.

    `read` returns None where there is no such file or it is damaged: then it is made again. One
    process computes, the others wait for it. A file appears whole or not at all.
    """
    if (found := find(name, read)) is not None:
        return found
    from filelock import FileLock

    path = paths.build() / "features" / name
    _make_folder(path.parent)
    with FileLock(path.with_name(f"{name}.lock")):
        if (found := read(path)) is None:  # another process may have been at it
            found = compute()
            write_whole(path, lambda part: write(part, found))
            found = read(path)
    return found


def ship(replaced: str, files: Mapping[str, Callable[[Path], None]]) -> list[Path]:
    """Put files with the book, each written by its function, and return them.

    Others whose names match the pattern `replaced` were made with other weights and are removed.
    """
    made = [shipped() / name for name in files]
    for path, write in zip(made, files.values(), strict=True):
        write_whole(path, write)
    for path in set(shipped().glob(replaced)) - set(made):
        path.unlink()
    return made


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place."""
    _make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            write(Path(name))
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise EssayError(f"{path} cannot be written ({error.strerror}).") from error


def write_text(path: Path, text: str) -> None:
    """Write text, in UTF-8, whole or not at all; leave a file that would not change."""
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """What a JSON file says; raise `EssayError` that names the cure where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # cut off, or no text at all
        raise EssayError(f"{path} is damaged: {cure}.") from None


def write_json(path: Path, content: Any) -> None:
    """Write what JSON can say, as `write_text` does."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name as .npz, whatever the file's name ends in."""
    with path.open("wb") as file:  # given a name, numpy would add .npz to it
        np.savez_compressed(file, **arrays)


def save_arrays(path: Path, **arrays: Any) -> None:
    """Keep arrays by name in an .npz file."""
    write_whole(path, lambda part: write_arrays(part, arrays))


def load_arrays(path: Path, cure: str) -> dict[str, np.ndarray]:
    """Every array of an .npz file; raise `EssayError` that names the cure where it is damaged."""
    try:
        with np.load(path) as stored:
            return dict(stored)
    except _DAMAGED as error:
        raise EssayError(f"{path} is damaged ({error}): {cure}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EssayError(f"{folder} cannot be made ({error.strerror}).") from error
