import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from essaylib import accounts, attribution, claims, corpus, features, models, paths, plans, runs
from essaylib.cli import app
from essaylib.errors import EssayError
from essaylib.measures import agreement, neighbours

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def drawn_up(sandbox, checkpoint, monkeypatch):
    """A sandbox with a tiny model, seven training drawings, a run of four and its ledgers."""
    model = paths.models() / "emoji-ldm"
    shutil.copytree(checkpoint("embedded"), model)
    real = corpus.load(ROOT / "data" / "corpus" / "corpus.parquet")
    few = real.where(split="train").take(range(7))
    monkeypatch.setattr(corpus, "load", lambda path=None: few)
    monkeypatch.setattr(accounts, "_PART", 3)
    (sandbox / "book" / "claims.yml").write_text((ROOT / "book/claims.yml").read_text())
    folder = paths.runs() / "copies"
    folder.mkdir(parents=True)
    plan = {
        "prompts": ["dog", "cat", "do", "at"], "seeds": 1, "steps": 2,
        "settings": [{"name": "4", "guidance_scale": 4}],
    }  # fmt: skip
    (folder / "plan.yml").write_text(yaml.safe_dump(plan))
    declare()
    runs.draw("copies", device="cpu", progress=False)
    accounts.draw(device="cpu", progress=False)
    return model


def declare(**changes):
    document = {
        "purpose": "a test",
        "outputs": {"run": "copies", "count": 3},
        "seeds": 2,
        "unet": {"timestep": 250, "draws": 1},
        "gradient": {"timesteps": [100, 300], "width": 2, "damping": 0.1},
        "until_frozen": {"gradient": {"timesteps": [300]}},
    }
    folder = paths.runs() / "credit"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledgers.yml").write_text(yaml.safe_dump(document | changes))


def test_ledgers_are_drawn_up_kept_and_come_out_again(drawn_up):
    kept = accounts.load()
    assert {name: x.shape for name, x in kept.scores.items()} == {
        "pixels": (1, 3, 7), "clip": (1, 3, 7), "unet": (2, 3, 7), "gradient": (2, 3, 7),
    }  # fmt: skip
    assert len(kept.outputs) == 3 and len(kept.training) == 7 and kept.kept.all()
    assert np.abs(kept.scores["gradient"]).max(-1) == pytest.approx(1, rel=1e-3)
    assert (kept.scores["unet"] <= 0).all() and kept.first_seed == 0
    again = accounts.recheck(kept, models.load(device="cpu"), models.load_clip()[0], n=3)
    assert set(again.ledger) == set(kept.scores) and (again.difference < 0.02).all()
    assert again.set_index("ledger").entries.to_dict() == {
        "pixels": 9, "clip": 9, "unet": 18, "gradient": 18,
    }  # fmt: skip


def test_a_kept_score_is_what_two_pictures_give(drawn_up):
    """Against the vectors themselves, for a ledger of each kind."""
    kept = accounts.load()
    pipe = models.load(device="cpu")
    drawn, images = kept.training.rgb(), kept.outputs.images(pipe)
    apart = neighbours.shrunk(drawn[4:5], 32) - neighbours.shrunk(images[2:3], 32)
    off = -np.sqrt((apart.astype(float) ** 2).mean())
    assert kept.scores["pixels"][0, 2, 4] == pytest.approx(off, rel=1e-3)
    read = {}
    captions = map(corpus.caption, kept.training.table.concept, kept.training.table.vendor)
    for side, latents, prompts in (
        ("outputs", kept.outputs.latents.float(), list(kept.outputs.table.prompt)),
        ("training", features.latents(pipe.vae, drawn), list(captions)),
    ):
        read[side] = attribution.gradient_vectors(pipe, latents, prompts, 1, [300], 2)
    along = attribution.directions(read["outputs"], read["training"], 0.1)
    pulls = attribution.pull(along, read["training"])
    pulls /= np.abs(pulls).max(1, keepdims=True)
    assert kept.scores["gradient"][1] == pytest.approx(pulls, abs=2e-3)


def test_only_what_some_ledger_credits_most_is_kept(drawn_up, monkeypatch):
    whole = accounts.load().scores
    monkeypatch.setattr(agreement.most, "__defaults__", (1,))
    few = accounts.draw(device="cpu", force=True, progress=False)
    assert few.kept.sum(1).min() >= 1 and few.kept.sum(1).max() <= 6
    for name, scores in few.scores.items():
        assert (scores[:, few.kept] == whole[name][:, few.kept]).all()
        assert (scores.argmax(-1) == whole[name].argmax(-1)).all()
        assert (scores[:, ~few.kept] == scores.min()).all()


def test_a_changed_ledger_is_found_out(drawn_up):
    kept = accounts.load()
    kept.scores["unet"][1, 2] *= 1.5
    with pytest.raises(EssayError, match="'unet' does not come out again.*essay sample credit"):
        accounts.recheck(kept, models.load(device="cpu"), models.load_clip()[0], n=7)


def test_what_is_still_valid_is_not_drawn_up_again(drawn_up, monkeypatch):
    monkeypatch.setattr(accounts, "_of_drawings", None)
    accounts.draw(device="cpu", progress=False)


def test_an_interrupted_drawing_goes_on(drawn_up, monkeypatch):
    before = accounts.load().scores
    real, calls = accounts._of_drawings, []

    def cut(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(accounts, "_of_drawings", cut)
    with pytest.raises(KeyboardInterrupt):
        accounts.draw(device="cpu", force=True, progress=False)
    after = accounts.draw(device="cpu", force=True, progress=False).scores
    assert len(calls) == 4
    assert all((before[name] == after[name]).all() for name in before)


def test_ledgers_that_cannot_be_kept_are_named(drawn_up, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(EssayError, match=r"safetensors cannot be written \(No space left"):
        accounts.draw(device="cpu", force=True, progress=False)
    assert not list((paths.build() / "runs").rglob("*.part"))


def test_missing_stale_and_damaged_ledgers_name_the_command(drawn_up):
    folder = paths.runs() / "credit"
    declare(seeds=1)
    with pytest.raises(EssayError, match="stale.*`essay sample credit`"):
        accounts.load()
    declare()
    (folder / "ledgers.safetensors").write_bytes(b"no")
    with pytest.raises(EssayError, match="damaged.*essay sample credit --force"):
        accounts.load()
    (folder / "provenance.json").unlink()
    with pytest.raises(EssayError, match="not been drawn up.*`essay sample credit`"):
        accounts.load()


def test_a_changed_clip_makes_the_ledgers_stale(drawn_up):
    path = drawn_up / "clip" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(EssayError, match="stale.*`essay sample credit`"):
        accounts.load()


def test_changed_outputs_make_the_ledgers_stale(drawn_up):
    plan = paths.runs() / "copies" / "plan.yml"
    plan.write_text(plan.read_text().replace("steps: 2", "steps: 3"))
    runs.draw("copies", device="cpu", progress=False)
    with pytest.raises(EssayError, match="stale.*`essay sample credit`"):
        accounts.load()


def test_the_command_draws_the_ledgers_up(drawn_up):
    found = CliRunner().invoke(app, ["sample", "credit", "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert "pixels, clip, unet, gradient: 3 outputs, 7 drawings" in found.output
    declare(outputs={"run": "copies", "count": 5})
    found = CliRunner().invoke(app, ["sample", "credit", "--device", "cpu"])
    assert found.exit_code == 2 and "lower `outputs`" in found.output


def test_a_bad_declaration_is_refused(sandbox):
    with pytest.raises(EssayError, match="No ledgers are declared"):
        accounts.plan()
    declare(tariff=1)
    with pytest.raises(EssayError, match="unknown keys.*tariff"):
        accounts.plan()
    declare(unet={"draws": 1})
    with pytest.raises(EssayError, match="does not declare"):
        accounts.plan()
    declare(until_frozen={"outputs": 1})
    with pytest.raises(EssayError, match="until_frozen.*outputs"):
        accounts.plan(final=False)
    assert accounts.plan(final=True).outputs == 3


def test_the_books_own_declaration_can_be_read():
    whole, less = accounts.plan(final=True), accounts.plan(final=False)
    assert set(less.reading["timesteps"]) <= set(range(1000))
    assert len(less.reading["timesteps"]) <= len(whole.reading["timesteps"])
    assert whole.outputs == claims.load()["credit"].statistic().n and whole.seeds == 2
    assert plans.load(whole.run, final=True).prompts["count"] >= whole.outputs
