"""A declared run: prompts x seeds x settings, written down in `data/runs/<name>/plan.yml`.

    purpose: ...
    prompts:
      caption: "{concept}"         # {vendor} stands for one of the concept's training vendors
      count: 80                    # concepts drawn at random
      minimum_training_vendors: 3
      minimum_content_words: 3     # distinct words of the concept, without "with" and the like
    seeds: 8                       # images a prompt and setting
    steps: 25
    settings:
      - {name: "4", guidance_scale: 4}

`prompts` may also be a list of texts. The seed that draws the concepts and the images' own seeds
are below 10000 until the embedded model is frozen, and from 10000 up afterwards, so that no verdict
rests on what an exploration has seen. By default every prompt has seeds of its own, the same at
every setting; `shared_seeds: true` gives all prompts the same ones (a crossed design).

A setting may have a `caption` of its own in place of the prompts' one: same concepts, same seeds,
asked in other words.

A setting of the method `ablation` hides tokens from cross-attention. `hidden: words` draws each
prompt once for each of its content words, without that word; `hidden: padding` once, without the
last position of its padding. The table then has a column `hidden`, None where nothing is.

`judged: false` spares images that no chapter shows to the judge.

`until_frozen: {count: 24, settings: ["1", "4"]}` explores with fewer prompts, or some of the
settings, as long as the embedded model is not final.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from essaylib import claims, paths
from essaylib.errors import EssayError

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("ordinary", "interval", "autoguidance", "ablation")
PADDING = "<padding>"
"""What `hidden` holds where the last position of the padding is hidden."""

_PLAN_KEYS = {"purpose", "prompts", "seeds", "steps", "settings", "shared_seeds", "until_frozen"}
_PLAN_KEYS |= {"judged"}
_PROMPT_KEYS = {"caption", "count", "minimum_training_vendors", "minimum_content_words"}
_SETTING_KEYS = {"name", "guidance_scale", "method", "steps", "negative_prompt", "caption"}
_METHOD_KEYS = {
    "ordinary": set(),
    "interval": {"interval"},
    "autoguidance": {"guide"},
    "ablation": {"hidden"},
}
# Articles, pronouns, conjunctions, prepositions and negations of the corpus's English names.
_FUNCTION_WORDS = frozenset(
    ["a", "an", "and", "as", "at", "but", "by", "de", "for", "from", "in", "me", "my", "no", "non"]
    + ["not", "of", "on", "or", "over", "the", "to", "vs", "with", "without", "you", "your"]
)


@dataclass(frozen=True)
class Setting:
    """One way of drawing.

    method "ordinary" guides at every step; "interval" only at timesteps in `interval` (low,
    high); "autoguidance" by the U-Net in the folder `guide`, relative to models/; "ablation" with
    tokens `hidden` from cross-attention ("words" or "padding"). `caption` asks in other words than
    the plan's own.
    """

    name: str
    guidance_scale: float
    steps: int
    method: str = "ordinary"
    negative_prompt: str | None = None
    interval: tuple[float, float] | None = None
    guide: str | None = None
    caption: str | None = None
    hidden: str | None = None

    def hides(self, prompt: str) -> list[str | None]:
        """What is hidden of a prompt, one entry for each time that the setting draws it."""
        if self.hidden == "words":
            return list(content_words(prompt))
        return [PADDING if self.hidden else None]


@dataclass(frozen=True)
class Plan:
    """A declared run. `document` is the plan as written, for its hash and provenance."""

    name: str
    prompts: dict[str, Any] | tuple[str, ...]
    seeds: int
    shared_seeds: bool
    settings: tuple[Setting, ...]
    document: dict[str, Any]
    judged: bool = True

    def table(self, first_seed: int) -> pd.DataFrame:
        """One row an image: setting, prompt, concept, vendor, seed; settings in their order.

        concept and vendor are None for prompts that were listed as texts. A plan that hides tokens
        has a sixth column, hidden.
        """
        import pandas as pd

        asked = self._asked(first_seed)
        rows = []
        for setting in self.settings:
            for i, (prompt, concept, vendor) in enumerate(asked):
                if setting.caption:
                    prompt = setting.caption.format(concept=concept, vendor=vendor)
                start = first_seed + (0 if self.shared_seeds else i * self.seeds)
                for hidden in setting.hides(prompt):
                    for seed in range(start, start + self.seeds):
                        rows.append((setting.name, prompt, concept, vendor, seed, hidden))
        columns = ["setting", "prompt", "concept", "vendor", "seed", "hidden"]
        table = pd.DataFrame(rows, columns=columns)
        return table if any(s.hidden for s in self.settings) else table.drop(columns="hidden")

    def setting(self, name: str) -> Setting:
        """The setting of this name; raise `EssayError` where the plan has none."""
        named = {setting.name: setting for setting in self.settings}
        if name not in named:
            raise EssayError(
                f"The plan {self.name!r} has no setting {name!r}; it has {', '.join(named)}."
            )
        return named[name]

    def _asked(self, first_seed: int) -> list[tuple[str, str | None, str | None]]:
        if isinstance(self.prompts, tuple):
            return [(prompt, None, None) for prompt in self.prompts]
        return _draw_concepts(self.name, self.prompts, first_seed)


def content_words(text: str) -> list[str]:
    """The distinct words of a prompt that name or qualify something, in its order, lower-case.

    Single letters and English function words are left out.

    >>> content_words("family: woman, woman, girl with a ball")
    ['family', 'woman', 'girl', 'ball']
    """
    words = dict.fromkeys(re.findall(r"[^\W\d_]{2,}", text.casefold()))
    return [word for word in words if word not in _FUNCTION_WORDS]


def declared() -> list[str]:
    """Names of the plans in data/runs."""
    return sorted(path.parent.name for path in paths.runs().glob("*/plan.yml"))


def load(name: str, final: bool | None = None) -> Plan:
    """Read a plan by its name; raise `EssayError` that names the key at fault.

    `final` asks for the whole plan, as verdicts need it; by default, whether the embedded model is
    frozen decides.
    """
    path = paths.runs() / name / "plan.yml"
    if not path.is_file():
        known = ", ".join(declared()) or "none"
        raise EssayError(f"There is no plan {name!r} in {paths.runs()}. Declared: {known}.")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise EssayError(f"{path} is not valid YAML: {error}") from error
    plan = _plan(name, document, path)
    if claims.frozen() if final is None else final:
        return plan
    return _explored(plan, path)


def _explored(plan: Plan, path: Path) -> Plan:
    """The plan with what `until_frozen` leaves of it."""
    less = plan.document.get("until_frozen", {})
    _keys(less, set(), {"count", "settings"}, path)
    kept = [str(name) for name in less.get("settings", [s.name for s in plan.settings])]
    known = [setting.name for setting in plan.settings]
    if not set(kept) <= set(known):
        raise EssayError(f"{path}: `until_frozen` names settings that are not in the plan.")
    prompts = plan.prompts
    if "count" in less:
        if isinstance(prompts, tuple):
            raise EssayError(f"{path}: prompts that are listed have no `count` to lower.")
        prompts = prompts | {"count": _whole(less["count"], path, "count")}
    settings = tuple(setting for setting in plan.settings if setting.name in kept)
    return replace(plan, prompts=prompts, settings=settings)


def _plan(name: str, document: Any, path: Path) -> Plan:
    _keys(document, {"prompts", "seeds", "settings"}, _PLAN_KEYS, path)
    steps = _whole(document.get("steps", 25), path, "steps")
    entries = document["settings"]
    if not isinstance(entries, list) or not entries:
        raise EssayError(f"{path}: `settings` must list at least one setting.")
    settings = tuple(_setting(entry, steps, path) for entry in entries)
    if isinstance(document["prompts"], list) and any(s.caption for s in settings):
        raise EssayError(f"{path}: prompts that are listed have no concept for a `caption`.")
    names = [setting.name for setting in settings]
    if len(set(names)) < len(names):
        raise EssayError(f"{path}: two settings have one name.")
    return Plan(
        name,
        _prompts(document["prompts"], path),
        _whole(document["seeds"], path, "seeds"),
        bool(document.get("shared_seeds", False)),
        settings,
        document,
        bool(document.get("judged", True)),
    )


def _prompts(entry: Any, path: Path) -> dict[str, Any] | tuple[str, ...]:
    if isinstance(entry, list):
        if not entry or not all(isinstance(text, str) for text in entry):
            raise EssayError(f"{path}: `prompts` must list texts.")
        if len(set(entry)) < len(entry):
            raise EssayError(f"{path}: a prompt is listed twice; raise `seeds` instead.")
        return tuple(entry)
    _keys(entry, {"caption", "count"}, _PROMPT_KEYS, path)
    _whole(entry["count"], path, "count")
    for key in ("minimum_training_vendors", "minimum_content_words"):
        _whole(entry.get(key, 1), path, key)
    if "{concept}" not in str(entry["caption"]):
        raise EssayError(f"{path}: `caption` must hold {{concept}}, and may hold {{vendor}}.")
    return entry


def _setting(entry: Any, steps: int, path: Path) -> Setting:
    method = entry.get("method", "ordinary") if isinstance(entry, dict) else "ordinary"
    if method not in METHODS:
        raise EssayError(f"{path}: unknown method {method!r}; known: {', '.join(METHODS)}.")
    own = _METHOD_KEYS[method]
    _keys(entry, {"name", "guidance_scale"} | own, _SETTING_KEYS | own, path)
    scale = entry["guidance_scale"]
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not math.isfinite(scale):
        raise EssayError(f"{path}: guidance_scale must be a number, not {scale!r}.")
    span = entry.get("interval")
    if method == "interval" and not _is_interval(span):
        raise EssayError(f"{path}: `interval` must be two timesteps, low and high, not {span!r}.")
    if method == "ablation" and entry.get("hidden") not in ("words", "padding"):
        raise EssayError(f"{path}: `hidden` must be words or padding, not {entry.get('hidden')!r}.")
    if method in ("interval", "autoguidance") and scale <= 1:
        raise EssayError(f"{path}: {method} changes guidance, so guidance_scale must exceed 1.")
    caption = entry.get("caption")
    if caption is not None and "{concept}" not in str(caption):
        raise EssayError(f"{path}: `caption` must hold {{concept}}, and may hold {{vendor}}.")
    return Setting(
        str(entry["name"]),
        float(scale),
        _whole(entry.get("steps", steps), path, "steps"),
        method,
        entry.get("negative_prompt"),
        (float(span[0]), float(span[1])) if span else None,
        entry.get("guide"),
        caption,
        entry.get("hidden"),
    )


def _is_interval(span: Any) -> bool:
    if not isinstance(span, list) or len(span) != 2:
        return False
    return all(isinstance(end, (int, float)) for end in span) and 0 <= span[0] < span[1]


def _draw_concepts(
    name: str, wanted: dict[str, Any], seed: int
) -> list[tuple[str, str | None, str | None]]:
    import numpy as np

    from essaylib import corpus

    table = corpus.load().where(split="train").table
    vendors = table.groupby("concept", sort=True).vendor.agg(lambda v: sorted(set(v)))
    vendors = vendors[vendors.str.len() >= wanted.get("minimum_training_vendors", 1)]
    least = wanted.get("minimum_content_words", 0)
    vendors = vendors[[len(content_words(concept)) >= least for concept in vendors.index]]
    if len(vendors) < wanted["count"]:
        raise EssayError(
            f"The plan {name!r} asks for {wanted['count']} concepts and {len(vendors)} have enough "
            "training vendors and content words: lower `count` or one of the minima."
        )
    rng = np.random.default_rng(seed)
    drawn = []
    for concept in vendors.index[rng.permutation(len(vendors))[: wanted["count"]]]:
        named = "{vendor}" in wanted["caption"]
        vendor = str(rng.choice(vendors[concept])) if named else None
        drawn.append((wanted["caption"].format(concept=concept, vendor=vendor), concept, vendor))
    return drawn


def _keys(entry: Any, required: set[str], known: set[str], path: Path) -> None:
    if not isinstance(entry, dict):
        raise EssayError(f"{path}: {entry!r} must be a mapping of {', '.join(sorted(known))}.")
    missing, unknown = required - set(entry), set(entry) - known
    if missing or unknown:
        problem = f"lacks {sorted(missing)}" if missing else f"has unknown keys {sorted(unknown)}"
        raise EssayError(f"{path} {problem}. Known: {', '.join(sorted(known))}.")


def _whole(value: Any, path: Path, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise EssayError(f"{path}: `{key}` must be a whole number from 1 up, not {value!r}.")
    return value
