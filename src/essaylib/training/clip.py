"""Train CLIP: a text tower and an image tower that agree on which caption belongs to which drawing.

The text tower is what the U-Net reads. A second CLIP, trained the same way on captions that never
name a vendor, is the other half of the experiment in the chapter on CLIP.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from essaylib import corpus
from essaylib.training.loop import Schedule, Stage, train
from essaylib.training.tokenizer import LENGTH, captions

SCHEDULE = Schedule(steps=3000, lr=1e-3, batch=128, warmup=150, ema=0.998)
SIDE = 64
"""Width and height of the drawings as the image tower sees them, in pixels."""


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIP: text 4 layers × 256, image 5 layers × 192 on 8 × 8 patches."""
    # The default ids are those of OpenAI's vocabulary: with them the start token would be pooled.
    marks = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = CLIPTextConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=256,
        **marks,
    )
    image = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=3,
        image_size=SIDE,
        patch_size=8,
        projection_dim=256,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=256))


def run(
    schedule: Schedule = SCHEDULE,
    folder: Path = Path("checkpoints"),
    tokenizer: Path = Path("checkpoints/tokenizer"),
    vendors: bool = True,
    rows: np.ndarray | None = None,
    start: Path | None = None,
    name: str = "clip",
) -> CLIPModel:
    """Train on `train` drawings and their captions; return the model.

    `vendors=False` trains on captions that name no vendor. `rows` restricts training to some rows
    of the training split (the similarity filter needs two halves). `start` is a folder of
    committed weights to go on from.
    """
    words = CLIPTokenizer.from_pretrained(tokenizer)
    clip = CLIPModel.from_pretrained(start, dtype=torch.float32) if start else build(words)
    clip.to(schedule.device)
    data = corpus.load()
    learnt = data.where(split="train")
    learnt = learnt if rows is None else learnt.take(rows)
    images = torch.from_numpy(learnt.rgb(size=SIDE))
    unseen = data.where(split="validation")
    rng = np.random.default_rng(schedule.seed)
    torch_rng = torch.Generator().manual_seed(schedule.seed)
    every = list(dict.fromkeys(data.table.concept))

    def loss(step: int, progress: float):
        chosen = rng.choice(len(learnt), schedule.batch, replace=len(learnt) < schedule.batch)
        text = captions(learnt.table.iloc[chosen], rng, vendors)
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
        clip.eval()
        pixels = to_pixels(torch.from_numpy(unseen.rgb(size=SIDE))).to(schedule.device)
        a = F.normalize(clip.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        b = torch.cat([embed(clip, words, every[i : i + 128]) for i in range(0, len(every), 128)])
        order = (a @ F.normalize(b, dim=-1).T).argsort(dim=1, descending=True).cpu().numpy()
        truth = np.array([every.index(c) for c in unseen.table.concept])[:, None]
        clip.train()
        return {f"top{k}": (order[:, :k] == truth).any(1).mean() for k in (1, 5)}

    train(Stage(name, clip, loss, folder, validate), schedule)
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


def augment(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Shift, scale, turn and recolour a little, and add noise: (n, h, w, 3) to (n, 3, h, w)."""
    pixels = to_pixels(images)
    n = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape or (n,), generator=rng)

    angle, scale = uniform(-0.2, 0.2), uniform(0.85, 1.25)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    mirror = torch.where(uniform(0, 1) < 0.15, -1.0, 1.0)
    matrix = torch.stack(
        [cos * mirror, -sin, uniform(-0.15, 0.15), sin * mirror, cos, uniform(-0.15, 0.15)], dim=1
    ).view(n, 2, 3)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    # Paper is 1: move the origin there so that what enters from outside is paper.
    pixels = 1 + F.grid_sample(pixels - 1, grid, align_corners=False)
    gain, shift = uniform(0.8, 1.1, n, 3, 1, 1), uniform(-0.15, 0.15, n, 3, 1, 1)
    pixels = 1 + gain * (pixels - 1) + shift * (pixels < 0.95)
    return pixels + 0.05 * torch.randn(pixels.shape, generator=rng)
