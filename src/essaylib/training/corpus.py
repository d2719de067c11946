"""Build the corpus from five npm packages, at pinned versions with integrity hashes.

The drawings come as SVG in Iconify's JSON; names, tags and groups come from CLDR by way of
emojibase. Flags, components and keycaps are left out: flags are not drawn by house style, and the
others are parts of other emoji.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from essaylib import paths
from essaylib.corpus import SIZE
from essaylib.errors import EssayError

SEED = 2606_19151
SHARE = 0.04
"""Share of the eligible pairs in `held_out`, and again in `validation`."""
NEAR = 0.02
"""Root mean squared difference at 16 × 16, in [0, 1], below which two drawings are near-copies."""


@dataclass(frozen=True)
class Package:
    """One npm package: its name, version and the registry's own SHA-512 of the archive."""

    name: str
    version: str
    integrity: str
    vendor: str | None = None


PACKAGES = (
    Package(
        "@iconify-json/noto",
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "google",
    ),
    Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "twitter",
    ),
    Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "microsoft",
    ),
    Package(
        "@iconify-json/emojione",
        "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "emojione",
    ),
    Package(
        "emojibase-data",
        "17.0.0",
        "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    ),
)


def build(archives: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Write `corpus.parquet` and `names.parquet`; return the corpus file.

    `archives` is a folder that holds the packages as `npm pack` names them; without it they are
    fetched with `npm`. The same packages give the same bytes.
    """
    out = Path(out) if out else paths.corpus().parent
    with tempfile.TemporaryDirectory() as scratch:
        opened = {p.name: Archive.open(p, Path(archives or scratch)) for p in PACKAGES}
    emojibase = opened["emojibase-data"]
    concepts = read_concepts(emojibase)
    rows = [row for p in PACKAGES if p.vendor for row in drawings(p, opened[p.name], concepts)]
    with ThreadPoolExecutor() as pool:
        rgba = list(pool.map(rasterise, [row.pop("svg") for row in rows]))
        encoded = list(pool.map(webp, rgba))
    table = pd.DataFrame(rows)
    table["duplicate_group"] = duplicate_groups(np.stack(rgba))
    table["split"] = split(table)
    table["webp"] = encoded
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out / "corpus.parquet", index=False, compression="zstd")
    read_names(emojibase, concepts).to_parquet(
        out / "names.parquet", index=False, compression="zstd"
    )
    return out / "corpus.parquet"


class Archive(dict):
    """A package's JSON files by path, read from an archive whose hash was checked."""

    @classmethod
    def open(cls, package: Package, folder: Path) -> Archive:
        name = f"{package.name.replace('@', '').replace('/', '-')}-{package.version}.tgz"
        if not (folder / name).exists():
            fetch(package, folder)
        data = (folder / name).read_bytes()
        found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
        if found != package.integrity:
            raise EssayError(
                f"{folder / name} does not have the hash that {package.name} {package.version} "
                "should have: delete it and run `essay train corpus` again."
            )
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return cls(
                (m.name.removeprefix("package/"), tar.extractfile(m).read())
                for m in tar.getmembers()
                if m.isfile() and m.name.endswith(".json")
            )

    def json(self, path: str):
        return json.loads(self[path])


def fetch(package: Package, folder: Path) -> None:
    """Fetch one package's archive into a folder with `npm pack`."""
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise EssayError(
            "Rebuilding the corpus needs npm (it comes with Node.js); reading, running and testing "
            "the book does not: the built corpus is in data/corpus."
        ) from error
    except subprocess.CalledProcessError as error:
        raise EssayError(f"`{' '.join(command)}` failed: {error.stderr.strip()}") from error


def read_concepts(emojibase: Archive) -> list[dict]:
    """Return the concepts in Unicode's order: hexcode, concept, tags, group, subgroup."""
    meta = emojibase.json("meta/groups.json")
    concepts = []
    for entry in emojibase.json("en/data.json"):
        if "group" not in entry:
            continue
        group = meta["groups"][str(entry["group"])]
        subgroup = meta["subgroups"][str(entry["subgroup"])]
        if group in ("flags", "component") or subgroup == "keycap":
            continue
        concepts.append(
            {
                "order": entry["order"],
                "hexcode": entry["hexcode"],
                "concept": entry["label"],
                "tags": entry.get("tags", []),
                "group": group,
                "subgroup": subgroup,
            }
        )
    return sorted(concepts, key=lambda c: c["order"])


def read_names(emojibase: Archive, concepts: list[dict]) -> pd.DataFrame:
    """Return the concepts' names in each language of emojibase."""
    wanted = {c["hexcode"] for c in concepts}
    rows = [
        (entry["hexcode"], path.split("/")[0], entry["label"])
        for path in sorted(emojibase)
        if path.count("/") == 1 and path.endswith("/data.json")
        for entry in emojibase.json(path)
        if entry["hexcode"] in wanted
    ]
    return pd.DataFrame(rows, columns=["hexcode", "language", "name"])


def drawings(package: Package, archive: Archive, concepts: list[dict]) -> list[dict]:
    """Return one vendor's drawings of the concepts it has: columns of the table, and `svg`."""
    icons, licence = archive.json("icons.json"), archive.json("info.json")["license"]["spdx"]
    by_code = {plain(code): name for code, name in archive.json("chars.json").items()}
    rows = []
    for c in concepts:
        name = by_code.get(plain(c["hexcode"])) or slug(c["concept"])
        name = icons.get("aliases", {}).get(name, {}).get("parent", name)
        if name not in icons["icons"]:
            continue
        rows.append(
            {
                "id": f"{c['hexcode'].lower()}-{package.vendor}",
                **{key: c[key] for key in ("hexcode", "concept", "tags", "group", "subgroup")},
                "vendor": package.vendor,
                "licence": licence,
                "package": package.name,
                "version": package.version,
                "svg": svg(icons, name),
            }
        )
    return rows


def plain(hexcode: str) -> str:
    """Return a hexcode in lower case without the variation selector that asks for colour."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def slug(name: str) -> str:
    """Return a CLDR name as Iconify writes it.

    >>> slug("woman’s hat"), slug("ice cream")
    ('womans-hat', 'ice-cream')
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.replace("&", "and")).strip("-")


def svg(icons: dict, name: str) -> str:
    """Return one icon of an Iconify set as a square SVG document, the icon in its middle."""
    icon = {"left": 0, "top": 0, "width": 16, "height": 16} | icons | icons["icons"][name]
    side = max(icon["width"], icon["height"])
    left = icon["left"] - (side - icon["width"]) / 2
    top = icon["top"] - (side - icon["height"]) / 2
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {side} {side}">{icon["body"]}</svg>'
    )


def rasterise(document: str) -> np.ndarray:
    """Return an SVG as uint8 (128, 128, 4), straight alpha."""
    import resvg_py
    from PIL import Image

    png = bytes(resvg_py.svg_to_bytes(svg_string=document, width=SIZE, height=SIZE))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def webp(rgba: np.ndarray) -> bytes:
    """Return an image as lossless WebP."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "WEBP", lossless=True, quality=60, method=3)
    return buffer.getvalue()


def duplicate_groups(rgba: np.ndarray) -> np.ndarray:
    """Number the groups of near-duplicate drawings, in order of first appearance.

    Two drawings are linked where the root mean squared difference of their 16 × 16 means on white
    is below `NEAR`; a group is what the links connect.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    alpha = rgba[..., 3:].astype(np.float32) / 255
    white = rgba[..., :3] / 255 * alpha + 1 - alpha
    block = SIZE // 16
    small = white.reshape(-1, 16, block, 16, block, 3).mean(axis=(2, 4)).reshape(len(rgba), -1)
    small = small.astype(np.float64)
    squares = (small**2).sum(1)
    distance = squares[:, None] + squares[None] - 2 * small @ small.T
    linked = distance < NEAR**2 * small.shape[1]
    return connected_components(csr_array(linked), directed=False)[1]


def split(table: pd.DataFrame) -> list[str]:
    """Draw `held_out` and `validation`: each `SHARE` of the pairs whose concept has three vendors.

    Whole groups of near-duplicates are drawn, so none of them is also trained on; a concept gives
    at most one group, and keeps at least two drawings to learn from.
    """
    rng = np.random.default_rng(SEED)
    vendors = table.groupby("concept").vendor.nunique()
    eligible = table.concept.map(vendors) >= 3
    groups = dict(list(table[eligible].groupby("duplicate_group")))
    sizes = table.duplicate_group.value_counts()
    result = np.full(len(table), "train", dtype=object)
    spent: set[str] = set()
    order = list(rng.permutation(sorted(groups)))
    for name in ("held_out", "validation"):
        missing = round(SHARE * eligible.sum())
        while missing > 0:
            rows = groups[order.pop()]
            concepts = rows.concept.value_counts()
            whole = len(rows) == sizes[rows.duplicate_group.iloc[0]]
            left = (vendors[concepts.index] - concepts).min()
            if not whole or left < 2 or spent & set(concepts.index) or len(rows) > missing:
                continue
            result[rows.index] = name
            spent |= set(concepts.index)
            missing -= len(rows)
    return list(result)
