"""Train the judge, and set when it must say that it is unsure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from essaylib import corpus, features
from essaylib.corpus import VENDORS
from essaylib.judge import SIDE, Judge, Network, Reader, prepare, traits
from essaylib.training.clip import augment, to_pixels
from essaylib.training.loop import Schedule, Stage, made, train

SCHEDULE = Schedule(steps=5000, lr=3e-3, batch=128, warmup=200, decay=0.8, ema=0.998)
VENDOR_SCHEDULE = Schedule(steps=1500, lr=1e-3, batch=512, warmup=50, decay=0.8)
NONSENSE = 0.05
"""Share of meaningless pictures that the judge may name."""
ASTRAY = 0.4
"""Most noise on the latents of the third view of a drawing.

A sampler's latents are never quite those of a drawing, and the judge must not stumble over what the
decoder then paints.
"""
MILD = 0.2
"""How far pictures are jittered from which a vendor is learned, which is known by its palette."""
VIEWS = 4
"""Jittered views of each picture from which a vendor is learned."""


@dataclass(frozen=True)
class Practice:
    """What a reader practises on beside drawings as they are.

    `kin` is the share of the answer that belongs to concepts of the same subgroup; `recoloured`
    says whether some pictures lose their colours; `empty` is the share of pictures that show
    nothing, of which nothing is to be expected.
    """

    kin: float = 0.0
    recoloured: bool = False
    empty: float = 0.0


PRACTICE = (Practice(), Practice(kin=0.05, recoloured=True, empty=0.1))
"""Of each of the judge's readers. They practise differently so that they err differently."""


def run(
    schedule: Schedule = SCHEDULE,
    folder: Path = Path("checkpoints"),
    vae: Path = Path("checkpoints/vae"),
    start: Path | None = None,
) -> Judge:
    """Train on `train` drawings and what the autoencoder makes of them; return a calibrated judge.

    `start` is a folder of committed weights to go on from. The vendor is always learned anew: it
    takes half a minute.
    """
    data = corpus.load()
    concepts = list(dict.fromkeys(data.table.concept))
    learnt, unseen = data.where(split="train"), data.where(split="validation")
    decoder = AutoencoderKL.from_pretrained(made(vae)).to(schedule.device)
    views = learnt.rgb(), decoded(decoder, learnt), decoded(decoder, learnt, ASTRAY)
    pictures = torch.stack([*map(small, views)])
    network = Judge.load(start).network if start else Network(len(concepts), len(VENDORS))
    network.to(schedule.device, memory_format=torch.channels_last)
    truth = labels(learnt, concepts)
    judge = Judge(network, blank(concepts))
    for number, practice in enumerate(PRACTICE):
        own = replace(schedule, seed=schedule.seed + number)
        shapes(judge, number, practice, pictures, truth[0], unseen, own, folder, start)
    manners(judge, pictures, truth[1], unseen, schedule, folder)
    network.cpu().eval()
    calibrate(judge, unseen, decoded(decoder, unseen), scrambled(decoder, unseen))
    return judge


def shapes(
    judge: Judge,
    number: int,
    practice: Practice,
    pictures,
    truth,
    unseen,
    schedule: Schedule,
    folder: Path,
    start,
) -> None:
    """Teach one reader concepts, whatever the colours, the place and the house style.

    pictures: uint8 (views, n, 64, 64, 3) of the same n drawings; truth: (n,).
    """
    reader, n = judge.network.readers[number], len(truth)
    wanted = answers(judge.concepts, practice.kin)
    rng = np.random.default_rng(schedule.seed)
    torch_rng = torch.Generator().manual_seed(schedule.seed)
    mixing = reader.blocks[0].register_forward_hook(Restyle(schedule.seed))

    def shown(chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        view = rng.integers(len(pictures), size=len(chosen))
        pixels, target = augment(pictures[view, chosen], torch_rng), wanted[truth[chosen]]
        if rng.random() < 0.3:
            pixels = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
        pixels = cover(recolour(pixels, rng) if practice.recoloured else pixels, rng)
        if empty := int(practice.empty * len(chosen)):
            pixels[:empty], target[:empty] = nothing(pixels, empty, rng), 1 / len(judge.concepts)
        return pixels, target

    def loss(step: int, progress: float):
        pixels, target = shown(rng.integers(n, size=schedule.batch))
        said = reader(pixels.to(schedule.device, memory_format=torch.channels_last))
        return F.cross_entropy(said, target.to(said.device)), {}

    others = prepare(torch.from_numpy(unseen.rgb())).to(schedule.device)
    right = labels(unseen, judge.concepts)[0]

    @torch.no_grad()
    def validate() -> dict:
        return {"top1": (reader(others).argmax(1).cpu() == right).float().mean()}

    name = "judge" if not number else f"judge-{number + 1}"
    train(Stage(name, reader, loss, folder, validate, every=250, start=start), schedule)
    mixing.remove()
    settle(reader, lambda batch: shown(batch)[0], n)


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

    pictures: uint8 (views, n, 64, 64, 3) of the same n drawings; truth: (n,).
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
        right = judge(unseen.rgb()).best_vendor == labels(unseen, judge.concepts)[1].numpy()
        return {"vendor_top1": right.mean()}

    train(Stage("judge-vendor", manner, loss, folder, validate, every=500), schedule)


def small(images: np.ndarray) -> torch.Tensor:
    """Average uint8 (n, 128, 128, 3) down to (n, 64, 64, 3), still uint8."""
    n, block = len(images), images.shape[1] // SIDE
    means = images.reshape(n, SIDE, block, SIDE, block, 3).astype(np.float32).mean(axis=(2, 4))
    return torch.from_numpy(means.round().astype(np.uint8))


def decoded(vae: AutoencoderKL, data: corpus.Corpus, noise: float = 0.0) -> np.ndarray:
    """Return the autoencoder's round trip of drawings, uint8 (n, 128, 128, 3).

    Each one's latents get noise of up to `noise` times their standard deviation, which is 1.
    """
    latents = torch.from_numpy(features.corpus_latents(vae, data))
    rng = torch.Generator().manual_seed(0)
    strength = noise * torch.rand(len(latents), 1, 1, 1, generator=rng)
    return painted(vae, latents + strength * torch.randn(latents.shape, generator=rng))


def scrambled(vae: AutoencoderKL, data: corpus.Corpus) -> np.ndarray:
    """Return pictures that show nothing, one for each drawing: uint8 (n, 128, 128, 3).

    Waves of its latents keep their strengths and get phases from noise, the same in all channels:
    its colours and its coarseness are there, in blotches, as a poor generator paints them.
    """
    latents = torch.from_numpy(features.corpus_latents(vae, data))
    rng = torch.Generator().manual_seed(0)
    phases = torch.fft.fft2(torch.randn(len(latents), 1, *latents.shape[2:], generator=rng))
    return painted(vae, torch.fft.ifft2(torch.fft.fft2(latents) * phases.sgn()).real)


def painted(vae: AutoencoderKL, latents: torch.Tensor) -> np.ndarray:
    """Decode scaled latents to uint8 (n, 128, 128, 3)."""
    parts = (latents / vae.config.scaling_factor).split(32)
    with torch.no_grad():
        pixels = torch.cat([vae.decode(part.to(vae.device)).sample.cpu() for part in parts])
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def labels(data: corpus.Corpus, concepts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return concept and vendor indices, each (n,)."""
    index = {name: i for i, name in enumerate(concepts)}
    return (
        torch.tensor([index[c] for c in data.table.concept]),
        torch.tensor([VENDORS.index(v) for v in data.table.vendor]),
    )


def answers(concepts: list[str], share: float) -> torch.Tensor:
    """Return what to answer for each concept, (k, k): nine tenths itself, `share` its subgroup."""
    table = corpus.load().table.drop_duplicates("concept").set_index("concept")
    group = table.subgroup.loc[concepts].to_numpy()
    kin = torch.from_numpy(group[:, None] == group[None, :]).float()
    kin /= kin.sum(1, keepdim=True)
    return 0.9 * torch.eye(len(concepts)) + share * kin + (0.1 - share) / len(concepts)


def recolour(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Take the colour of a sixth of the pictures, and exchange the channels of another sixth."""
    lot = rng.random(len(pixels))
    grey, other = np.flatnonzero(lot < 1 / 6), np.flatnonzero(lot > 5 / 6)
    pixels[grey] = pixels[grey].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pixels[other] = pixels[other][:, rng.permutation(3)]
    return pixels


def nothing(pixels: torch.Tensor, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Return pictures that show nothing: quarters of four, or one in 64 tiles that were shuffled.

    pixels: (n, 3, h, h). A network that has met such pictures is less sure of others of their kind
    (Hendrycks et al. 2019, "Deep Anomaly Detection with Outlier Exposure").
    """
    half = count // 2
    found = pixels[rng.permutation(len(pixels))[:count]].clone()
    middle = pixels.shape[-1] // 2
    for top in (slice(None, middle), slice(middle, None)):
        for left in (slice(None, middle), slice(middle, None)):
            found[:half, :, top, left] = pixels[rng.permutation(len(pixels))[:half], :, top, left]
    found[half:] = tiled(found[half:], 8, rng)
    return found


def tiled(pixels: torch.Tensor, tiles: int, rng: np.random.Generator) -> torch.Tensor:
    """Shuffle the `tiles` × `tiles` parts of pictures (n, c, h, h), each its own way."""
    n, side = len(pixels), pixels.shape[-1] // tiles
    parts = F.unfold(pixels, side, stride=side)
    order = torch.from_numpy(np.stack([rng.permutation(tiles**2) for _ in range(n)]))
    parts = parts.gather(2, order[:, None].expand_as(parts))
    return F.fold(parts, pixels.shape[-2:], side, stride=side)


def cover(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Whiten one rectangle of the whole batch, so that no single detail decides."""
    height, width = rng.integers(8, 28, 2)
    top, left = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
    pixels[..., top : top + height, left : left + width] = 1
    return pixels


@torch.no_grad()
def settle(reader: Reader, shown: Callable, n: int, rounds: int = 2) -> None:
    """Estimate the batch statistics anew for the averaged weights, on what training shows."""
    norms = [m for m in reader.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    reader.train()
    device = next(reader.parameters()).device
    for part in torch.randperm(n).repeat(rounds).split(256):
        reader.features(shown(part.numpy()).to(device))
    reader.eval()


def blank(concepts: list[str]) -> dict:
    """Return the settings of a judge before calibration: always sure."""
    one, zero = {"concept": 1.0, "vendor": 1.0}, {"concept": 0.0, "vendor": 0.0}
    return {"concepts": concepts, "vendors": VENDORS, "temperature": one, "threshold": zero}


def calibrate(judge: Judge, unseen: corpus.Corpus, round_trips: np.ndarray, nonsense) -> None:
    """Set temperatures and thresholds on validation drawings.

    Temperatures minimise the log loss of drawings and their round trips. The concept threshold is
    such that no more than `NONSENSE` of pictures that show nothing are given a name; a vendor must
    be likelier than all the others together.
    """
    pictures = np.concatenate([unseen.rgb(), round_trips])
    truth = labels(unseen, judge.concepts)
    grid = np.geomspace(0.3, 3, 60)
    concept, vendor, _ = judge.logits(pictures)
    for name, logits, right in zip(("concept", "vendor"), (concept, vendor), truth, strict=True):
        losses = [F.cross_entropy(logits / t, right.repeat(2)).item() for t in grid]
        judge.temperature[name] = float(grid[int(np.argmin(losses))].round(3))
    named = judge(nonsense).concept_probs.max(1)
    judge.threshold["concept"] = float(np.quantile(named, 1 - NONSENSE).round(3))
    judge.threshold["vendor"] = 0.5
