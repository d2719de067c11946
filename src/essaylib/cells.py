"""One statistic of one model: the cells of the matrix that `survival` reads.

Every claim with a model in it has a function here that takes a `Bench` and does what its chapter
does, on as many units as `data/runs/survival/trials.yml` declares: it returns the claim's primary
statistics and what its control showed. A statistic that cannot be had says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from essaylib import claims, columns, corpus
from essaylib.claims import Test
from essaylib.columns import AUTOENCODER, IMAGE, TEXT, UNET, Model
from essaylib.errors import EssayError

if TYPE_CHECKING:
    from essaylib.corpus import Corpus
    from essaylib.judge import Judge
    from essaylib.runs import Run
    from essaylib.trials import Plan

MEASURED, IMPOSSIBLE = "measured", "not computable"
SAME, UNTRAINED, ELSEWHERE = "same parts", "not trained", "not run here"


@dataclass(frozen=True)
class Cell:
    """One statistic of one model.

    `state` says whether it was measured, and if not, why in a word; `note` says it in a sentence.
    A cell of the same parts repeats the embedded model's numbers. `control` is the claim's control
    on this model, None where it was not asked. `n` counts units.
    """

    claim: str
    statistic: str
    state: str
    note: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    control: bool | None = None


@dataclass(frozen=True)
class Outcome:
    """What a claim's trial gives: its statistics, each to be computed, and its control."""

    tests: Mapping[str, Callable[[], Test]]
    control: bool
    note: str


@dataclass
class Bench:
    """A model on the bench: its pipeline, its share of each run, and how much to measure."""

    model: Model
    runs: Mapping[str, Run]
    plan: Plan

    @property
    def pipe(self) -> Any:
        return self.model.pipe

    @property
    def first(self) -> int:
        """The first seed: below 10000 until the embedded model is frozen."""
        return claims.seeds(1)[0]

    @cached_property
    def judge(self) -> Judge:
        from essaylib.judge import Judge

        return Judge.load()

    @cached_property
    def unseen(self) -> Corpus:
        return corpus.load().where(split="held_out")

    @cached_property
    def judged_unseen(self) -> Any:
        """What the judge says of the held-out drawings, for the controls that ask it."""
        return self.judge(self.unseen.rgb())

    @cached_property
    def ledger(self) -> Corpus:
        """The drawings that the ledger's questions are asked of."""
        from essaylib.measures import ledger

        data = corpus.load()
        return data.take(ledger.selection(data.table, self.plan.ledger, self.first))

    def seen(self, name: str) -> dict[str, np.ndarray]:
        """The judge's answers to a run, and its images' sharpness."""
        from essaylib.measures.sharpness import laplacian_energy

        if name not in self._seen:
            images = self.runs[name].images(self.pipe, batch_size=4)
            said = self.judge(images)
            self._seen[name] = {
                "concept": said.concept,
                "vendor": said.vendor,
                "features": said.features,
                "sharpness": laplacian_energy(images),
            }
        return self._seen[name]

    @cached_property
    def _seen(self) -> dict[str, dict[str, np.ndarray]]:
        return {}


def measure(bench: Bench, claim: str) -> list[Cell]:
    """Return the cells of a claim's primary statistics on one model."""
    trial = TRIALS[claim]
    ids = [part.id for part in claims.load()[claim].primary]
    if bench.model.column.foreign and not trial.foreign:
        return [Cell(claim, id, IMPOSSIBLE, trial.why) for id in ids]
    try:
        outcome = trial.run(bench)
    except EssayError as error:
        return [Cell(claim, id, IMPOSSIBLE, str(error)) for id in ids]
    return [_cell(claim, id, outcome) for id in ids]


def shared(bench_column: columns.Column, claim: str) -> bool:
    """Whether the claim rests on parts that the column has in common with the embedded model."""
    return not set(TRIALS[claim].parts) & set(bench_column.parts)


def _cell(claim: str, id: str, outcome: Outcome) -> Cell:
    try:
        test = outcome.tests[id]()
    except EssayError as error:
        return Cell(claim, id, IMPOSSIBLE, str(error), control=outcome.control)
    numbers = (float(f"{value:.6g}") for value in (test.estimate, test.low, test.high))
    return Cell(claim, id, MEASURED, outcome.note, *numbers, test.n, outcome.control)


def _clip(bench: Bench) -> Outcome:
    from essaylib import features
    from essaylib.measures import ledger
    from essaylib.statistics import clip

    pixels = bench.ledger.rgb(size=64)
    born = features.untrained(bench.model.unnamed, seed=bench.first)
    held = {"pixels": pixels, "untrained": features.clip_images(born, pixels)}
    held["unnamed"] = features.clip_images(bench.model.unnamed, pixels)
    asked = _questions(bench, pixels)
    stages = {name: ledger.ledger(x, asked, seed=bench.first) for name, x in held.items()}
    gain = clip.gained(stages["untrained"], stages["unnamed"], seed=bench.first)
    return Outcome(
        {"fall": lambda: clip.fall(**stages, seed=bench.first)},
        bool(gain.estimate >= 0.05 and gain.low > 0),
        f"Against an untrained tower the concept score changed by {_said(gain)}.",
    )


def _autoencoder(bench: Bench) -> Outcome:
    from essaylib import residuals
    from essaylib.measures import ledger
    from essaylib.statistics import autoencoder

    pixels = bench.ledger.rgb(size=residuals.GRID)
    asked = _questions(bench, pixels)
    lost = residuals.corpus_residuals(bench.pipe.vae, bench.ledger).components
    held = {"pixels": ledger.reduced(pixels, asked, seed=bench.first)}
    held["residual"] = ledger.reduced(lost, asked, seed=bench.first)
    stages = [ledger.ledger(x, asked, seed=bench.first) for x in held.values()]
    floors = [ledger.shuffled(x, asked, seed=bench.first) for x in held.values()]
    clear = autoencoder.readable(stages[0], floors[0])
    return Outcome(
        {"dropped": lambda: autoencoder.dropped(*stages, *floors, seed=bench.first)},
        len(asked.names) >= 100 and min(clear.values()) >= 0.10,
        f"In pixels the scores exceed their floors by at least {min(clear.values()):.2f}.",
    )


def _noise(bench: Bench) -> Outcome:
    from diffusers import DDIMScheduler

    from essaylib import features
    from essaylib.statistics import noise

    schedule = DDIMScheduler.from_config(bench.pipe.scheduler.config).alphas_cumprod.numpy()
    latents = features.corpus_latents(bench.pipe.vae, bench.ledger)
    asked = _questions(bench, bench.ledger.rgb(size=64))
    found = noise.read(latents, asked, schedule, seed=bench.first)
    ends = "; ".join(f"{q} {a:+.2f}, {b:+.2f}" for q, (a, b) in noise.readable(found).items())
    return Outcome(
        {"order": lambda: noise.order(found, seed=bench.first)},
        noise.passed(found),
        f"Excess over the floor, clean and at the end: {ends}.",
    )


def _unet(bench: Bench) -> Outcome:
    from essaylib import activations, composites, features
    from essaylib.measures import bootstrap, overlap
    from essaylib.statistics import unet

    if bench.pipe.unet.config.addition_embed_type == "text_time":
        raise EssayError("Its U-Net asks for a picture's size too, which one look does not give.")
    count = bench.plan.composites
    data = corpus.load().where(split=["validation", "held_out"])
    drawn = composites.chosen(data, count, seed=bench.first)
    pictures = composites.set_on(drawn.rgba(), composites.grounds(count, seed=bench.first))
    masks = composites.masks(drawn.rgba())
    latents = features.latents(bench.pipe.vae, composites.fitted(pictures, bench.pipe))
    scores = unet.overlaps(bench.pipe, latents, masks, seed=bench.first)
    colours = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    parts = activations.parted(colours, masks.shape[1:], seed=bench.first)
    clean = bootstrap.mean(overlap.best_labelling(parts, masks)[0], seed=bench.first)
    return Outcome(
        {"figure": lambda: unet.figure(scores, seed=bench.first)},
        bool(clean.estimate >= 0.60),
        f"On clean composites colour alone overlaps by {_said(clean)}.",
    )


def _loss(bench: Bench) -> Outcome:
    from essaylib import features
    from essaylib.statistics import loss

    drawn = loss.complete(corpus.load(), bench.plan.loss, bench.first)
    names = drawn.table.concept.to_numpy()[::4]
    latents = features.corpus_latents(bench.pipe.vae, drawn)
    latents = latents.reshape(-1, 4, *latents.shape[1:])
    believed = loss.believed(bench.pipe, latents, names, seed=bench.first)
    weights, distances = loss.weights(believed, latents)
    errors = loss.planted(latents, distances.mean(1), seed=bench.first)
    peers = drawn.table.subgroup.to_numpy()[::4]
    home = loss.at_home(believed, latents, distances, peers, seed=bench.first)
    shares = np.full((len(names), 4), 1 / 4)
    return Outcome(
        {"lean": lambda: loss.lean(weights.mean(1), shares, seed=bench.first)},
        bool(errors.max() <= 0.05 and home.mean() >= 0.80),
        f"Planted weights came back within {errors.max():.3f}; {home.mean():.0%} of the estimates "
        "lie nearer to their own drawings than to another concept's.",
    )


def _strong_weak(bench: Bench) -> Outcome:
    from sklearn.metrics import roc_auc_score

    from essaylib.statistics import strong_weak

    run, seen = bench.runs["strong-weak"], bench.seen("strong-weak")
    data = corpus.load()
    every = data.table.drop_duplicates("concept").set_index("concept")
    vectors = strong_weak.pooled(bench.pipe, list(every.index))
    places = every.index.get_indexer(run.table.concept[:: run.plan.seeds])
    centre = strong_weak.to_centre(vectors, every.group.to_numpy())[places]
    sure = strong_weak.requested(bench.judge, seen["features"], run.table.concept)
    pair = (-1, run.plan.seeds)
    quality = strong_weak.quality(sure.reshape(pair), seen["sharpness"].reshape(pair))
    given = strong_weak.drawings(data, bench.judge, every.index[places]).to_numpy()
    groups = every.group.to_numpy()[places]
    said = bench.judged_unseen
    right = np.array(bench.judge.concepts)[said.best_concept] == bench.unseen.table.concept
    area = roc_auc_score(right, said.concept_probs.max(1)) if 0 < right.mean() < 1 else 0.0
    return Outcome(
        {
            "centrality": lambda: strong_weak.centrality(
                centre, quality, given, groups, seed=bench.first
            )
        },
        bool(area >= 0.70),
        f"The judge's confidence ranks right above wrong with an area of {area:.2f}.",
    )


def _prompt_seed(bench: Bench) -> Outcome:
    from essaylib.statistics import prompt_seed

    run = bench.runs["prompt-seed"]
    latents = run.by_setting(run.latents.float().numpy())["4"]
    control = prompt_seed.control(latents, seed=bench.first)
    return Outcome(
        {
            "order": lambda: prompt_seed.order(latents, seed=bench.first),
            "static": lambda: prompt_seed.static(latents, seed=bench.first),
        },
        control.passed,
        f"Dealt out, the prompt takes {control.prompt:.3f}, the seed {control.seed:.3f}, and "
        f"{control.recognised:.3f} of the seeds are recognised.",
    )


def _attention(bench: Bench) -> Outcome:
    from essaylib import masses
    from essaylib.statistics import attention

    run = bench.runs["attention"]
    took = masses.measure(run, bench.pipe)
    control = attention.control(run, took)
    return Outcome(
        {"mass": lambda: attention.mass(run, took, seed=bench.first)},
        control.passed,
        f"Hiding padding changes {control.padding:.2g}, a content word {control.word:.2g}.",
    )


def _guidance(bench: Bench) -> Outcome:
    from essaylib.measures import bootstrap
    from essaylib.statistics import guidance

    run, seen = bench.runs["guidance"], bench.seen("guidance")
    wanted = run.table.concept.map(bench.judge.concepts.index).to_numpy()
    right = run.by_setting((seen["concept"] == wanted).astype(float))
    rise = bootstrap.mean((right[guidance.HIGH] - right[guidance.LOW]).mean(1), seed=bench.first)
    sure = run.by_setting(seen["vendor"] >= 0)
    named = min(sure[setting].mean() for setting in (guidance.HIGH, guidance.LOW))
    said = bench.judged_unseen.vendor
    truth = np.array([bench.judge.vendors.index(v) for v in bench.unseen.table.vendor])
    correct = (said == truth)[said >= 0].mean()
    return Outcome(
        {"premium": lambda: guidance.premium(run, seen, seed=bench.first)},
        bool(rise.low > 0 and named >= 0.5 and correct >= 0.7),
        f"Adherence rose by {_said(rise)}; the judge named a vendor for at least {named:.0%}.",
    )


def _delivery(bench: Bench) -> Outcome:
    from essaylib.statistics import delivery

    between = _rounds(bench)
    first = between[:, 1, 0].mean()
    tests = {"finish": lambda: delivery.finish(between, seed=bench.first)}
    if bench.model.column.foreign:

        def alone() -> Test:
            raise EssayError("Adherence is scored by a judge that knows this corpus alone.")

        return Outcome(
            tests | {"speed": alone}, bool(first >= 1), f"The first round moves {first:.1f} levels."
        )
    slow, fast = (bench.runs[name] for name in ("guidance", "delivery"))
    said = [bench.seen(name) for name in ("guidance", "delivery")]
    long, short = delivery.curves(slow, said[0], fast, said[1], bench.judge.concepts)
    shared = delivery.overlap(long, short)
    return Outcome(
        tests | {"speed": lambda: delivery.speed(long, short, seed=bench.first)},
        bool(shared >= 0.05 and first >= 1),
        f"The two share {max(shared, 0):.3f} of adherence; the first round moves {first:.1f} "
        "grey levels.",
    )


def _copies(bench: Bench) -> Outcome:
    from essaylib.measures import neighbours
    from essaylib.statistics import copies

    run = bench.runs["copies"]
    training = corpus.load().where(split="train")
    drawings = training.rgb()
    small = neighbours.shrunk(drawings, copies.SIDE)
    rng = np.random.default_rng(bench.first)
    some = drawings[rng.choice(len(drawings), 128, replace=False)]
    limits = copies.limits(some, copies.near_duplicates(bench.pipe, some, bench.first))
    real = bench.unseen.rgb()
    away, twin = neighbours.nearest(neighbours.shrunk(real, copies.SIDE), small)
    own, nearest = bench.unseen.table.concept, training.table.concept.to_numpy()[twin[:, 0]]
    mistaken = ((away[:, 0] < limits.image) & (own.to_numpy() != nearest)).mean()
    outputs = run.images(bench.pipe, batch_size=4)
    apart, _ = neighbours.nearest(neighbours.shrunk(outputs, copies.SIDE), small)

    def parcels() -> Test:
        known = neighbours.patches(drawings, copies.PATCH)
        some = rng.choice(len(real), min(len(run), len(real)), replace=False)
        about = training.table.drop_duplicates("concept")[["concept", "group"]]
        tables = [
            run.table[["concept"]].merge(about, on="concept", how="left"),
            bench.unseen.table.iloc[some][["concept", "group"]].reset_index(drop=True),
        ]
        return copies.parcels(
            *(
                table.assign(
                    borrowed=neighbours.borrowed(
                        neighbours.match(images, known, copies.PATCH), limits.patch
                    )
                )
                for table, images in zip(tables, (outputs, real[some]), strict=True)
            ),
            seed=bench.first,
        )

    return Outcome(
        {
            "minority": lambda: copies.minority(apart[:, 0], limits.image, seed=bench.first),
            "parcels": parcels,
        },
        bool(limits.recognised >= 0.9 and mistaken <= 0.1),
        f"Of near-duplicates {limits.recognised:.0%} count as copies, of held-out drawings "
        f"{mistaken:.0%} as copies of another concept.",
    )


def _credit(bench: Bench) -> Outcome:
    from essaylib import attribution, features
    from essaylib.statistics import credit

    asked = dict(bench.plan.credit)
    count, drawings = asked.pop("outputs"), asked.pop("drawings")
    seeds = [bench.first + i for i in range(asked.pop("seeds"))]
    damping = asked.pop("damping")
    run = bench.runs["copies"]
    training = corpus.load().where(split="train")
    rows = np.random.default_rng(bench.first).choice(len(training), drawings, replace=False)
    drawn = training.take(np.sort(rows))
    captions = list(map(corpus.caption, drawn.table.concept, drawn.table.vendor))
    images = drawn.rgb()

    def read(images: np.ndarray, latents: Any, prompts: list[str]) -> dict[str, np.ndarray]:
        return attribution.joined(
            attribution.vectors(
                bench.pipe,
                bench.model.clip,
                images[some],
                latents[some],
                [prompts[i] for i in some],
                seeds,
                **asked,
            )
            for some in np.array_split(np.arange(len(images)), -(-len(images) // 16))
        )

    latents = run.latents[:count].float()
    outputs = read(run.images(bench.pipe, batch_size=4)[:count], latents, list(run.table.prompt))
    known = read(images, features.latents(bench.pipe.vae, images), captions)
    pulls = zip(outputs["gradient"], known["gradient"], strict=True)
    outputs["gradient"] = np.stack([attribution.directions(a, b, damping) for a, b in pulls])
    table = credit.agreements(attribution.scores(outputs, known))
    itself = credit.within(table).mean()
    return Outcome(
        {"disagreement": lambda: credit.disagreement(table, seed=bench.first)},
        bool(itself >= 0.5),
        f"A ledger agrees with itself at a mean Kendall tau of {itself:.2f}.",
    )


def _leaving(bench: Bench) -> Outcome:
    from essaylib.statistics import leaving

    run, seen = bench.runs["guidance"], bench.seen("guidance")
    point, along = leaving.curves(run, seen, bench.judge.concepts)
    reach = along[:, :, 0].mean(0)
    return Outcome(
        {"regained": lambda: leaving.regained(point, along, seed=bench.first)},
        leaving.within(point, along),
        f"Interval guidance has an adherence of {point[:, 0].mean():.3f}, ordinary from "
        f"{reach.min():.3f} to {reach.max():.3f}.",
    )


def _questions(bench: Bench, pixels: np.ndarray) -> Any:
    """The ledger's questions, asked of drawings (n, 64, 64, 3) at half that size."""
    from essaylib.measures import ledger

    coarse = pixels.reshape(-1, 32, 2, 32, 2, 3).mean((2, 4))
    return ledger.questions(bench.ledger.table, coarse, seed=bench.first)


def _rounds(bench: Bench) -> np.ndarray:
    """Distances of a few pictures taken round the autoencoder, half drawn and half generated."""
    from essaylib import repro, rounds

    half = bench.plan.rounds // 2
    if bench.model.column.foreign:
        made = bench.runs["prompt-seed"].latents[:half]
    else:
        made = bench.runs["guidance"].where(setting=rounds.SETTING).latents[:half]
    generated = repro.decode(bench.pipe, made.float(), 4)
    rows = np.random.default_rng(bench.first).choice(len(bench.unseen), half, replace=False)
    drawn = bench.unseen.rgb(rows, size=min(generated.shape[1], corpus.SIZE))
    times = generated.shape[1] // drawn.shape[1]
    drawn = drawn.repeat(times, 1).repeat(times, 2)
    return rounds.measured(bench.pipe, np.concatenate([drawn, generated]))


def _said(measured: Any) -> str:
    return f"{measured.estimate:.2f} [{measured.low:.2f}, {measured.high:.2f}]"


@dataclass(frozen=True)
class Trial:
    """How a claim is tried: by what function, resting on which parts.

    `foreign` models, which did not learn from this corpus, are tried where they can be; `why` says
    what keeps the others out.
    """

    run: Callable[[Bench], Outcome]
    parts: tuple[str, ...]
    foreign: bool = False
    why: str = "It rests on drawings that this model never saw, and on a judge of these alone."


TRIALS: dict[str, Trial] = {
    "clip": Trial(
        _clip, (IMAGE,), why="It asks a CLIP that was trained on these drawings without vendors."
    ),
    "autoencoder": Trial(_autoencoder, (AUTOENCODER,), foreign=True),
    "noise": Trial(_noise, (AUTOENCODER,), foreign=True),
    "unet": Trial(_unet, (TEXT, AUTOENCODER, UNET), foreign=True),
    "loss": Trial(_loss, (TEXT, AUTOENCODER, UNET)),
    "strong-weak": Trial(_strong_weak, (TEXT, AUTOENCODER, UNET)),
    "prompt-seed": Trial(_prompt_seed, (TEXT, UNET), foreign=True),
    "attention": Trial(_attention, (TEXT, UNET), foreign=True),
    "guidance": Trial(_guidance, (TEXT, AUTOENCODER, UNET)),
    "delivery": Trial(_delivery, (TEXT, AUTOENCODER, UNET), foreign=True),
    "copies": Trial(_copies, (TEXT, AUTOENCODER, UNET)),
    "credit": Trial(_credit, (TEXT, AUTOENCODER, UNET, IMAGE)),
    "leaving": Trial(_leaving, (TEXT, AUTOENCODER, UNET)),
}
"""The claims whose statistics `survival` counts, in the book's order."""
