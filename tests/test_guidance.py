"""Guidance: decomposition by arithmetic, re-guiding against the real pipeline."""

import copy

import pytest
import torch

from essaylib import guidance, repro
from essaylib.errors import EssayError
from essaylib.trace import trace


def draw(pipe, scale, steps=4, **more):
    with trace(pipe) as tr:
        pipe(
            ["a dog", "cat"],
            num_inference_steps=steps,
            guidance_scale=scale,
            latents=repro.latents(pipe, [3, 4]).to(pipe.unet.device),
            output_type="latent",
            **more,
        )
    return tr


@pytest.fixture
def pipe(tiny):
    return tiny("embedded")


def test_decompose_by_arithmetic(pipe):
    tr = draw(pipe, 3.0)
    table = guidance.decompose(tr)
    assert len(table) == 8 and list(table.columns[:4]) == [
        "step",
        "image",
        "timestep",
        "guidance_scale",
    ]
    row = table[(table.step == 2) & (table.image == 1)].iloc[0]
    u, c = tr.noise_pred_uncond[2, 1].flatten(), tr.noise_pred_text[2, 1].flatten()
    assert row.timestep == tr.timesteps[2] and row.guidance_scale == 3.0
    assert row.uncond == pytest.approx(float(u.norm()), rel=1e-5)
    assert row.text == pytest.approx(float(c.norm()), rel=1e-5)
    assert row.difference == pytest.approx(float((c - u).norm()), rel=1e-4)
    assert row.guided == pytest.approx(float((u + 3 * (c - u)).norm()), rel=1e-4)
    added = 2 * (c - u)
    assert row.parallel**2 + row.perpendicular**2 == pytest.approx(
        float(added.norm()) ** 2, rel=1e-3
    )
    assert row.cosine == pytest.approx(float(row.parallel / added.norm()), abs=1e-4)


@pytest.mark.parametrize("family", ["embedded", "sd1", "sdxl", "bk-sdm"])
def test_reguide_at_the_same_scale_repeats_the_run(tiny, family):
    pipe = tiny(family)
    tr = draw(pipe, 3.0)
    again = guidance.reguide(tr, pipe.scheduler, 3.0)
    assert torch.allclose(again.latents, tr.latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["embedded", "sd1", "sdxl"])
@pytest.mark.parametrize("start", [0, 2])
def test_one_reguided_step_is_what_the_pipeline_does(tiny, family, start):
    """The pipeline itself, told to change its scale at `start`, must arrive at the same latents."""
    pipe = tiny(family)
    tr = draw(pipe, 3.0)

    def change(pipeline, step, _, given):
        pipeline._guidance_scale = 7.0 if step + 1 == start else 3.0
        return given

    if start == 0:
        real = draw(pipe, 7.0)
    else:
        real = draw(pipe, 3.0, callback_on_step_end=change)
        assert real.guidance_scale.tolist() == [3.0, 3.0, 7.0, 3.0]
    other = guidance.reguide(tr, pipe.scheduler, 7.0, start)
    assert other.exact == [True, True] + [False] * (3 - start)
    assert torch.allclose(other.latents[1], real.latents[start + 1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other.latents[1], tr.latents[start + 1], atol=1e-4)


def test_reguide_with_a_multistep_scheduler(tiny):
    from diffusers import DPMSolverMultistepScheduler

    pipe = tiny("sd1")
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    tr = draw(pipe, 3.0)
    again = guidance.reguide(tr, pipe.scheduler, 3.0, start=2)
    assert torch.allclose(again.latents, tr.latents[2:], rtol=1e-4, atol=1e-4)


def test_reguide_leaves_the_scheduler_alone(pipe):
    tr = draw(pipe, 3.0)
    before = copy.deepcopy(vars(pipe.scheduler))
    guidance.reguide(tr, pipe.scheduler, 5.0)
    assert repr(vars(pipe.scheduler)) == repr(before)


def test_reguide_refuses_noise_and_strangers(tiny):
    from diffusers import DDPMScheduler

    pipe = tiny("sd1")
    ddim = pipe.scheduler
    tr = draw(pipe, 3.0)
    with pytest.raises(EssayError, match="start must be a step from 0 to 3"):
        guidance.reguide(tr, ddim, 3.0, start=4)
    trailing = type(ddim).from_config(ddim.config, timestep_spacing="trailing")
    with pytest.raises(EssayError, match="does not give the recorded timesteps"):
        guidance.reguide(tr, trailing, 3.0)
    pipe.scheduler = DDPMScheduler.from_config(ddim.config, clip_sample=False)
    tr = draw(pipe, 3.0)
    with pytest.raises(EssayError, match="adds noise"):
        guidance.reguide(tr, pipe.scheduler, 3.0)


def test_without_guidance_there_is_nothing_to_decompose(tiny):
    tr = draw(tiny("turbo"), 0.0)
    with pytest.raises(EssayError, match="ran without guidance"):
        guidance.decompose(tr)


def test_interval_guidance_guides_within_and_not_without(pipe, device, tiny):
    pipe = tiny("embedded", device)
    usual = draw(pipe, 3.0)
    middle = float(usual.timesteps[1])
    with guidance.interval_guidance(pipe, middle - 1, middle + 1):
        tr = draw(pipe, 3.0)
    guided = tr.noise_pred_uncond + 3 * (tr.noise_pred_text - tr.noise_pred_uncond)
    assert torch.allclose(tr.noise_pred, guided, atol=1e-5)
    for step in (0, 2, 3):
        assert torch.allclose(tr.noise_pred[step], tr.noise_pred_text[step], atol=1e-5)
    assert not torch.allclose(tr.noise_pred[1], tr.noise_pred_text[1], atol=1e-4)


def test_an_interval_of_everything_or_nothing(pipe):
    usual, without = draw(pipe, 3.0), draw(pipe, 1.0)
    with guidance.interval_guidance(pipe, 0, 1000):
        assert torch.equal(draw(pipe, 3.0).latents, usual.latents)
    with guidance.interval_guidance(pipe, 2000, 3000):
        assert torch.allclose(draw(pipe, 3.0).latents, without.latents, atol=1e-4)
    assert torch.equal(draw(pipe, 3.0).latents, usual.latents)
    with pytest.raises(EssayError, match="low ≤ high"), guidance.interval_guidance(pipe, 9, 1):
        pass


@pytest.mark.parametrize("family", ["embedded", "sdxl"])
def test_autoguidance_by_the_same_unet_is_no_guidance(tiny, device, family):
    """k = c, so that k + w (c − k) = c whatever w is."""
    pipe = tiny(family, device)
    weak = copy.deepcopy(pipe.unet)
    with guidance.autoguidance(pipe, weak):
        tr = draw(pipe, 3.0)
    assert torch.allclose(tr.noise_pred, tr.noise_pred_text, atol=1e-4)


def test_autoguidance_follows_the_formula(pipe):
    torch.manual_seed(1)
    weak = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        for parameter in weak.parameters():
            parameter.mul_(0.5)
    with guidance.autoguidance(pipe, weak):
        tr = draw(pipe, 3.0, steps=1)
    noise = tr.latents[0]
    k = weak(noise, tr.timesteps[0].long(), tr.prompt_embeds).sample
    assert torch.allclose(tr.noise_pred_uncond[0], k, atol=1e-5)
    guided = k + 3 * (tr.noise_pred_text[0] - k)
    assert torch.allclose(tr.noise_pred[0], guided, atol=1e-5)
    assert not pipe.unet._forward_hooks


@pytest.mark.parametrize(
    "how",
    [lambda p: guidance.interval_guidance(p, 0, 1), lambda p: guidance.autoguidance(p, None)],
)
def test_a_flow_transformer_is_refused(how):
    class FluxPipeline:
        transformer = object()

    with pytest.raises(EssayError, match="flow transformer"), how(FluxPipeline()):
        pass


@pytest.mark.parametrize(
    "how",
    [lambda p: guidance.interval_guidance(p, 0, 1), lambda p: guidance.autoguidance(p, p.unet)],
)
def test_changing_guidance_where_there_is_none(tiny, how):
    pipe = tiny("turbo")
    with pytest.raises(EssayError, match="no guidance to change"), how(pipe):
        draw(pipe, 0.0)
    assert not pipe.unet._forward_hooks
