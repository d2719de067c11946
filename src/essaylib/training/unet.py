"""Train the U-Net: the denoiser of latents, told what to draw by CLIP's text tower.

The network is trained first on 8 × 8 latents of drawings at half size, which are three to four
times cheaper, then on the 16 × 16 latents that it will draw.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from essaylib import corpus, repro
from essaylib.errors import EssayError
from essaylib.training.autoencoder import to_signed
from essaylib.training.cross_attention import Limiter, reopen
from essaylib.training.loop import Schedule, Stage, made, train
from essaylib.training.tokenizer import LENGTH, captions

SCHEDULE = Schedule(steps=30_000, lr=8e-4, batch=64, warmup=200, decay=0.4, ema=0.996)
SMALL = 0.5
"""Share of the run that is spent on half-size drawings."""
EARLY = 0.7
"""Share of the run after which the weights are kept once as an earlier, weaker version."""
EMPTY = 0.1
"""Share of the captions left empty, so that the network also learns to draw unasked."""
DROPOUT = 0.1
"""Share of the features that each residual block loses at a step (Ho et al. 2020).

Without it the network learns its drawings by heart: over 6,342 steps the error under pure noise
fell from 0.33 to 0.19 on drawings that it was shown, and rose from 0.51 to 0.52 on others. A run
with it wants to be long: after 2,942 steps the even error on validation drawings had fallen from
0.294 to 0.280, and fewer of its pictures could be named than before (see the model card).
"""
NAMED = 0.85
"""Share of the captions that name the vendor: what one that does not asks for has four answers."""
NOISY, SPREAD = (2.0, 0.3), 1.3
"""Mean (at the start of the run, at its end) and spread of the timestep's log-odds.

Timesteps are logit-normal (Esser et al. 2024). What is drawn is decided while nearly all is noise,
on so small a latent: at timestep 850 the right caption saves a third of the error that an empty one
leaves, at 300 less than a tenth. Around 0, where this began, one drawing in 25 was shown above 850,
and there the network had learnt its captions least. So a run begins with what to draw, six in ten
above 850, and ends with how, one in seven.
"""
SHOWN = (
    "grinning face",
    "dog face",
    "pizza",
    "red heart",
    "evergreen tree",
    "automobile",
    "key",
    "fire",
)
"""Concepts drawn at intervals, always from the same noises, so that learning itself can be seen."""


def build() -> UNet2DConditionModel:
    """Return an untrained U-Net of 13 million parameters for 16 × 16 × 4 latents.

    Heads are 32 channels wide (diffusers' `attention_head_dim` is their number). The caption also
    enters the time embedding, pooled.
    """
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 256),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=256,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
        dropout=DROPOUT,
    )


def scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule, with the network predicting v."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def run(
    schedule: Schedule = SCHEDULE,
    folder: Path = Path("checkpoints"),
    parts: Path = Path("checkpoints"),
    small: float = SMALL,
    without: str | None = None,
    start: Path | None = None,
    name: str = "unet",
) -> UNet2DConditionModel:
    """Train on `train` drawings; return the model.

    `parts` holds the trained `tokenizer`, `clip` and `vae`. `without` leaves one vendor's
    drawings out. `start` is a folder of committed weights to go on from. The weights at `EARLY`
    of the run stay in the folder `<name>-early`: autoguidance needs a weaker version; what the
    network draws at intervals, in `<name>-samples`. Raises `EssayError` for an unknown vendor and
    for a part that has not been trained.
    """
    if without is not None and without not in corpus.VENDORS:
        raise EssayError(f"There is no vendor {without!r}: choose {', '.join(corpus.VENDORS)}.")
    unet = UNet2DConditionModel.from_pretrained(start, dropout=DROPOUT) if start else build()
    unet.to(schedule.device)
    # Explicit attention: the fused kernel's backward is slow on a CPU for narrow heads.
    unet.set_attn_processor(AttnProcessor())
    noise = scheduler()
    rng = np.random.default_rng(schedule.seed)
    read = Reader(parts, schedule.device)
    data = corpus.load()
    learnt = data.where(split="train", vendor=[v for v in corpus.VENDORS if v != without])
    unseen = data.where(split="validation")
    vae = AutoencoderKL.from_pretrained(made(parts / "vae")).to(schedule.device)
    latents = {side: encode(vae, learnt, 8 * side) for side in ((8, 16) if small else (16,))}
    fixed = encode(vae, unseen, 128)
    reached, taken = 0.0, 0

    def loss(step: int, progress: float):
        nonlocal reached, taken
        reached, taken = progress, step + 1
        side = 8 if progress < small else 16
        chosen = rng.integers(len(learnt), size=schedule.batch)
        text = captions(learnt.table.iloc[chosen], rng, NAMED)
        text = ["" if rng.random() < EMPTY else line for line in text]
        clean = latents[side][chosen]
        t = timesteps(schedule.batch, progress)
        return error(unet, noise, clean, torch.randn_like(clean), t, read(text)), {"side": side}

    @torch.no_grad()
    def validate() -> dict:
        early = folder / f"{name}-early"
        if reached >= EARLY and not early.exists():
            unet.save_pretrained(early)
        sample(unet, read, vae, folder / f"{name}-samples" / f"{taken:06d}.webp")
        draw = torch.Generator().manual_seed(1)
        t = torch.linspace(50, 950, len(fixed)).long()
        eps = torch.randn(fixed.shape, generator=draw)
        return {"validation": error(unet, noise, fixed, eps, t, read(named(unseen)))}

    if start:
        reopen(unet, read(named(learnt)[:64]))
    limit = Limiter(unet)
    facts = {"small": small, "without": without, "dropout": DROPOUT}
    stage = Stage(
        name, unet, loss, folder, validate, every=250, start=start, limit=limit, facts=facts
    )
    train(stage, schedule)
    return unet.eval()


def timesteps(count: int, progress: float) -> torch.Tensor:
    """Draw timesteps (count,), nearer to noise early in the run than late."""
    begin, end = NOISY
    mean = begin + (end - begin) * progress
    return (torch.sigmoid(mean + SPREAD * torch.randn(count)) * 1000).long()


def named(data: corpus.Corpus) -> list[str]:
    """The caption of each drawing that names its vendor."""
    return list(map(corpus.caption, data.table.concept, data.table.vendor))


def error(unet, noise, clean, eps, t, context) -> torch.Tensor:
    """Return the mean squared error of the predicted v."""
    device = unet.device
    noisy = noise.add_noise(clean, eps, t).to(device)
    target = noise.get_velocity(clean, eps, t).to(device)
    return F.mse_loss(unet(noisy, t.to(device), context).sample, target)


@torch.no_grad()
def encode(vae: AutoencoderKL, data: corpus.Corpus, side: int) -> torch.Tensor:
    """Return the scaled latents (n, 4, side / 8, side / 8) of drawings at a size, on the CPU."""
    pixels = to_signed(torch.from_numpy(data.rgb(size=side)))
    coded = [vae.encode(p.to(vae.device)).latent_dist.mode() for p in pixels.split(64)]
    return (torch.cat(coded) * vae.config.scaling_factor).contiguous().cpu()


def sample(unet: UNet2DConditionModel, read: Reader, vae: AutoencoderKL, path: Path) -> None:
    """Draw `SHOWN`, each in one vendor's manner, and keep them side by side as a WebP."""
    pipe = StableDiffusionPipeline(
        vae, read.tower, read.words, unet, scheduler(), None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    prompts = [corpus.caption(c, corpus.VENDORS[i % 4]) for i, c in enumerate(SHOWN)]
    images = repro.generate(pipe, prompts, range(len(prompts)), output="np")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(images, axis=1)).save(path, quality=85, method=6)


class Reader:
    """The text tower, asked once for each caption: captions to (n, 32, 256)."""

    def __init__(self, parts: Path, device: str) -> None:
        self.words = CLIPTokenizer.from_pretrained(made(parts / "tokenizer"))
        clip = CLIPModel.from_pretrained(made(parts / "clip"), dtype=torch.float32)
        self.tower, self.device = clip.text_model.to(device).eval(), device
        self.known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, text: list[str]) -> torch.Tensor:
        new = [line for line in dict.fromkeys(text) if line not in self.known]
        if new:
            tokens = self.words(
                new, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
            )
            # In full precision, as the pipeline will ask; kept in half, for there are many.
            with torch.autocast(torch.device(self.device).type, enabled=False):
                hidden = self.tower(tokens.input_ids.to(self.device)).last_hidden_state
            self.known.update(zip(new, hidden.half().unbind(), strict=True))
        return torch.stack([self.known[line].float() for line in text])
