"""Measure the embedded model and write the result into its card.

    python benchmarks/model_quality.py                 # the full protocol
    python benchmarks/model_quality.py --pairs 128     # fewer training pairs
    python benchmarks/model_quality.py --sheets-only   # only draw the sheets

The scores of generated pictures are the judge's, never CLIP's, and what the judge is unsure of
counts as wrong. Seeds are fixed. Exits with 1 when a bar is missed; the last line is the result.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image

from essaylib import corpus, models, paths, plotting, repro
from essaylib.corpus import VENDORS, Corpus, caption
from essaylib.judge import Judge
from essaylib.measures.neighbours import patches, shrunk
from essaylib.statistics.loss import complete
from essaylib.training.autoencoder import psnr, to_signed
from essaylib.training.clip import SIDE, embed, to_pixels
from essaylib.training.corpus import NEAR

FOLDER = paths.models() / "emoji-ldm"
CARD = FOLDER / "README.md"
STEPS, GUIDANCE, SEED = 25, 4.0, 20_000
FLAT = 2.0
"""Spread of an 8 × 8 area's colours, of 255, below which it is flat."""
SHEET = (
    "grinning face, dog face, pizza, red heart, evergreen tree, house, automobile, umbrella, "
    "soccer ball, key, fish, rocket, person in suit levitating, teacup without handle, "
    "fire, alarm clock"
)


@dataclass(frozen=True)
class Row:
    """A measured number: what, how much, the bar it must reach, and which way is better."""

    what: str
    value: float
    bar: float | None = None
    least: bool = True
    form: str = ".1%"
    n: int | None = None

    @property
    def passed(self) -> bool:
        if self.bar is None:
            return True
        return self.value >= self.bar if self.least else self.value <= self.bar

    def line(self) -> str:
        sign = "≥" if self.least else "≤"
        bar = "" if self.bar is None else f"{sign} {format(self.bar, self.form)}"
        state = "" if self.bar is None else ("reached" if self.passed else "not reached")
        n = "" if self.n is None else f"{self.n:,}"
        return f"| {self.what} | {n} | {format(self.value, self.form)} | {bar} | {state} |"


def main() -> int:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    pipe = models.load("embedded", "cpu")
    data = corpus.load()
    start = time.monotonic()
    judge = Judge.load()
    sheets(judge, pipe, data)
    if arguments.sheets_only:
        return 0
    rows = [
        *autoencoder(pipe, data.where(split="held_out")),
        *clip(data),
        *judged(judge, pipe, data.where(split="held_out")),
        *generation(judge, pipe, data, arguments.pairs),
        weights(),
    ]
    minutes = (time.monotonic() - start) / 60
    table = "\n".join(
        ["| measure | n | value | bar | |", "|---|---:|---:|---:|---|", *(r.line() for r in rows)]
    )
    print(table)
    write_card(table)
    missed = [row.what for row in rows if not row.passed]
    print(f"{minutes:.0f} minutes")
    print("all bars reached" if not missed else f"{len(missed)} bars missed: {'; '.join(missed)}")
    return 1 if missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=512, help="training pairs to generate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheets-only", action="store_true")
    return parser.parse_args()


def autoencoder(pipe, held_out: Corpus) -> list[Row]:
    """Round trips of drawings that were never trained on."""
    true = to_signed(torch.from_numpy(held_out.rgb()))
    back = round_trips(pipe, held_out)
    blocks = [F.unfold((x + 1) / 2 * 255, 8, stride=8).unflatten(1, (3, 64)) for x in (true, back)]
    flat = blocks[0].std(dim=2).amax(dim=1) < 1
    paper = (blocks[0].mean(dim=2) > 254).all(dim=1)
    drift = (blocks[0].mean(dim=2) - blocks[1].mean(dim=2)).abs().mean(dim=1)[flat & ~paper]
    n = len(held_out)
    return [
        Row("autoencoder, held-out drawings: PSNR in dB", psnr(back, true), 30, form=".1f", n=n),
        Row(
            "autoencoder: mean colour drift of flat 8 × 8 areas, of 255",
            drift.mean().item(),
            2,
            least=False,
            form=".2f",
            n=int((flat & ~paper).sum()),
        ),
    ]


@torch.inference_mode()
def round_trips(pipe, data: Corpus) -> torch.Tensor:
    pixels = to_signed(torch.from_numpy(data.rgb())).contiguous()
    parts = [
        pipe.vae.decode(pipe.vae.encode(p).latent_dist.mode()).sample for p in pixels.split(16)
    ]
    return torch.cat(parts).clamp(-1, 1)


@torch.inference_mode()
def clip(data: Corpus) -> list[Row]:
    """Names of validation drawings, among all."""
    model, words = models.load_clip()
    unseen = data.where(split="validation")
    every = list(dict.fromkeys(data.table.concept))
    pixels = to_pixels(torch.from_numpy(unseen.rgb(size=SIDE)))
    a = F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    b = torch.cat([embed(model, words, every[i : i + 128]) for i in range(0, len(every), 128)])
    order = (a @ F.normalize(b, dim=-1).T).argsort(dim=1, descending=True).numpy()
    truth = np.array([every.index(c) for c in unseen.table.concept])[:, None]
    return [
        Row(
            f"CLIP, validation drawings among {len(every):,} names: top-{k}",
            (order[:, :k] == truth).any(1).mean(),
            bar,
            n=len(unseen),
        )
        for k, bar in ((1, 0.35), (5, 0.65))
    ]


def judged(judge: Judge, pipe, held_out: Corpus) -> list[Row]:
    """The judge's first guesses on drawings that it never saw, and on their round trips."""
    back = ((round_trips(pipe, held_out) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    concept, vendor = truth(judge, held_out)
    rows = []
    for name, images in (("drawings", held_out.rgb()), ("round trips", back)):
        said = judge(images)
        for what, right, bar in (
            ("concept", said.best_concept == concept, 0.6),
            ("vendor", said.best_vendor == vendor, 0.9),
        ):
            what = f"judge, held-out {name}: {what} top-1"
            rows.append(Row(what, right.mean(), bar, n=len(held_out)))
        what = f"held-out {name}: inked 8 × 8 areas that are flat"
        rows.append(Row(what, flat(images), n=len(held_out)))
    return rows


def generation(judge: Judge, pipe, data: Corpus, pairs: int) -> list[Row]:
    """Pictures for pairs that were trained on, and for pairs that were not."""
    learnt = data.where(split="train")
    chosen = np.random.default_rng(SEED).permutation(len(learnt))[:pairs]
    small = flatten(learnt.rgb(size=16))
    rows = []
    for name, some, bars in (
        ("training pairs", learnt.take(chosen), (0.6, 0.85)),
        ("held-out pairs", data.where(split="held_out"), (0.4, 0.75)),
    ):
        images = draw(pipe, captions(some))
        said, (concept, vendor) = judge(images), truth(judge, some)
        ideal = judge(some.rgb())  # what the judge makes of the drawings that were asked for
        copies = nearest(flatten(shrunk(images, 16)), small) < NEAR
        n = len(some)
        rows += [
            Row(f"generation, {name}: concept", (said.concept == concept).mean(), bars[0], n=n),
            Row(f"generation, {name}: vendor", (said.vendor == vendor).mean(), bars[1], n=n),
            Row(f"drawings of the {name}: concept", (ideal.concept == concept).mean(), n=n),
            Row(f"drawings of the {name}: vendor", (ideal.vendor == vendor).mean(), n=n),
            Row(
                f"generation, {name}: concept, first guess",
                (said.best_concept == concept).mean(),
                n=n,
            ),
            Row(f"generation, {name}: inked 8 × 8 areas that are flat", flat(images), n=n),
            Row(f"generation, {name}: near-copies of a training drawing", copies.mean(), n=n),
        ]
    return rows


def asked(data: Corpus) -> tuple[list[str], list[str]]:
    return data.table.concept.tolist(), data.table.vendor.tolist()


def captions(data: Corpus) -> list[str]:
    return [caption(c, v) for c, v in zip(*asked(data), strict=True)]


def truth(judge: Judge, data: Corpus) -> tuple[np.ndarray, np.ndarray]:
    index = {name: i for i, name in enumerate(judge.concepts)}
    concepts, vendors = asked(data)
    return (
        np.array([index[c] for c in concepts]),
        np.array([judge.vendors.index(v) for v in vendors]),
    )


def draw(pipe, prompts: list[str]) -> np.ndarray:
    seeds = list(range(SEED, SEED + len(prompts)))
    return repro.generate(
        pipe, prompts, seeds, steps=STEPS, guidance_scale=GUIDANCE, batch_size=32, output="np"
    )


def flat(images: np.ndarray) -> float:
    """Share of 8 × 8 areas of uint8 (n, H, W, 3) with ink whose colours spread less than `FLAT`."""
    areas = patches(images, size=8, flat=0).pixels.reshape(-1, 64, 3).astype(np.float32)
    inked = (areas.mean(axis=1) < 250).any(axis=1)
    return float((areas[inked].std(axis=1).max(axis=1) < FLAT).mean())


def flatten(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64) / 255


def nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean squared difference of each row of a to its nearest row of b."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares.min(1), 0) / a.shape[1])


def weights() -> Row:
    size = sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) / 1e6
    return Row("all weights, in MB", size, 60, least=False, form=".0f")


def sheets(judge: Judge, pipe, data: Corpus) -> None:
    """Draw the sheets of the card: named prompts, prompts by lot, failures, held-out pairs."""
    folder = FOLDER / "sheets"
    folder.mkdir(exist_ok=True)
    concepts = SHEET.split(", ")
    images = draw(pipe, [caption(c, v) for v in VENDORS for c in concepts])
    save(images, len(concepts), folder / "uncurated.webp")
    by_lot(judge, pipe, data, folder)
    held_out = data.where(split="held_out").take(range(0, 233, 15))
    made = draw(pipe, captions(held_out))
    save(np.concatenate([held_out.rgb(), made]), len(held_out), folder / "held_out.webp")
    learning(folder / "learning.webp")
    curve(folder / "unet-loss.svg")


def by_lot(judge: Judge, pipe, data: Corpus, folder: Path, columns: int = 16) -> None:
    """Draw 64 concepts, drawn by lot, as each vendor; and what came out as another thing.

    A failure is a picture in which the judge's best guess is another concept than was asked for:
    the first `columns` of them stand below the drawings whose captions they were drawn for.
    """
    drawings = complete(data, 64, SEED)
    made = draw(pipe, captions(drawings))
    blocks = np.arange(len(made)).reshape(-1, columns, len(VENDORS))  # below a vendor, the next
    halves = shrunk(made, 64).round().astype(np.uint8)
    save(halves[blocks.swapaxes(1, 2).ravel()], columns, folder / "by_lot.webp")
    print("by lot:", ", ".join(drawings.table.concept.unique()))
    wrong = np.flatnonzero(judge(made).best_concept != truth(judge, drawings)[0])
    print(f"{len(wrong)} of {len(made)} of them look like another thing to the judge")
    few = wrong[:columns]
    save(np.concatenate([drawings.rgb()[few], made[few]]), len(few), folder / "failures.webp")


def learning(path: Path, rows: int = 8) -> None:
    """Stack what the U-Net drew at intervals while it learned, in equal strides, the last below."""
    kept = sorted((FOLDER / "history" / "samples").glob("*.webp"))
    if not kept:
        return
    chosen = np.linspace(0, len(kept) - 1, min(rows, len(kept))).round().astype(int)
    strips = [np.asarray(Image.open(kept[i]).convert("RGB")) for i in chosen]
    Image.fromarray(np.concatenate(strips)).save(path, quality=88, method=6)


def curve(path: Path) -> None:
    """Plot the U-Net's loss against the pictures it has seen, stretch by stretch."""
    unet = json.loads((FOLDER / "training.json").read_text())["stages"]["unet"]
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel="pictures seen, thousands", ylabel="squared error of v")
    seen = 0.0
    for stretch, facts in enumerate(stretches(unet), start=1):
        log = pd.read_csv(FOLDER / "history" / f"unet-{stretch:02d}.csv")
        pictures = (seen + log.step * facts["batch"]) / 1000
        axes.plot(pictures, log.loss, ".-", color=plotting.MUTED, label="training")
        whole = log.validation.where(log.side == 16)
        axes.plot(pictures, whole, ".-", color=plotting.ACCENT, label="validation, 16 × 16")
        seen += facts["steps"] * facts["batch"]
        axes.axvline(seen / 1000, color=plotting.MUTED, linewidth=0.5, linestyle=":")
    lines, names = axes.get_legend_handles_labels()
    axes.legend(lines[-2:], names[-2:], frameon=False)
    figure.savefig(path, metadata={"Date": None})


def save(images: np.ndarray, columns: int, path: Path) -> None:
    n, height, width, _ = images.shape
    grid = images.reshape(n // columns, columns, height, width, 3).swapaxes(1, 2)
    sheet = Image.fromarray(grid.reshape(n // columns * height, columns * width, 3))
    sheet.save(path, quality=88, method=6)


def write_card(table: str) -> None:
    """Put the table, the parts' hashes and their training between the card's marks."""
    record = json.loads((FOLDER / "training.json").read_text())
    stages = "\n".join(trained(name, facts) for name, facts in record["stages"].items())
    sums = (FOLDER / "SHA256SUMS").read_text().strip()
    blocks = {
        "quality": table,
        "training": "| stage | steps, by stretch | batch | pictures seen | minutes |\n"
        f"|---|---:|---:|---:|---:|\n{stages}",
        "hashes": f"```\n{sums}\n```",
    }
    text = CARD.read_text()
    for name, block in blocks.items():
        marks = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
        text = re.sub(marks, lambda m, b=block: m[1] + "\n" + b + "\n\n" + m[2], text, flags=re.S)
    CARD.write_text(text)


def stretches(last: dict) -> list[dict]:
    """A stage's stretches of training, the first one first."""
    return [*reversed(last.get("before", [])), last]


def trained(name: str, last: dict) -> str:
    """One stage of training as a row: its stretches in their order, and all of them in sum."""
    every = stretches(last)
    steps = ", ".join(f"{s['steps']:,}" for s in every)
    batches = ", ".join(str(s["batch"]) for s in every)
    pictures = sum(s["steps"] * s["batch"] for s in every)
    minutes = sum(s["seconds"] for s in every) / 60
    return f"| {name} | {steps} | {batches} | {pictures:,} | {minutes:.0f} |"


if __name__ == "__main__":
    sys.exit(main())
