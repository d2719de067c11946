"""How the corpus is built, on icons made here: the packages themselves are not needed."""

import base64
import hashlib
import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest

from essaylib.errors import EssayError
from essaylib.training import corpus as building


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("woman’s hat", "womans-hat"),
        ("Japanese “reserved” button", "japanese-reserved-button"),
        ("piñata", "pinata"),
        ("kiss: woman, man", "kiss-woman-man"),
    ],
)
def test_slug(name, slug):
    assert building.slug(name) == slug


def test_plain_drops_the_variation_selector():
    assert building.plain("2764-FE0F") == "2764"


def square(colour: str) -> str:
    return f'<rect width="16" height="16" fill="{colour}"/>'


def test_a_wide_icon_is_centred_in_a_square():
    icons = {"icons": {"bar": {"body": square("#f00"), "width": 16, "height": 8}}}
    rgba = building.rasterise(building.svg(icons, "bar"))
    assert rgba.shape == (128, 128, 4)
    assert (rgba[64, 64] == (255, 0, 0, 255)).all()
    assert rgba[5, 64, 3] == 0


def test_webp_is_lossless():
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (128, 128, 4), np.uint8)
    image[..., 3] = 255
    decoded = Image.open(io.BytesIO(building.webp(image))).convert("RGBA")
    assert (np.asarray(decoded) == image).all()


def test_duplicate_groups_link_near_copies_only():
    one = np.full((128, 128, 4), 255, np.uint8)
    one[40:90, 40:90, :3] = 0
    near = one.copy()
    near[40, 40:90, :3] = 60
    other = one.copy()
    other[40:90, 40:90, 0] = 200
    assert building.duplicate_groups(np.stack([one, near, other])).tolist() == [0, 0, 1]


def table(concepts: int, vendors=("a", "b", "c")) -> pd.DataFrame:
    rows = [(f"c{i}", v) for i in range(concepts) for v in vendors]
    frame = pd.DataFrame(rows, columns=["concept", "vendor"])
    frame["duplicate_group"] = range(len(frame))
    return frame


def test_split_is_fixed_and_takes_one_pair_a_concept():
    frame = table(200)
    first, second = building.split(frame), building.split(frame)
    assert first == second
    frame["split"] = first
    unseen = frame[frame.split != "train"]
    assert unseen.split.value_counts().to_dict() == {"held_out": 24, "validation": 24}
    assert unseen.concept.is_unique


def test_split_leaves_concepts_of_two_vendors_alone():
    frame = pd.concat([table(100), table(100, ("a", "b")).assign(concept="two")], ignore_index=True)
    frame["duplicate_group"] = range(len(frame))
    frame["split"] = building.split(frame)
    assert (frame[frame.concept == "two"].split == "train").all()


def archive(folder, package, files):
    path = folder / f"{package.name.replace('@', '').replace('/', '-')}-{package.version}.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, value in files.items():
            data = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_an_archive_with_another_hash_is_refused(tmp_path):
    package = building.PACKAGES[0]
    archive(tmp_path, package, {"icons.json": {}})
    with pytest.raises(EssayError, match="does not have the hash"):
        building.Archive.open(package, tmp_path)


def test_building_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    """Two vendors draw two concepts; the whole builder runs, npm apart."""
    icons = {"icons": {"red": {"body": square("#f00")}, "blue": {"body": square("#00f")}}}
    info = {"license": {"spdx": "MIT"}}
    chars = {"2b55": "red"}
    entries = [
        {
            "hexcode": "2B55",
            "label": "ring",
            "tags": ["red"],
            "group": 1,
            "subgroup": 2,
            "order": 2,
        },
        {"hexcode": "1F535", "label": "blue", "group": 1, "subgroup": 2, "order": 1},
        {"hexcode": "1F1E6", "label": "flag", "group": 9, "subgroup": 2, "order": 3},
    ]
    meta = {"groups": {"1": "symbols", "9": "flags"}, "subgroups": {"2": "geometric"}}
    sets = {
        "one": {"icons.json": icons, "info.json": info, "chars.json": chars},
        "two": {"icons.json": icons, "info.json": info, "chars.json": {}},
        "emojibase-data": {
            "en/data.json": entries,
            "de/data.json": [{**e, "label": "Ring"} for e in entries],
            "meta/groups.json": meta,
        },
    }
    packages = []
    for name, files in sets.items():
        blank = building.Package(name, "1.0.0", "", name if name != "emojibase-data" else None)
        data = archive(tmp_path, blank, files).read_bytes()
        digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
        packages.append(building.Package(name, "1.0.0", f"sha512-{digest}", blank.vendor))
    monkeypatch.setattr(building, "PACKAGES", tuple(packages))
    first = building.build(tmp_path, tmp_path / "a")
    second = building.build(tmp_path, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    built = pd.read_parquet(first)
    assert built.id.tolist() == ["1f535-one", "2b55-one", "1f535-two"]
    assert set(pd.read_parquet(tmp_path / "a" / "names.parquet").language) == {"en", "de"}
