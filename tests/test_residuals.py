import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from essaylib import corpus, residuals, store
from essaylib.errors import EssayError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    return AutoencoderKL(
        **kinds, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4
    ).eval()


@pytest.fixture
def few(sandbox):
    """A corpus of eight drawings in a book of its own."""
    whole = corpus.load(ROOT / "data" / "corpus" / "corpus.parquet").take(range(8))
    path = sandbox / "corpus.parquet"
    whole.table.assign(webp=whole.webp).to_parquet(path)
    return corpus.load(path)


def round_trip(vae, images):
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    return ((decoded + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()


def test_a_residual_is_the_original_less_its_round_trip(vae):
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    found = residuals.residuals(vae, images)
    assert found.shape == images.shape and found.dtype == np.float32
    # A value on the border between two whole ones may be rounded either way.
    assert found == pytest.approx(images - round_trip(vae, images), abs=1)


def test_drawings_go_where_an_autoencoder_that_waits_for_its_turn_will_compute(vae, sent_to_meta):
    waiting = copy.deepcopy(vae)
    with sent_to_meta(waiting, waiting.encoder):
        residuals.residuals(waiting, np.zeros((1, 32, 32, 3), np.uint8))


def test_the_corpus_is_passed_through_once_and_kept(few, vae, monkeypatch):
    found = residuals.corpus_residuals(vae, few)
    full = residuals.residuals(vae, few.rgb())
    assert found.error == pytest.approx(np.sqrt((full**2).mean((1, 2, 3))), rel=1e-5)
    # Eight drawings have no more than eight components: nothing is left out.
    grid = full.reshape(8, 64, 2, 64, 2, 3).mean((2, 4))
    again = found.components @ found.axes + found.mean
    assert again == pytest.approx(grid.reshape(8, -1), abs=0.5)
    monkeypatch.setattr(residuals, "residuals", None)
    some = residuals.corpus_residuals(vae, few.take([5, 2]))
    assert np.array_equal(some.components, found.components[[5, 2]])
    assert np.array_equal(some.error, found.error[[5, 2]])


def test_a_small_selection_is_passed_through_alone(few, vae, sandbox):
    found = residuals.corpus_residuals(vae, few.take([3]))
    assert found.error.shape == (1,) and not (sandbox / "_build").exists()


def test_what_is_damaged_is_made_again(few, vae, sandbox):
    found = residuals.corpus_residuals(vae, few)
    (path,) = (sandbox / "_build" / "features").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    again = residuals.corpus_residuals(vae, few)
    assert np.allclose(again.components, found.components)


def test_what_ships_is_checked(few, vae, sandbox):
    found = residuals.corpus_residuals(vae, few)
    (built,) = (sandbox / "_build" / "features").glob("*.safetensors")
    shipped = store.shipped() / built.name
    shipped.parent.mkdir(parents=True)
    built.rename(shipped)
    assert np.array_equal(residuals.corpus_residuals(vae, few).error, found.error)
    wrong = residuals.Residuals(found.error * 1.5, found.components, found.mean, found.axes)
    residuals.write(shipped, wrong)
    with pytest.raises(EssayError, match="does not come out again"):
        residuals.corpus_residuals(vae, few)


def test_shipping_replaces_what_other_weights_left(few, vae, monkeypatch):
    monkeypatch.setattr(residuals, "load_corpus", lambda path=None: few)
    store.shipped().mkdir(parents=True)
    (store.shipped() / "latents-of-old.npy").touch()
    (store.shipped() / "README.md").touch()
    monkeypatch.setattr(residuals.features, "corpus_latents", lambda *_: np.ones((8, 4, 2, 2)))
    files = residuals.ship(vae)
    assert {path.name for path in store.shipped().iterdir()} == {
        "README.md",
        *(path.name for path in files),
    }
    assert np.load(files[0]).dtype == np.float16
