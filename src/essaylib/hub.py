"""The model hub: what is already here, and how the rest comes.

Downloads go to the hub's own cache, so a model that another program fetched is not fetched twice.
"""

from __future__ import annotations

import shutil
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from essaylib import weights
from essaylib.errors import EssayError
from essaylib.provenance import sha256

if TYPE_CHECKING:
    from essaylib.models import ModelSpec

TEXTS = (".json", ".txt", ".model")
"""How the files end that a pipeline needs beside its weights."""


def snapshot(hub_id: str, revision: str | None = None) -> Path | None:
    """The cached folder of a model, or None where it is absent or incomplete.

    Complete is what holds the configuration and weights of every part that essaylib loads.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    # Without patterns, the hub library misses whatever else the repository holds.
    cached = partial(snapshot_download, hub_id, revision=revision, local_files_only=True)
    try:
        folder = Path(cached(allow_patterns=["model_index.json"]))
        parts = weights.components(folder)
        cached(allow_patterns=[f"{part}/*{ending}" for part in parts for ending in TEXTS])
        weights.files(folder)
    except (LocalEntryNotFoundError, HFValidationError, EssayError):
        return None
    return folder


def revision(folder: Path) -> str | None:
    """The hub's commit of a cached folder, which is the folder's name; None for any other."""
    return folder.name if folder.parent.name == "snapshots" else None


def reachable(timeout: float = 3.0) -> bool:
    """Whether the hub answers, unless HF_HUB_OFFLINE says not to ask."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    port = address.port or {"http": 80}.get(address.scheme, 443)
    try:
        with socket.create_connection((address.hostname, port), timeout):
            return True
    except OSError:
        return False


def pull(spec: ModelSpec) -> Path:
    """Download what the pipeline loads, with a progress bar; return the folder.

    Takes half-precision safetensors where every part has them. Raises `EssayError` where the hub
    cannot be reached, the disk is too full or a file arrives damaged.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    failures = (OSError, HfHubHTTPError, *_transport_errors())
    try:
        found = HfApi().model_info(spec.hub_id, revision=spec.revision, files_metadata=True)
        wanted = _wanted({file.rfilename: file for file in found.siblings})
        _check_disk(spec, sum(file.size or 0 for file in wanted.values()))
        # Asked for by its branch: for a commit the hub library keeps no name to find it by again.
        folder = Path(
            snapshot_download(spec.hub_id, revision=spec.revision, allow_patterns=list(wanted))
        )
    except failures as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EssayError(
            f"The hub did not give {spec.hub_id} ({reason}). With a network, "
            f"`essay models pull {spec.name}` fetches it; the model 'embedded' needs none."
        ) from error
    _check_arrived(folder, wanted)
    return folder


def _transport_errors() -> tuple[type[Exception], ...]:
    """The HTTP client's own errors; which client it is depends on the hub library's version."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(
        c for c in HfHubHTTPError.__mro__ if c.__name__ in ("HTTPError", "RequestException")
    )


def _wanted(stored: dict[str, Any]) -> dict[str, Any]:
    """Configurations and one set of safetensors, out of everything that the repository holds."""
    kept = {n: f for n, f in stored.items() if n.partition("/")[0] not in weights.UNUSED}
    tensors = {n: f for n, f in kept.items() if n.endswith(".safetensors") and "/" in n}
    half = {n: f for n, f in tensors.items() if ".fp16." in n}
    full = {n: f for n, f in tensors.items() if ".fp16." not in n and "non_ema" not in n}
    parts = {name.partition("/")[0] for name in full}
    chosen = half if {name.partition("/")[0] for name in half} >= parts else full
    if not chosen:
        raise EssayError("This model has no safetensors on the hub, and essaylib opens no pickle.")
    texts = {n: f for n, f in kept.items() if n.endswith(TEXTS)}
    return texts | chosen


def _check_disk(spec: ModelSpec, needed: int) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise EssayError(
            f"{spec.name} needs {needed / 1e9:.1f} GB on disk and {place} has {free / 1e9:.1f} GB "
            "free: make room, or set HF_HOME to a larger disk."
        )


def _check_arrived(folder: Path, wanted: dict[str, Any]) -> None:
    for name, file in wanted.items():
        if file.lfs is not None and sha256(folder / name) != file.lfs.sha256:
            raise EssayError(f"{folder / name} arrived damaged: delete it and pull again.")
