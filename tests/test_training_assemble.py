"""Parts become a folder that diffusers loads, with an honest record of how they were made."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from essaylib import models, paths, repro, weights
from essaylib.judge import Judge, Network
from essaylib.training import assemble, autoencoder, clip, unet

FACTS = {"steps": 10, "batch": 2, "seconds": 1, "from_committed": False}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Untrained parts, as the stages leave them in the working folder."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    shutil.copytree(paths.models() / "emoji-ldm" / "tokenizer", folder / "tokenizer")
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    clip.build(words).save_pretrained(folder / "clip")
    clip.build(words, clip.SMALL).save_pretrained(folder / "clip-first")
    autoencoder.build().save_pretrained(folder / "vae")
    for name in ("unet", "unet-early", "unet-second-early"):
        unet.build().save_pretrained(folder / name)
    settings = Judge.load()
    blank = {"concepts": settings.concepts, "vendors": settings.vendors}
    blank |= {"temperature": settings.temperature, "threshold": settings.threshold}
    Judge(Network(len(settings.concepts), 4), blank).save(folder / "judge")
    for name in assemble.STAGES:
        (folder / f"{name}.json").write_text(json.dumps(FACTS))
    (folder / "unet.csv").write_text("step,loss\n1,0.5\n")
    (folder / "unet-samples").mkdir()
    (folder / "unet-samples" / "000250.webp").write_bytes(b"a picture")
    return folder


@pytest.fixture(scope="module")
def assembled(parts, tmp_path_factory):
    return assemble.run(parts, tmp_path_factory.mktemp("models") / "emoji-ldm")


def test_the_folder_loads_in_plain_diffusers_and_draws(assembled):
    pipe = StableDiffusionPipeline.from_pretrained(assembled)
    pipe.set_progress_bar_config(disable=True)
    image = repro.generate(pipe, "red heart", 0, steps=1, output="np")[0]
    assert image.shape == (128, 128, 3)


def test_every_weight_file_is_summed_and_readable_by_all(assembled):
    for folder in (assembled, assembled.parent / "judge", assembled.parent / "unet-early"):
        files = sorted(folder.rglob("*.safetensors"))
        assert len((folder / weights.SUMS).read_text().splitlines()) == len(files)
        assert all(file.stat().st_mode & 0o444 == 0o444 for file in files)
    assert (assembled / "history" / "unet-01.csv").is_file()
    assert (assembled / "history" / "samples" / "01-000250.webp").is_file()


def test_other_clips_and_unets_stand_beside_the_model(assembled):
    beside = assembled.parent
    half, _ = models.load_clip(beside / "clip-halves" / "first")
    assert half.config.projection_dim == clip.SMALL.shared
    assert (beside / "unet-early" / "config.json").is_file()
    assert not (beside / "unet-second-early").exists()


def test_each_stretch_of_a_part_keeps_its_log(tmp_path):
    part, place = tmp_path / "clip-unnamed", tmp_path / "models"
    place.mkdir()
    for steps, log in ((10, "first"), (5, "second")):
        facts = FACTS | {"steps": steps, "from_committed": steps == 5}
        part.with_suffix(".json").write_text(json.dumps(facts))
        part.with_suffix(".csv").write_text(log)
        assemble.keep_logs(part, place)
        assemble.keep_logs(part, place)  # assembled once more
    record = json.loads((place / "training.json").read_text())
    assert record["steps"] == 5 and [was["steps"] for was in record["before"]] == [10]
    assert (place / "training.csv").read_text() == "first"
    assert (place / "training-02.csv").read_text() == "second"


def test_frozen_weights_stay_frozen_until_others_take_their_place(parts, tmp_path):
    own, out = tmp_path / "parts", tmp_path / "models" / "emoji-ldm"
    own.mkdir()
    for part in parts.iterdir():
        (own / part.name).symlink_to(part)

    def frozen(**options):
        record = assemble.run(own, out, **options) / "training.json"
        return json.loads(record.read_text())["frozen"]

    assert frozen() is False
    assert frozen(frozen=True) is True
    assert frozen() is True  # the same weights once more
    (own / "vae").unlink()
    autoencoder.build().save_pretrained(own / "vae")
    assert frozen() is False


def test_what_went_on_from_committed_weights_lists_what_came_before(parts, assembled):
    more = FACTS | {"steps": 5, "from_committed": True}
    (parts / "unet.json").write_text(json.dumps(more))
    assemble.write_record(parts, assembled, frozen=False)
    assemble.write_record(parts, assembled, frozen=False)
    record = json.loads((assembled / "training.json").read_text())
    before = record["stages"]["unet"]["before"]
    assert [stretch["steps"] for stretch in before] == [10]
    assert "before" not in record["stages"]["clip"]
    assert record["frozen"] is False
