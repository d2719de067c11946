"""What a model folder holds, read without loading it: which weights, whole or not, how many.

A diffusers folder lists its components in `model_index.json`; each model among them has its weights
as safetensors in a folder of its own. Pickles run code when they are opened, so they never are.
"""

import json
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from essaylib.errors import EssayError
from essaylib.provenance import sha256

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
SUMS = "SHA256SUMS"
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


def index(folder: Path) -> dict[str, Any]:
    """The folder's `model_index.json`; raise `EssayError` where it is missing or not JSON."""
    path = folder / "model_index.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EssayError(
            f"{folder} is no diffusers model: it has no model_index.json. Give the folder that "
            "`pipeline.save_pretrained` wrote."
        ) from None
    except ValueError as error:
        raise EssayError(f"{path} is not JSON ({error}): fetch the model again.") from None


def components(folder: Path) -> list[str]:
    """Names of the pipeline's parts, without those that essaylib never loads."""
    parts = index(folder).items()
    return [n for n, part in parts if _present(part) and n not in UNUSED]


def _present(part: Any) -> bool:
    return isinstance(part, list) and part[0] is not None


def files(folder: Path) -> list[Path]:
    """The safetensors that loading the folder reads; raise `EssayError` for what is unfit."""
    found = []
    for name in components(folder):
        if (folder / name / "config.json").is_file():
            found += component_files(folder / name)
    return found


def component_files(folder: Path) -> list[Path]:
    """The safetensors of one model, fp16 ones only where there are no others."""
    stored = sorted(folder.glob("*.safetensors"))
    if not stored:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        if pickles:
            raise EssayError(
                f"{folder / pickles[0]} is a pickle, which can run any code when opened: essaylib "
                "reads safetensors only. Use a model that ships them, or convert this one where "
                "you trust it: `pipeline.save_pretrained(folder, safe_serialization=True)`."
            )
        raise EssayError(f"{folder} has no weights (*.safetensors): fetch the model again.")
    return [path for path in stored if ".fp16." not in path.name] or stored


def variant(folder: Path) -> str | None:
    """ "fp16" where the folder's U-Net comes in that variant only."""
    unet = folder / "unet"
    if not unet.is_dir():
        return None
    return "fp16" if all(".fp16." in path.name for path in component_files(unet)) else None


def check(folder: Path, used: Iterable[Path]) -> None:
    """Raise `EssayError` naming the first file that is missing, cut short or changed."""
    listed = sums(folder)
    for path in used:
        parameters(path)
        expected = listed.get(path.relative_to(folder).as_posix())
        if expected is not None and sha256(path) != expected:
            raise EssayError(
                f"{path} is damaged: its SHA-256 is not the one in {folder / SUMS}. Restore it "
                f"(in a clone: `git checkout -- {path.name}` in its folder) or fetch it again."
            )


def check_component(folder: Path) -> None:
    """`check` one model, whose sums lie in its own folder or, for a pipeline's part, one above."""
    root = folder if (folder / SUMS).is_file() else folder.parent
    check(root, component_files(folder))


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file, from the folder's SHA256SUMS; empty where there is none."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name.strip(): digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight that loading the folder reads.

    A hub's cache names each file after its hash, so a gigabyte need not be read again.
    """
    named = {}
    for path in files(folder):
        name = path.resolve().name
        known = path.is_symlink() and len(name) == 64
        named[path.relative_to(folder).as_posix()] = name if known else sha256(path)
    return named


def parameters(path: Path) -> int:
    """Number of parameters in a safetensors file; raise `EssayError` where it is cut short."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise EssayError(f"{path} is missing: fetch the model again.") from None
    return _parameters(path, stat.st_size, stat.st_mtime_ns)


@cache
def _parameters(path: Path, size: int, modified: int) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(length)) if 8 + length <= size else None
        except ValueError:
            tensors = None
    if not isinstance(tensors, dict):
        raise EssayError(f"{path} is no safetensors file, or cut short: fetch the model again.")
    tensors.pop("__metadata__", None)
    end = 8 + length + max((t["data_offsets"][1] for t in tensors.values()), default=0)
    if end != size:
        raise EssayError(f"{path} is cut short: {size:,} bytes of {end:,}. Fetch the model again.")
    return sum(math.prod(t["shape"]) for t in tensors.values())
