"""Pulling a model: which files, whether they fit, whether they arrived whole."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from essaylib import hub, models, weights
from essaylib.errors import EssayError
from essaylib.provenance import sha256

COMMIT = "c0ffee" + "0" * 34


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


class Repository(BaseHTTPRequestHandler):
    """A hub of one repository: what its API says of it, and its files.

    `folder` holds the files, `sums` the SHA-256 that the hub claims of each weight.
    """

    folder: Path
    sums: dict[str, str]

    def do_GET(self):
        asked = urlsplit(self.path).path
        name = asked.partition(f"/resolve/{COMMIT}/")[2]
        if name:
            self.answer((self.folder / name).read_bytes(), self.sums.get(name, name))
        elif f"/tree/{COMMIT}" in asked:
            self.answer([{"type": "file"} | self.entry(name, "path") for name in self.names()])
        elif "/api/models/" in asked:
            files = [self.entry(name, "rfilename") for name in self.names()]
            self.answer({"id": "a/b", "sha": COMMIT, "siblings": files})
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def names(self):
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return [path.relative_to(self.folder).as_posix() for path in paths]

    def entry(self, name, key):
        size = (self.folder / name).stat().st_size
        entry = {key: name, "oid": "0" * 40, "blobId": "0" * 40, "size": size}
        if name not in self.sums:
            return entry
        # The two answers of the API call the same digest by two names.
        digest = self.sums[name]
        return entry | {"lfs": {"oid": digest, "sha256": digest, "size": size, "pointerSize": 134}}

    def answer(self, content, etag="answer"):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Length": len(body)}
        for header, value in headers.items():
            self.send_header(header, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(monkeypatch, checkpoint, tmp_path):
    """A hub that gives the tiny SD 1.x checkpoint for any name, among files that nobody needs."""
    from huggingface_hub import constants

    folder = shutil.copytree(checkpoint("sd1"), tmp_path / "repository")
    (folder / "safety_checker").mkdir()
    (folder / "vae_before").mkdir()
    for name in (
        "README.md",
        "whole.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "vae_before/config.json",
    ):
        (folder / name).write_bytes(b"unused")
    Repository.folder = folder
    Repository.sums = {
        path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*.safetensors")
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Repository)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    files = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield Repository
    server.shutdown()
    server.server_close()


def test_a_pulled_model_is_found_loads_and_is_hashed_without_a_network(served, monkeypatch):
    from huggingface_hub import constants

    spec = models.SPECS["sd15"]
    assert models.folder(spec) is None
    pulled = models.pull("sd15")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert models.folder(spec) == pulled == models.pull("sd15")
    assert hub.revision(pulled) == COMMIT and not (pulled / "whole.safetensors").exists()
    assert {row["name"]: row["local"] for row in models.table()}["sd15"]
    described = models.describe(models.load("sd15", device="cpu"))
    assert (described["name"], described["revision"]) == ("sd15", COMMIT)
    assert len(described["weights"]) == 3
    assert all(served.sums[name] == digest for name, digest in described["weights"].items())


def test_what_another_program_fetched_is_here(served):
    from huggingface_hub import snapshot_download

    spec = models.SPECS["sd15"]
    parts = [f"{part}/*" for part in weights.components(served.folder)]
    fetched = snapshot_download(spec.hub_id, allow_patterns=["model_index.json", *parts])
    assert str(models.folder(spec)) == fetched


@pytest.mark.parametrize("missing", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors"])
def test_a_model_that_came_in_part_is_not_here(served, missing):
    (hub.pull(models.SPECS["sd15"]) / missing).unlink()
    assert models.folder(models.SPECS["sd15"]) is None
    assert (models.pull("sd15") / missing).is_file()


def test_a_damaged_arrival_is_named(served):
    served.sums["unet/diffusion_pytorch_model.safetensors"] = "0" * 64
    with pytest.raises(EssayError, match=r"unet.*arrived damaged"):
        hub.pull(models.SPECS["sd15"])


def test_a_full_disk_is_refused_before_downloading(served, monkeypatch, tmp_path):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(EssayError, match="sd15 needs .* GB on disk .* set HF_HOME"):
        hub.pull(models.SPECS["sd15"])
    assert not (tmp_path / "hub").exists()


def test_a_hub_s_cached_names_are_trusted_as_hashes(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint("sd1"), tmp_path / "model")
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    blob = tmp_path / sha256(path)
    path.rename(blob)
    path.symlink_to(blob)
    assert weights.hashes(copy)["unet/diffusion_pytorch_model.safetensors"] == blob.name
