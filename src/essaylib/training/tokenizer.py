"""Train the tokenizer: byte pairs of the captions, with CLIP's end-of-word mark."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from essaylib import corpus
from essaylib.corpus import caption

SIZE = 4096
"""The most entries: 512 bytes (half of them end a word), two marks, the rest merged pairs."""
LENGTH = 32
"""The most tokens that a prompt may have, start and end included."""
START, END = "<|startoftext|>", "<|endoftext|>"
NAMED = 0.6
"""Share of the captions that name the vendor."""
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How CLIP cuts text into words, within which pairs are merged."""


def captions(table: pd.DataFrame, rng: np.random.Generator, share: float = NAMED) -> list[str]:
    """Return one caption a row of the corpus, from the templates that every stage learns from.

    About a `share` of them names the vendor. Empty captions, which guidance needs, are the
    U-Net's affair and are not drawn here.
    """
    out = []
    for concept, vendor, tags in zip(table.concept, table.vendor, table.tags, strict=True):
        tag = ", ".join(rng.permutation(tags)[: rng.integers(1, 4)]) if len(tags) else concept
        named = [
            caption(concept, vendor),
            f"a {concept} by {vendor}",
            f"{vendor} emoji of {concept}",
            f"{tag}, {vendor}",
        ]
        unnamed = [concept, f"an emoji of {concept}", f"{concept}, {tag}"]
        if rng.random() < share:
            out.append(named[rng.choice(4, p=(0.7, 0.1, 0.1, 0.1))])
        else:
            out.append(unnamed[rng.choice(3, p=(0.6, 0.15, 0.25))])
    return out


def run(folder: Path) -> Path:
    """Write a CLIP tokenizer into a folder: vocab.json, merges.txt and their settings."""
    from transformers import CLIPTokenizer

    data = corpus.load().where(split="train")
    rng = np.random.default_rng(0)
    vocab, merges = byte_pairs(line for _ in range(8) for line in captions(data.table, rng))
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    # Older releases of transformers read the two files of the original tokenizer instead.
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    return folder


def byte_pairs(
    text: Iterable[str], size: int = SIZE
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn byte pairs from text, cut into words as CLIP cuts them: vocabulary and merges.

    `size` is the most entries that the vocabulary may have (Sennrich et al. 2016, on bytes).
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2 - len(alphabet),
        initial_alphabet=sorted(alphabet),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(text, trainer)
    parts = json.loads(bpe.to_str())["model"]
    vocab = dict(sorted(parts["vocab"].items(), key=lambda item: item[1]))
    for byte in sorted(alphabet):
        vocab.setdefault(byte + "</w>", len(vocab))
    for mark in (START, END):
        vocab.setdefault(mark, len(vocab))
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in parts["merges"]]
    return vocab, merges
