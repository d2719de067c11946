import copy
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import BatchEncoding, CLIPConfig, CLIPModel

from essaylib import corpus, features, store
from essaylib.errors import EssayError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return AutoencoderKL(
        **kinds, block_out_channels=(8, 8), norm_num_groups=4, scaling_factor=0.5
    ).eval()


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision = small | {"image_size": 16, "patch_size": 8, "num_attention_heads": 2}
    text = small | {"vocab_size": 50, "num_attention_heads": 2, "eos_token_id": 49}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def test_latents_are_the_scaled_mean_of_the_posterior(vae, images):
    found = features.latents(vae, images)
    assert found.shape == (6, 4, 16, 16) and found.dtype == np.float32
    with torch.no_grad():
        pixels = torch.from_numpy(images[5:]).permute(0, 3, 1, 2) / 127.5 - 1
        wanted = vae.encode(pixels).latent_dist.mean * 0.5
    assert found[5:] == pytest.approx(wanted.numpy(), abs=1e-4)


def test_pictures_go_where_an_autoencoder_that_waits_for_its_turn_will_compute(
    vae, images, sent_to_meta
):
    waiting = copy.deepcopy(vae)
    with sent_to_meta(waiting, waiting.encoder):
        features.latents(waiting, images)


def test_captions_are_what_the_pipeline_gives_its_unet(tiny):
    pipe = tiny("embedded")
    captions = ["dog", "a cat"]
    found = features.conditions(pipe, captions)
    ids = pipe.tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
    assert found.shape == (2, 32, 32) and not found.requires_grad
    assert torch.equal(found, pipe.text_encoder(ids).last_hidden_state)


def test_clip_sees_a_larger_picture_as_its_block_means(clip, images):
    found = features.clip_images(clip, images)
    assert found.shape == (6, 12)
    blocks = images.reshape(6, 16, 2, 16, 2, 3).mean((2, 4))
    pixels = torch.from_numpy(blocks).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        wanted = clip.get_image_features(pixel_values=pixels).pooler_output
    assert found == pytest.approx(wanted.numpy(), abs=1e-4)


class Words:
    """A tokenizer of letters, as far as `clip_texts` needs one."""

    def __call__(self, captions, **_):
        longest = max(len(text) for text in captions)
        ids = torch.full((len(captions), longest + 2), 49)  # the end, and padding
        ids[:, 0] = 0
        for row, text in enumerate(captions):
            ids[row, 1 : len(text) + 1] = torch.tensor([ord(c) % 40 + 1 for c in text])
        return BatchEncoding({"input_ids": ids})


def test_captions_are_embedded_alike_in_any_company(clip):
    found = features.clip_texts(clip, Words(), ["cat", "a longer name"])
    assert found.shape == (2, 12) and found.dtype == np.float32
    alone = features.clip_texts(clip, Words(), ["cat"])
    assert found[:1] == pytest.approx(alone, abs=1e-5)
    assert not np.allclose(found[0], found[1])
    with pytest.raises(EssayError, match="no caption"):
        features.clip_texts(clip, Words(), [])


def test_an_untrained_network_has_the_shape_and_not_the_weights(clip, vae, images):
    state = torch.get_rng_state()
    fresh = features.untrained(clip, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(
        features.clip_images(fresh, images),
        features.clip_images(features.untrained(clip, seed=1), images),
    )
    assert not np.allclose(features.clip_images(fresh, images), features.clip_images(clip, images))
    assert features.latents(features.untrained(vae), images).shape == (6, 4, 16, 16)


@pytest.fixture
def few(sandbox):
    """A corpus of six drawings in a book of its own."""
    whole = corpus.load(ROOT / "data" / "corpus" / "corpus.parquet").take(range(6))
    path = sandbox / "corpus.parquet"
    whole.table.assign(webp=whole.webp).to_parquet(path)
    return corpus.load(path)


def test_latents_of_the_corpus_are_computed_once(few, vae, monkeypatch):
    computed = []
    plain = features.latents
    monkeypatch.setattr(features, "latents", lambda *a: computed.append(1) or plain(*a))
    found = features.corpus_latents(vae, few, size=32)
    assert found.shape == (6, 4, 16, 16) and found.dtype == np.float32
    assert np.array_equal(found, plain(vae, few.rgb(size=32)))
    assert len(computed) == 1
    some = features.corpus_latents(vae, few.take([4, 0]), size=32)
    assert np.array_equal(some, found[[4, 0]]) and len(computed) == 1
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_other_weights_and_other_sizes_have_latents_of_their_own(few, vae):
    found = features.corpus_latents(vae, few, size=32)
    assert features.corpus_latents(vae, few, size=16).shape == (6, 4, 8, 8)
    other = features.untrained(vae, seed=3)
    assert not np.allclose(features.corpus_latents(other, few, size=32), found)
    assert store.weights_hash(vae) != store.weights_hash(other)


def test_another_decoder_has_the_same_latents(few, vae, sandbox):
    features.corpus_latents(vae, few, size=32)
    trained_on, moved = copy.deepcopy(vae), copy.deepcopy(vae)
    with torch.no_grad():
        trained_on.decoder.conv_in.bias += 1
        moved.quant_conv.bias += 1
    assert features.file_of(trained_on, few, 32) == features.file_of(vae, few, 32)
    assert features.file_of(moved, few, 32) != features.file_of(vae, few, 32)


def test_a_small_selection_is_encoded_alone(few, vae, sandbox):
    found = features.corpus_latents(vae, few.take([3]), size=32)
    assert np.array_equal(found, features.latents(vae, few.rgb([3], size=32)))
    assert not (sandbox / "_build").exists()


def test_latents_that_ship_are_half_precision_and_checked(few, vae, sandbox):
    found = features.corpus_latents(vae, few, size=32)
    (built,) = (sandbox / "_build" / "features").glob("*.npy")
    shipped = store.shipped() / built.name
    shipped.parent.mkdir(parents=True)
    features.save(shipped, found.astype(np.float16))
    built.unlink()
    again = features.corpus_latents(vae, few, size=32)
    assert again.dtype == np.float32 and again == pytest.approx(found, rel=1e-3, abs=1e-3)
    features.save(shipped, (found + 0.1).astype(np.float16))
    with pytest.raises(EssayError, match="does not come out again"):
        features.corpus_latents(vae, few, size=32)


def test_vectors_of_pictures_are_kept_by_the_picture_tower(few, clip, monkeypatch):
    computed = []
    plain = features.clip_images
    monkeypatch.setattr(features, "clip_images", lambda *a: computed.append(1) or plain(*a))
    few = few.take([4, 0, 2])
    found = features.kept_clip_images(clip, few)
    assert found == pytest.approx(plain(clip, few.rgb(size=16)), abs=1e-6)
    assert np.array_equal(features.kept_clip_images(clip, few), found) and len(computed) == 1
    told, moved = copy.deepcopy(clip), copy.deepcopy(clip)
    with torch.no_grad():
        told.text_projection.weight += 1
        moved.visual_projection.weight *= 2
    assert np.array_equal(features.kept_clip_images(told, few), found) and len(computed) == 1
    assert not np.allclose(features.kept_clip_images(moved, few), found)
    assert features.clip_file_of(clip, few) != features.clip_file_of(clip, few.take([1, 0, 2]))
    moved.load_state_dict(clip.state_dict())
    moved.config.vision_config.hidden_act = "relu"
    assert features.clip_file_of(moved, few) != features.clip_file_of(clip, few)


def test_vectors_that_ship_are_half_precision_and_checked(few, clip, sandbox):
    store.shipped().mkdir(parents=True)
    (store.shipped() / "clip-of-old.npy").touch()
    found = np.array(features.kept_clip_images(clip, few))
    (path,) = features.ship_clip_images([clip], few)
    assert list(store.shipped().iterdir()) == [path] and np.load(path).dtype == np.float16
    shutil.rmtree(sandbox / "_build")
    again = features.kept_clip_images(clip, few)
    assert again.dtype == np.float32 and again == pytest.approx(found, rel=1e-3, abs=1e-3)
    features.save(path, np.full_like(np.load(path), np.nan))
    with pytest.raises(EssayError, match="does not come out again"):
        features.kept_clip_images(clip, few)
    path.write_bytes(b"cut short")
    assert np.array_equal(features.kept_clip_images(clip, few), found)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"not an array", None])
def test_a_damaged_cache_is_computed_again(few, vae, sandbox, damage):
    found = np.array(features.corpus_latents(vae, few, size=32))
    (path,) = (sandbox / "_build" / "features").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert np.array_equal(features.corpus_latents(vae, few, size=32), found)
    assert np.array_equal(np.load(path), found)
    assert not list(path.parent.glob("*.part"))


def test_a_second_process_waits_for_the_first(few, vae, monkeypatch):
    computed = []
    plain = features.latents

    def slowly(*arguments):
        computed.append(1)
        time.sleep(0.2)
        return plain(*arguments)

    monkeypatch.setattr(features, "latents", slowly)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(features.corpus_latents, vae, few, 32) for _ in range(2)]
        one, other = (job.result() for job in jobs)
    assert np.array_equal(one, other) and len(computed) == 1


def test_what_is_no_picture_is_refused(clip, vae, images):
    with pytest.raises(EssayError, match="uint8"):
        features.latents(vae, images / 255)
    with pytest.raises(EssayError, match="16 x 16"):
        features.clip_images(clip, images[:, :20, :20])
