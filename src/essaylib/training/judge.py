"""Train the judge, and set when it must say that it is unsure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from essaylib import corpus, features
from essaylib.corpus import VENDORS
from essaylib.judge import SIDE, Judge, Network, traits
from essaylib.training.clip import augment, to_pixels
from essaylib.training.loop import Schedule, Stage, made, train

SCHEDULE = Schedule(steps=7000, lr=3e-3, batch=128, warmup=200, decay=0.8, ema=0.998)
VENDOR_SCHEDULE = Schedule(steps=1500, lr=1e-3, batch=512, warmup=50, decay=0.8)
NONSENSE = 0.05
"""Share of meaningless pictures that the judge may name."""
MILD = 0.2
"""How far pictures are jittered from which a vendor is learned, which is known by its palette."""
VIEWS = 4
"""Jittered views of each drawing, and of each round trip, from which a vendor is learned."""


def run(
    schedule: Schedule = SCHEDULE,
    folder: Path = Path("checkpoints"),
    vae: Path = Path("checkpoints/vae"),
    start: Path | None = None,
) -> Judge:
    """Train on `train` drawings and their autoencoder round trips; return a calibrated judge.

    `start` is a folder of committed weights to go on from. The vendor is always learned anew: it
    takes half a minute.
    """
    data = corpus.load()
    concepts = list(dict.fromkeys(data.table.concept))
    learnt, unseen = data.where(split="train"), data.where(split="validation")
    decoder = AutoencoderKL.from_pretrained(made(vae)).to(schedule.device)
    pictures = torch.stack([small(learnt.rgb()), small(decoded(decoder, learnt))])
    network = Judge.load(start).network if start else Network(len(concepts), len(VENDORS))
    network.to(schedule.device, memory_format=torch.channels_last)
    truth = labels(learnt, concepts)
    judge = Judge(network, blank(concepts))
    shapes(judge, pictures, truth[0], unseen, schedule, folder, start)
    manners(judge, pictures, truth[1], unseen, schedule, folder)
    network.cpu().eval()
    calibrate(judge, unseen, decoded(decoder, unseen))
    return judge


def shapes(judge: Judge, pictures, truth, unseen, schedule: Schedule, folder: Path, start) -> None:
    """Teach concepts, whatever the colours, the place and the house style.

    pictures: uint8 (2, n, 64, 64, 3), drawings and their round trips; truth: (n,).
    """
    network, n = judge.network, len(truth)
    network.vendor.requires_grad_(False)
    rng = np.random.default_rng(schedule.seed)
    torch_rng = torch.Generator().manual_seed(schedule.seed)
    mixing = network.blocks[0].register_forward_hook(Restyle(schedule.seed))

    def loss(step: int, progress: float):
        chosen = rng.integers(n, size=schedule.batch)
        pixels = augment(pictures[rng.integers(2, size=schedule.batch), chosen], torch_rng)
        if rng.random() < 0.3:
            pixels = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
        pixels = cover(pixels, rng).to(schedule.device, memory_format=torch.channels_last)
        said = network.concept(network.drop(network.features(pixels)))
        return F.cross_entropy(said, truth[chosen].to(said.device), label_smoothing=0.1), {}

    def validate() -> dict:
        network.eval()
        right = judge(unseen.rgb()).best_concept == labels(unseen, judge.concepts)[0].numpy()
        network.train()
        return {"top1": right.mean()}

    network.train()
    train(Stage("judge", network, loss, folder, validate, every=250, start=start), schedule)
    mixing.remove()
    settle(network, pictures, torch_rng)


class Restyle:
    """A forward hook that lends half of a batch's feature maps the means and spreads of others.

    A house style shows in them; what survives the exchange is the concept (Zhou et al. 2021,
    "Domain generalization with MixStyle").
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, module: torch.nn.Module, _, maps: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return maps
        n = len(maps)
        mean = maps.mean(dim=(2, 3), keepdim=True).detach()
        spread = (maps.var(dim=(2, 3), keepdim=True) + 1e-6).sqrt().detach()
        other = torch.from_numpy(self.rng.permutation(n))
        own = self.rng.beta(0.1, 0.1, n)
        own[self.rng.random(n) < 0.5] = 1
        own = torch.from_numpy(own).to(maps)[:, None, None, None]
        whitened = (maps - mean) / spread
        return whitened * spread.lerp(spread[other], 1 - own) + mean.lerp(mean[other], 1 - own)


def manners(judge: Judge, pictures, truth, unseen, schedule: Schedule, folder: Path) -> None:
    """Teach vendors, from the palette and the margins of mildly jittered pictures.

    pictures: uint8 (2, n, 64, 64, 3), drawings and their round trips; truth: (n,).
    """
    schedule = replace(VENDOR_SCHEDULE, seed=schedule.seed, device=schedule.device)
    manner, n = judge.network.vendor.requires_grad_(True), len(truth)
    rng = np.random.default_rng(schedule.seed)
    views = [to_pixels(part) for part in pictures]
    torch_rng = torch.Generator().manual_seed(schedule.seed)
    views += [
        augment(part, torch_rng, torch.full((n,), MILD)) for part in pictures for _ in range(VIEWS)
    ]
    seen = torch.stack([torch.cat([*map(traits, view.split(128))]) for view in views])

    def loss(step: int, progress: float):
        chosen = rng.integers(n, size=schedule.batch)
        drawn = seen[rng.integers(len(seen), size=schedule.batch), chosen]
        said = manner(drawn.to(schedule.device))
        return F.cross_entropy(said, truth[chosen].to(said.device), label_smoothing=0.05), {}

    def validate() -> dict:
        manner.eval()
        right = judge(unseen.rgb()).best_vendor == labels(unseen, judge.concepts)[1].numpy()
        manner.train()
        return {"vendor_top1": right.mean()}

    train(Stage("judge-vendor", manner.train(), loss, folder, validate, every=500), schedule)


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
        network.features(augment(part, rng, torch.full((len(part),), MILD)).to(device))
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
