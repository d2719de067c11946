"""One labelled record of a generation: what `essaylib.trace` fills, saves and loads.

S is the number of U-Net calls, B of images, (C, h, w) the shape of a latent, T the number of token
positions, N of those kept, H of heads. Everything is on the host.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from essaylib.errors import EssayError

TENSORS = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "timesteps",
    "alphas_cumprod",
    "guidance_scale",
    "latents",
    "noise_pred_uncond",
    "noise_pred_text",
    "noise_pred",
    "pred_original_sample",
)


@dataclass(frozen=True)
class Token:
    """One position of the prompt as the text encoder saw it.

    `word` counts the prompt's words from 0 (None for special tokens). `special` is "start", "end",
    "padding" or None. A `truncated` token was cut off by the tokenizer: it has no position.
    """

    id: int
    text: str
    word: int | None
    special: str | None
    truncated: bool = False


@dataclass
class Maps:
    """Cross-attention of one layer: `values` float16 (S, B, H or 1, h_l, w_l, N).

    Over the last axis each pixel's shares sum to one. `place` is "down", "mid" or "up"; `branch`
    is "text" or "uncond"; `heads` is what the layer has, of which `values` may hold the mean.
    """

    layer: str
    place: str
    branch: str
    heads: int
    values: torch.Tensor

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the layer's feature map."""
        return self.values.shape[3], self.values.shape[4]


@dataclass(frozen=True)
class Span:
    """How long one operation took, and the highest memory use so far.

    On CUDA that is the accelerator's allocated memory. Elsewhere it is the process's resident
    memory, read at the end of text encoding, of each U-Net call and of decoding.
    """

    operation: str
    step: int | None
    layer: str | None
    seconds: float
    peak_bytes: int


@dataclass
class Trace:
    """The record. Fields that the pipeline or the `Capture` did not give are None or empty.

    `tokens[image]` and `words[image]` describe each image's prompt (empty where the caller passed
    embeddings). `latents[0]` is the initial noise and `latents[s + 1]` what step s left, both as
    the scheduler holds them: the Euler family scales them by sqrt(1 + sigma²). `noise_pred_uncond`
    is None without guidance, and NaN in a step that had none.
    """

    tokens: list[list[Token]] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    prompt_embeds: torch.Tensor | None = None
    negative_prompt_embeds: torch.Tensor | None = None
    timesteps: torch.Tensor | None = None
    alphas_cumprod: torch.Tensor | None = None
    guidance_scale: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    noise_pred_uncond: torch.Tensor | None = None
    noise_pred_text: torch.Tensor | None = None
    noise_pred: torch.Tensor | None = None
    pred_original_sample: torch.Tensor | None = None
    cross_attention: dict[str, Maps] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    image: np.ndarray | None = None
    reductions: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """U-Net calls; PNDM makes one more than the steps that were asked for."""
        return 0 if self.timesteps is None else len(self.timesteps)

    @property
    def layers(self) -> list[str]:
        """Module paths of the layers whose attention was captured."""
        return list(self.cross_attention)

    def positions(self, text: str, image: int = 0) -> list[int]:
        """Token positions of a word or phrase, every time that it occurs in the image's prompt.

        Raises `EssayError` where the prompt does not have it, or the tokenizer cut it off.
        """
        self.require_tokens(image)
        return find(text, self.tokens[image], self.words[image])

    def attention(
        self,
        word: str | None = None,
        step: int | slice | None = None,
        layer: str | None = None,
        image: int = 0,
    ) -> dict[str, torch.Tensor]:
        """Captured maps of one image by layer, float32.

        Each is (S, H, h_l, w_l, N), without S for one `step`, without N for one `word` (the sum of
        its pieces). `layer` is a module path or a part of one, such as "up_blocks.1" or "mid".
        Raises `EssayError` where no such map was captured.
        """
        self.require_maps(image)
        if step is not None:
            require_place("step", step, len(self._a_map()))
        chosen = [name for name in self.layers if layer is None or layer in name]
        if not chosen:
            raise EssayError(f"No captured layer matches {layer!r}: {', '.join(self.layers)}.")
        maps = {name: self.cross_attention[name].values[:, image].float() for name in chosen}
        if word is not None:
            at = self.columns(self.positions(word, image))
            maps = {name: values[..., at].sum(-1) for name, values in maps.items()}
        return maps if step is None else {name: values[step] for name, values in maps.items()}

    def columns(self, positions: Sequence[int]) -> list[int]:
        """Columns of the maps that hold the positions; the last one may hold all padding."""
        self.require_maps()
        kept = self._a_map().shape[-1]
        return sorted({min(position, kept - 1) for position in positions})

    def save(self, path: str | Path) -> Path:
        """Write `path`.safetensors and `path`.json; return the former."""
        path = _stem(path)
        tensors = {name: getattr(self, name) for name in TENSORS}
        tensors |= {f"cross_attention/{m.layer}": m.values for m in self.cross_attention.values()}
        if self.image is not None:
            tensors["image"] = torch.from_numpy(self.image)
        kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        text = {
            "tokens": [[asdict(token) for token in tokens] for tokens in self.tokens],
            "words": self.words,
            "layers": [
                [m.layer, m.place, m.branch, m.heads] for m in self.cross_attention.values()
            ],
            "spans": [asdict(span) for span in self.spans],
            "reductions": self.reductions,
            "provenance": self.provenance,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(kept, _with(path, ".safetensors"))
            _with(path, ".json").write_text(json.dumps(text, indent=1), encoding="utf-8")
        except OSError as error:
            raise EssayError(f"Cannot write the trace to {path}: {error}.") from error
        return _with(path, ".safetensors")

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote."""
        path = _stem(path)
        try:
            text = json.loads(_with(path, ".json").read_text(encoding="utf-8"))
            tensors = load_file(_with(path, ".safetensors"))
        except (OSError, ValueError) as error:
            raise EssayError(f"Cannot read a trace from {path}: {error}.") from error
        image = tensors.pop("image", None)
        maps = {
            layer: Maps(layer, place, branch, heads, tensors.pop(f"cross_attention/{layer}"))
            for layer, place, branch, heads in text["layers"]
        }
        return cls(
            tokens=[[Token(**token) for token in tokens] for tokens in text["tokens"]],
            words=text["words"],
            cross_attention=maps,
            spans=[Span(**span) for span in text["spans"]],
            image=None if image is None else image.numpy(),
            reductions=text["reductions"],
            provenance=text["provenance"],
            **tensors,
        )

    def __repr__(self) -> str:
        if self.latents is None:
            return "Trace(nothing recorded yet: call the pipeline, then leave the `with` block)"
        _, count, channels, height, width = self.latents.shape
        lines = [
            f"Trace of {self.steps} steps, {count} images, {channels}×{height}×{width} latents"
        ]
        for words in self.words[:3]:
            lines.append(f"  prompt     {' '.join(words) or '(empty)'}")
        if len(self.words) > 3:
            lines.append(f"  prompt     … {len(self.words) - 3} more")
        guided = "none" if self.noise_pred_uncond is None else f"{self.guidance_scale.max():g}"
        lines.append(f"  guidance   {guided}")
        for maps in self.cross_attention.values():
            heads, kept = maps.values.shape[2], maps.values.shape[-1]
            size = "×".join(map(str, maps.resolution))
            lines.append(f"  attention  {size:>7}, {heads} heads, {kept} tokens: {maps.layer}")
        lines += [f"  reduced    {reduction}" for reduction in self.reductions]
        return "\n".join(lines)

    def require_tokens(self, image: int = 0) -> None:
        """Raise `EssayError` where the prompt's text is not known, or there is no such image."""
        if not self.tokens:
            raise EssayError(
                "The prompt is not known, because the pipeline was given embeddings: pass text "
                "to look words up."
            )
        require_place("image", image, len(self.tokens))

    def require_maps(self, image: int = 0) -> None:
        """Raise `EssayError` where no attention was captured, or there is no such image."""
        if not self.cross_attention:
            raise EssayError(
                "This trace has no attention maps: record with Capture(cross_attention=True)."
            )
        require_place("image", image, self._a_map().shape[1])

    def _a_map(self) -> torch.Tensor:
        """One layer's values: all have the same steps, images and tokens."""
        return next(iter(self.cross_attention.values())).values


def tokens_of(tokenizer: Any, ids: Sequence[int], prompt: str | None) -> list[Token]:
    """Label the ids that the text encoder was given; append what the tokenizer had cut off.

    CLIP marks the last piece of a word with "</w>"; of any other tokenizer each token is a word.
    """
    cut = []
    if prompt is not None:
        whole = tokenizer(prompt, truncation=False, verbose=False).input_ids
        cut = whole[len(ids) - 1 : -1] if len(whole) > len(ids) else []
    pieces = tokenizer.convert_ids_to_tokens([*ids, *cut])
    marked = any(piece.endswith("</w>") for piece in pieces)
    labelled, word, ended = [], 0, False
    for position, (token, piece) in enumerate(zip([*ids, *cut], pieces, strict=True)):
        truncated = position >= len(ids)
        special = None if truncated else _special(tokenizer, token, position, ended)
        ended = ended or special == "end"
        text = tokenizer.decode([token]).strip()
        labelled.append(Token(token, text, None if special else word, special, truncated))
        if special is None and (not marked or piece.endswith("</w>")):
            word += 1
    return labelled


def words_of(tokenizer: Any, tokens: Sequence[Token]) -> list[str]:
    """The prompt's words: each the decoded ids of its pieces, together."""
    pieces: dict[int, list[int]] = {}
    for token in tokens:
        if token.word is not None:
            pieces.setdefault(token.word, []).append(token.id)
    return [tokenizer.decode(ids).strip() for ids in pieces.values()]


def find(text: str, tokens: Sequence[Token], words: Sequence[str]) -> list[int]:
    """Positions of a word or phrase, every time that it occurs; see `Trace.positions`."""
    wanted = "".join(text.casefold().split())
    hits = {index for run in _occurrences(words, wanted) for index in run}
    at = [p for p, token in enumerate(tokens) if token.word in hits and not token.truncated]
    if at:
        return at
    cut = " (the tokenizer cut the prompt before it)" if hits else ""
    raise EssayError(f"The prompt has no {text!r}{cut}. Its words: {', '.join(words)}.")


def require_place(what: str, place: int | slice, count: int) -> None:
    """Raise `EssayError` where an index, or a slice, picks none of `count`."""
    try:
        found = range(count)[place]
    except (IndexError, TypeError):
        found = range(0)
    if found == range(0):
        raise EssayError(f"There is no {what} {place!r}: choose from 0 to {count - 1}.")


def _special(tokenizer: Any, token: int, position: int, ended: bool) -> str | None:
    if ended:
        return "padding"
    if position == 0 and token == tokenizer.bos_token_id:
        return "start"
    return "end" if token == tokenizer.eos_token_id else None


def _occurrences(words: Sequence[str], wanted: str) -> list[range]:
    """Runs of words that spell `wanted` together, spaces aside."""
    found = []
    for first in range(len(words)):
        text = ""
        for last in range(first, len(words)):
            text += "".join(words[last].casefold().split())
            if text == wanted:
                found.append(range(first, last + 1))
            if len(text) >= len(wanted):
                break
    return found


def _stem(path: str | Path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
