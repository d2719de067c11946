"""Pictures taken round a random autoencoder, kept and checked."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import build

from essaylib import corpus, interventions, models, paths, repro, rounds, runs
from essaylib.errors import EssayError
from essaylib.measures import drift

PICTURES = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build("embedded", tmp_path_factory.mktemp("model"))


@pytest.fixture
def pipe(checkpoint):
    return models.load(checkpoint, "cpu")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run that the generated pictures are of, in a book of its own with the real corpus."""
    whole = corpus.load()
    monkeypatch.setattr(corpus, "load", lambda: whole)
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "data" / "runs" / rounds.PLAN).mkdir(parents=True)
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    monkeypatch.setattr(rounds, "PICTURES", PICTURES)
    table = pd.DataFrame({"setting": ["1", "4"] * 3, "seed": range(6)})
    latents = torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    run = runs.Run(SimpleNamespace(name="guidance"), table, latents, {"key": "k"})
    monkeypatch.setattr(runs, "load", lambda name: run)
    return run


def test_half_are_held_out_drawings_and_half_generated(run, pipe):
    images = rounds.given(run, pipe)
    unseen = {image.tobytes() for image in corpus.load().where(split="held_out").rgb()}
    made = repro.decode(pipe, run.latents[1::2].float(), 1).astype(int)
    assert images.shape == (PICTURES, 128, 128, 3)
    assert [image.tobytes() in unseen for image in images] == [True, True, False, False]
    assert len({image.tobytes() for image in images}) == PICTURES
    for image in images[2:]:  # another batch may round a pixel otherwise
        assert min(np.abs(made - image).max(axis=(1, 2, 3))) <= 1


def test_kept_distances_come_out_again(run, pipe, monkeypatch):
    monkeypatch.setattr(rounds, "ROUNDS", 3)
    assert not rounds.current(pipe)
    assert rounds.keep(pipe) == paths.runs() / "delivery" / "rounds.npz"
    assert rounds.current(pipe)
    images = rounds.given(run, pipe)
    again = drift.distances(interventions.autoencoder_rounds(pipe, images[[0, 3]], 3, batch_size=1))
    between = rounds.load(run, pipe, [0, 3], again)
    assert between.shape == (PICTURES, 4, 4)
    assert between[[0, 3]] == pytest.approx(again, rel=1e-3)
    with pytest.raises(EssayError, match="off by.*essay sample delivery"):
        rounds.load(run, pipe, [0, 3], 1.2 * again)
    with torch.no_grad():
        next(pipe.vae.parameters()).add_(1)
    with pytest.raises(EssayError, match="has changed"):
        rounds.load(run, pipe, [0, 3], again)
    assert not rounds.current(pipe)


@pytest.mark.parametrize("content", [b"", b"half", b"PK\x03\x04"])
def test_damaged_distances_name_the_command_that_mends_them(run, pipe, content):
    (paths.runs() / rounds.PLAN / rounds.FILE).write_bytes(content)
    with pytest.raises(EssayError, match="npz is damaged.*`essay sample delivery`"):
        rounds.load(run, pipe, [0], np.ones((1, 4, 4)))
    assert not rounds.current(pipe)


def test_taking_round_that_is_cut_off_leaves_the_distances_of_before(run, pipe, monkeypatch):
    def cut(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "ROUNDS", 2)
    path = rounds.keep(pipe)
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", cut)
    with pytest.raises(KeyboardInterrupt):
        rounds.keep(pipe)
    assert path.read_bytes() == before


def test_what_was_not_kept_is_asked_for(run, pipe):
    with pytest.raises(EssayError, match="essay sample delivery"):
        rounds.load(run, pipe, [0], np.ones((1, 4, 4)))
