"""Pulling a model: which files, whether they fit, whether they arrived whole."""

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest

from essaylib import hub, models, weights
from essaylib.errors import EssayError
from essaylib.provenance import sha256


def listing(*names):
    return {name: SimpleNamespace(rfilename=name, size=10, lfs=None) for name in names}


def test_half_precision_safetensors_are_preferred_and_pickles_left():
    stored = listing(
        "model_index.json", "README.md", "whole.safetensors", "tokenizer/merges.txt",
        "unet/config.json", "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/model.safetensors", "safety_checker/model.fp16.safetensors",
    )  # fmt: skip
    expected = {
        "model_index.json", "tokenizer/merges.txt", "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }  # fmt: skip
    assert set(hub._wanted(stored)) == expected
    del stored["vae/diffusion_pytorch_model.fp16.safetensors"]
    assert "unet/diffusion_pytorch_model.safetensors" in hub._wanted(stored)
    with pytest.raises(EssayError, match="no safetensors on the hub"):
        hub._wanted(listing("model_index.json", "unet/diffusion_pytorch_model.bin"))


@pytest.fixture
def served(monkeypatch, checkpoint, tmp_path):
    """A hub that gives the tiny SD 1.x checkpoint for any name; its files can be altered."""
    source = checkpoint("sd1")
    folder = tmp_path / "models--x" / "snapshots" / "c0ffee"
    files = [path for path in source.rglob("*") if path.is_file()]
    siblings = [
        SimpleNamespace(
            rfilename=path.relative_to(source).as_posix(),
            size=path.stat().st_size,
            lfs=SimpleNamespace(sha256=sha256(path)) if path.suffix == ".safetensors" else None,
        )
        for path in files
    ]

    class Api:
        def model_info(self, *_, **__):
            return SimpleNamespace(sha="c0ffee", siblings=siblings)

    def download(_, revision, allow_patterns):
        assert revision == "c0ffee"
        for name in allow_patterns:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return SimpleNamespace(folder=folder, siblings=siblings)


def test_a_pulled_model_loads_and_keeps_its_revision(served):
    folder = hub.pull(models.SPECS["sd15"])
    assert folder == served.folder and hub.revision(folder) == "c0ffee"
    assert len(weights.files(folder)) == 3
    pipe = models.load(folder, device="cpu")
    assert models.describe(pipe)["revision"] == "c0ffee"


def test_a_damaged_arrival_is_named(served):
    damaged = next(file for file in served.siblings if file.rfilename.startswith("unet/d"))
    damaged.lfs.sha256 = "0" * 64
    with pytest.raises(EssayError, match=r"unet.*arrived damaged"):
        hub.pull(models.SPECS["sd15"])


def test_a_full_disk_is_refused_before_downloading(served, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(EssayError, match="sd15 needs .* GB on disk .* set HF_HOME"):
        hub.pull(models.SPECS["sd15"])
    assert not served.folder.exists()


def test_a_hub_s_cached_names_are_trusted_as_hashes(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint("sd1"), tmp_path / "model")
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    blob = tmp_path / sha256(path)
    path.rename(blob)
    path.symlink_to(blob)
    assert weights.hashes(copy)["unet/diffusion_pytorch_model.safetensors"] == blob.name
