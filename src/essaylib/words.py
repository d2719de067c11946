"""How CLIP cuts text: into words, and these into the byte pairs that a vocabulary has learned."""

from __future__ import annotations

import json
from collections.abc import Iterable

SIZE = 4096
"""The most entries: 512 bytes (half of them end a word), two marks, the rest merged pairs."""
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How CLIP cuts text into words, within which pairs are merged."""


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
