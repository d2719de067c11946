"""Fixtures that several tests share."""

import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and no test may depend on that.
settings.register_profile("essay", deadline=None)
settings.load_profile("essay")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """An empty book in a folder of its own: no chapters, no corpus, no models."""
    from essaylib import figures, glue

    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    monkeypatch.delenv("ESSAY_CHAPTER", raising=False)
    monkeypatch.setattr(glue, "_current", None)
    monkeypatch.setattr(figures, "_drawn", {})
    return tmp_path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """`checkpoint(family)`: the folder of a tiny random model, written once a session."""
    import checkpoints

    folders: dict[str, Path] = {}

    def folder(family):
        if family not in folders:
            folders[family] = checkpoints.build(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return folder


@pytest.fixture
def tiny(checkpoint):
    """`tiny(family, device="cpu", dtype=None)`: a tiny random pipeline, newly loaded."""
    from essaylib import models

    def load(family, device="cpu", dtype=None):
        return models.load(checkpoint(family), device=device, dtype=dtype)

    return load


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Each device in turn; CUDA is skipped where there is none."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


@pytest.fixture
def sent_to_meta():
    """A `with` block in which a network that waits for its turn (accelerate's hook) is reached.

    `sent_to_meta(network, entrance)`: the block must give `entrance`, a module of it, its input on
    the device that the hook names.
    """
    from contextlib import contextmanager
    from types import SimpleNamespace

    @contextmanager
    def reached(network, entrance):
        network._hf_hook = SimpleNamespace(execution_device="meta")

        def look(_, args):
            raise RuntimeError(f"on {args[0].device}")

        entrance.register_forward_pre_hook(look)
        with pytest.raises(RuntimeError, match="on meta"):
            yield

    return reached
