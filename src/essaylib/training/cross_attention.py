"""Keep the layers that read the caption reading.

In training they may close: one token, the start that all captions share, takes all the attention,
and from then on the caption reaches the picture by other ways or not at all. No loss shows it.
"""

from __future__ import annotations

from functools import partial

import torch
from diffusers import UNet2DConditionModel

LOUD = 3.0
"""How far the most wanted token may stand above the mean of all, as a logarithm of its odds."""
CLOSED = 0.9
"""Share of the start token from which on a layer of cross-attention reads no caption."""


def layers_of(unet: UNet2DConditionModel) -> dict[str, torch.nn.Module]:
    """The layers that read the caption, by name."""
    return {name: layer for name, layer in unet.named_modules() if name.endswith("attn2")}


class Limiter:
    """Keeps cross-attention from closing on one token for good.

    Muon's updates do not shrink where an attention saturates. Queries and keys grow until the start
    token, which all captions share, takes everything, and then no gradient opens the layer again.
    So after each step the queries and keys of a layer whose scores stand too far apart are scaled
    down (Kimi Team 2025, "Kimi K2: Open Agentic Intelligence", who name it QK-clip).
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.heard: dict[torch.nn.Module, torch.Tensor] = {}
        for layer in layers_of(unet).values():
            layer.get_attention_scores = partial(self.listen, layer, layer.get_attention_scores)

    def listen(self, layer, plain, query, key, mask=None) -> torch.Tensor:
        with torch.no_grad():
            scores = layer.scale * query[:64].float() @ key[:64].float().mT
            self.heard[layer] = (scores.amax(-1) - scores.mean(-1)).mean()
        return plain(query, key, mask)

    @torch.no_grad()
    def __call__(self) -> None:
        for layer, gap in self.heard.items():
            if gap > LOUD:
                layer.to_q.weight.mul_((LOUD / gap).sqrt())
                layer.to_k.weight.mul_((LOUD / gap).sqrt())


@torch.no_grad()
def reopen(unet: UNet2DConditionModel, context: torch.Tensor) -> list[str]:
    """Let layers that have closed on the start token begin anew; return their names.

    context: (n, 32, 256), what the text tower makes of n captions. A layer that gives the start
    token everything adds the same vector whatever the caption says. That vector becomes the bias
    of its output, whose weights start from zero, and queries, keys and values are drawn anew: the
    U-Net draws much as before, and the layer can learn to read.
    """
    shares: dict[str, float] = {}

    def listen(name, plain, query, key, mask=None):
        found = plain(query, key, mask)
        shares[name] = found[..., 0].mean().item()
        return found

    layers, context = layers_of(unet), context.to(unet.device)
    for name, layer in layers.items():
        layer.get_attention_scores = partial(listen, name, layer.get_attention_scores)
    unet(torch.randn(len(context), 4, 16, 16).to(context), 700, context)
    for layer in layers.values():
        del layer.get_attention_scores
    closed = [name for name, share in shares.items() if share > CLOSED]
    for layer in map(layers.get, closed):
        out = layer.to_out[0]
        out.bias.copy_(out(layer.to_v(context[0, 0])))
        out.weight.zero_()
        for part in (layer.to_q, layer.to_k, layer.to_v):
            part.reset_parameters()
    return closed
