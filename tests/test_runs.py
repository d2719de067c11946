import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from checkpoints import build
from typer.testing import CliRunner

from essaylib import corpus, judgements, models, paths, plans, runs, store
from essaylib.cli import app
from essaylib.errors import EssayError

CLAIMS = Path(__file__).resolve().parents[1] / "book" / "claims.yml"

PLAN = {
    "prompts": ["dog", "cat"],
    "seeds": 2,
    "steps": 2,
    "settings": [
        {"name": "plain", "guidance_scale": 1},
        {"name": "guided", "guidance_scale": 4},
        {"name": "middle", "guidance_scale": 4, "method": "interval", "interval": [100, 400]},
        {"name": "weak", "guidance_scale": 2, "method": "autoguidance", "guide": "early/unet"},
    ],
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return build("embedded", tmp_path_factory.mktemp("model") / "emoji-ldm")


@pytest.fixture(scope="session")
def drawn_book(tmp_path_factory, checkpoint):
    """A book with a random embedded model, a weaker one, and one small plan, drawn once."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "_toc.yml").touch()
    (folder / "book").mkdir()
    shutil.copy(CLAIMS, folder / "book")
    shutil.copytree(checkpoint, folder / "models" / "emoji-ldm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESSAY_ROOT", str(folder))
        weak = models.load("embedded", "cpu").unet
        with torch.no_grad():
            weak.conv_out.weight.mul_(0.5)
        weak.save_pretrained(folder / "models" / "early" / "unet")
        declare(PLAN)
        draw()
    return folder


@pytest.fixture
def book(drawn_book, tmp_path, monkeypatch):
    """A copy of the book, to be drawn in and damaged at will."""
    folder = tmp_path / "copy"
    shutil.copytree(drawn_book, folder)
    monkeypatch.setenv("ESSAY_ROOT", str(folder))
    return folder


@pytest.fixture
def undrawn(book):
    """The book before its run was drawn."""
    for name in (runs.PROVENANCE, runs.LATENTS, runs.TABLE):
        (paths.runs() / "small" / name).unlink()
    return book


def declare(document, name="small"):
    folder = paths.runs() / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yml").write_text(yaml.safe_dump(document))


def draw(name="small", **options):
    return runs.draw(name, device="cpu", progress=False, **options)


def touch_weights(book):
    """Give the U-Net one other weight, and say so in its sums."""
    from checkpoints import write_sums
    from safetensors.torch import load_file, save_file

    path = book / "models" / "emoji-ldm" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.bias"] += 1
    save_file(tensors, path)
    write_sums(book / "models" / "emoji-ldm")


def test_a_run_holds_every_image_of_its_plan(book):
    run = runs.load("small")
    assert len(run) == 16 and run.latents.shape == (16, 4, 16, 16)
    assert run.latents.dtype == torch.float16
    assert list(run.table.columns) == ["setting", "prompt", "concept", "vendor", "seed"]
    assert run.table.seed.tolist() == [0, 1, 2, 3] * 4  # own seeds a prompt, same at each setting
    assert run.provenance["model"]["name"] == "embedded"
    assert run.provenance["images"] == 16 and run.first_seed == 0
    assert "diffusion_pytorch_model.safetensors" in run.provenance["guides"]["early/unet"]


def test_settings_change_the_image_and_batches_do_not(book):
    run = runs.load("small")
    latents = {name: run.where(setting=name).latents.float() for name in run.table.setting.unique()}
    for name in ("plain", "middle", "weak"):
        assert (latents["guided"] - latents[name]).abs().max() > 0.01
    assert torch.allclose(draw(batch_size=3, force=True).latents, run.latents, atol=2e-3)


def test_values_are_arranged_by_setting_prompt_and_seed(book):
    run = runs.load("small")
    tables = run.by_setting(run.table.seed.to_numpy())
    assert list(tables) == ["plain", "guided", "middle", "weak"]
    assert tables["weak"].tolist() == [[0, 1], [2, 3]]
    assert run.where(prompt="cat").by_setting(np.zeros((8, 5)))["plain"].shape == (1, 2, 5)
    with pytest.raises(EssayError, match="15 values for the 16 images"):
        run.by_setting(np.zeros(15))
    with pytest.raises(EssayError, match="not seeds"):
        run.where(seed=[0, 1, 2]).by_setting(np.zeros(12))


def test_images_can_be_taken_by_their_place(book):
    run = runs.load("small")
    some = run.take([5, 2])
    assert some.table.seed.tolist() == run.table.seed.iloc[[5, 2]].tolist()
    assert list(some.table.index) == [0, 1] and torch.equal(some.latents, run.latents[[5, 2]])


def test_nothing_is_drawn_twice(book, monkeypatch):
    run = runs.load("small")
    monkeypatch.setattr(runs, "generate", lambda *_: pytest.fail("drawn again"))
    assert torch.equal(draw().latents, run.latents)


def interrupt(monkeypatch, batch_size):
    """Draw until the third batch; return the calls that drew, to which later ones are added."""
    generate, calls = runs.generate, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*arguments)

    monkeypatch.setattr(runs, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(batch_size=batch_size)
    return calls


def test_an_interrupted_drawing_goes_on_where_it_stopped(undrawn, monkeypatch):
    calls = interrupt(monkeypatch, 4)
    with pytest.raises(EssayError, match="essay sample small"):
        runs.load("small")
    run = draw(batch_size=4)
    assert len(calls) == 3 + 2  # two of four batches were kept
    assert len(run) == 16 and not list((undrawn / "_build" / "runs").iterdir())


def test_an_interrupted_drawing_may_go_on_in_other_batches(book, monkeypatch):
    before = runs.load("small").latents
    (paths.runs() / "small" / runs.PROVENANCE).unlink()
    calls = interrupt(monkeypatch, 2)
    run = draw(batch_size=4)
    assert len(calls) == 3 + 4 and len(run) == 16
    assert torch.allclose(run.latents, before, atol=2e-3)


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_part_that_was_cut_short_is_drawn_anew(undrawn, monkeypatch, length):
    calls = interrupt(monkeypatch, 4)
    part = min((undrawn / "_build" / "runs").rglob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:length])
    run = draw(batch_size=4)
    assert len(calls) == 3 + 3 and len(run) == 16


def test_a_part_that_cannot_be_kept_is_named(undrawn, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(EssayError, match=r"safetensors cannot be written \(No space left"):
        draw()
    assert not [path for path in (undrawn / "_build" / "runs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_none_is_refused(undrawn, size):
    with pytest.raises(EssayError, match="--batch must be 1 or more"):
        draw(batch_size=size)


def test_images_are_decoded_when_asked_for(book):
    run, pipe = runs.load("small"), models.load("embedded", "cpu")
    images = run.where(setting="plain", prompt="cat").images(pipe)
    assert images.shape == (2, 128, 128, 3) and images.dtype == np.uint8
    parts = list(run.batches(pipe, batch_size=10))
    assert [rows for rows, _ in parts] == [slice(0, 10), slice(10, 16)]
    first = np.flatnonzero((run.table.setting == "plain") & (run.table.prompt == "cat"))[0]
    difference = parts[0][1][first].astype(int) - images[0]
    assert np.abs(difference).max() <= 1


def test_a_recheck_draws_some_again_and_compares(book):
    run, pipe = runs.load("small"), models.load("embedded", "cpu")
    checked = runs.recheck(run, pipe, n=6)
    assert len(checked) == 6 and checked.difference.max() < runs.TOLERANCE
    assert set(checked.index) != set(runs.recheck(run, pipe, n=6, seed=1).index)
    assert len(runs.recheck(run, pipe, n=99)) == 16


def test_a_run_that_does_not_come_out_again_is_refused(book):
    run, pipe = runs.load("small"), models.load("embedded", "cpu")
    run.latents[5] += 0.1
    with pytest.raises(EssayError, match="does not come out again.*--force"):
        runs.recheck(run, pipe, n=16)


@pytest.mark.parametrize("what", ["weights", "guide", "plan", "frozen"])
def test_a_stale_run_names_the_command(book, what, monkeypatch):
    if what == "weights":
        touch_weights(book)
    elif what == "guide":
        path = book / "models" / "early" / "unet" / "diffusion_pytorch_model.safetensors"
        shutil.copy(book / "models/emoji-ldm/unet/diffusion_pytorch_model.safetensors", path)
    elif what == "plan":
        declare(PLAN | {"seeds": 3})
    else:
        (book / "models" / "emoji-ldm" / "training.json").write_text('{"frozen": true}')
    with pytest.raises(EssayError, match="stale.*`essay sample small`"):
        runs.load("small")
    monkeypatch.setattr(runs, "generate", lambda *a: torch.zeros(len(a[2]), 4, 16, 16))
    assert draw().first_seed == (10000 if what == "frozen" else 0)


def test_a_damaged_run_is_refused(book):
    path = paths.runs() / "small" / runs.LATENTS
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EssayError, match="damaged.*--force"):
        runs.load("small")


def test_another_model_is_kept_out_of_the_repository(undrawn, checkpoint, monkeypatch):
    monkeypatch.setattr(runs, "generate", lambda *a: torch.zeros(len(a[2]), 4, 16, 16))
    run = draw(model=str(checkpoint))
    assert len(run) == 16
    assert (undrawn / "_build" / "runs" / "small@emoji-ldm" / runs.LATENTS).is_file()
    with pytest.raises(EssayError, match="has not been drawn with embedded"):
        runs.load("small")


def test_a_missing_guide_is_named(book):
    shutil.rmtree(book / "models" / "early")
    with pytest.raises(EssayError, match="early/unet.*not there"):
        draw()


def test_too_little_disk_and_an_unwritable_folder_are_named(undrawn, monkeypatch):
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(EssayError, match="Not enough disk"):
        draw()
    monkeypatch.undo()
    monkeypatch.setenv("ESSAY_ROOT", str(undrawn))
    shutil.rmtree(undrawn / "_build")
    (undrawn / "_build").write_text("a file where a folder should be")
    with pytest.raises(EssayError, match="cannot be written"):
        draw()


# Plans.


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seeds": 0}, "`seeds` must be a whole number"),
        ({"seed": 3}, "unknown keys .'seed'"),
        ({"settings": []}, "at least one setting"),
        ({"settings": [{"name": "a"}]}, "lacks .'guidance_scale'"),
        ({"settings": [{"name": "a", "guidance_scale": float("nan")}]}, "must be a number"),
        ({"settings": [{"name": "a", "guidance_scale": 2}] * 2}, "two settings have one name"),
        ({"settings": [{"name": "a", "guidance_scale": 2, "method": "x"}]}, "unknown method"),
        (
            {
                "settings": [
                    {"name": "a", "guidance_scale": 2, "method": "interval", "interval": [9, 3]}
                ]
            },
            "two timesteps",
        ),
        (
            {
                "settings": [
                    {"name": "a", "guidance_scale": 1, "method": "autoguidance", "guide": "x"}
                ]
            },
            "must exceed 1",
        ),
        (
            {"settings": [{"name": "a", "guidance_scale": 1, "method": "ablation"}]},
            "lacks .'hidden'",
        ),
        (
            {
                "settings": [
                    {"name": "a", "guidance_scale": 1, "method": "ablation", "hidden": "dog"}
                ]
            },
            "must be words or padding",
        ),
        ({"prompts": []}, "must list texts"),
        ({"prompts": ["dog", "dog"]}, "listed twice"),
        ({"prompts": {"caption": "dog", "count": 2}}, "must hold {concept}"),
        ({"prompts": {"caption": "{concept}", "count": 0}}, "`count` must be"),
        (
            {"settings": [{"name": "a", "guidance_scale": 1, "caption": "{concept}, noise"}]},
            "no concept for a `caption`",
        ),
    ],
)
def test_a_bad_plan_names_the_key(sandbox, change, message):
    declare(PLAN | change)
    with pytest.raises(EssayError, match=message):
        plans.load("small")


def test_an_unknown_plan_lists_those_declared(sandbox):
    declare(PLAN)
    with pytest.raises(EssayError, match="no plan 'large'.*Declared: small"):
        plans.load("large")
    (paths.runs() / "small" / "plan.yml").write_text("settings: [")
    with pytest.raises(EssayError, match="not valid YAML"):
        plans.load("small")


def test_an_unknown_setting_lists_those_of_the_plan(sandbox):
    declare(PLAN)
    plan = plans.load("small")
    assert plan.setting("weak").guide == "early/unet"
    with pytest.raises(EssayError, match="no setting 'strong'; it has plain, guided, middle, weak"):
        plan.setting("strong")


def test_a_plan_is_read_as_utf_8_whatever_the_locale(sandbox):
    declare(PLAN)
    with (paths.runs() / "small" / "plan.yml").open("a", encoding="utf-8") as file:
        file.write("purpose: prompts × seeds\n")
    code = "from essaylib import plans; print(ascii(plans.load('small', True).document['purpose']))"
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | ascii_only, capture_output=True, text=True
    )
    assert done.stdout.strip() == ascii("prompts × seeds"), done.stderr


def concepts(monkeypatch, **vendors):
    rows = [(c, v, "train") for c, named in vendors.items() for v in named.split()]
    rows.append(("zebra", "google", "held_out"))
    table = pd.DataFrame(rows, columns=["concept", "vendor", "split"])
    whole = corpus.Corpus(table, (b"",) * len(table), paths.corpus())
    monkeypatch.setattr(corpus, "load", lambda: whole)


def drawn(count, first_seed, caption="{concept}", minimum=1, **more):
    prompts = {"caption": caption, "count": count, "minimum_training_vendors": minimum}
    declare(PLAN | {"prompts": prompts} | more)
    return plans.load("small").table(first_seed)


def test_concepts_are_drawn_by_seed_among_those_with_enough_vendors(sandbox, monkeypatch):
    named = {f"c{i}": "google twitter microsoft" for i in range(30)} | {"rare": "google"}
    concepts(monkeypatch, **named)
    table = drawn(30, 0, minimum=3)
    assert set(table.concept) == set(named) - {"rare"}
    assert (table.prompt == table.concept).all() and table.vendor.isna().all()
    some, again, other = drawn(8, 0), drawn(8, 0), drawn(8, 10000)
    assert some.equals(again)
    assert set(some.concept) != set(other.concept)
    assert other.seed.min() == 10000 and other.seed.max() == 10015
    with pytest.raises(EssayError, match="asks for 31 concepts and 30"):
        drawn(31, 0, minimum=3)


def test_a_caption_may_name_one_of_the_concepts_training_vendors(sandbox, monkeypatch):
    concepts(monkeypatch, dog="google twitter", cat="microsoft")
    table = drawn(2, 0, caption="{concept}, {vendor}")
    assert set(table.concept) == {"dog", "cat"}
    assert (table.prompt == table.concept + ", " + table.vendor).all()
    assert set(table[table.concept == "cat"].vendor) == {"microsoft"}


def test_a_setting_may_ask_in_other_words(sandbox, monkeypatch):
    concepts(monkeypatch, dog="google", cat="microsoft")
    plain = {"name": "plain", "guidance_scale": 4}
    noisy = {"name": "noisy", "guidance_scale": 4, "caption": "{concept}, Gaussian noise"}
    table = drawn(2, 0, settings=[plain, noisy])
    one, two = (table[table.setting == name].reset_index() for name in ("plain", "noisy"))
    assert (two.prompt == one.prompt + ", Gaussian noise").all()
    assert two[["concept", "seed"]].equals(one[["concept", "seed"]])
    with pytest.raises(EssayError, match="must hold {concept}"):
        drawn(2, 0, settings=[plain | {"caption": "noise"}])


@pytest.mark.parametrize(
    "text, words",
    [
        ("family: woman, woman, girl", ["family", "woman", "girl"]),
        ("smiling face with heart-eyes", ["smiling", "face", "heart", "eyes"]),
        ("A button (blood type)", ["button", "blood", "type"]),
        ("man’s shoe", ["man", "shoe"]),
        ("1st place medal", ["st", "place", "medal"]),
        ("on the", []),
    ],
)
def test_content_words(text, words):
    assert plans.content_words(text) == words


ABLATION = [
    {"name": "whole", "guidance_scale": 4},
    {"name": "a word", "guidance_scale": 4, "method": "ablation", "hidden": "words"},
    {"name": "padding", "guidance_scale": 4, "method": "ablation", "hidden": "padding"},
]


def test_a_prompt_is_drawn_once_without_each_of_its_content_words(sandbox, monkeypatch):
    long = "dog with cat", "kissing cat", "red heart on fire"
    concepts(monkeypatch, **dict.fromkeys(long, "google"))
    prompts = {"caption": "{concept}", "count": 3, "minimum_content_words": 2}
    declare(PLAN | {"prompts": prompts, "settings": ABLATION, "judged": False})
    plan = plans.load("small")
    table = plan.table(0)
    assert not plan.judged
    hidden = table[table.setting == "a word"].groupby("prompt", sort=False).hidden.unique()
    assert {prompt: list(words) for prompt, words in hidden.items()} == {
        "dog with cat": ["dog", "cat"],
        "kissing cat": ["kissing", "cat"],
        "red heart on fire": ["red", "heart", "fire"],
    }
    assert table.groupby(["setting", "prompt", "hidden"], dropna=False).size().eq(2).all()
    assert table[table.setting == "whole"].hidden.isna().all()
    assert set(table[table.setting == "padding"].hidden) == {plans.PADDING}
    few = {"prompts": prompts | {"minimum_content_words": 3}}
    declare(PLAN | few)
    with pytest.raises(EssayError, match="asks for 3 concepts and 1 have enough.*content words"):
        plans.load("small").table(0)


def test_tokens_are_hidden_image_by_image(book):
    from essaylib import interventions, repro

    declare(PLAN | {"prompts": ["dog at cat", "cat"], "settings": ABLATION}, "hiding")
    run, pipe = draw("hiding", batch_size=5), models.load("embedded", "cpu")
    assert len(run) == 4 + 6 + 4
    assert runs.recheck(run, pipe, n=14).difference.max() < runs.TOLERANCE
    words = run.by_setting(run.latents)["a word"]
    assert words.shape[:2] == (3, 2)
    whole = run.where(setting="whole", prompt="dog at cat").latents.float()
    for hidden, found in zip(("dog", "cat"), words[:2], strict=True):
        with interventions.ablate_tokens(pipe, "dog at cat", [hidden]):
            alone = repro.generate(pipe, "dog at cat", [0, 1], steps=2, output="latent")
        assert torch.allclose(alone, torch.as_tensor(found).float(), atol=2e-3)
        assert (alone - whole).abs().max() > 1e-3


def test_shared_seeds_cross_prompts_and_noise(sandbox):
    declare(PLAN | {"shared_seeds": True})
    table = plans.load("small").table(0)
    assert table.groupby("prompt").seed.agg(lambda s: sorted(set(s))).tolist() == [[0, 1], [0, 1]]


def test_a_plan_may_explore_with_less_until_the_model_is_frozen(sandbox, monkeypatch):
    concepts(monkeypatch, **{f"c{i}": "google" for i in range(30)})
    prompts = {"caption": "{concept}", "count": 20}
    scales = [{"name": name, "guidance_scale": float(name)} for name in ("1", "4")]
    whole = PLAN | {"prompts": prompts, "settings": scales}
    declare(whole | {"until_frozen": {"count": 5, "settings": ["4"]}})
    less, final = plans.load("small", final=False), plans.load("small", final=True)
    assert [setting.name for setting in less.settings] == ["4"]
    assert [setting.name for setting in final.settings] == ["1", "4"]
    assert less.table(0).concept.nunique() == 5 and final.table(0).concept.nunique() == 20
    assert set(less.table(0).concept) <= set(final.table(0).concept)
    declare(whole | {"until_frozen": {"settings": ["9"]}})
    with pytest.raises(EssayError, match="not in the plan"):
        plans.load("small", final=False)


@pytest.mark.parametrize("first", [0, 10000])
def test_declared_plans_are_valid_and_few_enough_for_their_seeds(first):
    for path in paths.runs().glob("*/plan.yml"):
        plan = plans.load(path.parent.name, final=True)
        table = plan.table(first)
        assert table.seed.max() < first + 10000, "exploration would use seeds kept for verdicts"
        keys = [name for name in ("setting", "prompt", "seed", "hidden") if name in table]
        assert not table.duplicated(keys).any()


@pytest.mark.parametrize("name", ["delivery", "leaving"])
@pytest.mark.parametrize(("final", "first"), [(False, 0), (True, 10000)])
def test_plans_that_borrow_from_guidance_pair_with_it(name, final, first):
    own, guidance = (plans.load(plan, final=final).table(first) for plan in (name, "guidance"))
    first = guidance[guidance.setting == "1"][["concept", "seed"]].reset_index(drop=True)
    for setting in own.setting.unique():
        here = own[own.setting == setting][["concept", "seed"]].reset_index(drop=True)
        assert here.equals(first.iloc[: len(here)])


def test_the_guidance_plan_holds_the_registered_sample():
    from essaylib import claims

    plan = plans.load("guidance", final=True)
    assert plan.prompts["count"] == claims.load()["guidance"].statistic().n
    assert {"1", "7.5", "interval", "autoguidance"} <= {s.name for s in plan.settings}


def test_the_sample_command_draws_and_says_what(undrawn, monkeypatch):
    monkeypatch.setattr(judgements, "keep", lambda run, pipe: f"{len(run)} images")
    monkeypatch.setattr(runs, "generate", lambda *a: torch.zeros(len(a[2]), 4, 16, 16))
    result = CliRunner().invoke(app, ["sample", "small", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "16 images at the settings" in result.output and "Judged: 16" in result.output
    assert json.loads((paths.runs() / "small" / runs.PROVENANCE).read_text())["images"] == 16
    assert CliRunner().invoke(app, ["sample", "large"]).exit_code == 2


@pytest.fixture
def judged(book, monkeypatch):
    """The file of the drawn run's answers, which a judge gave that always says 0."""
    (book / "models" / "judge").mkdir()
    for name in ("judge.safetensors", "judge.json"):
        (book / "models" / "judge" / name).write_text("a judge")
    monkeypatch.setattr(judgements.Judge, "load", lambda: None)
    monkeypatch.setattr(
        judgements,
        "_answers",
        lambda _, images: dict.fromkeys(judgements.NAMES, np.zeros(len(images))),
    )
    return judgements.keep(runs.load("small"), models.load("embedded", "cpu"))


def sample(*options):
    result = CliRunner().invoke(app, ["sample", "small", "--device", "cpu", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_judged_run_is_judged_again_only_where_that_is_asked_for(judged, monkeypatch):
    kept = judged.stat().st_mtime_ns
    assert "Judged" not in sample()
    assert judged.stat().st_mtime_ns == kept
    with monkeypatch.context() as without:
        without.setattr(models, "load", None)  # where nothing is left, no model is asked for
        assert "Judged" not in sample()
    assert "Judged" in sample("--force")
    (paths.models() / "judge" / "judge.json").write_text("another judge")
    assert "Judged" in sample()


@pytest.mark.parametrize("length", [0, 3, 100, -9])
def test_answers_that_were_cut_short_name_the_command_that_mends_them(judged, length):
    judged.write_bytes(judged.read_bytes()[:length])
    run, pipe = runs.load("small"), models.load("embedded", "cpu")
    with pytest.raises(EssayError, match="npz is damaged.*`essay sample small` judges it again"):
        judgements.load(run, pipe)
    assert "Judged" in sample()
    assert len(judgements.load(run, pipe)["concept"]) == 16


def test_judging_that_is_cut_off_leaves_the_answers_of_before(judged, monkeypatch):
    def cut(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    before = judged.read_bytes()
    monkeypatch.setattr(store.np, "savez_compressed", cut)
    with pytest.raises(KeyboardInterrupt):
        judgements.keep(runs.load("small"), models.load("embedded", "cpu"))
    assert judged.read_bytes() == before and not list(judged.parent.glob("*.part"))


@pytest.mark.parametrize("first", [0, 10000])
def test_the_crossed_and_the_ablation_plan_hold_the_registered_samples(first):
    from essaylib import claims

    crossed = plans.load("prompt-seed", final=True).table(first)
    registered = claims.load()["prompt-seed"].statistic("order").n
    for _, images in crossed.groupby("setting"):
        assert images.prompt.nunique() == registered
        assert images.groupby("prompt").seed.agg(tuple).nunique() == 1
    ablated = plans.load("attention", final=True).table(first)
    words = ablated[ablated.setting == "without a word"][["prompt", "hidden"]].drop_duplicates()
    assert words.prompt.nunique() == 100 and words.groupby("prompt").size().min() >= 3
    assert len(words) >= claims.load()["attention"].statistic().n
