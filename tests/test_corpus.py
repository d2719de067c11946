"""The corpus as it is shipped, and its reader."""

import numpy as np
import pytest

from essaylib import corpus, paths
from essaylib.errors import EssayError


@pytest.fixture(scope="module")
def data():
    return corpus.load()


def test_counts_by_vendor(data):
    counts = data.table.vendor.value_counts().to_dict()
    assert counts == {"google": 1631, "twitter": 1631, "microsoft": 1574, "emojione": 1065}
    assert data.table.concept.nunique() == 1631
    assert data.table.id.is_unique


def test_each_unseen_split_is_four_percent_of_the_eligible_pairs(data):
    vendors = data.table.groupby("concept").vendor.transform("nunique")
    eligible = (vendors >= 3).sum()
    for split in ("held_out", "validation"):
        rows = data.table[data.table.split == split]
        assert len(rows) == round(0.04 * eligible)
        assert (vendors[rows.index] >= 3).all()


def test_no_near_duplicate_of_an_unseen_drawing_is_trained_on(data):
    splits = data.table.groupby("duplicate_group").split.nunique()
    assert splits.max() == 1


def test_near_duplicates_share_a_group(data):
    """The groups are recomputed from the stored images of Twemoji's families."""
    families = data.where(vendor="twitter", subgroup="family")
    small = families.rgb(size=16).reshape(len(families), -1) / 255
    groups = families.table.duplicate_group.to_numpy()
    rmse = np.sqrt(((small[:, None] - small[None]) ** 2).mean(-1))
    assert (groups[:, None] == groups[None])[rmse < 0.018].all()
    assert len(set(groups)) < len(families)


def test_every_concept_of_an_unseen_pair_is_still_learnt_from_two_drawings(data):
    table = data.table
    learnt = table[table.split == "train"].groupby("concept").vendor.nunique()
    unseen = table[table.split != "train"].concept.unique()
    assert learnt[unseen].min() >= 2


def test_images_decode_lazily_with_alpha(data):
    image = data.where(concept="red heart", vendor="google").image(0)
    assert image.mode == "RGBA" and image.size == (128, 128)
    assert image.getpixel((0, 0))[3] == 0 and image.getpixel((64, 64))[3] == 255


def test_rgb_is_on_white_and_averages_blocks(data):
    few = data.take([0, 1, 2])
    full, small = few.rgb(), few.rgb(size=32)
    assert full.shape == (3, 128, 128, 3) and full.dtype == np.uint8
    assert (full[:, 0, 0] == 255).all()
    blocks = full.reshape(3, 32, 4, 32, 4, 3).mean(axis=(2, 4))
    assert np.abs(blocks - small).max() <= 1
    assert few.rgb(rows=[]).shape == (0, 128, 128, 3)


def test_where_takes_values_and_lists(data):
    some = data.where(vendor=["google", "twitter"], concept="pizza")
    assert sorted(some.table.vendor) == ["google", "twitter"]
    assert some.sha256 == data.sha256
    with pytest.raises(EssayError, match="no column 'maker'"):
        data.where(maker="google")


def test_size_must_divide(data):
    with pytest.raises(EssayError, match="does not divide 128"):
        data.take([0]).rgb(size=100)


def test_names_cover_every_concept_in_every_language(data):
    names = corpus.names()
    codes = set(data.table.hexcode)
    assert names.language.nunique() >= 25
    assert all(set(rows.hexcode) == codes for _, rows in names.groupby("language"))


def test_a_corpus_cut_short_names_the_cure(tmp_path):
    cut = tmp_path / "corpus.parquet"
    cut.write_bytes(paths.corpus().read_bytes()[:100_000])
    with pytest.raises(EssayError, match="git checkout -- data/corpus"):
        corpus.load(cut)


def test_a_missing_corpus_names_the_cure(tmp_path):
    with pytest.raises(EssayError, match="essay train corpus"):
        corpus.load(tmp_path / "none.parquet")


def test_names_are_not_a_corpus():
    with pytest.raises(EssayError, match="no column of images"):
        corpus.load(paths.names())


def test_halves_part_the_concepts_and_keep_near_duplicates_together(data):
    first, second = corpus.halves()
    assert abs(len(first) - len(second)) <= 2
    assert sorted(first + second) == sorted(set(data.table.concept))
    side = data.table.concept.isin(first)
    assert side.groupby(data.table.duplicate_group).nunique().max() == 1


def test_halves_of_some_concepts_are_those_of_the_whole():
    first, second = corpus.halves()
    assert corpus.halves([second[3], first[0]]) == ([first[0]], [second[3]])
    with pytest.raises(EssayError, match="no concept 'unicorn face, google'"):
        corpus.halves(["unicorn face, google"])


def test_variants_name_a_role_with_and_without_gender(data):
    found = corpus.variants(data.table.concept).set_index("role")
    assert tuple(found.loc["cook"]) == ("cook", "woman cook", "man cook")
    assert tuple(found.loc["running"]) == ("person running", "woman running", "man running")
    assert "dancing" not in found.index  # there is no person dancing
    assert len(corpus.variants(["woman cook", "man cook"])) == 0


def test_whole_numbers_set_a_drawing_on_white_as_exactly_as_fractions_do(data):
    few = data.take([0, 500, 5000])
    rgba = few.rgba().astype(float)
    alpha = rgba[..., 3:] / 255
    assert (few.rgb() == (rgba[..., :3] * alpha + 255 * (1 - alpha)).round()).all()
