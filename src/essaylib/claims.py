"""A claim, its test and its verdict, by the rules of `book/claims.yml`.

The rules were committed before any result. `record` computes a verdict from them, keeps it in
`_build/claims/<id>.json` and shows it in a notebook, in the same type size whatever it says.
`book/claims.lock.json` holds the p of every claim, because Holm's correction runs across them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Protocol

from essaylib import glue, paths, store
from essaylib.errors import EssayError
from essaylib.provenance import plain
from essaylib.rules import Claim, Claims, Superseded, load

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
MIXED, UNTESTABLE = "mixed", "untestable"
VERDICTS = (SUPPORTED, CONTRADICTED, MIXED, UNDECIDED, UNTESTABLE)

MIME = "application/vnd.essaylib.claim+json"
"""Metadata key on the output of `record`, so that the build finds it: {"id": ...}."""


class HasInterval(Protocol):
    """What every measure returns: a number with its 95 % interval and its number of units."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Test:
    """One primary statistic as measured: estimate, 95 % interval, permutation p, units.

    `drawn` counts the units before those that the statistic's own definition leaves out (prompts
    with too few sure images); it is what the registered number is compared with. `n` by default.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    estimate: float
    low: float
    high: float
    p: float
    n: int
    drawn: int | None = None

    def __post_init__(self):
        if self.drawn is None:
            object.__setattr__(self, "drawn", self.n)
        if not all(math.isfinite(value) for value in (self.estimate, self.low, self.high)):
            raise EssayError(
                f"A verdict needs finite numbers, not {self.estimate} [{self.low}, {self.high}]: "
                "look for empty groups or NaN before the measure."
            )
        if self.low > self.high:
            raise EssayError(f"The interval [{self.low}, {self.high}] ends before it begins.")
        if not 0 < self.p <= 1:
            raise EssayError(
                f"p = {self.p} is no permutation p, which lies in (0, 1]: count the observed "
                "statistic among the draws, (k + 1) / (draws + 1)."
            )

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"

    @classmethod
    def of(cls, measured: HasInterval, p: float, drawn: int | None = None) -> Test:
        """Join a measure's estimate and interval with its p."""
        return cls(measured.estimate, measured.low, measured.high, p, measured.n, drawn)


@dataclass(frozen=True)
class Part:
    """The verdict on one primary statistic; `p_holm` is p after Holm's correction."""

    id: str
    verdict: str
    test: Test
    p_holm: float
    delta: float


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict. `reasons` says why it is exploratory; empty if it is not."""

    claim: Claim
    verdict: str
    parts: tuple[Part, ...]
    control_ok: bool
    control_note: str = ""
    reasons: tuple[str, ...] = ()
    earlier: tuple[tuple[Superseded, str], ...] = ()

    @property
    def exploratory(self) -> bool:
        return bool(self.reasons)

    def __str__(self) -> str:
        return self.verdict


def holm(p: Mapping[Any, float]) -> dict[Any, float]:
    """Adjust p-values by Holm's step-down method (Holm 1979); reject where the result <= alpha.

    The i-th smallest of m is multiplied by m - i + 1, made monotone, and cut at 1.
    """
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        running = max(running, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = running
    return adjusted


def decide(
    claim: Claim,
    tests: Mapping[str, Test],
    control_ok: bool,
    *,
    claims: Claims | None = None,
    others: Mapping[tuple[str, str], float] | None = None,
    earlier: Mapping[str, Mapping[str, Test]] | None = None,
    control_note: str = "",
    reasons: tuple[str, ...] = (),
) -> Verdict:
    """Apply the rules to a claim's measured statistics.

    `others` are the p of the other claims by (claim, statistic), from the lock by default; those
    not known count as 1. `earlier` holds, by date of a superseded rule, the tests of statistics
    whose definition has changed since.
    """
    claims = claims or load()
    if claim.no_test:
        return Verdict(claim, UNTESTABLE, (), False, control_note or claim.no_test, reasons)
    if not tests and not control_ok:  # the instrument failed before there was anything to measure
        return Verdict(claim, UNTESTABLE, (), False, control_note, reasons)
    _check_names(claim, tests)
    others = locked_p() if others is None else others
    delta = {s.id: s.delta for s in claim.primary}
    parts, word = _apply(claim, tests, delta, control_ok, claims, others)
    history = []
    for rule in claim.superseded:
        measured = dict(tests)
        for id in rule.restated:
            try:
                measured[id] = (earlier or {})[rule.date][id]
            except KeyError:
                raise EssayError(
                    f"The statistic {id!r} of claim {claim.id!r} was defined otherwise until "
                    f"{rule.date}, and both verdicts are printed: pass "
                    f"earlier={{{rule.date!r}: {{{id!r}: Test(...)}}}}."
                ) from None
        _, was = _apply(claim, measured, delta | rule.delta, control_ok, claims, others)
        history.append((rule, was))
    return Verdict(claim, word, parts, control_ok, control_note, reasons, tuple(history))


def record(
    claim_id: str,
    tests: Test | Mapping[str, Test] | None = None,
    *,
    control_ok: bool,
    seed: int | None,
    control_note: str = "",
    earlier: Mapping[str, Mapping[str, Test]] | None = None,
    show: bool = True,
) -> Verdict:
    """Compute a claim's verdict, keep it in `_build/claims/`, and show it in a notebook.

    tests: the measured primary statistic, or one by id where the claim has two; None for a claim
        without a test, or where the control failed so early that nothing could be measured.
    control_ok: whether the claim's control passed; `control_note` says what it showed.
    seed: the lowest seed that images or noise were drawn with, None where nothing was drawn.

    A verdict counts as exploratory, and says why, unless the embedded model is frozen, the seeds
    were kept for verdicts and as many units were measured as were registered.
    """
    claims = load()
    claim = claims[claim_id]
    if tests is None:
        tests = {}
    elif isinstance(tests, Test):
        tests = {claim.statistic().id: tests}
    model = _model()
    reasons = _exploratory(claims, claim, tests, seed, model)
    verdict = decide(
        claim,
        tests,
        control_ok,
        claims=claims,
        others=locked_p(confirmed=not reasons),
        earlier=earlier,
        control_note=control_note,
        reasons=reasons,
    )
    store.write_json(path_of(claim_id, model), plain(_as_json(verdict, model, seed)))
    if show:
        _show(verdict)
    return verdict


def seeds(count: int, first: int = 0) -> list[int]:
    """Return `count` seeds for images that a claim rests on.

    They are the reader's own until the model is frozen, and from then on those that no exploration
    has used.
    """
    start = first + (load().verdict_from if frozen() else 0)
    return list(range(start, start + count))


def frozen(folder: Path | None = None) -> bool:
    """Whether a model, by default the embedded one, is final: `"frozen": true` in training.json."""
    path = (folder or paths.models() / "emoji-ldm") / "training.json"
    return path.is_file() and store.read_json(path, "restore it with git").get("frozen") is True


def path_of(claim_id: str, model: str = "embedded") -> Path:
    """Where `record` keeps a verdict; the embedded model's has the claim's plain name."""
    suffix = "" if model == "embedded" else "@" + re.sub(r"[^\w.-]+", "-", Path(model).name)
    return paths.build() / "claims" / f"{claim_id}{suffix}.json"


def recorded(model: str = "embedded") -> dict[str, dict[str, Any]]:
    """Return what `record` kept, by claim, in the book's order."""
    found = {claim.id: path_of(claim.id, model) for claim in load()}
    again = "delete it, and run its chapter again: `essay run --force`"
    return {id: store.read_json(path, again) for id, path in found.items() if path.is_file()}


def locked_p(confirmed: bool = False) -> dict[tuple[str, str], float]:
    """Return the locked p by (claim, statistic); only those of final verdicts if `confirmed`."""
    return {
        (claim, part): test["p"]
        for claim, entry in read_lock().items()
        if not (confirmed and entry["exploratory"])
        for part, test in entry["tests"].items()
    }


def read_lock() -> dict[str, dict[str, Any]]:
    """Return the lock: by claim, whether it was exploratory, and its tests by statistic."""
    path = _lock_path()
    return store.read_json(path, "restore it with git") if path.is_file() else {}


def lock() -> list[str]:
    """Take what the embedded model's chapters recorded into the lock; return the changed claims.

    A final verdict is computed once. Raises `EssayError` where a recorded one differs from the
    lock (its rule must be listed as superseded and its entry removed by hand), and where none has
    been recorded.
    """
    entries, changed, found = read_lock(), [], recorded()
    if not found:
        raise EssayError("No verdict has been recorded yet: `essay run` runs the chapters.")
    for id, kept in found.items():
        tests = {
            part["id"]: {key: _short(part[key]) for key in ("estimate", "low", "high", "p", "n")}
            for part in kept["parts"]
        }
        entry = {"exploratory": kept["exploratory"], "verdict": kept["verdict"], "tests": tests}
        entry["control_ok"] = kept["control_ok"]
        was = entries.get(id)
        if was and not was["exploratory"]:
            if not entry["exploratory"] and was["tests"] != tests:
                raise EssayError(
                    f"The verdict on {id!r} is final and would change. If its rule was mended, "
                    "list the old one under `superseded` in book/claims.yml, remove the entry from "
                    "book/claims.lock.json and lock again."
                )
            continue
        if was != entry:
            entries[id] = entry
            changed.append(id)
    order = [claim.id for claim in load()]
    store.write_json(_lock_path(), {id: entries[id] for id in order if id in entries})
    return changed


def to_html(verdict: Verdict) -> str:
    """Draw a verdict as a small block of HTML: nothing depends on colour or on the verdict."""
    claim, kind = verdict.claim, "Exploratory verdict" if verdict.exploratory else "Verdict"
    rows = []
    for part in verdict.parts:
        label = f" ({part.id})" if len(verdict.parts) > 1 else ""
        test, registered = part.test, claim.statistic(part.id)
        if label:
            rows.append((f"Verdict{label}", part.verdict))
        rows += [
            (
                f"Estimate{label}",
                f"{_number(test.estimate)}, 95 % interval {_number(test.low)} to "
                f"{_number(test.high)}; smallest interesting effect {_number(part.delta)}",
            ),
            (
                f"Permutation p{label}",
                f"{_number(test.p)}; {_number(part.p_holm)} after Holm across all claims",
            ),
            (
                f"Units{label}",
                f"n = {test.n:,} of {test.drawn:,} drawn; {registered.n:,} registered "
                f"({registered.unit})",
            ),
        ]
    if claim.no_test:
        rows.append(("No test", claim.no_test))
    else:
        passed = "passed" if verdict.control_ok else "failed"
        rows.append(("Control", f"{passed}. {verdict.control_note or claim.control}"))
    for rule, was in verdict.earlier:
        rows.append((f"By the rule until {rule.date}", f"{was}. Changed because: {rule.reason}"))
    if verdict.exploratory:
        rows.append(("Exploratory because", "; ".join(verdict.reasons)))
    items = "".join(
        f'<dt style="font-weight:600">{escape(term)}</dt>'
        f'<dd style="margin:0 0 .35em 0">{escape(text)}</dd>'
        for term, text in rows
    )
    return (
        f'<section class="essay-verdict" id="claim-{claim.id}" '
        f'aria-label="{kind} on the claim {claim.id}" data-verdict="{verdict.verdict}" '
        'style="border:1px solid currentColor;padding:.8em 1em;margin:1em 0">'
        f'<p style="margin:0 0 .5em 0">{escape(claim.sentence)}</p>'
        f'<p style="margin:0 0 .5em 0"><strong>{kind}: {verdict.verdict}</strong></p>'
        f'<dl style="margin:0">{items}</dl></section>'
    )


def _apply(
    claim: Claim,
    tests: Mapping[str, Test],
    delta: Mapping[str, float],
    control_ok: bool,
    claims: Claims,
    others: Mapping[tuple[str, str], float],
) -> tuple[tuple[Part, ...], str]:
    own = {(claim.id, id): test.p for id, test in tests.items()}
    adjusted = holm({name: own.get(name, others.get(name, 1.0)) for name in claims.family} | own)
    parts = tuple(
        Part(
            statistic.id,
            _word(
                tests[statistic.id],
                adjusted[claim.id, statistic.id] <= claims.alpha,
                delta[statistic.id],
            )
            if control_ok
            else UNTESTABLE,
            tests[statistic.id],
            adjusted[claim.id, statistic.id],
            delta[statistic.id],
        )
        for statistic in claim.primary
    )
    words = {part.verdict for part in parts}
    return parts, words.pop() if len(words) == 1 else MIXED


def _word(test: Test, significant: bool, delta: float) -> str:
    if test.high < delta:
        return CONTRADICTED
    return SUPPORTED if significant and test.low > delta else UNDECIDED


def _exploratory(
    claims: Claims, claim: Claim, tests: Mapping[str, Test], seed: int | None, model: str
) -> tuple[str, ...]:
    if claim.no_test:
        return ()
    reasons = []
    if model != "embedded":
        reasons.append(f"the rules are about the embedded model, and this is {model}")
    elif not frozen():
        reasons.append("the embedded model is not yet frozen")
    if seed is not None and seed < claims.verdict_from:
        reasons.append(f"seed {seed} is one of those kept for exploration")
    for statistic in claim.primary:
        test = tests.get(statistic.id)
        if test and test.drawn < statistic.n:
            reasons.append(f"{test.drawn:,} of the {statistic.n:,} registered units were drawn")
    return tuple(dict.fromkeys(reasons))


def _check_names(claim: Claim, tests: Mapping[str, Test]) -> None:
    wanted = [statistic.id for statistic in claim.primary]
    if sorted(tests) != sorted(wanted):
        raise EssayError(
            f"Claim {claim.id!r} is tested by {', '.join(wanted)}; "
            f"given: {', '.join(tests) or 'nothing'}."
        )


def _model() -> str:
    chapter = glue.current()
    return str(chapter.parameters.get("model", "embedded")) if chapter else "embedded"


def _as_json(verdict: Verdict, model: str, seed: int | None) -> dict[str, Any]:
    chapter = glue.current()
    claim = verdict.claim
    return {
        "id": claim.id,
        "chapter": claim.chapter,
        "sentence": claim.sentence,
        "against": claim.against,
        "control": claim.control,
        "limits": claim.limits,
        "verdict": verdict.verdict,
        "exploratory": verdict.exploratory,
        "reasons": list(verdict.reasons),
        "control_ok": verdict.control_ok,
        "control_note": verdict.control_note,
        "parts": [
            {
                "id": part.id,
                "verdict": part.verdict,
                **asdict(part.test),
                "p_holm": part.p_holm,
                "delta": part.delta,
                "n_registered": claim.statistic(part.id).n,
                "unit": claim.statistic(part.id).unit,
            }
            for part in verdict.parts
        ],
        "superseded": [
            {"until": rule.date, "reason": rule.reason, "delta": rule.delta, "verdict": was}
            for rule, was in verdict.earlier
        ],
        "model": model,
        "seed": seed,
        "recorded_by": chapter.id if chapter else None,
        "started": chapter.started if chapter else None,
    }


def _show(verdict: Verdict) -> None:
    try:
        from IPython.display import display
    except ImportError:
        return
    display(
        {"text/html": to_html(verdict), "text/plain": f"{verdict.claim.id}: {verdict.verdict}"},
        raw=True,
        metadata={MIME: {"id": verdict.claim.id}},
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


def _short(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _lock_path() -> Path:
    return paths.book() / "claims.lock.json"
