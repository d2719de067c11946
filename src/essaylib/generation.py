"""One image from one prompt, saved with what it came from: the `essay generate` command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from essaylib import models
from essaylib.errors import EssayError


def save(
    prompt: str,
    output: str | Path,
    model: str = "embedded",
    seed: int = 0,
    guidance_scale: float | None = None,
    steps: int | None = None,
    size: int | None = None,
    device: str = "auto",
) -> Path:
    """Draw one image and save it as a PNG; return its path.

    `guidance_scale` and `steps` default to the model's own; `size` is the side in pixels. The file
    carries prompt, settings and the weights' hashes in its own metadata, and no date: the same
    arguments give the same bytes. Raises `EssayError` for an empty prompt and for a place that
    cannot be written, before anything is drawn.
    """
    if not prompt.strip():
        raise EssayError('The prompt is empty: say what to draw, as in "dog face, google".')
    output = Path(output)
    _check_writable(output)
    spec = models.resolve(model)
    settings = {
        "seed": seed,
        "steps": spec.steps if steps is None else steps,
        "guidance_scale": spec.guidance_scale if guidance_scale is None else guidance_scale,
    }
    pipe = models.load(model, device)

    from essaylib import repro

    image = repro.generate(
        pipe,
        prompt,
        settings["seed"],
        steps=settings["steps"],
        guidance_scale=settings["guidance_scale"],
        height=size,
        width=size,
    )[0]
    _write(image, output, {"prompt": prompt, **settings, "model": models.describe(pipe)})
    return output


def _check_writable(output: Path) -> None:
    folder = output.parent
    if output.suffix.lower() != ".png":
        raise EssayError(f"{output} is no PNG: give a name that ends in .png.")
    if not folder.is_dir():
        raise EssayError(f"There is no folder {folder}: make it, or choose another place.")
    if output.is_dir() or not os.access(output if output.exists() else folder, os.W_OK):
        raise EssayError(f"{output} cannot be written: choose another place with -o.")


def _write(image: Any, output: Path, made_with: dict[str, Any]) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("Description", made_with["prompt"])
    info.add_itxt("Software", "essaylib")
    info.add_itxt("essaylib:generation", json.dumps(made_with, sort_keys=True))
    try:
        image.save(output, pnginfo=info)
    except OSError as error:
        raise EssayError(
            f"{output} could not be written: {error.strerror or error}. Choose another "
            "place with -o."
        ) from error
