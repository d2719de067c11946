"""Put the trained parts together: a diffusers pipeline folder that loads without essaylib."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from essaylib import claims, corpus, paths, provenance, weights
from essaylib.training.loop import made
from essaylib.training.unet import scheduler

STAGES = ("clip", "autoencoder", "judge", "judge-2", "judge-vendor", "unet")
CLIPS = {
    "clip-unnamed": "clip-unnamed",
    "clip-first": "clip-halves/first",
    "clip-second": "clip-halves/second",
}
"""Parts that are CLIPs of their own, and their folders in models/."""


def run(parts: Path = Path("checkpoints"), out: Path | None = None, frozen: bool = False) -> Path:
    """Write `models/emoji-ldm` and `models/judge` from the parts; return the first folder.

    `frozen` says that the weights are final. Weights that were final stay so where the same are
    put together once more.

    The CLIPs that condition nothing (`CLIPS`) go to folders of their own, where the parts have
    them. Weights are stored in fp16. `training.json` says how each part was trained, `SHA256SUMS`
    what the files are, `history/` how the losses went. Raises `EssayError`, before anything is
    written, where a part has not been trained.
    """
    out = Path(out) if out else paths.models() / "emoji-ldm"
    for name in ("tokenizer", "clip", "vae", "unet", "judge"):
        made(parts / name)
    final = weights.sums(out) if claims.frozen(out) else None
    clip = CLIPModel.from_pretrained(parts / "clip", dtype=torch.float32)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(parts / "vae"),
        text_encoder=clip.text_model,
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(parts / "unet"),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(dtype=torch.float16).save_pretrained(out)
    clip.half().save_pretrained(out / "clip")
    prefix_keys(out / "text_encoder" / "model.safetensors")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(parts / "tokenizer" / name, out / "tokenizer" / name)
    for name in ("text_encoder", "clip"):
        load_in_full(out / name / "config.json")
    write_sums(out)
    write_record(parts, out, frozen or weights.sums(out) == final)
    keep_history(parts, out)
    judge = out.parent / "judge"
    shutil.copytree(parts / "judge", judge, dirs_exist_ok=True)
    write_sums(judge)
    for name, place in CLIPS.items():
        if (parts / name / "config.json").is_file():
            copy_clip(parts, name, out.parent / place)
    for folder in sorted(parts.glob("unet-*")):
        if (folder / "config.json").is_file() and not is_early(folder.name):
            copy_unet(folder, out.parent / folder.name)
    return out


def keep_history(parts: Path, out: Path) -> None:
    """Copy each stage's log, and what the U-Net drew, to `history`, numbered by stretch."""
    stages = json.loads((out / "training.json").read_text())["stages"]
    place = out / "history"
    (place / "samples").mkdir(parents=True, exist_ok=True)
    for name, facts in stages.items():
        number = ordinal(facts)
        if (log := parts / f"{name}.csv").is_file():
            shutil.copy(log, place / f"{name}-{number:02d}.csv")
        if name == "unet":
            for picture in sorted((parts / "unet-samples").glob("*.webp")):
                shutil.copy(picture, place / "samples" / f"{number:02d}-{picture.name}")


def is_early(name: str) -> bool:
    """Whether a folder holds the earlier weights of a U-Net other than the embedded model's."""
    return name.removeprefix("unet-").endswith("-early")


def copy_unet(part: Path, place: Path) -> None:
    """Write a U-Net that stands beside the embedded model's: earlier, or of other drawings."""
    UNet2DConditionModel.from_pretrained(part).half().save_pretrained(place)
    keep_logs(part, place)
    write_sums(place)


def copy_clip(parts: Path, name: str, place: Path) -> None:
    """Write a CLIP that reads with the embedded model's tokenizer, and how it was trained."""
    CLIPModel.from_pretrained(parts / name, dtype=torch.float32).half().save_pretrained(place)
    load_in_full(place / "config.json")
    keep_logs(parts / name, place)
    write_sums(place)


def keep_logs(part: Path, place: Path) -> None:
    """Write beside a part how it was trained, as `training.json`, and each stretch's losses."""
    record = place / "training.json"
    was = json.loads(record.read_text()) if record.is_file() else None
    if facts := stretch(part.with_suffix(".json"), was):
        record.write_text(json.dumps(facts, indent=2) + "\n")
        later = f"-{ordinal(facts):02d}" if ordinal(facts) > 1 else ""
        if (log := part.with_suffix(".csv")).is_file():
            shutil.copy(log, place / f"training{later}.csv")


def prefix_keys(weights: Path) -> None:
    """Name the text tower's tensors as Stable Diffusion does, so that every release reads them."""
    state = load_file(weights)
    if not any(key.startswith("text_model.") for key in state):
        state = {f"text_model.{key}": tensor for key, tensor in state.items()}
    save_file(state, weights, metadata={"format": "pt"})


def load_in_full(config: Path) -> None:
    """Ask transformers for float32: it would load fp16 as stored, which the U-Net cannot take."""
    settings = json.loads(config.read_text())
    settings["dtype"] = "float32"
    for part in ("text_config", "vision_config"):
        if part in settings:
            settings[part]["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def write_record(parts: Path, out: Path, frozen: bool) -> None:
    """Write `training.json`: corpus, stages, versions, machine, and whether weights may change.

    A stage that went on from committed weights lists the stretches that these had behind them
    under `before`; one that was not trained anew keeps its entry.
    """
    path = out / "training.json"
    was = json.loads(path.read_text())["stages"] if path.is_file() else {}
    stages = {name: stretch(parts / f"{name}.json", was.get(name)) for name in STAGES}
    stages = {name: facts for name, facts in stages.items() if facts}
    record = {
        "frozen": frozen,
        "corpus_sha256": corpus.load().sha256,
        "stages": stages,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    path.write_text(json.dumps(record, indent=2) + "\n")


def stretch(path: Path, was: dict | None) -> dict | None:
    """Return a stage's facts, with the earlier stretches that they continue."""
    if not path.is_file():
        return was
    facts = json.loads(path.read_text())
    if not was or not facts.get("from_committed"):
        return facts
    last = {key: value for key, value in was.items() if key != "before"}
    if last == facts:  # assembled once more
        return was
    return facts | {"before": [last, *was.get("before", [])]}


def ordinal(facts: dict) -> int:
    """Which stretch of its stage a record is of, counted from 1."""
    return 1 + len(facts.get("before", []))


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every weight file, in the form that `sha256sum -c` reads."""
    files = sorted(folder.rglob("*.safetensors"))
    for file in files:
        file.chmod(0o644)  # safetensors writes them for the owner alone
    lines = [f"{provenance.sha256(f)}  {f.relative_to(folder).as_posix()}\n" for f in files]
    (folder / weights.SUMS).write_text("".join(lines))
