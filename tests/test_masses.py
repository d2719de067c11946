"""Attention kept beside a run: from a real, tiny one."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from checkpoints import build

from essaylib import attention, masses, models, paths, repro, runs
from essaylib.errors import EssayError
from essaylib.statistics import attention as statistic
from essaylib.trace import Capture, trace

SETTINGS = [
    {"name": "whole", "guidance_scale": 4},
    {"name": "a word", "guidance_scale": 4, "method": "ablation", "hidden": "words"},
    {"name": "padding", "guidance_scale": 4, "method": "ablation", "hidden": "padding"},
]
PLAN = {"prompts": ["dog, cat at dog", "cat dogat"], "seeds": 2, "steps": 2, "settings": SETTINGS}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    (folder / "_toc.yml").touch()
    build("embedded", folder / "models" / "emoji-ldm")
    place = folder / "data" / "runs" / "small"
    place.mkdir(parents=True)
    (place / "plan.yml").write_text(yaml.safe_dump(PLAN))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESSAY_ROOT", str(folder))
        masses.keep(
            runs.draw("small", device="cpu", progress=False), models.load("embedded", "cpu")
        )
    return folder


@pytest.fixture
def drawn(book, monkeypatch):
    monkeypatch.setenv("ESSAY_ROOT", str(book))
    return runs.load("small"), models.load("embedded", "cpu")


def test_shares_are_those_of_a_trace_with_repeated_words_together(drawn):
    run, pipe = drawn
    kept = masses.load(run, pipe, check=3)
    assert list(kept.columns) == ["prompt", "seed", "token", "share"]
    assert kept.groupby(["prompt", "seed"]).share.sum().to_numpy() == pytest.approx(1, abs=2e-3)
    with trace(pipe, Capture(cross_attention=True)) as tr:
        repro.generate(pipe, PLAN["prompts"][0], [1], steps=2, output="latent")
    shares = attention.shares(tr)
    own = kept[(kept.prompt == PLAN["prompts"][0]) & (kept.seed == 1)].set_index("token").share
    assert list(own.index) == ["<start>", "dog", ",", "cat", "at", "<end>", "<padding>"]
    assert own["dog"] == pytest.approx(shares["dog"] + shares["dog (2)"], abs=1e-4)
    assert own["<start>"] == pytest.approx(shares["<start>"], abs=1e-4)


def test_the_statistic_runs_from_drawing_to_test(drawn):
    run, pipe = drawn
    kept = masses.load(run, pipe)
    words = statistic.words(run, kept)
    assert words.word.tolist() == ["dog", "cat", "cat", "dogat"]
    whole, hidden = (
        run.where(**where).latents.float()
        for where in (
            {"setting": "whole", "prompt": "cat dogat"},
            {"setting": "a word", "prompt": "cat dogat", "hidden": "cat"},
        )
    )
    assert words.change[2] == pytest.approx(float((whole - hidden).square().mean()))
    assert statistic.control(run, kept).missing < 2e-3
    assert statistic.mass(run, kept, draws=2000, resamples=50).n == 4


def test_missing_stale_and_altered_shares_are_refused(drawn, tmp_path, monkeypatch):
    run, pipe = drawn
    path = paths.runs() / "small" / masses.FILE
    table, whole = pd.read_parquet(path), path.read_bytes()
    try:
        altered = table.assign(share=np.where(table.token == "dog", 0.3, table.share))
        altered.attrs = table.attrs
        altered.to_parquet(path, index=False)
        with pytest.raises(EssayError, match="'dog'.*essay sample small"):
            masses.load(run, pipe)
        altered.attrs = {"key": "another"}
        altered.to_parquet(path, index=False)
        with pytest.raises(EssayError, match="has changed since"):
            masses.load(run, pipe)
        path.write_bytes(whole[:-100])
        with pytest.raises(EssayError, match="parquet is damaged.*`essay sample small`"):
            masses.load(run, pipe)
        path.unlink()
        with pytest.raises(EssayError, match="was not measured"):
            masses.load(run, pipe)
    finally:
        path.write_bytes(whole)


def test_a_run_without_whole_images_has_no_attention(drawn):
    run, pipe = drawn
    with pytest.raises(EssayError, match="drawn whole"):
        masses.measure(run.where(setting="padding"), pipe)


def test_measuring_that_is_cut_off_leaves_the_shares_of_before(drawn, monkeypatch):
    def cut(table, path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    run, pipe = drawn
    before = (paths.runs() / "small" / masses.FILE).read_bytes()
    monkeypatch.setattr(pd.DataFrame, "to_parquet", cut)
    with pytest.raises(KeyboardInterrupt):
        masses.keep(run, pipe)
    assert (paths.runs() / "small" / masses.FILE).read_bytes() == before


def test_the_sample_command_measures_attention_once(drawn, monkeypatch):
    from typer.testing import CliRunner

    from essaylib import judgements
    from essaylib.cli import app

    monkeypatch.setattr(judgements, "keep", lambda *_: "yes")
    monkeypatch.setattr(masses, "keep", lambda run, _: f"{len(run)} images")
    monkeypatch.setattr(runs, "generate", lambda *a: torch.zeros(len(a[2]), 4, 16, 16))
    command = ["sample", "small", "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "Attention" not in result.output, result.output
    monkeypatch.setattr(masses, "FILE", "none.parquet")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0 and "Attention: 16 images" in result.output, result.output
