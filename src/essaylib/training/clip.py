"""Train CLIP: a text tower and an image tower that agree on which caption belongs to which drawing.

The text tower is what the U-Net reads. A second CLIP, trained the same way on captions that never
name a vendor, is the other half of the experiment in the chapter on CLIP. Two small ones, each
trained on one half of the concepts, score the other half in the chapter on filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from essaylib import corpus
from essaylib.errors import EssayError
from essaylib.training.loop import Schedule, Stage, made, train
from essaylib.training.tokenizer import LENGTH, NAMED, captions

SCHEDULE = Schedule(steps=3000, lr=1e-3, batch=128, warmup=150, ema=0.998)
SIDE = 64
"""Width and height of the drawings as the image tower sees them, in pixels."""


@dataclass(frozen=True)
class Towers:
    """Layers and width of the two towers, and the width of the space that they share."""

    text: tuple[int, int] = (4, 256)
    image: tuple[int, int] = (5, 192)
    shared: int = 256


SMALL = Towers(text=(2, 128), image=(4, 192), shared=128)
"""Towers of 2.8 million weights: the two CLIPs of the halves ship with the repository."""


def build(tokenizer: CLIPTokenizer, towers: Towers = Towers()) -> CLIPModel:
    """Return an untrained CLIP; its image tower sees 8 × 8 patches, each head is 64 wide."""
    # The default ids are those of OpenAI's vocabulary: with them the start token would be pooled.
    marks = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = CLIPTextConfig(
        max_position_embeddings=LENGTH, **tower(*towers.text, towers.shared), **marks
    )
    image = CLIPVisionConfig(image_size=SIDE, patch_size=8, **tower(*towers.image, towers.shared))
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=image, projection_dim=towers.shared)
    )


def tower(layers: int, width: int, shared: int) -> dict[str, int]:
    """Return the settings that both towers have."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "projection_dim": shared,
    }


def rows_of(half: str) -> np.ndarray:
    """Return the rows of the training split that show the first or the second half's concepts."""
    named = dict(zip(("first", "second"), corpus.halves(), strict=True))
    if half not in named:
        raise EssayError(f"There is no half {half!r}: choose first or second.")
    return np.flatnonzero(corpus.load().where(split="train").table.concept.isin(named[half]))


def run(
    schedule: Schedule = SCHEDULE,
    folder: Path = Path("checkpoints"),
    tokenizer: Path = Path("checkpoints/tokenizer"),
    vendors: bool = True,
    rows: np.ndarray | None = None,
    start: Path | None = None,
    name: str = "clip",
    towers: Towers = Towers(),
    image_only: bool = False,
) -> CLIPModel:
    """Train on `train` drawings and their captions; return the model.

    `vendors=False` trains on captions that name no vendor. `rows` restricts training to some rows
    of the training split, and validation to their concepts (`rows_of` gives those of a half).
    `start` is a folder of committed weights to go on from. `image_only` leaves the text tower as
    it is, so that a U-Net which reads it stays valid.
    """
    words = CLIPTokenizer.from_pretrained(made(tokenizer))
    clip = CLIPModel.from_pretrained(start, dtype=torch.float32) if start else build(words, towers)
    clip.to(schedule.device)
    if image_only:
        clip.text_model.requires_grad_(False)
        clip.text_projection.requires_grad_(False)
    data = corpus.load()
    learnt = data.where(split="train")
    learnt = learnt if rows is None else learnt.take(rows)
    images = torch.from_numpy(learnt.rgb(size=SIDE))
    every = list(dict.fromkeys(learnt.table.concept))
    unseen = data.where(split="validation", concept=every)
    rng = np.random.default_rng(schedule.seed)
    torch_rng = torch.Generator().manual_seed(schedule.seed)

    def loss(step: int, progress: float):
        chosen = rng.choice(len(learnt), schedule.batch, replace=len(learnt) < schedule.batch)
        text = captions(learnt.table.iloc[chosen], rng, NAMED if vendors else 0)
        pixels = augment(images[chosen], torch_rng).to(schedule.device)
        share = 0.5 if progress < 0.75 else 1.0
        a = F.normalize(look(clip, pixels, share, torch_rng), dim=-1)
        b = F.normalize(embed(clip, words, text), dim=-1)
        logits = clip.logit_scale.exp().clamp(max=100) * a @ b.T
        # Two drawings of one concept under one caption are both right: share the target.
        same = torch.from_numpy(np.equal.outer(np.array(text), np.array(text))).to(logits)
        target = 0.95 * same / same.sum(1, keepdim=True) + 0.05 / len(text)
        value = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return value, {}

    @torch.no_grad()
    def validate() -> dict:
        pixels = to_pixels(torch.from_numpy(unseen.rgb(size=SIDE))).to(schedule.device)
        a = F.normalize(clip.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        b = torch.cat([embed(clip, words, every[i : i + 128]) for i in range(0, len(every), 128)])
        order = (a @ F.normalize(b, dim=-1).T).argsort(dim=1, descending=True).cpu().numpy()
        truth = np.array([every.index(c) for c in unseen.table.concept])[:, None]
        return {f"top{k}": (order[:, :k] == truth).any(1).mean() for k in (1, 5)}

    train(Stage(name, clip, loss, folder, validate, start=start), schedule)
    return clip.eval()


def embed(clip: CLIPModel, words: CLIPTokenizer, text: list[str]) -> torch.Tensor:
    """Return projected text embeddings (n, 256), padded only to the longest caption.

    The text tower is causal and pools at the end token, so padding after it changes nothing.
    """
    tokens = words(text, padding=True, truncation=True, return_tensors="pt").to(clip.device)
    return clip.get_text_features(**tokens).pooler_output


def look(clip: CLIPModel, pixels: torch.Tensor, share: float, rng) -> torch.Tensor:
    """Return projected image embeddings (n, 256) from a random share of the patches.

    Half of the patches cost half of the time and teach nearly as much (Li et al. 2023, FLIP).
    """
    tower = clip.vision_model
    hidden = tower.embeddings(pixels)
    n, tokens, width = hidden.shape
    keep = round(share * (tokens - 1))
    order = torch.rand(n, tokens - 1, generator=rng).argsort(dim=1)[:, :keep] + 1
    order = torch.cat([torch.zeros(n, 1, dtype=torch.long), order], dim=1).to(hidden.device)
    hidden = hidden.gather(1, order[..., None].expand(-1, -1, width))
    hidden = tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state
    return clip.visual_projection(tower.post_layernorm(hidden[:, 0]))


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 (n, h, w, 3) as float (n, 3, h, w) in [-1, 1], as the image tower takes it."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def augment(
    images: torch.Tensor, rng: torch.Generator, strength: torch.Tensor | None = None
) -> torch.Tensor:
    """Shift, scale, turn and recolour a little, and add noise: (n, h, w, 3) to (n, 3, h, w).

    `strength` (n,) scales all of these but the noise and the mirror, 1 by default.
    """
    pixels = to_pixels(images)
    n = len(pixels)
    strength = torch.ones(n) if strength is None else strength

    def jitter(low: float, high: float, around: float = 0.0, *shape: int) -> torch.Tensor:
        drawn = low + (high - low) * torch.rand(n, *shape, generator=rng)
        return around + strength.view(n, *(1 for _ in shape)) * (drawn - around)

    angle, scale = jitter(-0.2, 0.2), jitter(0.85, 1.25, around=1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    mirror = torch.where(torch.rand(n, generator=rng) < 0.15, -1.0, 1.0)
    matrix = torch.stack(
        [cos * mirror, -sin, jitter(-0.15, 0.15), sin * mirror, cos, jitter(-0.15, 0.15)], dim=1
    ).view(n, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    # Paper is 1: move the origin there so that what enters from outside is paper.
    pixels = 1 + F.grid_sample(pixels - 1, grid, align_corners=False)
    gain, shift = jitter(0.8, 1.1, 1.0, 3, 1, 1), jitter(-0.15, 0.15, 0.0, 3, 1, 1)
    pixels = 1 + gain * (pixels - 1) + shift * (pixels < 0.95)
    return pixels + 0.05 * torch.randn(pixels.shape, generator=rng)
