import copy
import json
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from essaylib import provenance as source
from essaylib import repro
from essaylib.errors import EssayError


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """A pipeline of the book's parts, small and untrained: 32-pixel images, 8-token prompts."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|start|>", "<|end|>"]
    vocabulary = json.dumps({word: i for i, word in enumerate(words)})
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        bos_token="<|start|>",
        eos_token="<|end|>",
        unk_token="<|end|>",
        pad_token="<|end|>",
        model_max_length=8,
    )
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    found = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    found.set_progress_bar_config(disable=True)
    return found


def test_a_seed_draws_the_same_noise_in_any_company(pipe):
    together = repro.latents(pipe, [3, 4, 5])
    assert together.shape == (3, 4, 16, 16)
    assert (together.dtype, together.device.type) == (torch.float32, "cpu")
    assert torch.equal(repro.latents(pipe, 4)[0], together[1])
    assert not torch.equal(together[0], together[1])


def test_noise_takes_the_shape_that_is_asked_for(pipe):
    assert repro.latents(pipe, [0], height=16, width=48).shape == (1, 4, 8, 24)


def test_generating_twice_gives_the_same_bytes(pipe):
    first = repro.generate(pipe, "a dog", [0, 1], steps=2, output="np")
    assert (first.shape, first.dtype) == ((2, 32, 32, 3), np.uint8)
    assert np.array_equal(first, repro.generate(pipe, "a dog", [0, 1], steps=2, output="np"))


def test_batches_do_not_mix_prompts_or_seeds(pipe):
    prompts = ["a dog", "a cat", "a cow"]
    whole = repro.generate(pipe, prompts, [0, 1, 2], steps=2, output="latent", batch_size=2)
    alone = [
        repro.generate(pipe, prompt, seed, steps=2, output="latent")
        for seed, prompt in enumerate(prompts)
    ]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-4)


def test_decoding_latents_equals_generating_images(pipe):
    drawn = repro.generate(pipe, "a dog", [0, 1, 2], steps=2, output="latent")
    images = repro.generate(pipe, "a dog", [0, 1, 2], steps=2, output="np")
    decoded = repro.decode(pipe, drawn, batch_size=2)
    assert np.abs(decoded.astype(int) - images).max() <= 1
    pil = repro.generate(pipe, "a dog", 0, steps=2)
    assert pil[0].size == (32, 32)


def test_a_negative_prompt_changes_the_image(pipe):
    plain = repro.generate(pipe, "a dog", 0, steps=2, output="latent")
    away = repro.generate(pipe, "a dog", 0, steps=2, output="latent", negative_prompt="cat")
    assert not torch.equal(plain, away)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"guidance_scale": math.nan}, "finite number"),
        ({"guidance_scale": math.inf}, "finite number"),
        ({"guidance_scale": "high"}, "finite number"),
        ({"guidance_scale": -1}, "at least 0"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 1001}, "knows 1000 steps"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"width": 17}, "try 16 or 18"),
        ({"height": 0}, "multiples of 2"),
        ({"height": math.nan}, "multiples of 2"),
        ({"prompts": []}, "No prompt"),
        ({"prompts": [3]}, "must be text"),
        ({"prompts": None}, "must be text"),
        ({"seeds": []}, "No seed"),
        ({"seeds": [-1]}, "whole number from 0"),
        ({"seeds": [0.5]}, "whole number from 0"),
        ({"seeds": 1.5}, "whole number from 0"),
        ({"seeds": None}, "whole number from 0"),
        ({"seeds": "a"}, "whole number from 0"),
        ({"seeds": [math.nan]}, "whole number from 0"),
        ({"seeds": [True]}, "whole number from 0"),
        ({"prompts": ["a", "b"], "seeds": [1, 2, 3]}, "do not pair"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"batch_size": "a"}, "batch_size must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1"),
        ({"negative_prompt": ["a", "b"]}, "one text for all images"),
        ({"output": "gif"}, "choose 'pil', 'np' or 'latent'"),
    ],
)
def test_bad_settings_name_the_cure(pipe, settings, cure):
    settings = {"prompts": "a dog", "seeds": 0, "steps": 1, **settings}
    with pytest.raises(EssayError, match=cure):
        repro.generate(pipe, **settings)


@pytest.mark.parametrize(
    "given",
    [
        torch.zeros(0, 4, 16, 16),
        torch.zeros(4, 16, 16),
        torch.zeros(1, 3, 16, 16),
        np.zeros((1, 4, 16, 16), np.float32),
        [],
    ],
)
def test_what_are_no_latents_cannot_be_decoded(pipe, given):
    with pytest.raises(EssayError, match=r"are a tensor \(n, 4, h, w\), n at least 1, not"):
        repro.decode(pipe, given)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "a", True])
def test_latents_are_decoded_in_whole_batches(pipe, batch_size):
    with pytest.raises(EssayError, match="batch_size must be a whole number of at least 1"):
        repro.decode(pipe, torch.zeros(1, 4, 16, 16), batch_size)


def test_latents_go_where_an_autoencoder_that_waits_for_its_turn_will_compute(pipe, sent_to_meta):
    vae = copy.deepcopy(pipe.vae)
    with sent_to_meta(vae, vae.post_quant_conv):
        repro.decode(SimpleNamespace(vae=vae), torch.zeros(1, 4, 16, 16))


def test_a_flow_transformer_is_refused():
    class FluxPipeline:
        transformer = object()

    with pytest.raises(EssayError, match="flow transformer"):
        repro.latents(FluxPipeline(), 0)
    with pytest.raises(EssayError, match="flow transformer"):
        repro.generate(FluxPipeline(), "a dog", 0)


def test_a_prompt_that_is_cut_is_warned_about_with_what_was_cut(pipe):
    with pytest.warns(UserWarning, match="this was cut: 'hij'"):
        repro.generate(pipe, "abcdefhij", 0, steps=1)


def test_a_prompt_that_fits_warns_of_nothing(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        repro.generate(pipe, "abcdef", 0, steps=1, output="latent")


def test_deterministic_sets_what_provenance_reports():
    threads = torch.get_num_threads()
    repro.deterministic(threads=1)
    try:
        found = source.machine()
        assert (found["threads"], found["deterministic"]) == (1, True)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def test_provenance_is_plain_json_with_versions_model_and_parameters(pipe):
    found = repro.provenance(pipe, seed=np.int64(3), grid=(1, 2), device=torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["parameters"] == {"seed": 3, "grid": [1, 2], "device": "cpu"}
    assert found["versions"]["torch"] == str(torch.__version__)
    assert found["model"]["scheduler"]["class"] == "DDIMScheduler"


def test_provenance_outside_of_git_and_without_corpus_says_so(sandbox):
    found = repro.provenance(model="nobody")
    assert found["git"] is None
    assert found["corpus"] is None
    assert found["model"] == {"name": "nobody"}


def test_git_tells_a_clean_tree_from_a_changed_one(sandbox):
    import subprocess

    def git(*words):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(sandbox), *identity, *words], check=True)

    def asked_anew():
        source._state.cache_clear()  # as in a new process
        return source.git()

    git("init", "-q")
    assert asked_anew() is None
    git("add", ".")
    git("commit", "-q", "-m", "Begin")
    assert asked_anew()["clean"] is True
    (sandbox / "new.txt").write_text("x", encoding="utf-8")
    assert source.git()["clean"] is True
    found = asked_anew()
    assert (found["clean"], len(found["commit"])) == (False, 40)


def test_a_file_is_hashed_again_once_it_changes(tmp_path):
    path = tmp_path / "corpus.parquet"
    path.write_bytes(b"abc")
    before = source.sha256(path)
    assert before == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abcd")
    assert source.sha256(path) != before
