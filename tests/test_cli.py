import json
import os
import shutil
import subprocess
import sys

import pytest
import typer
from conftest import ROOT
from PIL import Image
from typer.testing import CliRunner

from essaylib import cli, generation
from essaylib.errors import EssayError

HEAVY = ("torch", "pandas", "numpy", "IPython", "matplotlib", "diffusers", "sphinx", "yaml")
runner = CliRunner()


def commands(group=None, path=()):
    """Every command and group of commands, as (words, command)."""
    group = group or typer.main.get_command(cli.app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_the_command_imports_nothing_heavy():
    code = f"import sys, essaylib.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_lists_the_commands():
    shown = runner.invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    for name in ("run", "build", "sample", "figures", "models", "generate"):
        assert f"  {name} " in shown.output


@pytest.mark.parametrize("words", [words for words, _ in commands() if words])
def test_every_command_has_help_with_an_example(words):
    shown = runner.invoke(cli.app, [*words, "--help"])
    assert shown.exit_code == 0
    assert f"Example: essay {words[0]}" in " ".join(shown.output.split())


def test_an_error_is_a_message_and_status_2(sandbox):
    done = runner.invoke(cli.app, ["run", "nonesuch"])
    assert done.exit_code == 2
    assert done.stderr.startswith("essay: There is no chapter nonesuch")
    assert "Traceback" not in done.output


def test_an_interrupt_is_status_130(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("essaylib.models.table", interrupt)
    done = runner.invoke(cli.app, ["models"])
    assert done.exit_code == 130 and "interrupted" in done.stderr


def test_outside_a_book_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    done = runner.invoke(cli.app, ["run"])
    assert done.exit_code == 2 and "set ESSAY_ROOT" in done.stderr


@pytest.mark.parametrize("option", [["--seed", "one"], ["--samples", "few"]])
def test_an_option_of_the_wrong_type_is_refused(option):
    assert runner.invoke(cli.app, ["run", *option]).exit_code == 2


def test_models_lists_each_with_its_licence(sandbox):
    shown = runner.invoke(cli.app, ["models"])
    assert shown.exit_code == 0
    assert "embedded" in shown.output and "CreativeML OpenRAIL-M" in shown.output


def test_an_unknown_run_lists_all_that_can_be_sampled(sandbox):
    (sandbox / "data" / "runs" / "small").mkdir(parents=True)
    (sandbox / "data" / "runs" / "small" / "plan.yml").touch()
    done = runner.invoke(cli.app, ["sample", "nope"])
    assert done.exit_code == 2
    assert "choose one of small, corpus, credit, survival." in done.stderr


def test_an_unknown_model_is_refused(sandbox):
    done = runner.invoke(cli.app, ["models", "pull", "nonesuch"])
    assert done.exit_code == 2 and "Unknown model 'nonesuch'" in done.stderr


def test_generate_writes_the_same_file_twice_and_says_what_it_is(checkpoint, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    words = ["generate", "dog face, google", "--model", str(checkpoint("embedded"))]
    words += ["--device", "cpu", "--seed", "3", "--steps", "2", "--guidance", "4"]
    for path in (first, second):
        done = runner.invoke(cli.app, [*words, "-o", str(path)])
        assert done.exit_code == 0, done.output
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.text["Description"] == "dog face, google"
        made = json.loads(image.text["essaylib:generation"])
    assert (made["seed"], made["steps"], made["guidance_scale"]) == (3, 2, 4.0)
    assert made["model"]["weights"]


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(prompt):
    done = runner.invoke(cli.app, ["generate", prompt, "--out", "image.png"])
    assert done.exit_code == 2 and "The prompt is empty" in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image.jpg", "ends in .png"),
        ("nowhere/image.png", "There is no folder"),
        ("folder.png", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_drawing(tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(EssayError, match=message):
        generation.save("dog", tmp_path / name)


def test_a_full_disk_is_reported(tmp_path):
    class Full:
        def save(self, *args, **kwargs):
            raise OSError(28, os.strerror(28))

    with pytest.raises(EssayError, match="No space left.*another place"):
        generation._write(Full(), tmp_path / "a.png", {"prompt": "dog"})


def test_a_folder_that_is_a_file_is_a_message_not_a_traceback(sandbox):
    (sandbox / "parts").write_text("a file")
    done = runner.invoke(cli.app, ["verify", "--summary", str(sandbox / "parts" / "table.md")])
    assert done.exit_code == 2
    assert "cannot be used (Not a directory)" in done.stderr and "another place" in done.stderr


def test_another_failure_of_the_system_keeps_its_traceback(monkeypatch):
    def fail():
        raise OSError("a library's own")

    monkeypatch.setattr("essaylib.models.table", fail)
    assert isinstance(runner.invoke(cli.app, ["models"]).exception, OSError)


@pytest.mark.parametrize("words", [["lock"], ["claims", "--lock"]])
def test_locking_before_anything_was_run_names_the_cure(sandbox, words):
    shutil.copy(ROOT / "book" / "claims.yml", sandbox / "book")
    done = runner.invoke(cli.app, words)
    assert done.exit_code == 2 and "`essay run`" in done.stderr
    assert not list((sandbox / "book").glob("*.lock.json"))


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        (["clip"], "tokenizer"),
        (["judge"], "autoencoder"),
        (["unet"], "tokenizer"),
        (["assemble"], "tokenizer"),
    ],
)
def test_a_stage_without_an_earlier_one_names_it(tmp_path, stage, missing):
    done = runner.invoke(cli.app, ["train", *stage, "--parts", str(tmp_path)])
    assert done.exit_code == 2 and f"`essay train {missing}` makes it" in done.stderr


def test_a_vendor_that_is_none_cannot_be_left_out(tmp_path):
    words = ["train", "unet", "--without", "nokia", "--parts", str(tmp_path)]
    done = runner.invoke(cli.app, words)
    assert done.exit_code == 2 and "There is no vendor 'nokia'" in done.stderr
