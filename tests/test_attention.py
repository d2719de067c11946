"""Attention: whatever is done to a map, each pixel's shares go on summing to one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from essaylib import attention
from essaylib.errors import EssayError
from essaylib.record import Maps, Token, Trace
from essaylib.trace import Capture, trace


def softmax_maps(seed, steps=2, heads=2, height=3, width=5, tokens=6):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(steps, 1, heads, height, width, tokens, generator=generator)
    return logits.softmax(-1).half()


def made(seed=0):
    """A trace of "do dog do": start, do, do+g, do, end, padding; two layers of different size."""
    labels = [("start", None), (None, 0), (None, 1), (None, 1), ("end", None), ("padding", None)]
    tokens = [Token(i, "x", word, special) for i, (special, word) in enumerate(labels)]
    shapes = {"down_blocks.0.attn2": (4, 6, 2), "up_blocks.1.attn2": (2, 3, 4)}
    maps = {
        name: Maps(
            name, name.partition("_")[0], "text", heads, softmax_maps(seed, 2, heads, height, width)
        )
        for name, (height, width, heads) in shapes.items()
    }
    return Trace(
        tokens=[tokens],
        words=[["a", "dog"]],
        cross_attention=maps,
        latents=torch.zeros(3, 1, 4, 4, 6),
    )


sizes = st.integers(1, 9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), height=sizes, width=sizes, to_height=sizes, to_width=sizes)
def test_upsampling_keeps_the_sum(seed, height, width, to_height, to_width):
    maps = softmax_maps(seed, height=height, width=width).float()
    resized = attention.upsample(maps, (to_height, to_width))
    assert resized.shape == (2, 1, 2, to_height, to_width, 6)
    assert torch.allclose(resized.sum(-1), torch.ones(()), atol=5e-3)
    assert (resized >= 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=sizes, width=sizes)
def test_aggregate_and_shares_sum_to_one(seed, height, width):
    tr = made(seed)
    whole = attention.aggregate(tr, (height, width))
    assert torch.allclose(whole.sum(-1), torch.ones(height, width), atol=5e-3)
    assert sum(attention.shares(tr).values()) == pytest.approx(1, abs=5e-3)


def test_upsampling_equals_torch_and_keeps_a_constant():
    maps = softmax_maps(0)[0, 0, 0].float()
    expected = torch.nn.functional.interpolate(
        maps.permute(2, 0, 1)[None], size=(7, 9), mode="bilinear"
    )[0].permute(1, 2, 0)
    assert torch.equal(attention.upsample(maps, (7, 9)), expected)
    assert torch.allclose(attention.upsample(torch.full((2, 2, 3), 0.2), (5, 5)), torch.tensor(0.2))


def test_aggregate_by_hand():
    tr = made()
    first, second = (m.values[:, 0].float().mean((0, 1)) for m in tr.cross_attention.values())
    expected = (first + attention.upsample(second, (4, 6))) / 2
    assert torch.allclose(attention.aggregate(tr), expected)
    assert torch.allclose(attention.aggregate(tr, layers="up"), second)
    only = tr.cross_attention["up_blocks.1.attn2"].values[1, 0].float().mean(0)
    assert torch.allclose(attention.aggregate(tr, layers="up", steps=[1]), only)


def test_word_pieces_are_added_and_special_tokens_kept_apart():
    tr = made()
    whole = attention.aggregate(tr)
    parts = attention.merge_words(tr, whole)
    assert list(parts) == ["<start>", "a", "dog", "<end>", "<padding>"]
    assert torch.allclose(parts["dog"], whole[..., 2:4].sum(-1))
    assert torch.allclose(sum(parts.values()), whole.sum(-1), atol=1e-6)
    assert torch.equal(attention.word_map(tr, "dog"), parts["dog"])


def test_repeated_words_are_numbered():
    tr = made()
    tr.words = [["dog", "dog"]]
    assert list(attention.merge_words(tr, attention.aggregate(tr)))[1:3] == ["dog", "dog (2)"]


def test_shares_weigh_layers_alike():
    tr = made()
    means = [m.values.float().mean((0, 1, 2, 3, 4)) for m in tr.cross_attention.values()]
    expected = torch.stack(means).mean(0)
    assert attention.shares(tr)["<padding>"] == pytest.approx(float(expected[5]))


def test_select_refuses_what_is_not_there():
    tr = made()
    with pytest.raises(EssayError, match="No captured layer matches"):
        attention.select(tr, "mid")
    with pytest.raises(EssayError, match=r"Capture\(cross_attention=True\)"):
        attention.select(Trace())
    assert [m.shape[0] for m in attention.select(tr, steps=slice(0, 1))] == [1, 1]


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"steps": []}, "from 0 to 1, not"),
        ({"steps": 1}, "from 0 to 1, not 1"),
        ({"steps": [0, 9]}, "no step 9: choose from 0 to 1"),
        ({"steps": [0.5]}, "no step 0.5: choose from 0 to 1"),
        ({"steps": slice(2, None)}, "no step slice.*: choose from 0 to 1"),
        ({"image": 3}, "no image 3: choose from 0 to 0"),
    ],
)
def test_steps_and_images_that_are_not_there_are_named(change, cure):
    for read in (attention.select, attention.aggregate, attention.shares):
        with pytest.raises(EssayError, match=cure):
            read(made(), **change)


def test_words_are_not_looked_up_in_images_or_maps_that_are_not_there():
    tr = made()
    with pytest.raises(EssayError, match="no image 3: choose from 0 to 0"):
        attention.word_map(tr, "dog", image=3)
    with pytest.raises(EssayError, match="no image 3: choose from 0 to 0"):
        attention.merge_words(tr, attention.aggregate(tr), image=3)
    with pytest.raises(EssayError, match="no image 3: choose from 0 to 0"):
        attention.daam(tr, image=3)
    bare = Trace(tokens=tr.tokens, words=tr.words)
    with pytest.raises(EssayError, match=r"Capture\(cross_attention=True\)"):
        attention.word_map(bare, "dog")
    with pytest.raises(EssayError, match=r"Capture\(cross_attention=True\)"):
        attention.merge_words(bare, attention.aggregate(tr))


def daam_by_hand(layers, size):
    merged = []
    for maps in layers:
        for head in range(maps.heads):
            summed = maps.values[:, 0, head].float().sum(0).permute(2, 0, 1)[:, None]
            resized = torch.nn.functional.interpolate(summed, size=size, mode="bicubic")
            merged.append(resized.clamp(min=0)[:, 0])
    return torch.stack(merged).mean(0)


def test_daam_by_hand():
    tr = made()
    expected = daam_by_hand(tr.cross_attention.values(), (4, 6))
    assert torch.allclose(attention.daam(tr), expected, atol=1e-6)


def test_daam_leaves_out_layers_by_the_latent_whatever_size_is_asked_for():
    tr = made()
    large, small = tr.cross_attention.values()  # 4 x 6 and 2 x 3 pixels
    expected = daam_by_hand([large, small], (16, 24))
    assert torch.allclose(attention.daam(tr, (16, 24)), expected, atol=1e-6)
    tr.latents = torch.zeros(3, 1, 4, 16, 24)
    expected = daam_by_hand([large], (4, 6))
    assert torch.allclose(attention.daam(tr, (4, 6)), expected, atol=1e-6)


def test_daam_needs_heads_and_a_layer_outside_the_mid_block():
    tr = made()
    for maps in tr.cross_attention.values():
        maps.values = maps.values.mean(2, keepdim=True)
    with pytest.raises(EssayError, match='heads="all"'):
        attention.daam(tr)
    tr = made()
    for maps in tr.cross_attention.values():
        maps.place = "mid"
    with pytest.raises(EssayError, match="outside the mid block"):
        attention.daam(tr)


@pytest.mark.parametrize("family", ["embedded", "sd1", "turbo", "sdxl", "bk-sdm"])
@pytest.mark.parametrize("tokens", ["all", "prompt"])
def test_shares_of_a_real_trace(tiny, device, family, tokens):
    pipe = tiny(family, device)
    with trace(pipe, Capture(cross_attention=True, tokens=tokens)) as tr:
        pipe("a doggy", num_inference_steps=2, height=64, width=96, guidance_scale=0.0)
    shares = attention.shares(tr)
    assert list(shares) == ["<start>", "a", "doggy", "<end>", "<padding>"]
    assert sum(shares.values()) == pytest.approx(1, abs=2e-3)
    heat = attention.word_map(tr, "doggy", size=(64, 96))
    assert heat.shape == (64, 96) and heat.min() > 0 and heat.max() < 1


def test_a_prompt_without_padding_has_no_padding_share(tiny):
    pipe = tiny("embedded")
    with trace(pipe, Capture(cross_attention=True, tokens="prompt")) as tr:
        pipe("dog " * 40, num_inference_steps=1, output_type="latent")
    shares = attention.shares(tr)
    assert "<padding>" not in shares
    assert sum(shares.values()) == pytest.approx(1, abs=2e-3)
