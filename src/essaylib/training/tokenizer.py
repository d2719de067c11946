"""Train the tokenizer: byte pairs of the captions, with CLIP's end-of-word mark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from essaylib import corpus
from essaylib.corpus import caption
from essaylib.words import byte_pairs

LENGTH = 32
"""The most tokens that a prompt may have, start and end included."""
NAMED = 0.6
"""Share of the captions that name the vendor."""


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
