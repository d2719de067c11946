"""Random-weight checkpoints in the true diffusers layout, so that loading and tracing are tested
on every architecture without a download.

`build(family, folder)` writes one; the shapes are those of the released models, with narrow
channels. `build_full_size(folder)` has Stable Diffusion 1.5's own shape.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from essaylib.provenance import sha256

FAMILIES = ("embedded", "sd1", "turbo", "sdxl", "bk-sdm")
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(family: str, folder: Path) -> Path:
    """Write the random checkpoint of `family` into `folder` and return it."""
    torch.manual_seed(0)
    _PIPELINES[family]().save_pretrained(folder)
    if family == "embedded":
        _clip().save_pretrained(folder / "clip")
        write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, as `sha256sum` prints it, for every weight and configuration."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json"))
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def tokenizer(length: int) -> CLIPTokenizer:
    """CLIP's tokenizer over letters and a few merges: "dog" is one token, "doggy" three."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = [("d", "o"), ("do", "g</w>"), ("do", "g"), ("a", "t</w>"), ("c", "at</w>")]
    pieces = [*letters, *(f"{c}</w>" for c in letters), *(a + b for a, b in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def _text_config(words: CLIPTokenizer, width: int, **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=words.model_max_length,
        projection_dim=width,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **more,
    )


def _vae(scaling_factor: float = 0.18215) -> AutoencoderKL:
    """Factor 8 and four latent channels, as in every Stable Diffusion."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=scaling_factor,
    )


def _unet(width: int, **more: Any) -> UNet2DConditionModel:
    shape: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": width,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**(shape | more))


def plain_pipeline(
    unet: UNet2DConditionModel, scheduler: Any, length: int = 77
) -> StableDiffusionPipeline:
    words = tokenizer(length)
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(words, unet.config.cross_attention_dim)).eval(),
        tokenizer=words,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _embedded() -> StableDiffusionPipeline:
    """The shape of models/emoji-ldm with a quarter of its channels: v-prediction, 32 tokens."""
    unet = _unet(
        32,
        sample_size=16,
        block_out_channels=(16, 32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2D",
        attention_head_dim=(2, 4, 8),
    )
    return plain_pipeline(unet, _ddim(prediction_type="v_prediction"), length=32)


def _ddim(**more: Any) -> DDIMScheduler:
    return DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1, **more)


def _sd1() -> StableDiffusionPipeline:
    """SD 1.x: the mid block attends, the number of heads is fixed, PNDM as released."""
    pndm = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    return plain_pipeline(_unet(32), pndm)


def _turbo() -> StableDiffusionPipeline:
    """SD 2.x and Turbo: linear projections, heads by level, Euler with trailing timesteps."""
    unet = _unet(32, use_linear_projection=True, attention_head_dim=(2, 4))
    return plain_pipeline(
        unet, EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing", steps_offset=1)
    )


def _bk_sdm() -> StableDiffusionPipeline:
    """BK-SDM-Tiny: no mid block."""
    pndm = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    return plain_pipeline(_unet(32, mid_block_type=None), pndm)


def _sdxl() -> StableDiffusionXLPipeline:
    """SDXL: two text encoders, several transformer blocks a layer, size and crop as conditions."""
    words = tokenizer(77)
    unet = _unet(
        64,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(0.13025),
        text_encoder=CLIPTextModel(_text_config(words, 32)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(words, 32)).eval(),
        tokenizer=words,
        tokenizer_2=tokenizer(77),
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1),
        add_watermarker=False,
    )


def _clip() -> CLIPModel:
    words = tokenizer(32)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        projection_dim=32,
    )
    from transformers import CLIPConfig

    return CLIPModel(
        CLIPConfig(
            text_config=_text_config(words, 32).to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=32,
        )
    )


_PIPELINES = {
    "embedded": _embedded,
    "sd1": _sd1,
    "turbo": _turbo,
    "sdxl": _sdxl,
    "bk-sdm": _bk_sdm,
}


def build_full_size(folder: Path) -> Path:
    """Write Stable Diffusion 1.5's own U-Net (860 M parameters, fp16) with a small text encoder."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
        )
    unet = unet.half().to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.uniform_(-0.02, 0.02) if parameter.ndim > 1 else parameter.fill_(1.0)
    plain_pipeline(unet, _ddim()).save_pretrained(folder)
    return folder


def model_index(folder: Path, **changes: Any) -> None:
    """Change entries of a checkpoint's model_index.json."""
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2))
