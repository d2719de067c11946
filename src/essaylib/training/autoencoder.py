"""Train the autoencoder: 128 × 128 × 3 pixels to 16 × 16 × 4 latents and back.

The loss is what a viewer would object to: wrong values (L1 and squared), wrong edges (L1 of image
gradients), wrong flat colours (L1 of 8 × 8 means, because large areas drift in hue otherwise), and
a very small Kullback-Leibler term, as in Rombach et al. (2022), without an adversary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from essaylib import corpus, scaling
from essaylib.training.loop import Schedule, Stage, train

SCHEDULE = Schedule(steps=12_000, lr=1e-3, batch=8, warmup=50, ema=0.998)
NOISE = 0.25
"""Most noise, of the latents' spread, that the decoder alone learns to see through.

What a U-Net draws is never quite the latent of a drawing, and a decoder that has met no others
paints the difference.
"""


def build() -> AutoencoderKL:
    """Return an untrained autoencoder of 3.3 million parameters, factor 8."""
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=1.0,
    )
    # Begin almost without noise in the latents: the means would have to outgrow it first.
    vae.quant_conv.bias.data[4:] = -6.0
    return vae


def run(
    schedule: Schedule = SCHEDULE,
    folder: Path = Path("checkpoints"),
    start: Path | None = None,
    decoder_only: bool = False,
) -> AutoencoderKL:
    """Train on `train` drawings, normalise the latents, return the model.

    `start` is a folder of committed weights to go on from. `decoder_only` leaves the latents as
    they are, so that a U-Net which was trained on them stays valid, and adds `NOISE` to them.
    """
    vae = AutoencoderKL.from_pretrained(start) if start else build()
    vae.to(schedule.device, memory_format=torch.channels_last)
    if decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    data = corpus.load()
    images = torch.from_numpy(data.where(split="train").rgb())
    unseen = to_signed(torch.from_numpy(data.where(split="validation").rgb()[:64]))
    rng = np.random.default_rng(schedule.seed)

    def loss(step: int, progress: float):
        whole = progress > 0.85 or rng.random() < 0.1
        pixels = crops(images, rng, schedule.batch, 128 if whole else 64).to(schedule.device)
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.sample()
        if decoder_only:
            spread = NOISE * torch.rand(len(latents), 1, 1, 1).to(latents)
            latents = latents + spread * torch.randn_like(latents)
        decoded = vae.decode(latents).sample
        parts = {
            "l1": F.l1_loss(decoded, pixels),
            "mse": F.mse_loss(decoded, pixels),
            "edges": edges(decoded, pixels),
            "flat": F.l1_loss(F.avg_pool2d(decoded, 8), F.avg_pool2d(pixels, 8)),
            "kl": posterior.kl().mean() / posterior.mean[0].numel(),
        }
        weights = {"l1": 1.0, "mse": 1.0, "edges": 0.5, "flat": 1.0, "kl": 1e-4}
        total = sum(weights[k] * v for k, v in parts.items())
        return total, {k: v.item() for k, v in parts.items()}

    def validate() -> dict:
        with torch.no_grad():
            return {"psnr": psnr(round_trip(vae, unseen.to(schedule.device)), unseen)}

    train(Stage("autoencoder", vae, loss, folder, validate, start=start), schedule)
    if not decoder_only:
        scaling.normalise(vae, data.where(split="train").rgb())
    return vae


def crops(images: torch.Tensor, rng, n: int, side: int) -> torch.Tensor:
    """Return n random crops in [-1, 1], mirrored half the time, channels shuffled a third.

    Shuffled channels teach that any flat colour can occur. Crops that are all white are drawn
    again once: there is little to learn from paper. Whole drawings count four crops.
    """
    n = max(1, n * 64 * 64 // (side * side))
    out = []
    for _ in range(n):
        for _ in range(2):
            image = images[rng.integers(len(images))]
            y, x = rng.integers(0, images.shape[1] - side + 1, 2)
            crop = image[y : y + side, x : x + side]
            if (crop < 250).float().mean() > 0.1:
                break
        if rng.random() < 0.5:
            crop = crop.flip(1)
        if rng.random() < 1 / 3:
            crop = crop[..., torch.from_numpy(rng.permutation(3))]
        out.append(crop)
    return to_signed(torch.stack(out))


def to_signed(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 (n, h, w, 3) as float (n, 3, h, w) in [-1, 1], channels last in memory."""
    signed = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return signed.contiguous(memory_format=torch.channels_last)


def edges(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the L1 distance of horizontal and vertical differences."""
    return F.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))


@torch.no_grad()
def round_trip(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Encode to the posterior mean and decode, in batches of 16; values clipped to [-1, 1]."""
    out = [vae.decode(vae.encode(p).latent_dist.mode()).sample for p in pixels.split(16)]
    return torch.cat(out).clamp(-1, 1).cpu()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean peak signal-to-noise ratio over images in [-1, 1], in decibels."""
    error = ((a - b) / 2).pow(2).mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return (-10 * error.log10()).mean().item()
