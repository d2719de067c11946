"""The claims of the book and the rules of their tests, as registered in `book/claims.yml`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from essaylib import paths
from essaylib.errors import EssayError


@dataclass(frozen=True)
class Statistic:
    """A registered primary statistic, oriented so that larger favours the claim."""

    id: str
    statistic: str
    null_hypothesis: str
    delta: float
    why: str
    interval: str
    unit: str
    n: int
    power: dict[str, Any]


@dataclass(frozen=True)
class Superseded:
    """A rule that was changed: when, why, and what differed.

    `delta` holds the earlier smallest interesting effects, by statistic. `restated` names the
    statistics whose definition changed too; their earlier verdict needs an estimate of its own.
    """

    date: str
    reason: str
    delta: dict[str, float]
    restated: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One claim of the book, with everything that was fixed before it was tested."""

    id: str
    chapter: str
    sentence: str
    against: str
    control: str
    limits: str
    primary: tuple[Statistic, ...] = ()
    no_test: str = ""
    superseded: tuple[Superseded, ...] = ()

    def statistic(self, id: str | None = None) -> Statistic:
        """Return a primary statistic; the only one, if no id is given."""
        found = [s for s in self.primary if id in (None, s.id)]
        if len(found) != 1:
            known = ", ".join(s.id for s in self.primary) or "none, for it has no test"
            raise EssayError(f"Claim {self.id!r} has the primary statistics {known}: name one.")
        return found[0]


@dataclass(frozen=True)
class Claims:
    """All claims, in the book's order, with the rules that they share."""

    claims: tuple[Claim, ...]
    alpha: float
    permutations: int
    verdict_from: int

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.claims)

    def __len__(self) -> int:
        return len(self.claims)

    def __getitem__(self, id: str) -> Claim:
        for claim in self.claims:
            if claim.id == id:
                return claim
        known = ", ".join(claim.id for claim in self.claims)
        raise EssayError(f"There is no claim {id!r} in book/claims.yml. Known: {known}.")

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """(claim, statistic) of every hypothesis that shares Holm's correction."""
        return tuple((claim.id, s.id) for claim in self.claims for s in claim.primary)


def load(path: str | Path | None = None) -> Claims:
    """Read and check the claims; raise `EssayError` that names the claim and the key at fault."""
    path = Path(path or paths.book() / "claims.yml")
    if not path.is_file():
        raise EssayError(
            f"There are no claims at {path}: restore them with `git checkout -- {path}`."
        )
    return _load(path, path.stat().st_mtime_ns)


_CLAIM_KEYS = {"id", "chapter", "sentence", "against", "control", "limits"}
_STATISTIC_KEYS = {
    "id",
    "statistic",
    "null_hypothesis",
    "delta",
    "why",
    "interval",
    "unit",
    "n",
    "power",
}
_ID = re.compile(r"[a-z]+(-[a-z]+)*")


@lru_cache(maxsize=8)
def _load(path: Path, modified: int) -> Claims:
    try:
        # The C parser, where there is one, is ten times as fast.
        document = yaml.load(
            path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except yaml.YAMLError as error:
        raise EssayError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("claims"), list):
        raise EssayError(f"{path} must hold a mapping with a list of `claims`.")
    alpha = _positive(document.get("alpha"), path, "alpha")
    permutations = int(_positive(document.get("permutations"), path, "permutations"))
    if alpha >= 1 or permutations < 2000:
        raise EssayError(f"{path}: alpha must be below 1, and permutations at least 2000.")
    start = int(_positive((document.get("seeds") or {}).get("verdict_from"), path, "seeds"))
    claims = tuple(_claim(entry, path) for entry in document["claims"])
    _unique([claim.id for claim in claims], path)
    return Claims(claims, alpha, permutations, start)


def _claim(entry: Any, path: Path) -> Claim:
    where = f"{path}: claim {entry.get('id') if isinstance(entry, dict) else entry!r}"
    fields = _fields(entry, _CLAIM_KEYS, {"primary", "no_test", "superseded"}, where)
    if bool(fields.get("primary")) == bool(fields.get("no_test")):
        raise EssayError(f"{where} needs either `primary` statistics or `no_test` with the reason.")
    primary = tuple(_statistic(item, where) for item in fields.pop("primary", []))
    _unique([statistic.id for statistic in primary], where)
    history = tuple(_superseded(item, primary, where) for item in fields.pop("superseded", []))
    return Claim(**_texts(fields, where), primary=primary, superseded=history)


def _statistic(entry: Any, where: str) -> Statistic:
    where = f"{where}, statistic {entry.get('id') if isinstance(entry, dict) else entry!r}"
    fields = _fields(entry, _STATISTIC_KEYS, set(), where)
    delta, n = fields.pop("delta"), fields.pop("n")
    power = fields.pop("power")
    if not isinstance(power, dict):
        raise EssayError(f"{where}: `power` must be a mapping of the assumptions.")
    return Statistic(
        **_texts(fields, where),
        delta=_positive(delta, where, "delta"),
        n=int(_positive(n, where, "n")),
        power=power,
    )


def _superseded(entry: Any, primary: tuple[Statistic, ...], where: str) -> Superseded:
    where = f"{where}, superseded"
    fields = _fields(entry, {"date", "reason", "primary"}, set(), where)
    unknown = set(fields["primary"]) - {statistic.id for statistic in primary}
    if unknown:
        raise EssayError(f"{where}: no primary statistic {unknown.pop()!r}.")
    rules = fields["primary"]
    return Superseded(
        str(fields["date"]),
        str(fields["reason"]).strip(),
        {
            id: _positive(old["delta"], where, "delta")
            for id, old in rules.items()
            if "delta" in old
        },
        tuple(id for id, old in rules.items() if set(old) - {"delta"}),
    )


def _fields(entry: Any, required: set[str], optional: set[str], where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise EssayError(f"{where} must be a mapping.")
    missing, unknown = required - set(entry), set(entry) - required - optional
    if missing or unknown:
        problem = f"lacks {sorted(missing)}" if missing else f"has unknown keys {sorted(unknown)}"
        raise EssayError(f"{where} {problem}. Needed: {sorted(required)}.")
    return dict(entry)


def _texts(fields: dict[str, Any], where: str) -> dict[str, str]:
    for key, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise EssayError(f"{where}: `{key}` must be a sentence.")
        if key == "id" and not _ID.fullmatch(value):
            raise EssayError(f"{where}: an id is lower-case letters and single hyphens.")
    return {key: value.strip() for key, value in fields.items()}


def _positive(value: Any, where: Any, key: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):
        raise EssayError(f"{where}: `{key}` must be a number above zero, not {value!r}.")
    return value


def _unique(ids: list[str], where: Any) -> None:
    for id in ids:
        if ids.count(id) > 1:
            raise EssayError(f"{where}: the id {id!r} is used twice.")
