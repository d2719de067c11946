"""What a name costs in tokens, language by language: the premium of Petrov et al. (2023).

A premium is log2(cost in a language / cost of the English name), so 1 is twice the price. A *cost*
is a function from texts to numbers: `of(tokenizer)`, `characters`, `utf8_bytes`, or `words`, the
pieces that CLIP's rule cuts before any pair is merged.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from essaylib import paths
from essaylib import words as rule
from essaylib.errors import EssayError
from essaylib.measures import bootstrap

if TYPE_CHECKING:
    import pandas as pd
    from transformers import CLIPTokenizer

Cost = Callable[[Sequence[str]], np.ndarray]
ENGLISH = "en"
LANGUAGES = {
    "bn": "Bengali", "da": "Danish", "de": "German", "en": "English", "en-gb": "English (UK)",
    "es": "Spanish", "es-mx": "Spanish (Mexico)", "et": "Estonian", "fi": "Finnish",
    "fr": "French", "hi": "Hindi", "hu": "Hungarian", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "lt": "Lithuanian", "ms": "Malay", "nb": "Norwegian", "nl": "Dutch",
    "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "sv": "Swedish", "th": "Thai",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese", "zh-hant": "Chinese (traditional)",
}  # fmt: skip
"""What the languages of `corpus.names()` are called in English."""


def of(tokenizer: CLIPTokenizer) -> Cost:
    """Return the cost in tokens: the two marks of start and end left out, and nothing cut off."""

    def cost(texts: Sequence[str]) -> np.ndarray:
        ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return np.array([len(row) for row in ids])

    return cost


def characters(texts: Sequence[str]) -> np.ndarray:
    """Count Unicode code points (n,)."""
    return np.array([len(text) for text in texts])


def utf8_bytes(texts: Sequence[str]) -> np.ndarray:
    """Count the bytes that each text takes in UTF-8 (n,)."""
    return np.array([len(text.encode()) for text in texts])


def words(texts: Sequence[str]) -> np.ndarray:
    """Count the pieces that CLIP's rule cuts a text into, before pairs are merged (n,)."""
    from tokenizers import Regex, pre_tokenizers

    cut = pre_tokenizers.Split(Regex(rule.WORDS), behavior="removed", invert=True)
    return np.array([len(cut.pre_tokenize_str(text)) for text in texts])


def costs(names: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    """Return what each concept (a row, by hexcode) costs in each language (a column).

    names: hexcode, language, name, as `corpus.names()` gives them.
    """
    table = names.assign(cost=cost(names.name.tolist()))
    table = table.pivot(index="hexcode", columns="language", values="cost")
    if table.isna().any(axis=None) or (table <= 0).any(axis=None):
        raise EssayError("Every concept needs a name in every language that costs something.")
    return table


def premiums(names: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    """Return log2(cost / cost in English), concepts x languages; English itself is left out."""
    table = costs(names, cost)
    if ENGLISH not in table:
        raise EssayError(f"Premiums are relative to English: no names in {ENGLISH!r}.")
    return np.log2(table.drop(columns=ENGLISH).div(table[ENGLISH], axis=0))


def summary(premiums: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return one row a language: its price with its interval over concepts, and which tokenizer.

    premiums: as `premiums` returns them. A price is 2 to the mean premium, times the English name:
    columns language (in English), tokenizer (`kind`), price, price_low, price_high.
    """
    import pandas as pd

    rows = []
    for language in premiums:
        mean = bootstrap.mean(premiums[language].to_numpy(), draws=1000)
        prices = (2**mean.estimate, 2**mean.low, 2**mean.high)
        rows.append((LANGUAGES.get(language, language), kind, *prices))
    return pd.DataFrame(rows, columns=["language", "tokenizer", "price", "price_low", "price_high"])


def languages(columns: Sequence[str]) -> list[str]:
    """Return one entry a language other than English: variants such as en-gb or es-mx left out."""
    return [name for name in columns if "-" not in name and name != ENGLISH]


def learned(texts: Sequence[str], size: int) -> CLIPTokenizer:
    """Return the tokenizer that the model's algorithm makes of other texts, `size` entries."""
    from transformers import CLIPTokenizer

    vocab, merges = rule.byte_pairs(texts, size)
    return CLIPTokenizer(vocab=vocab, merges=merges)


def clip() -> CLIPTokenizer:
    """Return CLIP's own tokenizer, which Stable Diffusion uses too (Radford et al. 2021)."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    path = paths.root() / "data" / "vocabularies" / "clip-merges.txt.gz"
    if not path.is_file():
        raise EssayError(f"There is no vocabulary at {path}: restore data/vocabularies.")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    merges = [tuple(line.split(" ")) for line in lines]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, *(byte + "</w>" for byte in alphabet), *map("".join, merges)]
    entries += [rule.START, rule.END]
    return CLIPTokenizer(vocab={entry: i for i, entry in enumerate(entries)}, merges=merges)
