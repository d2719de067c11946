"""The matrix: what is declared, drawn, kept, and said of cells that cannot be had."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from essaylib import cells, claims, columns, corpus, features, paths, runs, trials
from essaylib.cells import Cell
from essaylib.errors import EssayError

ROOT = Path(__file__).resolve().parents[1]
RUN = {
    "purpose": "Something small.",
    "prompts": {"caption": "{concept}", "count": 3},
    "seeds": 3,
    "steps": 2,
    "settings": [{"name": "1", "guidance_scale": 1}, {"name": "4", "guidance_scale": 4}],
}
TRIALS = {
    "purpose": "A test.",
    "runs": {"small": {"prompts": 2, "seeds": 2, "settings": ["4"]}},
    "ledger": 60,
    "composites": 4,
    "loss": 4,
    "rounds": 2,
    "credit": {},
    "until_frozen": {"runs": {"small": {"seeds": 1}}, "loss": 2},
}


def declare(folder, document):
    (folder / "data" / "runs" / "survival").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "runs" / "survival" / "trials.yml").write_text(yaml.safe_dump(document))


@pytest.fixture
def book(tmp_path, monkeypatch, tiny):
    """The book with a small plan; an `early` model that is a tiny random one."""
    (tmp_path / "data").mkdir()
    for name in ("book", "models", "_toc.yml", "data/corpus"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data" / "runs" / "small").mkdir(parents=True)
    (tmp_path / "data" / "runs" / "small" / "plan.yml").write_text(yaml.safe_dump(RUN))
    declare(tmp_path, TRIALS)
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    column = columns.find("early")
    monkeypatch.setattr(
        columns, "load", lambda id, device="auto": columns.Model(column, tiny("embedded"))
    )
    return tmp_path


@pytest.mark.parametrize("final", [True, False])
def test_the_declared_trials_can_be_drawn_from_the_declared_runs(monkeypatch, final):
    monkeypatch.setattr(claims, "frozen", lambda: final)
    for name, share in trials.plan().runs.items():
        source = trials.plans.load(name)
        table = source.table(claims.seeds(1)[0])
        rows = table.iloc[trials._rows(source, table, share)]
        settings = share.settings or tuple(setting.name for setting in source.settings)
        assert set(rows.setting) == set(settings)
        assert rows.concept.fillna(rows.prompt).nunique() == share.prompts
        if "hidden" not in rows:  # each prompt has as many images as words that can be hidden
            assert len(rows) == share.prompts * share.seeds * len(settings)


def test_less_is_asked_until_the_model_is_frozen(book):
    assert trials.plan(final=True).runs["small"] == trials.Share(2, 2, ("4",))
    assert trials.plan(final=False).runs["small"] == trials.Share(2, 1, ("4",))
    assert (trials.plan(final=True).loss, trials.plan(final=False).loss) == (4, 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"rounds": None, "round": 3}, "round"), ({"runs": {"small": {"seeds": 2}}}, "prompts")],
)
def test_a_plan_at_fault_is_named(book, change, named):
    declare(book, {k: v for k, v in (TRIALS | change).items() if v is not None})
    with pytest.raises(EssayError, match=named):
        trials.plan()


def test_a_share_that_the_run_does_not_have_is_refused(book):
    declare(book, TRIALS | {"runs": {"small": {"prompts": 9, "seeds": 1}}, "until_frozen": {}})
    with pytest.raises(EssayError, match="fewer"):
        trials.draw("early", progress=False)


def test_drawing_goes_on_where_it_stopped_and_is_done_once(book, monkeypatch):
    declare(book, TRIALS | {"until_frozen": {}})
    drawn = []

    def count(pipe, setting, rows, batch_size):
        drawn.append(len(rows))
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return torch.arange(len(rows)).float().reshape(-1, 1, 1, 1).expand(-1, 4, 16, 16)

    monkeypatch.setattr(runs, "generate", count)
    monkeypatch.setattr(trials, "_BATCH", 3)
    with pytest.raises(KeyboardInterrupt):
        trials.draw("early", progress=False)
    found = trials.draw("early", progress=False)["small"]
    assert drawn == [3, 1, 1]  # three, the one that was cut off, and that one again
    assert list(found.table.seed - found.first_seed) == [0, 1, 3, 4]
    assert found.by_setting(np.arange(4))["4"].shape == (2, 2)
    assert found.latents[:, 0, 0, 0].tolist() == [0, 1, 2, 0]
    trials.draw("early", progress=False)
    assert len(drawn) == 3


def test_images_come_out_again_and_other_ones_do_not(book, tiny):
    found = trials.draw("early", progress=False)["small"]
    assert runs.recheck(found, tiny("embedded"), 2).difference.max() < 0.01
    other = runs.Run(found.plan, found.table, found.latents + 1, found.provenance)
    with pytest.raises(EssayError, match="essay sample survival --force"):
        runs.recheck(other, tiny("embedded"), 2)


def test_stale_and_missing_trials_name_the_cure(book):
    with pytest.raises(EssayError, match="essay sample survival --model early"):
        trials.load("early")
    trials.draw("early", progress=False)
    path = paths.runs() / "survival" / "early.json"
    path.write_text(json.dumps({"key": "another", "cells": []}))
    with pytest.raises(EssayError, match=r"stale.*essay sample survival --model early"):
        trials.load("early")


def test_a_changed_run_makes_the_images_stale(book):
    trials.draw("early", progress=False)
    plan = paths.runs() / "small" / "plan.yml"
    plan.write_text(yaml.safe_dump(RUN | {"steps": 3}))
    with pytest.raises(EssayError, match="stale"):
        trials.drawn("early")


def test_sampling_measures_what_rests_on_the_changed_part(book, monkeypatch):
    asked = []

    def measure(bench, claim):
        asked.append(claim)
        return [
            Cell(claim, part.id, cells.MEASURED, "", 1.0, 0.5, 1.5, 9, True)
            for part in claims.load()[claim].primary
        ]

    monkeypatch.setattr(cells, "measure", measure)
    trials.sample("early", progress=False)
    assert "guidance" in asked and not {"clip", "autoencoder", "noise"} & set(asked)
    assert trials.load("early")[0].estimate == 1.0
    before = len(asked)
    trials.sample("early", progress=False)
    assert len(asked) == before


def some(column, state=cells.MEASURED, estimate=1.0):
    return [
        Cell(claim, part.id, state, "why", estimate, estimate - 0.5, estimate + 0.5, 9, True)
        for claim in trials._measured(columns.find(column))
        for part in claims.load()[claim].primary
    ]


@pytest.fixture
def kept(monkeypatch, book):
    monkeypatch.setattr(trials, "load", some)
    return trials.matrix()


def test_no_cell_of_the_matrix_is_blank(kept):
    assert len(kept) == (len(columns.all()) + len(trials.FOREIGN)) * 16
    assert not kept.duplicated(["column", "claim", "statistic"]).any()
    assert (kept.note != "").all() and kept.state.notna().all()
    numbers = kept.estimate.notna()
    assert (kept.state[numbers].isin([cells.MEASURED, cells.SAME])).all()
    assert (kept.state[~numbers].isin([cells.UNTRAINED, cells.ELSEWHERE])).all()


def test_shared_parts_repeat_the_trained_model_and_say_so(kept):
    noise = kept[(kept.claim == "noise")].set_index("column")
    assert noise.state["early"] == cells.SAME and noise.estimate["early"] == 1.0
    assert noise.state["untrained"] == cells.MEASURED


def test_what_is_not_trained_or_not_run_here_says_what_to_do(kept, monkeypatch):
    here = columns.Column.here.fget
    monkeypatch.setattr(
        columns.Column, "here", property(lambda self: self.id != "seed-1" and here(self))
    )
    found = trials.matrix().drop_duplicates("column").set_index("column")
    assert found.state["seed-1"] == cells.UNTRAINED and "unet-seed-1" in found.note["seed-1"]
    assert found.note["sdxl"] == "`essay sample survival --model sdxl`"


def test_effects_are_in_units_of_each_delta(kept):
    delta = claims.load()["noise"].statistic().delta
    row = kept[(kept.claim == "noise") & (kept.column == "final")].iloc[0]
    assert (row.effect, row.effect_low, row.effect_high) == (1 / delta, 0.5 / delta, 1.5 / delta)


def test_a_cell_measured_again_must_agree():
    was = [Cell("noise", "order", cells.MEASURED, "", 1.0, 0.0, 2.0, 9, True)]
    near = [Cell("noise", "order", cells.MEASURED, "", 1.02, 0.0, 2.0, 9, True)]
    assert trials.agree(was, near) == pytest.approx(0.01)
    with pytest.raises(EssayError, match="otherwise"):
        trials.agree(was, [Cell("noise", "order", cells.MEASURED, "", 1.5, 0.0, 2.0, 9, True)])
    with pytest.raises(EssayError, match="now not computable"):
        trials.agree(was, [Cell("noise", "order", cells.IMPOSSIBLE, "why")])


def test_what_cannot_be_computed_says_why(monkeypatch, book):
    def fails(bench):
        raise EssayError("Nobody was sure.")

    def half(bench):
        def speed():
            raise EssayError("No common level.")

        test = claims.Test(1.23456789, 1.0, 2.0, 0.5, 7)
        return cells.Outcome({"speed": speed, "finish": lambda: test}, False, "the control")

    monkeypatch.setitem(cells.TRIALS, "noise", cells.Trial(fails, ()))
    monkeypatch.setitem(cells.TRIALS, "delivery", cells.Trial(half, (), foreign=True))
    early = cells.Bench(columns.Model(columns.find("early"), None), {}, trials.plan())
    (cell,) = cells.measure(early, "noise")
    assert (cell.state, cell.note, cell.estimate) == (cells.IMPOSSIBLE, "Nobody was sure.", None)
    speed, finish = cells.measure(early, "delivery")
    assert (speed.state, speed.note, speed.control) == (
        cells.IMPOSSIBLE,
        "No common level.",
        False,
    )
    assert (finish.estimate, finish.n, finish.control) == (1.23457, 7, False)
    away = cells.Bench(columns.Model(columns.find("sd15"), None), {}, trials.plan())
    (cell,) = cells.measure(away, "noise")
    assert cell.state == cells.IMPOSSIBLE and "never saw" in cell.note


def crossed(pipe, prompts=4, seeds=4):
    """A crossed run of a tiny model."""
    table = pd.DataFrame(
        [("4", f"thing {p}", f"thing {p}", None, s) for p in range(prompts) for s in range(seeds)],
        columns=["setting", "prompt", "concept", "vendor", "seed"],
    )
    plan = replace(trials.plans.load("prompt-seed"), seeds=seeds, name="survival")
    setting = replace(plan.setting("4"), steps=2)
    plan = replace(plan, settings=(setting,))
    return runs.Run(plan, table, runs.generate(pipe, setting, table, 8), {"key": "k"})


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_foreign_model_runs_as_far_as_it_can(tiny, family):
    pipe = tiny(family)
    wanted = trials.plan(final=False)
    small = trials.Plan({}, 60, 4, 4, 2, wanted.credit)
    bench = cells.Bench(
        columns.Model(columns.find("sd15"), pipe), {"prompt-seed": crossed(pipe)}, small
    )
    order, static = cells.measure(bench, "prompt-seed")
    assert order.state == static.state == cells.MEASURED and static.n == 4
    (figure,) = cells.measure(bench, "unet")
    assert figure.state == (cells.MEASURED if family == "sd1" else cells.IMPOSSIBLE)
    speed, finish = cells.measure(bench, "delivery")
    assert speed.state == cells.IMPOSSIBLE and finish.state == cells.MEASURED
    assert cells.measure(bench, "copies")[0].state == cells.IMPOSSIBLE


TINY = {
    "guidance": {"prompts": 4, "seeds": 4, "settings": ["1", "2", "4", "7.5", "12", "interval"]},
    "delivery": {"prompts": 4, "seeds": 4},
    "prompt-seed": {"prompts": 4, "seeds": 4, "settings": ["4"]},
    "attention": {"prompts": 3, "seeds": 1},
    "copies": {"prompts": 8, "seeds": 1},
    "strong-weak": {"prompts": 20, "seeds": 1},
}
CREDIT = {"outputs": 4, "drawings": 12, "seeds": 2, "timestep": 250, "draws": 1}
CREDIT |= {"timesteps": [250], "width": 4, "damping": 0.1}


def as_drawn(vae, name, share):
    """A share of a declared run in which every image is a drawing of what was asked for."""
    data, lot = corpus.load(), np.random.default_rng(0)
    plan = trials.plans.load(name)
    plan = replace(plan, settings=tuple(replace(one, steps=2) for one in plan.settings))
    table = plan.table(0)
    table = table.iloc[trials._rows(plan, table, share)].reset_index(drop=True)
    of = data.table.reset_index(drop=True).groupby("concept").indices
    rows = [lot.choice(of.get(concept, range(len(data)))) for concept in table.concept]
    latents = torch.as_tensor(features.corpus_latents(vae, data.take(rows)))
    blurred = latents + 0.1 * torch.as_tensor(lot.normal(size=latents.shape))
    return runs.Run(replace(plan, seeds=share.seeds), table, blurred.half(), {"key": "k"})


def test_every_claim_can_be_tried_on_the_embedded_model(monkeypatch):
    monkeypatch.setattr(claims, "frozen", lambda: False)
    model = columns.load("final", "cpu")
    shares = {name: trials._share(entry) for name, entry in TINY.items()}
    drawn = {name: as_drawn(model.pipe.vae, name, share) for name, share in shares.items()}
    bench = cells.Bench(model, drawn, trials.Plan(shares, 120, 6, 12, 2, CREDIT))
    bench.unseen = corpus.load().where(split="held_out").take(range(40))
    for claim in cells.TRIALS:
        found = cells.measure(bench, claim)
        assert [cell.statistic for cell in found] == [p.id for p in claims.load()[claim].primary]
        for cell in found:
            assert cell.state == cells.MEASURED, cell
            assert cell.note and cell.n > 0 and cell.control in (True, False)
            assert cell.low <= cell.estimate <= cell.high
