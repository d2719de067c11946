"""The judge: small networks that name the concept and the vendor of a picture.

Adherence and concentration must not be scored by the CLIP that conditions the model, so they are
scored by this one. It learnt from pixels alone: training drawings, their autoencoder round trips,
blur and noise; never from CLIP features, never from generated images. It may say *unsure*.

The two answers are read from different things. A concept is read from shapes. A vendor is read
from palette and margins alone: a network that may look at shapes learns by heart who drew which
drawing, and knows little of drawings that it has not seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from essaylib import paths
from essaylib.errors import EssayError

SIDE = 64
"""Width and height of a picture as the judge sees it, in pixels."""
SHADES = 8
"""Shades of each channel that the palette tells apart."""
TRAITS = SHADES**3 + 2 * SIDE
"""Numbers that the vendor is read from."""
UNSURE = -1


class Block(nn.Module):
    """A residual block of two 3 × 3 convolutions; the first may halve the picture."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        self.skip = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norms[0](self.one(x)))
        y = self.norms[1](self.two(y))
        return torch.relu(y + (self.skip(x) if self.skip is not None else x))


class Manner(nn.Module):
    """One hidden layer over palette and margins: (n, `TRAITS`) to vendor logits."""

    def __init__(self, vendors: int, width: int = 256) -> None:
        super().__init__()
        # Traits are standardised; a colour that hardly ever occurs must not be blown up.
        self.standard = nn.BatchNorm1d(TRAITS, eps=4e-4, affine=False)
        self.hidden = nn.Linear(TRAITS, width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(width, vendors)

    def forward(self, traits: torch.Tensor) -> torch.Tensor:
        return self.out(self.drop(torch.relu(self.hidden(self.standard(traits)))))


class Cosine(nn.Module):
    """Logits by direction alone: cosines to one direction a class, times a learned scale.

    With three drawings a class, the lengths of features tell which drawing it was (Gidaris and
    Komodakis 2018, "Dynamic Few-Shot Visual Learning without Forgetting").
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width) / width**0.5)
        self.scale = nn.Parameter(torch.tensor(16.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        directions = nn.functional.normalize(self.weight, dim=-1)
        return self.scale * nn.functional.normalize(features, dim=-1) @ directions.T


class Reader(nn.Module):
    """A residual network that reads concepts: pictures to features, features to logits."""

    def __init__(self, concepts: int, widths: Sequence[int], head: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        sizes = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.Sequential(*(Block(a, b, 2 if a != b else 1) for a, b in sizes))
        self.drop = nn.Dropout(0.2)
        self.concept = head(widths[-1], concepts)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the concept is read from: (n, widths[-1]), means over the last maps."""
        return self.blocks(self.stem(pixels)).mean(dim=(2, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.concept(self.drop(self.features(pixels)))


READERS = (((32, 64, 128, 256), nn.Linear), ((48, 96, 192, 256, 256), Cosine))
"""Widths and head of each reader. Two that differ err less often together than either alone."""


class Network(nn.Module):
    """Concept and vendor of pictures (n, 3, 64, 64) in [-1, 1]."""

    def __init__(self, concepts: int, vendors: int, readers: Sequence = READERS) -> None:
        super().__init__()
        self.readers = nn.ModuleList(Reader(concepts, *shape) for shape in readers)
        self.widths = [widths[-1] for widths, _ in readers]
        self.vendor = Manner(vendors)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the readers' features side by side: (n, sum of their widths)."""
        return torch.cat([reader.features(pixels) for reader in self.readers], dim=1)

    def concept(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean of the readers' log-probabilities (n, concepts), from `features`."""
        parts = zip(self.readers, features.split(self.widths, dim=1), strict=True)
        said = [reader.concept(part).log_softmax(1) for reader, part in parts]
        return torch.stack(said).mean(0)


def traits(pixels: torch.Tensor) -> torch.Tensor:
    """Return palette and margins of pictures: (n, 3, 64, 64) in [-1, 1] to (n, `TRAITS`).

    The palette is the square root of a histogram of `SHADES` shades a channel, to which each pixel
    counts in proportion to its nearness. The margins are the strongest ink, 0 to 1, of every row
    and of every column.
    """
    values = ((pixels.clamp(-1, 1) + 1) / 2).flatten(2)
    shades = torch.arange(SHADES, device=pixels.device)
    near = (1 - ((SHADES - 1) * values[..., None] - shades).abs()).clamp_min(0)
    red, green, blue = near.unbind(1)
    pairs = (green[..., :, None] * blue[..., None, :]).flatten(2)
    palette = (red.mT @ pairs).flatten(1) / values.shape[-1]
    ink = 1 - values.unflatten(2, pixels.shape[2:]).amin(1)
    return torch.cat([palette.clamp_min(0).sqrt(), ink.amax(2), ink.amax(1)], dim=1)


@dataclass(frozen=True)
class Judgement:
    """What the judge says of n pictures.

    `concept` and `vendor` are indices (n,), `UNSURE` where the judge will not say; `best_concept`
    and `best_vendor` are its first guesses whether it is sure or not. Probabilities are (n, k);
    `features` (n, 512) are what the concept was read from.
    """

    concept: np.ndarray
    vendor: np.ndarray
    best_concept: np.ndarray
    best_vendor: np.ndarray
    concept_probs: np.ndarray
    vendor_probs: np.ndarray
    features: np.ndarray


class Judge:
    """A trained judge: call it with pictures."""

    def __init__(self, network: Network, settings: dict) -> None:
        self.network = network.eval()
        self.concepts: list[str] = settings["concepts"]
        self.vendors: tuple[str, ...] = tuple(settings["vendors"])
        self.temperature: dict[str, float] = settings["temperature"]
        self.threshold: dict[str, float] = settings["threshold"]

    @classmethod
    def load(cls, path: str | Path | None = None) -> Judge:
        """Load the judge from a folder of `judge.safetensors` and `judge.json`.

        Raises `EssayError` where a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(path or paths.models() / "judge")
        cure = "Restore it with `git checkout -- models/judge`, or train it: `essay train judge`."
        try:
            settings = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
            network = Network(len(settings["concepts"]), len(settings["vendors"]))
            network.load_state_dict(load_file(folder / "judge.safetensors"))
        except FileNotFoundError as error:
            raise EssayError(f"The judge is incomplete: no {error.filename}. {cure}") from error
        except (SafetensorError, json.JSONDecodeError, RuntimeError, KeyError) as error:
            raise EssayError(f"The judge in {folder} is damaged ({error}). {cure}") from error
        return cls(network.float(), settings)

    def save(self, folder: Path) -> None:
        """Write `judge.safetensors` (fp16) and `judge.json`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        state = {
            k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in self._state()
        }
        save_file(state, folder / "judge.safetensors")
        settings = {
            "vendors": list(self.vendors),
            "temperature": self.temperature,
            "threshold": self.threshold,
            "concepts": self.concepts,
        }
        (folder / "judge.json").write_text(
            json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def _state(self):
        return sorted(self.network.state_dict().items())

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return uncalibrated logits of concept and vendor, and features, of uint8 pictures."""
        found = []
        for batch in torch.from_numpy(np.ascontiguousarray(images)).split(256):
            pixels = prepare(batch)
            features = self.network.features(pixels)
            vendor = self.network.vendor(traits(pixels))
            found.append((self.network.concept(features), vendor, features))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def __call__(self, images: np.ndarray) -> Judgement:
        """Judge uint8 pictures (n, h, w, 3), h = w a multiple of 64 (they are averaged down)."""
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise EssayError(
                f"The judge takes uint8 pictures (n, h, w, 3), not {images.dtype} {images.shape}: "
                "make them with np.stack([np.asarray(image.convert('RGB')) for image in images])."
            )
        if images.shape[1] != images.shape[2] or images.shape[1] % SIDE:
            raise EssayError(
                f"The judge takes square pictures whose side is a multiple of {SIDE}, not "
                f"{images.shape[1]} × {images.shape[2]}: resize them first."
            )
        concept, vendor, features = self.logits(images)
        concept = (concept / self.temperature["concept"]).softmax(1).numpy()
        vendor = (vendor / self.temperature["vendor"]).softmax(1).numpy()
        return Judgement(
            concept=decide(concept, self.threshold["concept"]),
            vendor=decide(vendor, self.threshold["vendor"]),
            best_concept=concept.argmax(1),
            best_vendor=vendor.argmax(1),
            concept_probs=concept,
            vendor_probs=vendor,
            features=features.numpy(),
        )


def decide(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return the likeliest class of each row, or `UNSURE` where it falls below the threshold."""
    best = probabilities.argmax(1)
    return np.where(probabilities.max(1) >= threshold, best, UNSURE)


def prepare(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 (n, h, w, 3) as float (n, 3, 64, 64) in [-1, 1], averaged over blocks."""
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return nn.functional.avg_pool2d(pixels, pixels.shape[-1] // SIDE)
