"""The corpus: 5,901 drawings of 1,631 concepts by four vendors, as a table.

A *vendor* is who published a drawing (Unicode's own word). It mixes authors, house style, year
and licence, and is never called the artist. Images are stored as lossless WebP with their alpha
channel and decoded only when asked for.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from essaylib import paths, provenance
from essaylib.errors import EssayError

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

VENDORS = ("google", "twitter", "microsoft", "emojione")
SIZE = 128
"""Width and height of every stored drawing, in pixels."""
HALVES_SEED = 0
"""Seed that deals the concepts into two halves."""

_CURE = "Restore it with `git checkout -- data/corpus`, or rebuild it with `essay train corpus`."


@dataclass(frozen=True)
class Corpus:
    """Some rows of the corpus.

    `table` has one row a drawing: id, hexcode, concept (CLDR name), vendor, tags, group, subgroup,
    licence, package, version, duplicate_group, split. `webp` holds the encoded images in the same
    order. `source` is the file that both came from.
    """

    table: pd.DataFrame
    webp: tuple[bytes, ...]
    source: Path

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        vendors = ", ".join(f"{v} {n:,}" for v, n in self.table.vendor.value_counts().items())
        concepts = self.table.concept.nunique()
        return f"Corpus({len(self):,} drawings of {concepts:,} concepts: {vendors})"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the whole corpus file, whichever rows are selected."""
        return provenance.sha256(self.source)

    def where(self, **columns: str | list[str]) -> Corpus:
        """Return the rows whose columns equal a value, or are among a list of values.

        >>> load().where(vendor="google", split=["train", "validation"])  # doctest: +SKIP
        """
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in columns.items():
            if name not in self.table.columns:
                raise EssayError(
                    f"The corpus has no column {name!r}; it has {', '.join(self.table.columns)}."
                )
            wanted = [wanted] if isinstance(wanted, str | int) else list(wanted)
            keep &= self.table[name].isin(wanted).to_numpy()
        return self.take(np.flatnonzero(keep))

    def take(self, rows) -> Corpus:
        """Return the rows at these positions, in this order."""
        rows = [int(row) for row in rows]
        table = self.table.iloc[rows].reset_index(drop=True)
        return Corpus(table, tuple(self.webp[row] for row in rows), self.source)

    def image(self, row: int) -> Image.Image:
        """Return one drawing as an RGBA image of 128 × 128 pixels."""
        from PIL import Image

        return Image.open(io.BytesIO(self.webp[row])).convert("RGBA")

    def rgba(self, rows=None) -> np.ndarray:
        """Return drawings as uint8 (n, 128, 128, 4)."""
        rows = range(len(self)) if rows is None else rows
        images = [np.asarray(self.image(int(row))) for row in rows]
        return np.stack(images) if images else np.zeros((0, SIZE, SIZE, 4), np.uint8)

    def rgb(self, rows=None, size: int = SIZE) -> np.ndarray:
        """Return drawings on white as uint8 (n, size, size, 3).

        `size` must divide 128; smaller sizes are the mean over blocks of pixels.
        """
        if size < 1 or SIZE % size:
            raise EssayError(f"size {size} does not divide {SIZE}: use 128, 64, 32, 16 or 8.")
        rows = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=int)
        block = SIZE // size
        found = np.empty((len(rows), size, size, 3), np.uint8)
        for start in range(0, len(rows), 256):  # the whole corpus in floats would take gigabytes
            part = slice(start, start + 256)
            rgba = self.rgba(rows[part])
            found[part] = _on_white(rgba) if block == 1 else _shrunk_on_white(rgba, block)
        return found


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """Drawings (n, h, w, 4) on white, uint8; in whole numbers, which is fast and rounds exactly."""
    alpha = rgba[..., 3:].astype(np.uint16)
    white = rgba[..., :3] * alpha
    white += 255 * (255 - alpha)  # at most 255 * 255: it stays in sixteen bits
    return ((white + 127) // 255).astype(np.uint8)


def _shrunk_on_white(rgba: np.ndarray, block: int) -> np.ndarray:
    """Drawings (n, h, w, 4) on white, rounded after the mean over blocks of pixels: uint8."""
    n, height, width, _ = rgba.shape
    rgba = rgba.astype(np.float32)
    alpha = rgba[..., 3:] / 255
    white = rgba[..., :3] * alpha + 255 * (1 - alpha)
    white = white.reshape(n, height // block, block, width // block, block, 3)
    return white.mean(axis=(2, 4)).round().astype(np.uint8)


@lru_cache(maxsize=2)
def load(path: str | Path | None = None) -> Corpus:
    """Load the corpus, images still encoded.

    Raises `EssayError` where the file is missing, cut short or not a corpus.
    """
    path = Path(path or paths.corpus())
    table = _read(path)
    if "webp" not in table.columns:
        raise EssayError(f"{path} is not the corpus: it has no column of images. {_CURE}")
    return Corpus(table.drop(columns="webp"), tuple(table.webp), path)


def names(path: str | Path | None = None) -> pd.DataFrame:
    """Return the concepts' names in every language: hexcode, language (BCP 47), name."""
    return _read(Path(path or paths.names()))


def halves(concepts: Iterable[str] | None = None) -> tuple[list[str], list[str]]:
    """Return the first and the second half of the concepts, each sorted.

    The halves are of the whole corpus, drawn with a fixed seed; `concepts` restricts the answer to
    some of them. Concepts that share a group of near-duplicate drawings are in the same half.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    table = load().table
    every, concept = np.unique(table.concept, return_inverse=True)
    group = len(every) + table.duplicate_group.to_numpy()
    size = group.max() + 1
    edges = coo_array((np.ones(len(table)), (concept, group)), shape=(size, size))
    cluster = connected_components(edges, directed=False)[1][: len(every)]
    dealt = np.random.default_rng(HALVES_SEED).permutation(cluster.max() + 1)[cluster]
    order = dealt.argsort(kind="stable")
    cuts = np.flatnonzero(np.diff(dealt[order])) + 1
    first = set(every[order[: cuts[np.abs(cuts - len(every) / 2).argmin()]]])
    wanted = set(every) if concepts is None else set(concepts)
    if unknown := sorted(wanted - set(every)):
        raise EssayError(f"The corpus has no concept {unknown[0]!r}.")
    return sorted(wanted & first), sorted(wanted - first)


def variants(concepts: Iterable[str]) -> pd.DataFrame:
    """Return the concepts that exist with and without a gender: role, person, woman, man.

    A role is kept where all three are among `concepts`: "health worker", "woman health worker" and
    "man health worker", or "person running" and its two variants.
    """
    import pandas as pd

    there = set(concepts)
    rows = []
    for woman in sorted(name for name in there if name.startswith("woman ")):
        role = woman.removeprefix("woman ")
        person = [name for name in (role, f"person {role}") if name in there]
        if person and f"man {role}" in there:
            rows.append((role, person[0], woman, f"man {role}"))
    return pd.DataFrame(rows, columns=["role", "person", "woman", "man"])


def caption(concept: str, vendor: str | None = None) -> str:
    """Return the caption that the book uses: the concept, then the vendor if one is named.

    >>> caption("dog face", "google")
    'dog face, google'
    """
    return f"{concept}, {vendor}" if vendor else concept


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    if not path.is_file():
        raise EssayError(f"There is no corpus at {path}. {_CURE}")
    try:
        return pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise EssayError(f"{path} is damaged or cut short ({error}). {_CURE}") from error
