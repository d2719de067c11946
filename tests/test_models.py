"""Loading: names, folders, devices, and every way in which a model can be unfit."""

import json
import shutil
import socket

import checkpoints
import pytest
import torch

from essaylib import hub, models, weights
from essaylib.errors import EssayError


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the embedded model's tiny double that a test may damage."""
    return shutil.copytree(checkpoint("embedded"), tmp_path / "model")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and nothing in its cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_every_family_loads_and_draws(tiny, device, family):
    pipe = tiny(family, device)
    image = pipe("a dog", num_inference_steps=1, height=64, width=64, output_type="np").images
    assert image.shape == (1, 64, 64, 3)
    assert pipe.unet.device.type == device


def test_pndm_is_replaced_by_ddim_and_euler_is_kept(tiny):
    ddim = tiny("sd1").scheduler
    assert type(ddim).__name__ == "DDIMScheduler"
    assert ddim.config.steps_offset == 1 and not ddim.config.clip_sample
    turbo = tiny("turbo").scheduler
    assert type(turbo).__name__ == "EulerDiscreteScheduler"
    assert turbo.config.timestep_spacing == "trailing"


def test_the_embedded_name_loads_the_repository_folder(sandbox, checkpoint):
    shutil.copytree(checkpoint("embedded"), sandbox / "models" / "emoji-ldm")
    pipe = models.load("embedded", device="cpu")
    described = models.describe(pipe)
    assert described["name"] == "embedded"
    assert described["dtype"] == "float32" and described["device"] == "cpu"
    assert described["scheduler"]["class"] == "DDIMScheduler"
    assert described["scheduler"]["prediction_type"] == "v_prediction"
    listed = weights.sums(sandbox / "models" / "emoji-ldm")
    assert described["weights"] == {name: listed[name] for name in described["weights"]}
    assert "unet/diffusion_pytorch_model.safetensors" in described["weights"]
    assert json.loads(json.dumps(described)) == described


def test_embedded_missing_says_how_to_restore_it(sandbox):
    with pytest.raises(EssayError, match="git checkout -- models/emoji-ldm"):
        models.load("embedded")


def test_fp16_weights_load_in_float32_on_the_cpu(tiny, tmp_path):
    tiny("embedded", dtype="float16").save_pretrained(tmp_path)
    pipe = models.load(tmp_path, device="cpu")
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}


def test_fp16_variant_is_found(tiny, tmp_path):
    tiny("sd1").save_pretrained(tmp_path, variant="fp16")
    assert weights.variant(tmp_path) == "fp16"
    assert models.load(tmp_path, device="cpu").unet.dtype == torch.float32


def test_unknown_model_lists_the_names():
    with pytest.raises(EssayError, match="embedded, sd15, sd-turbo, bk-sdm-tiny"):
        models.resolve("stable-difusion")


def test_folder_without_model_index_is_refused(tmp_path):
    with pytest.raises(EssayError, match="no model_index.json"):
        models.load(tmp_path)


def test_hub_model_without_network_names_the_command(offline, sandbox, checkpoint):
    shutil.copytree(checkpoint("embedded"), sandbox / "models" / "emoji-ldm")
    with pytest.raises(EssayError) as caught:
        models.load("sd15")
    message = str(caught.value)
    assert "`essay models pull sd15`" in message
    assert "Here: embedded." in message


def test_pull_without_network_names_the_local_model(offline):
    with pytest.raises(EssayError, match="the model 'embedded' needs none"):
        models.pull("sd-turbo")


def test_auto_without_gpu_is_the_embedded_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert models.resolve("auto").name == "embedded"


@pytest.mark.parametrize(("reachable", "name"), [(True, "sd15"), (False, "embedded")])
def test_auto_with_a_gpu_depends_on_the_hub(monkeypatch, offline, reachable, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hub, "reachable", lambda: reachable)
    assert models.resolve("auto").name == name


def test_hub_is_reachable_where_it_answers(monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        assert hub.reachable()
    assert not hub.reachable()


def test_changed_weights_are_named(copy):
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(EssayError, match=r"unet.diffusion_pytorch_model.safetensors is damaged"):
        models.load(copy)


@pytest.mark.parametrize("keep", [0, 5, 1000, -4])
def test_truncated_weights_are_named_even_without_sums(copy, keep):
    (copy / "SHA256SUMS").unlink()
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EssayError, match=r"vae.diffusion_pytorch_model.safetensors.* cut short"):
        models.load(copy)


def test_missing_weights_are_named(copy):
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(EssayError, match="unet has no weights"):
        models.load(copy)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt"])
def test_pickles_are_refused(copy, suffix):
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(suffix))
    with pytest.raises(EssayError, match="is a pickle"):
        models.load(copy)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt"])
def test_a_pickle_file_is_refused_by_name(tmp_path, suffix):
    with pytest.raises(EssayError, match="is a pickle"):
        models.load(tmp_path / f"model{suffix}")


def test_a_single_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(EssayError, match="reads diffusers folders"):
        models.load(path)


def test_cuda_without_cuda(monkeypatch, checkpoint):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EssayError, match="--device cpu"):
        models.load(checkpoint("sd1"), device="cuda")


def test_unknown_device_and_dtype(checkpoint):
    with pytest.raises(EssayError, match="choose auto, cuda, mps or cpu"):
        models.pick_device("gpu")
    with pytest.raises(EssayError, match="choose float32, float16 or bfloat16"):
        models.load(checkpoint("sd1"), device="cpu", dtype="int8")


def test_too_little_memory_gives_the_estimate_and_a_smaller_model(monkeypatch, checkpoint):
    monkeypatch.setattr(models, "_free_memory", lambda device: 1_000_000)
    with pytest.raises(EssayError, match=r"needs about 0\.2 GB on cpu .* smaller model: embedded"):
        models.load(checkpoint("sd1"), device="cpu")


@pytest.mark.parametrize(
    ("gpu", "host", "expected"),
    [(6_000, 8_000, False), (2_000, 8_000, True), (1_000, 8_000, None), (2_000, 1_000, None)],
)
def test_parts_take_turns_on_a_small_gpu(monkeypatch, gpu, host, expected):
    """A model of 1.8 GB is estimated at 2.6 GB, 1.7 GB of it on the GPU at once."""
    free = {"cuda": gpu * 10**6, "cpu": host * 10**6}
    monkeypatch.setattr(models, "_free_memory", free.get)
    if expected is None:
        with pytest.raises(EssayError, match="sd15 needs about"):
            models._offload(models.SPECS["sd15"], 1_800_000_000, "cuda")
    else:
        assert models._offload(models.SPECS["sd15"], 1_800_000_000, "cuda") is expected


def test_dtype_follows_device_and_size():
    assert models._dtype(None, 900_000_000, "cpu") == torch.float32
    assert models._dtype(None, 900_000_000, "cuda") == torch.float16
    assert models._dtype(None, 20_000_000, "cuda") == torch.float32
    assert models._dtype("bf16", 20_000_000, "cuda") == torch.bfloat16


def test_clip_loads_and_its_damage_is_named(copy):
    model, tokenizer = models.load_clip(copy / "clip")
    ids = torch.tensor([tokenizer("doggy").input_ids])
    features = model.get_text_features(ids)
    assert getattr(features, "pooler_output", features).shape == (1, 32)
    path = copy / "clip" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(EssayError, match=r"clip.model.safetensors is cut short"):
        models.load_clip(copy / "clip")
    with pytest.raises(EssayError, match="No CLIP at"):
        models.load_clip(copy / "nothing")


def test_a_flow_transformer_is_recognised(copy):
    checkpoints.model_index(copy, unet=[None, None], transformer=["diffusers", "X"])
    index = json.loads((copy / "model_index.json").read_text())
    del index["unet"]
    (copy / "model_index.json").write_text(json.dumps(index))
    assert models.resolve(copy).family == models.FLOW


def test_the_table_says_what_is_here(offline, sandbox):
    rows = {row["name"]: row for row in models.table()}
    assert list(rows) == list(models.SPECS)
    assert not rows["embedded"]["local"] and not rows["sdxl"]["local"]
    assert all(row["licence"] and row["gigabytes"] > 0 for row in rows.values())


def test_a_pipeline_built_in_memory_is_described_without_a_name(tiny):
    import diffusers

    pipe = tiny("sd1")
    built = diffusers.StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    described = models.describe(built)
    assert described["name"] is None and described["weights"] == {}
