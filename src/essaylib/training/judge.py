"""Train the judge, and set when it must say that it is unsure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from essaylib import corpus, features
from essaylib.corpus import VENDORS
from essaylib.judge import SIDE, Judge, Network
from essaylib.training.clip import augment
from essaylib.training.loop import Schedule, Stage, made, train

SCHEDULE = Schedule(steps=7000, lr=3e-3, batch=128, warmup=200, decay=0.8, ema=0.998)
NONSENSE = 0.05
"""Share of meaningless pictures that the judge may name."""
MILD = 0.2
"""How far half of the pictures are jittered: a vendor is known by its palette and its margins."""


def run(
    schedule: Schedule = SCHEDULE,
    folder: Path = Path("checkpoints"),
    vae: Path = Path("checkpoints/vae"),
) -> Judge:
    """Train on `train` drawings and their autoencoder round trips; return a calibrated judge.

    Half of each batch is jittered strongly, so that a concept is known whatever its colours and
    place; from the other half, which keeps them, the vendor is learned.
    """
    data = corpus.load()
    concepts = list(dict.fromkeys(data.table.concept))
    learnt, unseen = data.where(split="train"), data.where(split="validation")
    decoder = AutoencoderKL.from_pretrained(made(vae)).to(schedule.device)
    pictures = torch.stack([small(learnt.rgb()), small(decoded(decoder, learnt))])
    truth = labels(learnt, concepts)
    network = Network(len(concepts), len(VENDORS)).to(schedule.device)
    rng = np.random.default_rng(schedule.seed)
    torch_rng = torch.Generator().manual_seed(schedule.seed)
    kept = torch.arange(schedule.batch) < (schedule.batch + 1) // 2
    strength = torch.where(kept, MILD, 1.0)

    def loss(step: int, progress: float):
        chosen = rng.integers(len(learnt), size=schedule.batch)
        drawn = pictures[rng.integers(2, size=schedule.batch), chosen]
        pixels = augment(drawn, torch_rng, strength)
        if rng.random() < 0.3:
            pixels = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
        concept, vendor = network(cover(pixels, rng).to(schedule.device))
        pairs = ((concept, truth[0][chosen]), (vendor[kept], truth[1][chosen[kept.numpy()]]))
        parts = [F.cross_entropy(a, b.to(a.device), label_smoothing=0.1) for a, b in pairs]
        return parts[0] + 0.5 * parts[1], {"concept": parts[0], "vendor": parts[1]}

    def validate() -> dict:
        judge = Judge(network, blank(concepts))
        found = judge(unseen.rgb())
        network.train()
        c, v = (x.numpy() for x in labels(unseen, concepts))
        return {
            "top1": (found.best_concept == c).mean(),
            "vendor_top1": (found.best_vendor == v).mean(),
        }

    train(Stage("judge", network, loss, folder, validate, every=250), schedule)
    settle(network, pictures, torch_rng)
    judge = Judge(network.cpu(), blank(concepts))
    calibrate(judge, unseen, decoded(decoder, unseen))
    return judge


def small(images: np.ndarray) -> torch.Tensor:
    """Average uint8 (n, 128, 128, 3) down to (n, 64, 64, 3), still uint8."""
    n, block = len(images), images.shape[1] // SIDE
    means = images.reshape(n, SIDE, block, SIDE, block, 3).astype(np.float32).mean(axis=(2, 4))
    return torch.from_numpy(means.round().astype(np.uint8))


@torch.no_grad()
def decoded(vae: AutoencoderKL, data: corpus.Corpus) -> np.ndarray:
    """Return the autoencoder's round trip of drawings, uint8 (n, 128, 128, 3)."""
    latents = torch.from_numpy(features.corpus_latents(vae, data)) / vae.config.scaling_factor
    parts = [vae.decode(part.to(vae.device)).sample.cpu() for part in latents.split(32)]
    pixels = (torch.cat(parts).clamp(-1, 1) + 1) * 127.5
    return pixels.round().byte().permute(0, 2, 3, 1).numpy()


def labels(data: corpus.Corpus, concepts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return concept and vendor indices, each (n,)."""
    index = {name: i for i, name in enumerate(concepts)}
    return (
        torch.tensor([index[c] for c in data.table.concept]),
        torch.tensor([VENDORS.index(v) for v in data.table.vendor]),
    )


def cover(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Whiten one rectangle of the whole batch, so that no single detail decides."""
    height, width = rng.integers(8, 28, 2)
    top, left = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
    pixels[..., top : top + height, left : left + width] = 1
    return pixels


@torch.no_grad()
def settle(network: Network, pictures: torch.Tensor, rng: torch.Generator) -> None:
    """Estimate the batch statistics anew for the averaged weights."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    device = next(network.parameters()).device
    for part in pictures.flatten(0, 1)[::3].split(256):
        network(augment(part, rng, torch.full((len(part),), MILD)).to(device))
    network.eval()


def blank(concepts: list[str]) -> dict:
    """Return the settings of a judge before calibration: always sure."""
    one, zero = {"concept": 1.0, "vendor": 1.0}, {"concept": 0.0, "vendor": 0.0}
    return {"concepts": concepts, "vendors": VENDORS, "temperature": one, "threshold": zero}


def calibrate(judge: Judge, unseen: corpus.Corpus, round_trips: np.ndarray) -> None:
    """Set temperatures and thresholds on validation drawings.

    Temperatures minimise the log loss of drawings and their round trips. The concept threshold is
    such that no more than `NONSENSE` of pictures that show nothing (drawings whose 16 tiles were
    shuffled) are given a name; a vendor must be likelier than all the others together.
    """
    pictures = np.concatenate([unseen.rgb(), round_trips])
    truth = labels(unseen, judge.concepts)
    grid = np.geomspace(0.3, 3, 60)
    concept, vendor, _ = judge.logits(pictures)
    for name, logits, right in zip(("concept", "vendor"), (concept, vendor), truth, strict=True):
        losses = [F.cross_entropy(logits / t, right.repeat(2)).item() for t in grid]
        judge.temperature[name] = float(grid[int(np.argmin(losses))].round(3))
    nonsense = judge(shuffled(pictures, np.random.default_rng(0))).concept_probs.max(1)
    judge.threshold["concept"] = float(np.quantile(nonsense, 1 - NONSENSE).round(3))
    judge.threshold["vendor"] = 0.5


def shuffled(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return pictures whose 4 × 4 tiles were shuffled, each its own way."""
    n, side = len(images), images.shape[1] // 4
    tiles = images.reshape(n, 4, side, 4, side, 3).swapaxes(2, 3).reshape(n, 16, side, side, 3)
    tiles = np.stack([t[rng.permutation(16)] for t in tiles])
    return tiles.reshape(n, 4, 4, side, side, 3).swapaxes(2, 3).reshape(images.shape)
