import numpy as np
import pytest
import torch

from essaylib import attribution, features, models
from essaylib.errors import EssayError


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(5, 4, 16, 16)).astype(np.float32)


PROMPTS = ["dog", "cat", "dog cat", "do", "at"]


def test_a_sketch_is_the_projected_gradient(tiny, latents):
    """Against torch's own gradient of one picture, layer by layer."""
    pipe = tiny("embedded")
    unet, width = pipe.unet, 3
    found = attribution.gradient_vectors(pipe, latents[:2], PROMPTS[:2], 7, [300], width)
    for picture in range(2):
        clean = torch.tensor(latents[picture : picture + 1])
        (noise,) = attribution._noise(clean, 7, 1)
        at = torch.tensor([300])
        text = features.conditions(pipe, PROMPTS[picture : picture + 1])
        unet.zero_grad()
        out = unet(pipe.scheduler.add_noise(clean, noise, at), at, text).sample
        (out.square().sum() / 2).backward()
        draw = torch.Generator().manual_seed(7 + attribution._PROJECTION)
        expected = {}

        def project(size, draw=draw):
            return torch.randn(size, width, generator=draw) / width**0.5

        for place, layer in sorted(attribution.cross_attention_layers(unet).items()):
            for name, part in layer.named_modules():
                if isinstance(part, torch.nn.Linear):
                    left, right = project(part.out_features), project(part.in_features)
                    expected[f"{place}.{name}"] = left.T @ part.weight.grad @ right
        last = unet.conv_out.weight.grad.flatten(1)
        expected["conv_out"] = last @ project(last.shape[1])
        wanted = torch.cat([expected[name].flatten() for name in sorted(expected)])
        assert found[picture] == pytest.approx(wanted.numpy(), rel=1e-3, abs=1e-4)


def test_a_vector_depends_on_its_own_picture_only(tiny, latents):
    pipe = tiny("embedded")
    before = pipe.unet.attn_processors
    for read in (
        lambda rows: attribution.unet_vectors(pipe, latents[rows], 1),
        lambda rows: attribution.gradient_vectors(
            pipe, latents[rows], [PROMPTS[i] for i in rows], 1, [100, 600], 2
        ),
    ):
        together, alone = read([0, 1, 2, 3, 4]), read([3])
        assert together[3] == pytest.approx(alone[0], rel=1e-3, abs=1e-5)
        assert np.abs(together[2] - alone[0]).max() > 1e-3
    assert pipe.unet.attn_processors == before
    assert not pipe.unet.conv_out._forward_hooks


def test_seeds_give_other_vectors_and_the_same_seed_the_same(tiny, latents):
    pipe = tiny("embedded")
    for read in (
        lambda seed: attribution.unet_vectors(pipe, latents, seed),
        lambda seed: attribution.gradient_vectors(pipe, latents, PROMPTS, seed, [300], 2),
    ):
        assert (read(1) == read(1)).all() and (read(1) != read(2)).any()


def test_a_network_without_a_middle_is_read_at_its_narrowest(tiny, latents):
    assert len(attribution.unet_vectors(tiny("bk-sdm"), latents[:2], 0)) == 2


def test_pixels_and_clip_read_pictures(checkpoint):
    clip, _ = models.load_clip(checkpoint("embedded") / "clip")
    images = np.random.default_rng(0).integers(0, 255, (3, 128, 128, 3)).astype(np.uint8)
    assert attribution.pixel_vectors(images).shape == (3, 3072)
    assert np.linalg.norm(attribution.clip_vectors(clip, images), axis=1) == pytest.approx(1)


def test_the_nearest_scores_highest():
    training = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    scores = attribution.distances(np.zeros((1, 2)), training)
    assert scores[0] == pytest.approx([0, -5 / np.sqrt(2), -1 / np.sqrt(2)])
    paid = attribution.amounts(scores)
    assert paid[0, 1] == pytest.approx(2 / 25) and paid[0].argmax() == 0
    with pytest.raises(EssayError, match="with a minus"):
        attribution.amounts(-scores)


def test_pull_is_ridge_regression_on_the_training_vectors():
    """With the dual form: y (B B' + n l I)^-1 B per drawing, as in TRAK without its weights."""
    rng = np.random.default_rng(0)
    outputs, training = rng.normal(size=(2, 6)), rng.normal(size=(40, 6))
    level = 0.3 * np.trace(training.T @ training / 40) / 6
    dual = np.linalg.solve(training @ training.T + 40 * level * np.eye(40), training @ outputs.T)
    along = attribution.directions(outputs, training, damping=0.3)
    assert attribution.pull(along, training) == pytest.approx(40 * dual.T, rel=1e-4, abs=1e-5)


def test_what_all_pull_at_counts_little():
    rng = np.random.default_rng(1)
    training = rng.normal(size=(200, 4)) * [100, 1, 1, 1]
    training[7] = [0, 5, 5, 5]
    along = attribution.directions(np.array([[100.0, 4.0, 4.0, 4.0]]), training, damping=1e-6)
    assert attribution.pull(along, training)[0].argmax() == 7
    assert (training @ [100, 4, 4, 4]).argmax() != 7


def test_degenerate_input_is_refused(tiny, latents):
    pipe = tiny("embedded")
    with pytest.raises(EssayError, match="needs its own"):
        attribution.gradient_vectors(pipe, latents, ["dog"], 0)
    with pytest.raises(EssayError, match="Latents are"):
        attribution.unet_vectors(pipe, latents[0], 0)
    with pytest.raises(EssayError, match="pull nowhere"):
        attribution.directions(np.ones((1, 2)), np.zeros((3, 2)))
