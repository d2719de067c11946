import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from essaylib import accounts, corpus, models, paths, plans, runs
from essaylib.errors import EssayError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def drawn_up(sandbox, checkpoint, monkeypatch):
    """A sandbox with a tiny model, eight training drawings, a run of four and its ledgers."""
    model = paths.models() / "emoji-ldm"
    shutil.copytree(checkpoint("embedded"), model)
    real = corpus.load(ROOT / "data" / "corpus" / "corpus.parquet")
    few = real.where(split="train").take(range(8))
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
        "gradient": {"timesteps": [300], "width": 2, "damping": 0.1},
        "until_frozen": {"drawings": 7},
    }
    folder = paths.runs() / "credit"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledgers.yml").write_text(yaml.safe_dump(document | changes))


def test_ledgers_are_drawn_up_kept_and_come_out_again(drawn_up):
    kept = accounts.load()
    assert kept.scores["clip"].shape == (1, 3, 7)
    assert {name: x.shape for name, x in kept.scores.items() if name != "clip"} == {
        "unet": (2, 3, 7), "gradient": (2, 3, 7),
    }  # fmt: skip
    assert len(kept.outputs) == 3 and len(kept.training) == 7
    assert np.abs(kept.scores["gradient"]).max(-1) == pytest.approx(1, rel=1e-3)
    assert (kept.scores["unet"] <= 0).all() and kept.first_seed == 0
    again = accounts.recheck(kept, models.load(device="cpu"), models.load_clip()[0], n=3)
    assert set(again.ledger) == {"clip", "unet", "gradient"} and (again.difference < 0.02).all()


def test_a_changed_ledger_is_found_out(drawn_up):
    kept = accounts.load()
    kept.scores["unet"][1, 2] *= 1.5
    with pytest.raises(EssayError, match="'unet' does not come out again"):
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


def test_missing_stale_and_damaged_ledgers_name_the_command(drawn_up):
    folder = paths.runs() / "credit"
    declare(seeds=1)
    with pytest.raises(EssayError, match="stale.*essay credit"):
        accounts.load()
    declare()
    (folder / "ledgers.safetensors").write_bytes(b"no")
    with pytest.raises(EssayError, match="damaged.*essay credit --force"):
        accounts.load()
    (folder / "provenance.json").unlink()
    with pytest.raises(EssayError, match="not been drawn up"):
        accounts.load()


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
    assert accounts.plan(final=True).drawings is None


def test_the_books_own_declaration_can_be_read():
    whole, less = accounts.plan(final=True), accounts.plan(final=False)
    assert whole.drawings is None and less.drawings
    assert whole.outputs == 100 and whole.seeds == 2
    assert plans.load(whole.run, final=True).prompts["count"] >= whole.outputs
