"""Another U-Net in a pipeline, and a little more training, on a random checkpoint."""

import numpy as np
import pytest
import torch
from checkpoints import build, write_sums

from essaylib import adaptation, models
from essaylib.errors import EssayError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("book")
    (root / "_toc.yml").touch()
    build("embedded", root / "models" / "emoji-ldm")
    models.load(root / "models" / "emoji-ldm", "cpu").unet.save_pretrained(
        root / "models" / "unet-without-nobody"
    )
    write_sums(root / "models" / "unet-without-nobody")
    return root


@pytest.fixture
def pipe(place, monkeypatch):
    monkeypatch.setenv("ESSAY_ROOT", str(place))
    return models.load(place / "models" / "emoji-ldm", "cpu")


def pictures(n=3):
    return np.random.default_rng(0).integers(0, 256, size=(n, 128, 128, 3), dtype=np.uint8)


def test_a_unet_of_its_own_folder_is_checked_and_loaded_anew(pipe, place):
    one, two = (models.load_unet("unet-without-nobody") for _ in range(2))
    assert one is not two and torch.equal(one.conv_in.weight, two.conv_in.weight)
    assert not one.training
    with pytest.raises(EssayError, match="no U-Net"):
        models.load_unet("unet-without-somebody")
    damaged = place / "models" / "unet-damaged"
    one.save_pretrained(damaged)
    write_sums(damaged)
    two.conv_in.weight.data.add_(1)
    two.save_pretrained(damaged)
    with pytest.raises(EssayError, match="damaged"):
        models.load_unet("unet-damaged")


def test_a_pipeline_gets_its_own_unet_back(pipe):
    own, other = pipe.unet, models.load_unet("unet-without-nobody")
    with pytest.raises(RuntimeError), adaptation.using(pipe, other):
        assert pipe.unet is other
        raise RuntimeError
    assert pipe.unet is own


def test_finetuning_learns_its_examples_and_repeats(pipe):
    settings = {"steps": 30, "batch_size": 4, "lr": 2e-3, "seed": 1}
    losses, weights = [], []
    for _ in range(2):
        unet = models.load_unet("unet-without-nobody")
        before = unet.conv_out.weight.clone()
        losses.append(adaptation.finetune(pipe, unet, pictures(), ["dog"] * 3, **settings))
        weights.append(unet.conv_out.weight.detach())
    assert losses[0] == losses[1] and torch.equal(*weights)
    assert np.mean(losses[0][-5:]) < np.mean(losses[0][:5])
    assert not torch.equal(weights[0], before)
    assert not unet.training


def test_finetuning_leaves_the_rest_alone(pipe):
    before = [p.clone() for part in (pipe.vae, pipe.text_encoder) for p in part.parameters()]
    unet = models.load_unet("unet-without-nobody")
    adaptation.finetune(pipe, unet, pictures(), ["dog"] * 3, steps=2)
    after = [p for part in (pipe.vae, pipe.text_encoder) for p in part.parameters()]
    assert all(map(torch.equal, before, after))


def test_the_target_is_what_the_network_predicts(pipe):
    noise = pipe.scheduler
    clean, eps, t = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 2.0), torch.tensor([500])
    alpha = noise.alphas_cumprod[500]
    expected = alpha.sqrt() * eps - (1 - alpha).sqrt() * clean  # Salimans and Ho (2022)
    assert torch.allclose(adaptation._target(noise, clean, eps, t), expected)
    noise.register_to_config(prediction_type="epsilon")
    assert adaptation._target(noise, clean, eps, t) is eps
    noise.register_to_config(prediction_type="sample")
    with pytest.raises(EssayError, match="'sample'"):
        adaptation._target(noise, clean, eps, t)


def test_pictures_and_captions_must_pair(pipe):
    unet = models.load_unet("unet-without-nobody")
    with pytest.raises(EssayError, match="do not pair"):
        adaptation.finetune(pipe, unet, pictures(), ["dog"])
