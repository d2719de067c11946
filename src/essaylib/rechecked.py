"""Arrays of one row a drawing that ship with the book: read, and a few of their rows made again.

What takes a chapter more than its minute, and depends on nothing but what ships too, lies in
`data/features` under a name that digests all that it depends on. `essay sample corpus` puts it
there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from essaylib import features, store
from essaylib.errors import EssayError

Rows = Sequence[int] | slice
ALL = slice(None)

AGAIN = 8
"""Rows that are made again wherever shipped arrays are read."""

Arrays = dict[str, np.ndarray]


def load(kind: str, key: str, count: int, make: Callable[[Rows], Arrays]) -> Arrays:
    """Return the arrays (count, ...), by name, that `make(ALL)` gives.

    make: gives the arrays of some rows alone, as they are among all. Arrays that ship under this
    kind and key are read, and some of their rows made again: `EssayError` if they differ.
    """

    def read(path: Path) -> Arrays | None:
        found = _read(path)
        if found is None or any(len(kept) != count for kept in found.values()):
            return None
        rows = features.some_rows(count, AGAIN)
        for name, again in make(rows).items():
            features.agree(path, found[name][rows], again)
        return found

    found = store.find(_name(kind, key), read)
    return make(ALL) if found is None else found


def ship(kind: str, key: str, arrays: Arrays) -> Path:
    """Put arrays with the book as float32, in place of others of their kind; return the file."""
    small = {name: values.astype(np.float32) for name, values in arrays.items()}
    files = {_name(kind, key): lambda part: store.write_arrays(part, small)}
    (path,) = store.ship(_name(kind, "*"), files)
    return path


def _name(kind: str, key: str) -> str:
    return f"{kind}-{key}.npz"


def _read(path: Path) -> Arrays | None:
    """What a file keeps; None where there is none or it is damaged."""
    try:
        stored = store.load_arrays(path, "it is made again")
    except EssayError:
        return None
    return {name: values.astype(float) for name, values in stored.items()}
