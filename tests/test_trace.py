"""Tracing: it disturbs nothing, records everything, and never comes back empty in silence."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import checkpoints
import numpy as np
import pytest
import torch
from PIL import Image

from essaylib import models, repro
from essaylib.errors import EssayError
from essaylib.trace import Capture, Trace, cross_attention_layers, trace

EVERYTHING = Capture(cross_attention=True, heads="all")
HEIGHT, WIDTH = 64, 96


def call(pipe, prompt=("a doggy", "a cat is"), **changes):
    """The same small generation each time: two images, three steps, not square."""
    guided = pipe.scheduler.config.get("timestep_spacing") != "trailing"
    arguments = {
        "prompt": list(prompt),
        "num_inference_steps": 3,
        "guidance_scale": 3.0 if guided else 0.0,
        "height": HEIGHT,
        "width": WIDTH,
        "output_type": "latent",
    } | changes
    if "latents" not in arguments and "image" not in arguments:
        images = len(prompt) * arguments.get("num_images_per_prompt", 1)
        noise = repro.latents(pipe, range(images), arguments["height"], arguments["width"])
        arguments["latents"] = noise.to(pipe._execution_device, pipe.unet.dtype)
    return pipe(**arguments).images


def hooks(pipe):
    modules = [
        m for part in pipe.components.values() if hasattr(part, "modules") for m in part.modules()
    ]
    wrapped = [
        name in vars(owner)
        for owner, name in ((pipe, "encode_prompt"), (pipe.scheduler, "step"), (pipe.vae, "decode"))
    ]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules), sum(wrapped)


@pytest.fixture
def pipe(tiny):
    return tiny("embedded")


# Nothing is disturbed.


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
@pytest.mark.parametrize("heads", ["mean", "all"])
def test_traced_latents_equal_untraced(tiny, device, family, heads):
    pipe = tiny(family, device)
    plain = call(pipe)
    before = hooks(pipe)  # transformers keeps some of its own
    with trace(pipe, Capture(cross_attention=True, heads=heads)) as tr:
        traced = call(pipe)
    assert torch.equal(plain, traced)
    assert torch.equal(tr.latents[-1], traced.float().cpu())
    assert set(tr.layers) == set(cross_attention_layers(pipe.unet))
    assert hooks(pipe) == before


def test_bk_sdm_has_no_mid_block_and_sd1_has(tiny):
    assert not any("mid" in name for name in cross_attention_layers(tiny("bk-sdm").unet))
    assert any("mid" in name for name in cross_attention_layers(tiny("sd1").unet))


def test_hooks_are_removed_when_the_pipeline_raises(pipe):
    def fail(*_):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), trace(pipe, EVERYTHING):
        call(pipe, callback_on_step_end=fail)
    assert hooks(pipe) == (0, 0)
    plain = call(pipe)
    with trace(pipe) as tr:
        assert torch.equal(call(pipe), plain)
    assert tr.steps == 3


def test_other_hooks_are_left_alone(pipe):
    seen = []
    layer = next(iter(cross_attention_layers(pipe.unet).values()))
    handle = layer.to_q.register_forward_hook(lambda *_: seen.append("q"))
    original = pipe.scheduler.step
    pipe.scheduler.step = lambda *a, **k: (seen.append("step"), original(*a, **k))[1]
    with trace(pipe, EVERYTHING):
        call(pipe)
    assert seen == ["q", "step"] * 3
    call(pipe)
    assert seen == ["q", "step"] * 6
    handle.remove()


def test_traces_nest_and_repeat(pipe):
    with trace(pipe, EVERYTHING) as outer, trace(pipe, EVERYTHING) as inner:
        call(pipe)
    with trace(pipe, EVERYTHING) as again:
        call(pipe)
    for other in (inner, again):
        assert torch.equal(outer.latents, other.latents)
        for layer in outer.layers:
            mine, theirs = outer.cross_attention[layer], other.cross_attention[layer]
            assert torch.equal(mine.values, theirs.values)
    assert hooks(pipe) == (0, 0)


def test_a_wrapper_put_on_meanwhile_stays(pipe):
    with trace(pipe) as tr:
        traced = pipe.scheduler.step
        mine = lambda *a, **k: traced(*a, **k)  # noqa: E731
        pipe.scheduler.step = mine
        call(pipe)
    assert pipe.scheduler.step is mine
    recorded = tr.latents.clone()
    call(pipe, latents=torch.zeros(2, 4, 8, 12))
    assert torch.equal(tr.latents, recorded)


# Everything is recorded.


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_shapes_and_types(tiny, family):
    pipe = tiny(family)
    with trace(pipe, EVERYTHING) as tr:
        call(pipe, output_type="np")
    steps, images, latent = 3, 2, (4, 8, 12)
    assert tr.latents.shape == (steps + 1, images, *latent)
    assert tr.latents.dtype == torch.float32
    width = pipe.unet.config.cross_attention_dim
    length = pipe.tokenizer.model_max_length
    assert tr.prompt_embeds.shape == (images, length, width)
    for name in ("noise_pred", "noise_pred_text", "pred_original_sample"):
        assert getattr(tr, name).shape == (steps, images, *latent)
    if family == "turbo":
        assert tr.noise_pred_uncond is None and tr.negative_prompt_embeds is None
        assert tr.guidance_scale.tolist() == [1.0] * steps
    else:
        assert tr.noise_pred_uncond.shape == (steps, images, *latent)
        assert tr.negative_prompt_embeds.shape == (images, length, width)
        assert tr.guidance_scale.tolist() == [3.0] * steps
    assert tr.timesteps.shape == tr.alphas_cumprod.shape == (steps,)
    assert tr.image.shape == (images, HEIGHT, WIDTH, 3) and tr.image.dtype == np.uint8
    for name, maps in tr.cross_attention.items():
        height, width = maps.resolution
        heads = cross_attention_layers(pipe.unet)[name].heads
        assert maps.values.shape == (steps, images, heads, height, width, length)
        assert maps.values.dtype == torch.float16
        assert height * 3 == width * 2
        assert maps.place == name.partition("_")[0]


def test_initial_noise_image_and_guidance_are_the_pipeline_s(pipe):
    noise = repro.latents(pipe, [5])
    with trace(pipe) as tr:
        image = pipe("a dog", num_inference_steps=2, guidance_scale=3.0, latents=noise).images[0]
    assert torch.equal(tr.latents[0], noise)
    assert np.array_equal(tr.image[0], np.asarray(image))
    u, c = tr.noise_pred_uncond, tr.noise_pred_text
    assert torch.allclose(tr.noise_pred, u + 3.0 * (c - u), atol=1e-6)


def test_branches_are_not_mixed_up(pipe):
    """The text branch of a guided call is what an unguided call predicts from the same noise."""
    noise = repro.latents(pipe, [0])
    with trace(pipe) as guided:
        call(pipe, ["a dog"], latents=noise, height=128, width=128, num_inference_steps=1)
    with trace(pipe) as plain:
        call(
            pipe, ["a dog"], latents=noise, height=128, width=128, num_inference_steps=1,
            guidance_scale=1.0,
        )  # fmt: skip
    with trace(pipe) as empty:
        call(
            pipe, [""], latents=noise, height=128, width=128, num_inference_steps=1,
            guidance_scale=1.0,
        )  # fmt: skip
    assert torch.allclose(guided.noise_pred_text, plain.noise_pred_text, atol=1e-5)
    assert torch.allclose(guided.noise_pred_uncond, empty.noise_pred_text, atol=1e-5)
    assert not torch.allclose(guided.noise_pred_uncond, guided.noise_pred_text, atol=1e-5)


@pytest.mark.parametrize("family", ["embedded", "sd1", "turbo"])
def test_captured_shares_are_what_diffusers_computes(tiny, family):
    """Against the probabilities of diffusers' explicit processor, in the first layer."""
    from diffusers.models.attention_processor import AttnProcessor

    pipe = tiny(family)
    pipe.unet.set_attn_processor(AttnProcessor())
    name, layer = next(iter(cross_attention_layers(pipe.unet).items()))
    seen, compute = [], layer.get_attention_scores
    layer.get_attention_scores = lambda *a: (seen.append(compute(*a)), seen[-1])[1]
    with trace(pipe, EVERYTHING) as tr:
        call(pipe)
    assert len(seen) == len(tr.cross_attention[name].values) > 0
    for step, probabilities in enumerate(seen):
        expected = probabilities.unflatten(0, (-1, layer.heads))[-2:].unflatten(2, (8, 12))
        captured = tr.cross_attention[name].values[step].float()
        assert torch.allclose(captured, expected, atol=1e-3)


@pytest.mark.parametrize("family", ["sd1", "turbo", "embedded"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_clean_latents_are_computed_where_the_scheduler_returns_none(tiny, family, prediction):
    """DPM-Solver++ returns no x0; at the same noise level DDIM's must equal ours."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    pipe = tiny(family)
    found = {}
    for sampler in (DDIMScheduler, DPMSolverMultistepScheduler):
        pipe.scheduler = sampler.from_config(
            pipe.scheduler.config, clip_sample=False, prediction_type=prediction,
            timestep_spacing="trailing",
        )  # fmt: skip
        with trace(pipe) as tr:
            call(pipe, guidance_scale=3.0)
        found[sampler] = tr
    ddim, dpm = found.values()
    assert torch.equal(ddim.timesteps[0], dpm.timesteps[0])
    assert torch.allclose(ddim.alphas_cumprod[0], dpm.alphas_cumprod[0], rtol=1e-3)
    scale = ddim.pred_original_sample[0].abs().max()
    assert torch.allclose(
        ddim.pred_original_sample[0] / scale, dpm.pred_original_sample[0] / scale, atol=1e-3
    )


def test_pndm_makes_one_more_call_than_steps(tiny):
    from diffusers import PNDMScheduler

    pipe = tiny("sd1")
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True)
    plain = call(pipe)
    with trace(pipe, EVERYTHING) as tr:
        assert torch.equal(call(pipe), plain)
    assert tr.steps == 4 and tr.latents.shape[0] == 5
    assert torch.isfinite(tr.pred_original_sample).all()


def test_image_to_image(tiny):
    from diffusers import StableDiffusionImg2ImgPipeline

    parts = tiny("embedded").components
    pipe = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    start = Image.new("RGB", (WIDTH, HEIGHT), "red")

    def draw():
        generator = torch.Generator("cpu").manual_seed(7)
        return pipe(
            "a dog", start, strength=0.5, num_inference_steps=4, guidance_scale=3.0,
            generator=generator, output_type="latent",
        ).images  # fmt: skip

    plain = draw()
    with trace(pipe, EVERYTHING) as tr:
        assert torch.equal(draw(), plain)
    assert tr.steps == 2
    assert tr.latents.shape == (3, 1, 4, 8, 12)
    assert tr.provenance["parameters"]["seed"] == 7


def test_several_images_of_one_prompt(pipe):
    with trace(pipe, EVERYTHING) as tr:
        call(pipe, num_images_per_prompt=2)
    assert tr.latents.shape[1] == 4
    assert tr.words == [["a", "doggy"]] * 2 + [["a", "cat", "is"]] * 2


def test_bf16(tiny, device):
    pipe = tiny("sd1", device, "bfloat16")
    plain = call(pipe)
    with trace(pipe, EVERYTHING) as tr:
        assert torch.equal(call(pipe), plain)
    assert tr.latents.dtype == torch.float32
    for maps in tr.cross_attention.values():
        assert (maps.values.float().sum(-1) - 1).abs().max() < 0.01


def test_autocast(tiny, device):
    """Shares stay those of float32, though queries and keys come in bfloat16."""
    pipe = tiny("sd1", device)
    with torch.autocast(device, torch.bfloat16):
        plain = call(pipe)
        with trace(pipe, EVERYTHING) as tr:
            assert torch.equal(call(pipe), plain)
    for maps in tr.cross_attention.values():
        assert (maps.values.float().sum(-1) - 1).abs().max() < 2e-3


def test_fp16(tiny, device):
    if device == "cpu":
        pytest.skip("float16 is for accelerators")
    pipe = tiny("sd1", device, "float16")
    plain = call(pipe)
    with trace(pipe, EVERYTHING) as tr:
        assert torch.equal(call(pipe), plain)
    assert tr.latents.device.type == "cpu"


def test_model_offload(tiny):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pipe = tiny("sd1")
    pipe.enable_model_cpu_offload()
    plain = call(pipe)
    with trace(pipe, EVERYTHING) as tr:
        assert torch.equal(call(pipe), plain)
    assert {span.operation for span in tr.spans} >= {"unet", "scheduler", "cross_attention"}


def test_spans_cover_every_operation(pipe):
    with trace(pipe, EVERYTHING) as tr:
        call(pipe, output_type="np")
    count = {}
    for span in tr.spans:
        count[span.operation] = count.get(span.operation, 0) + 1
        assert span.seconds > 0 and span.peak_bytes > 0
    layers = len(tr.layers)
    assert count == {
        "text_encoder": 1, "unet": 3, "scheduler": 3, "cross_attention": 3 * layers, "decode": 1,
    }  # fmt: skip
    unet = [span for span in tr.spans if span.operation == "unet"]
    inside = [s for s in tr.spans if s.operation == "cross_attention" and s.step == 0]
    assert sum(s.seconds for s in inside) < unet[0].seconds


def test_provenance_names_weights_scheduler_prompt_and_seed(pipe):
    with trace(pipe) as tr:
        pipe("a dog", num_inference_steps=2, generator=torch.Generator("cpu").manual_seed(11))
    model, parameters = tr.provenance["model"], tr.provenance["parameters"]
    assert len(model["weights"]) == 3 and model["scheduler"]["class"] == "DDIMScheduler"
    assert parameters["prompt"] == "a dog" and parameters["seed"] == 11
    assert parameters["steps"] == 2 and len(parameters["initial_noise_sha256"]) == 64
    json.dumps(tr.provenance)


# The prompt.


def test_words_and_pieces(pipe):
    with trace(pipe) as tr:
        call(pipe)
    tokens = tr.tokens[0]
    assert [t.text for t in tokens[:6]] == [
        "<|startoftext|>",
        "a",
        "dog",
        "g",
        "y",
        "<|endoftext|>",
    ]
    assert [t.word for t in tokens[:6]] == [None, 0, 1, 1, 1, None]
    assert [t.special for t in tokens[:7]] == ["start", None, None, None, None, "end", "padding"]
    assert tr.positions("Doggy") == [2, 3, 4]
    assert tr.positions("a doggy") == [1, 2, 3, 4]
    assert tr.positions("cat", image=1) == [2]


def test_repeated_words_are_all_found(pipe):
    with trace(pipe) as tr:
        call(pipe, ["dog cat dog"])
    assert tr.positions("dog") == [1, 3]


def test_unknown_words_list_the_prompt_s(pipe):
    with trace(pipe) as tr:
        call(pipe)
    with pytest.raises(EssayError, match="no 'cat'. Its words: a, doggy"):
        tr.positions("cat")


@pytest.mark.parametrize("family", ["sd1", "embedded"])
def test_a_prompt_too_long_marks_what_was_cut(tiny, family):
    pipe = tiny(family)
    length = pipe.tokenizer.model_max_length
    with trace(pipe, EVERYTHING) as tr:
        call(pipe, ["dog " * (length - 2) + "cat"])
    assert len(tr.tokens[0]) == length + 1
    cut = [t for t in tr.tokens[0] if t.truncated]
    assert [t.text for t in cut] == ["cat"]
    assert tr.tokens[0][length - 1].special == "end"
    with pytest.raises(EssayError, match="cut the prompt before it"):
        tr.positions("cat")
    assert len(tr.positions("dog")) == length - 2


def test_an_empty_prompt(pipe):
    with trace(pipe, EVERYTHING) as tr:
        call(pipe, [""])
    assert tr.words == [[]]
    assert [t.special for t in tr.tokens[0][:3]] == ["start", "end", "padding"]
    assert "(empty)" in repr(tr)


def test_embeddings_instead_of_text(pipe):
    embeds = torch.zeros(1, 32, 32)
    with trace(pipe, Capture(cross_attention=True, tokens="prompt")) as tr:
        pipe(prompt_embeds=embeds, negative_prompt_embeds=embeds + 1, num_inference_steps=1)
    assert torch.equal(tr.prompt_embeds, embeds)
    assert torch.equal(tr.negative_prompt_embeds, embeds + 1)
    assert tr.tokens == []
    with pytest.raises(EssayError, match="given embeddings"):
        tr.positions("dog")


# Access, and the disk.


def test_attention_by_step_layer_and_word(pipe):
    with trace(pipe, EVERYTHING) as tr:
        call(pipe)
    whole = tr.attention()
    assert set(whole) == set(tr.layers)
    name = tr.layers[0]
    assert whole[name].shape == (3, 2, 8, 12, 32)
    one = tr.attention("doggy", step=1, layer=name, image=0)[name]
    assert torch.allclose(one, whole[name][1, ..., 2:5].sum(-1))
    assert list(tr.attention(layer="up_blocks.1")) == [n for n in tr.layers if "up_blocks.1" in n]
    with pytest.raises(EssayError, match="No captured layer"):
        tr.attention(layer="mid")
    for step in (3, -4, slice(3, None)):
        with pytest.raises(EssayError, match="no step .*: choose from 0 to 2"):
            tr.attention(step=step)
    for read in (tr.attention, lambda image: tr.positions("a", image)):
        with pytest.raises(EssayError, match="no image 2: choose from 0 to 1"):
            read(image=2)


def test_without_captured_maps_it_is_said_how_to_capture_them(pipe):
    with trace(pipe) as tr:
        call(pipe)
    for read in (tr.attention, lambda: tr.attention("doggy"), lambda: tr.columns([1])):
        with pytest.raises(EssayError, match=r"record with Capture\(cross_attention=True\)"):
            read()


@pytest.mark.parametrize("family", ["embedded", "turbo"])
def test_saved_traces_come_back_the_same(tiny, family, tmp_path):
    pipe = tiny(family)
    with trace(pipe, EVERYTHING) as tr:
        call(pipe, output_type="np")
    path = tr.save(tmp_path / "run.1")
    assert path == tmp_path / "run.1.safetensors" and (tmp_path / "run.1.json").is_file()
    back = Trace.load(path)
    assert repr(back) == repr(tr)
    assert back.tokens == tr.tokens and back.spans == tr.spans
    assert back.provenance == tr.provenance
    assert np.array_equal(back.image, tr.image)
    for name in ("latents", "noise_pred", "alphas_cumprod", "prompt_embeds"):
        assert torch.equal(getattr(back, name), getattr(tr, name))
    assert (back.noise_pred_uncond is None) == (tr.noise_pred_uncond is None)
    for name in tr.layers:
        assert torch.equal(back.cross_attention[name].values, tr.cross_attention[name].values)


def test_an_unwritable_or_missing_trace(pipe, tmp_path):
    with trace(pipe) as tr:
        call(pipe)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EssayError, match="Cannot write"):
        tr.save(tmp_path / "file" / "trace")
    with pytest.raises(EssayError, match="Cannot read"):
        Trace.load(tmp_path / "nothing")


def test_repr_before_and_after(pipe):
    with trace(pipe, EVERYTHING) as tr:
        assert "nothing recorded yet" in repr(tr)
        call(pipe)
    assert "3 steps, 2 images" in repr(tr)
    assert "8×12, 2 heads, 32 tokens: down_blocks.0" in repr(tr)


# Nothing comes back empty, or too large, in silence.

MODES = [
    Capture(cross_attention=True),
    Capture(cross_attention=True, heads="all"),
    Capture(cross_attention=True, tokens="prompt"),
    Capture(cross_attention="up_blocks"),
    Capture(cross_attention=True, branch="uncond"),
    Capture(cross_attention=True, coarsen=True, max_bytes=100_000),
]


@pytest.mark.parametrize("capture", MODES, ids=range(len(MODES)))
def test_zero_maps_raise_in_every_mode(pipe, capture):
    class Bypass:
        """A processor that never calls to_q."""

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
            return hidden_states

    pipe.unet.set_attn_processor(Bypass())
    with pytest.raises(EssayError, match="in 0 of 3 steps"), trace(pipe, capture):
        call(pipe)
    assert hooks(pipe) == (0, 0)


def test_maps_missing_in_some_steps_raise(pipe):
    layer = next(iter(cross_attention_layers(pipe.unet).values()))
    usual = layer.processor

    def skip_second(_, step, __, given):
        layer.processor = usual if step else lambda attn, hidden, **_: hidden
        return given

    with pytest.raises(EssayError, match="in 2 of 3 steps"), trace(pipe, EVERYTHING):
        call(pipe, callback_on_step_end=skip_second)


def test_uncond_branch(pipe, tiny):
    with trace(pipe, Capture(cross_attention=True, branch="uncond")) as tr:
        call(pipe)
    with trace(pipe, Capture(cross_attention=True)) as text:
        call(pipe)
    name = tr.layers[0]
    uncond, text = tr.cross_attention[name], text.cross_attention[name]
    assert uncond.branch == "uncond" and uncond.values.shape == text.values.shape
    assert not torch.equal(uncond.values, text.values)
    turbo = tiny("turbo")
    with (
        pytest.raises(EssayError, match="without guidance"),
        trace(turbo, Capture(cross_attention=True, branch="uncond")),
    ):
        call(turbo)


def test_nothing_called_raises(pipe):
    with pytest.raises(EssayError, match="call the pipeline inside"), trace(pipe):
        pass


def test_a_second_generation_is_refused(pipe):
    with pytest.raises(EssayError, match="one generation"), trace(pipe):
        call(pipe)
        call(pipe)


def test_fused_projections_are_refused(pipe):
    pipe.fuse_qkv_projections(vae=False)
    with pytest.raises(EssayError, match="unfuse_qkv_projections"), trace(pipe, EVERYTHING):
        call(pipe)
    pipe.unfuse_qkv_projections(vae=False)
    with trace(pipe, EVERYTHING) as tr:
        call(pipe)
    assert tr.layers


def test_a_flow_transformer_is_refused():
    class FluxPipeline:
        transformer = object()

    with pytest.raises(EssayError, match="flow transformer"), trace(FluxPipeline(), EVERYTHING):
        pass


def test_unknown_layers_and_choices(pipe):
    with pytest.raises(EssayError, match="No layer matches"):
        trace(pipe, Capture(cross_attention="middle")).__enter__()
    with pytest.raises(EssayError, match="heads must be one of"):
        Capture(heads="some")


def test_too_large_is_refused_before_anything_runs(pipe):
    seen = []
    with (
        pytest.raises(EssayError, match="more than max_bytes"),
        trace(pipe, Capture(cross_attention=True, max_bytes=1000)),
    ):
        call(pipe, callback_on_step_end=lambda *a: seen.append(a))
    assert not seen


def stored_bytes(tr):
    tensors = [m.values for m in tr.cross_attention.values()]
    for name in ("latents", "noise_pred", "noise_pred_text", "noise_pred_uncond"):
        tensors.append(getattr(tr, name))
    tensors.append(tr.pred_original_sample)
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("family", ["embedded", "sd1", "bk-sdm"])
def test_the_estimate_is_the_size(tiny, family):
    """What a trace takes exactly is allowed, a byte less is refused."""
    pipe = tiny(family)
    with trace(pipe, EVERYTHING) as tr:
        call(pipe)
    one_latent = tr.latents[0].numel() * 4  # the estimate counts S latents, the record S + 1
    size = stored_bytes(tr) - one_latent
    with trace(pipe, Capture(cross_attention=True, heads="all", max_bytes=size)):
        call(pipe)
    with (
        pytest.raises(EssayError, match="max_bytes"),
        trace(pipe, Capture(cross_attention=True, heads="all", max_bytes=size - 1)),
    ):
        call(pipe)


def test_coarsening_is_declared_and_keeps_shares(pipe):
    """Under an ever lower limit a trace is reduced in three declared ways, then refused."""
    with trace(pipe, EVERYTHING) as tr:
        call(pipe)
    limit, reductions = stored_bytes(tr), []
    while True:
        capture = Capture(cross_attention=True, heads="all", coarsen=True, max_bytes=int(limit))
        try:
            with trace(pipe, capture) as tr:
                call(pipe)
        except EssayError:
            break
        assert stored_bytes(tr) - tr.latents[0].numel() * 4 <= limit
        for maps in tr.cross_attention.values():
            assert (maps.values.float().sum(-1) - 1).abs().max() < 2e-3
        assert all(line in repr(tr) for line in tr.reductions)
        reductions.append(len(tr.reductions))
        limit *= 0.9
    assert sorted(set(reductions)) == [0, 1, 2, 3]
    assert reductions == sorted(reductions)


def test_prompt_tokens_keep_one_column_for_padding(pipe):
    with trace(pipe, Capture(cross_attention=True)) as whole:
        call(pipe)
    with trace(pipe, Capture(cross_attention=True, tokens="prompt")) as tr:
        call(pipe)
    name = tr.layers[0]
    full, kept = whole.cross_attention[name].values.float(), tr.cross_attention[name].values.float()
    assert kept.shape[-1] == 7  # start, at most five pieces with the end, padding
    assert torch.allclose(kept[..., :6], full[..., :6], atol=1e-3)
    assert torch.allclose(kept[..., 6], full[..., 6:].sum(-1), atol=2e-3)


@pytest.mark.slow
def test_full_size_sd15_loads_and_traces_one_step():
    """Stable Diffusion 1.5's own U-Net at 256 px: all 16 layers, in bounded memory."""
    with TemporaryDirectory() as folder:
        pipe = models.load(checkpoints.build_full_size(Path(folder)), device="cpu")
        with trace(pipe, EVERYTHING) as tr:
            pipe("a dog", num_inference_steps=1, height=256, width=256, guidance_scale=3.0)
    assert len(tr.layers) == 16
    assert tr.cross_attention[tr.layers[0]].values.shape == (1, 1, 8, 32, 32, 77)
    assert {maps.resolution for maps in tr.cross_attention.values()} == {
        (32, 32), (16, 16), (8, 8), (4, 4),
    }  # fmt: skip
    assert torch.isfinite(tr.latents).all()
