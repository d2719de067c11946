"""Attention maps, read: which words took how much of which pixels.

    heat = attention.word_map(tr, "dog", size=(128, 128))       # (128, 128), shares
    attention.shares(tr)                                        # start, each word, end, padding

A map's values are shares: over the tokens, each pixel's sum to one. Averaging and bilinear
upsampling keep that; bicubic does not. Much of the sum goes to the start token and the padding,
so they are reported apart and never divided out in silence. A share is not a cause: see
`essaylib.interventions` for what happens when a token is taken away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F

from essaylib.errors import EssayError
from essaylib.record import Trace, require_place


def select(
    trace: Trace,
    layers: str | Sequence[str] | None = None,
    steps: Sequence[int] | slice | None = None,
    image: int = 0,
) -> list[torch.Tensor]:
    """Maps of one image, (S, H, h_l, w_l, N) float32, one a layer.

    `layers`: module paths or parts of them ("up_blocks", "mid"); all by default. `steps`: indices
    of U-Net calls; all by default. Raises `EssayError` where nothing is left.
    """
    parts = [layers] if isinstance(layers, str) else layers
    trace.require_maps(image)
    found = [
        maps.values[:, image].float()
        for name, maps in trace.cross_attention.items()
        if parts is None or any(part in name for part in parts)
    ]
    if not found:
        raise EssayError(f"No captured layer matches {layers!r}: {', '.join(trace.layers)}.")
    if steps is None:
        return found
    chosen = _chosen(steps, len(found[0]))
    return [values[chosen] for values in found]


def _chosen(steps: Sequence[int] | slice, count: int) -> list[int] | slice:
    """The steps as they index `count` of them; `EssayError` where one is not there, or none is."""
    if isinstance(steps, slice):
        require_place("step", steps, count)
        return steps
    chosen = list(steps) if isinstance(steps, Iterable) else []
    if not chosen:
        raise EssayError(
            f"steps must be a slice or a list of steps from 0 to {count - 1}, not {steps!r}."
        )
    for step in chosen:
        require_place("step", step, count)
    return chosen


def upsample(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize (..., h, w, N) to (..., *size, N) bilinearly: each pixel's shares keep their sum."""
    lead = maps.shape[:-3]
    flat = maps.flatten(0, -4).movedim(-1, 1) if lead else maps.movedim(-1, 0)[None]
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False).movedim(1, -1)
    return resized.unflatten(0, lead) if lead else resized[0]


def aggregate(
    trace: Trace,
    size: tuple[int, int] | None = None,
    layers: str | Sequence[str] | None = None,
    steps: Sequence[int] | slice | None = None,
    image: int = 0,
) -> torch.Tensor:
    """Mean over steps, heads and layers: (h, w, N), every pixel's shares summing to one.

    `size` is (height, width); by default the largest layer's. Each layer counts the same.
    """
    means = [values.mean((0, 1)) for values in select(trace, layers, steps, image)]
    size = size or max((tuple(m.shape[:2]) for m in means), key=lambda s: s[0] * s[1])
    return torch.stack([upsample(mean, size) for mean in means]).mean(0)


def merge_words(trace: Trace, maps: torch.Tensor, image: int = 0) -> dict[str, torch.Tensor]:
    """Split the last axis of `maps` (..., N) by what its tokens belong to, adding word pieces.

    Keys in the prompt's order: "<start>", each word (a repeated one as "dog (2)"), "<end>",
    "<padding>". Their values sum to what `maps` sums to. A word that the tokenizer cut is left out.
    """
    trace.require_tokens(image)
    labels = _labels(trace.words[image])
    groups: dict[str, list[int]] = {}
    for position, token in enumerate(trace.tokens[image]):
        if not token.truncated:
            name = f"<{token.special}>" if token.special else labels[token.word]
            groups.setdefault(name, []).append(position)
    columns = {name: trace.columns(at) for name, at in groups.items()}
    return {name: maps[..., at].sum(-1) for name, at in columns.items()}


def _labels(words: Sequence[str]) -> list[str]:
    seen = Counter[str]()
    labels = []
    for word in words:
        seen[word] += 1
        labels.append(word if seen[word] == 1 else f"{word} ({seen[word]})")
    return labels


def word_map(
    trace: Trace,
    word: str,
    size: tuple[int, int] | None = None,
    layers: str | Sequence[str] | None = None,
    steps: Sequence[int] | slice | None = None,
    image: int = 0,
) -> torch.Tensor:
    """Share of each pixel that a word or phrase takes, its pieces added: (h, w)."""
    columns = trace.columns(trace.positions(word, image))
    return aggregate(trace, size, layers, steps, image)[..., columns].sum(-1)


def shares(
    trace: Trace,
    layers: str | Sequence[str] | None = None,
    steps: Sequence[int] | slice | None = None,
    image: int = 0,
) -> dict[str, float]:
    """Share of all attention by word, and of the start token, the end token and the padding apart.

    Keys as in `merge_words`; values sum to one. Each layer counts the same.
    """
    per_layer = [values.mean((0, 1, 2, 3)) for values in select(trace, layers, steps, image)]
    mean = torch.stack(per_layer).mean(0)
    return {name: float(share) for name, share in merge_words(trace, mean, image).items()}


def daam(trace: Trace, size: tuple[int, int] | None = None, image: int = 0) -> torch.Tensor:
    """Maps as DAAM computes them (Tang et al. 2023), for comparison: (N, h, w).

    Sums over steps, upsamples each layer and head bicubically to `size` (by default the latent's),
    clamps at zero, then averages over layers and heads; leaves out the mid block and layers eight
    times smaller than the latent. Its values are not shares. Needs `Capture(heads="all")`, since
    the clamp acts on each head.
    """
    trace.require_maps(image)
    if any(maps.values.shape[2] < maps.heads for maps in trace.cross_attention.values()):
        raise EssayError('DAAM works on single heads: record with Capture(heads="all").')
    latent = tuple(trace.latents.shape[-2:])
    size = size or latent
    sums = []
    for maps in trace.cross_attention.values():
        if maps.place == "mid" or latent[0] // maps.resolution[0] == 8:
            continue
        summed = maps.values[:, image].float().sum(0).permute(0, 3, 1, 2)
        sums.append(F.interpolate(summed, size=size, mode="bicubic").clamp_(min=0))
    if not sums:
        raise EssayError("DAAM needs a layer outside the mid block: capture cross_attention=True.")
    return torch.cat(sums).mean(0)
