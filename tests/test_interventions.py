"""Interventions: each changes what it says, and nothing else."""

import numpy as np
import pytest
import torch

from essaylib import attention, interventions, repro
from essaylib.errors import EssayError
from essaylib.trace import Capture, trace

PROMPTS = ["a doggy", "a cat is"]


def draw(pipe, prompts=PROMPTS, scale=3.0, **more):
    with trace(pipe, Capture(cross_attention=True, heads="all")) as tr:
        pipe(
            prompts,
            num_inference_steps=2,
            guidance_scale=scale,
            latents=repro.latents(pipe, range(len(prompts))).to(pipe.unet.device),
            output_type="latent",
            **more,
        )
    return tr


@pytest.mark.parametrize("family", ["embedded", "sd1", "turbo", "sdxl", "bk-sdm"])
def test_an_ablated_token_gets_no_attention(tiny, device, family):
    pipe = tiny(family, device)
    scale = 0.0 if family == "turbo" else 3.0
    before = draw(pipe, scale=scale)
    with interventions.ablate_tokens(pipe, PROMPTS, ["a"]):
        after = draw(pipe, scale=scale)
    for image in (0, 1):
        shares = attention.shares(after, image=image)
        assert shares["a"] == 0 < attention.shares(before, image=image)["a"]
        assert sum(shares.values()) == pytest.approx(1, abs=2e-3)
    assert not torch.equal(after.latents[-1], before.latents[-1])
    assert torch.equal(draw(pipe, scale=scale).latents, before.latents)


def test_the_ablation_equals_attention_without_that_token(tiny):
    """In the first layer and step, against a softmax over the remaining keys."""
    pipe = tiny("embedded")
    before = draw(pipe)
    with interventions.ablate_tokens(pipe, PROMPTS, ["a"]):
        after = draw(pipe)
    name = before.layers[0]
    expected = before.cross_attention[name].values[0].float()
    expected[..., 1] = 0
    expected /= expected.sum(-1, keepdim=True)
    assert torch.allclose(after.cross_attention[name].values[0].float(), expected, atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_scaling_multiplies_and_renormalises(tiny, scale):
    pipe = tiny("embedded")
    before = draw(pipe)
    with interventions.scale_tokens(pipe, PROMPTS, {"a": scale}):
        after = draw(pipe)
    name = before.layers[0]
    expected = before.cross_attention[name].values[0].float()
    expected[..., 1] *= scale
    expected /= expected.sum(-1, keepdim=True)
    assert torch.allclose(after.cross_attention[name].values[0].float(), expected, atol=1e-3)
    if scale == 1:
        assert torch.allclose(after.latents, before.latents, atol=1e-4)


def test_the_unconditional_branch_is_left_alone(tiny):
    pipe = tiny("embedded")
    before = draw(pipe)
    with interventions.ablate_tokens(pipe, PROMPTS, ["a"]):
        after = draw(pipe)
    assert torch.allclose(after.noise_pred_uncond[0], before.noise_pred_uncond[0], atol=1e-5)
    assert not torch.allclose(after.noise_pred_text[0], before.noise_pred_text[0], atol=1e-6)


def test_ablation_in_diffusers_explicit_processor_is_the_same(tiny):
    from diffusers.models.attention_processor import AttnProcessor

    pipe = tiny("embedded")
    with interventions.ablate_tokens(pipe, PROMPTS, ["a"]):
        fused = draw(pipe)
        pipe.unet.set_attn_processor(AttnProcessor())
        explicit = draw(pipe)
    assert torch.allclose(fused.latents, explicit.latents, atol=1e-4)


def test_several_images_of_one_prompt(tiny):
    pipe = tiny("embedded")
    noise = repro.latents(pipe, range(4))
    with (
        interventions.ablate_tokens(pipe, PROMPTS, ["a"]),
        trace(pipe, Capture(cross_attention=True)) as tr,
    ):
        pipe(PROMPTS, num_inference_steps=1, num_images_per_prompt=2, latents=noise)
    assert all(attention.shares(tr, image=image)["a"] == 0 for image in range(4))


def test_each_prompt_of_a_batch_may_lose_other_positions(tiny):
    pipe = tiny("embedded")
    assert interventions.positions(pipe, "a doggy at a", "a") == [1, 6]
    assert interventions.last_padding(pipe, "a doggy") == [31]
    places = [interventions.positions(pipe, "a doggy", "doggy"), [31]]
    with interventions.ablate_positions(pipe, places):
        both = draw(pipe)
    shares = [attention.shares(both, image=image) for image in (0, 1)]
    assert shares[0]["doggy"] == 0 < min(shares[0]["a"], shares[1]["a"], shares[1]["cat"])
    assert all(maps.values[:, 1, ..., 31].eq(0).all() for maps in both.cross_attention.values())
    with interventions.ablate_tokens(pipe, PROMPTS[0], ["doggy"]):
        one = draw(pipe, PROMPTS[:1])
    assert torch.allclose(both.latents[:, :1], one.latents, atol=1e-4)
    with pytest.raises(EssayError, match="fills all 32 positions"):
        interventions.last_padding(pipe, "o " * 40)


@pytest.mark.parametrize(
    ("prepared", "called"),
    [
        ("a doggy", "a cat is"),
        (PROMPTS, PROMPTS[::-1]),
        (PROMPTS, PROMPTS * 2),
        (PROMPTS, PROMPTS[:1]),
        (PROMPTS, [*PROMPTS, "a dog"]),
    ],
)
def test_another_prompt_than_the_one_prepared_for_is_refused(tiny, prepared, called):
    pipe = tiny("embedded")
    with (
        interventions.ablate_tokens(pipe, prepared, ["a"]),
        pytest.raises(EssayError, match="with the prompts that were given, in their order"),
    ):
        pipe(called, num_inference_steps=1, output_type="latent")
    pipe(called, num_inference_steps=1, output_type="latent")


@pytest.mark.parametrize("family", ["embedded", "sdxl"])
def test_a_prompt_may_be_repeated_or_be_embeddings(tiny, family):
    pipe = tiny(family)
    with interventions.ablate_tokens(pipe, PROMPTS, ["a"]):
        draw(pipe, [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2)
    if family == "embedded":
        embeds = torch.zeros(2, 32, 32)
        with interventions.ablate_tokens(pipe, PROMPTS, ["a"]):
            pipe(
                prompt_embeds=embeds,
                negative_prompt_embeds=embeds,
                num_inference_steps=1,
                output_type="latent",
            )


@pytest.mark.parametrize("images", [1, 3])
def test_images_that_do_not_divide_among_the_prompts_are_refused(tiny, images):
    pipe = tiny("embedded")
    with (
        interventions.ablate_positions(pipe, [[1], [2]]),
        pytest.raises(EssayError, match=f"draws {images} images for 2 prompts"),
    ):
        draw(pipe, ["a doggy"] * images)


def test_unknown_words_and_negative_scales(tiny):
    pipe = tiny("embedded")
    with pytest.raises(EssayError, match="no 'horse'. Its words: a, doggy"):
        interventions.ablate_tokens(pipe, "a doggy", ["horse"]).__enter__()
    with pytest.raises(EssayError, match="finite and at least 0"):
        interventions.scale_tokens(pipe, "a doggy", {"a": -1}).__enter__()


def test_hooks_are_removed_when_the_pipeline_raises(tiny):
    pipe = tiny("embedded")

    def fail(*_):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError), interventions.ablate_tokens(pipe, "a doggy", ["a"]):
        pipe("a doggy", num_inference_steps=1, callback_on_step_end=fail)
    assert not any(module._forward_pre_hooks for module in pipe.unet.modules())


def test_swapped_noise(tiny):
    pipe = tiny("embedded")
    own, other = repro.latents(pipe, [1]), repro.latents(pipe, [2])
    assert torch.equal(interventions.swap_seed(pipe, 1, 2), other)
    swapped = interventions.swap_seed(pipe, 1, 2, box=(0, 64, 128, 128))
    assert torch.equal(swapped[..., :8], own[..., :8])
    assert torch.equal(swapped[..., 8:], other[..., 8:])
    wide = interventions.swap_seed(pipe, 1, 2, box=(0, 0, 8, 8), height=64, width=96)
    assert wide.shape == (1, 4, 8, 12)
    for box in ((0, 0, 0, 8), (0, 0, 8, 999)):
        with pytest.raises(EssayError, match="top, left, bottom, right"):
            interventions.swap_seed(pipe, 1, 2, box=box)


def test_a_flow_transformer_has_no_noise_to_swap():
    class FluxPipeline:
        transformer = object()

    with pytest.raises(EssayError, match="flow transformer"):
        interventions.swap_seed(FluxPipeline(), 1, 2)


def test_edited_latents_are_what_the_next_step_starts_from(tiny):
    pipe = tiny("embedded")
    before = draw(pipe)
    flip = interventions.edit_latents(0, lambda latents: latents.flip(-1))
    after = draw(pipe, callback_on_step_end=flip)
    assert torch.equal(after.latents[1], before.latents[1].flip(-1))
    assert not torch.equal(after.latents[2], before.latents[2])
    cut = interventions.edit_latents(0, lambda latents: latents[:1])
    with pytest.raises(EssayError, match="return the same shape"):
        draw(pipe, callback_on_step_end=cut)


@pytest.mark.parametrize("step", [-1, 2, 9])
def test_a_step_that_the_call_does_not_have_cannot_be_edited(tiny, step):
    never = interventions.edit_latents(step, lambda latents: latents)
    with pytest.raises(EssayError, match=f"no step {step} to edit: choose from 0 to 1"):
        draw(tiny("embedded"), callback_on_step_end=never)


def test_autoencoder_rounds(tiny, device):
    pipe = tiny("embedded", device)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    rounds = interventions.autoencoder_rounds(pipe, images, 2, batch_size=2)
    assert rounds.shape == (3, 3, 64, 96, 3) and rounds.dtype == np.uint8
    assert np.array_equal(rounds[0], images)
    again = interventions.autoencoder_rounds(pipe, rounds[1], 1)
    assert np.abs(again[1].astype(int) - rounds[2]).max() <= 1
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(device) / 127.5 - 1
        decoded = pipe.vae(pixels, sample_posterior=False).sample.cpu()
    expected = ((decoded + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(rounds[1] - expected).max() <= 1
    assert len(interventions.autoencoder_rounds(pipe, images, 0)) == 1


def test_autoencoder_rounds_refuse_other_images(tiny):
    pipe = tiny("embedded")
    with pytest.raises(EssayError, match="uint8"):
        interventions.autoencoder_rounds(pipe, np.zeros((1, 64, 64, 3)), 1)
    images = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(EssayError, match="0 or more"):
        interventions.autoencoder_rounds(pipe, images, -1)
    with pytest.raises(EssayError, match="batch_size must be a whole number"):
        interventions.autoencoder_rounds(pipe, images, 1, batch_size=0)
    with pytest.raises(EssayError, match="60×64 pixels do not fit.*multiples of 8"):
        interventions.autoencoder_rounds(pipe, images[:, :60], 1)


def test_rounds_go_where_an_autoencoder_that_waits_for_its_turn_will_compute(tiny, sent_to_meta):
    pipe = tiny("embedded")
    with sent_to_meta(pipe.vae, pipe.vae.encoder):
        interventions.autoencoder_rounds(pipe, np.zeros((1, 64, 64, 3), np.uint8), 1)
