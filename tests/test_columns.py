"""The models that the statistics are tried on: each differs where it says, and nowhere else."""

from types import SimpleNamespace

import pytest
import torch

from essaylib import columns, corpus, features, models, paths
from essaylib.errors import EssayError


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def final():
    return columns.load("final", "cpu")


@pytest.fixture(scope="module")
def born():
    return columns.load("untrained", "cpu")


def test_the_trained_model_comes_first_and_the_untrained_one_last():
    ids = [column.id for column in columns.all()]
    assert (ids[0], ids[-1]) == (columns.FINAL, columns.UNTRAINED)
    assert len(set(ids)) == len(ids)
    assert set(columns.PARTS) == set(columns.find("untrained").parts)


def test_unknown_models_are_refused_with_the_list():
    with pytest.raises(EssayError, match=r"early.*sd15"):
        columns.find("late")
    assert columns.find("sd15").foreign


def test_a_vendor_left_out_is_found_by_its_folder(sandbox):
    assert columns.find("without").title == "without a vendor"
    assert not columns.find("without").here
    folder = sandbox / "models" / "unet-without-google"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    found = columns.find("without")
    assert found.here and found.title == "without google" and found.folder == folder.name


def test_what_is_not_trained_says_which_folder_is_missing(sandbox):
    with pytest.raises(EssayError, match="models/unet-seed-1"):
        columns.load("seed-1")


def test_another_text_tower_reads_for_the_same_u_net(final):
    other = columns.load("unnamed", "cpu")
    clip, _ = models.load_clip(paths.models() / "clip-unnamed")
    assert same(other.pipe.text_encoder, clip.text_model)
    assert not same(other.pipe.text_encoder, final.pipe.text_encoder)
    assert same(other.pipe.unet, final.pipe.unet) and same(other.pipe.vae, final.pipe.vae)


def test_an_earlier_u_net_is_all_that_differs(final):
    other = columns.load("early", "cpu")
    assert not same(other.pipe.unet, final.pipe.unet)
    assert same(other.pipe.text_encoder, final.pipe.text_encoder)
    assert same(other.pipe.vae, final.pipe.vae)


def test_nothing_of_the_untrained_model_was_trained(final, born):
    for name in ("text_encoder", "unet", "vae"):
        old, new = getattr(final.pipe, name).state_dict(), getattr(born.pipe, name).state_dict()
        assert old.keys() == new.keys()
        weights = [key for key in old if key.endswith("weight") and old[key].std() > 0]
        assert not any(torch.equal(old[key], new[key]) for key in weights)
    assert not same(born.clip, final.clip) and not same(born.unnamed, final.unnamed)


def test_the_untrained_model_is_the_same_each_time_and_no_rival_of_a_statistic(born):
    assert same(born.pipe.unet, features.untrained(born.pipe.unet, columns.SEED))
    assert not same(born.pipe.unet, features.untrained(born.pipe.unet, 0))
    assert not same(born.pipe.unet, features.untrained(born.pipe.unet, 10_000))


def test_untrained_latents_are_as_loud_as_trained_ones(born):
    drawings = corpus.load().where(split="train").rgb(range(columns.SCALED_ON))
    held = features.latents(born.pipe.vae, drawings)
    assert abs(held.mean((0, 2, 3))).max() < 1e-2
    assert abs(held.std((0, 2, 3)) - 1).max() < 1e-2


def test_a_text_tower_of_another_shape_is_refused():
    def tower(**other):
        shape = {"vocab_size": 9, "hidden_size": 4, "max_position_embeddings": 8, "eos_token_id": 2}
        return SimpleNamespace(to_dict=lambda: shape | other)

    pipe = SimpleNamespace(text_encoder=SimpleNamespace(config=tower()))
    config = SimpleNamespace(text_config=tower(hidden_size=8))
    with pytest.raises(EssayError, match="hidden_size"):
        columns._read_by(pipe, SimpleNamespace(text_model=None, config=config))


def test_files_name_every_weight_of_a_column_and_none_that_it_replaces():
    early, final = columns.files(columns.find("early")), columns.files(columns.find("final"))
    weights = "diffusion_pytorch_model.safetensors"
    assert set(early) - set(final) == {f"unet-early/{weights}"}
    assert set(final) - set(early) == {f"emoji-ldm/unet/{weights}"}
    assert {name.split("/")[0] for name in final} == {"emoji-ldm", "clip-unnamed"}
    assert columns.files(columns.find("untrained")) == {}
