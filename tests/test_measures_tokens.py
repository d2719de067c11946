import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from essaylib import corpus, paths
from essaylib.errors import EssayError
from essaylib.measures import tokens


def names(**languages):
    return pd.DataFrame(
        [(i, language, name) for language, row in languages.items() for i, name in enumerate(row)],
        columns=["hexcode", "language", "name"],
    )


def test_premiums_match_a_hand_computation():
    found = tokens.premiums(names(en=["abcd", "ab"], de=["ab", "abcd"]), tokens.characters)
    assert list(found.columns) == ["de"]
    assert found.de.tolist() == [-1, 1]


def test_a_name_is_priced_by_code_points_and_by_bytes():
    assert tokens.characters(["né", "愛"]).tolist() == [2, 1]
    assert tokens.utf8_bytes(["né", "愛"]).tolist() == [3, 3]


def test_clips_rule_cuts_words_at_digits_marks_and_vowel_signs():
    assert tokens.words(["dog's face 12", "O.K."]).tolist() == [5, 4]
    # Devanagari "hindi": three letters, each with a sign that is no letter to the rule.
    assert tokens.words(["हिन्दी"]).tolist() == [6]


@given(st.lists(st.text("abc é愛", min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_english_has_no_premium_over_itself(texts):
    found = tokens.premiums(names(en=texts, **{"en-gb": texts}), tokens.utf8_bytes)
    assert (found["en-gb"] == 0).all()


def test_variants_of_a_language_are_counted_once():
    assert tokens.languages(["de", "en", "en-gb", "es", "es-mx", "zh-hant"]) == ["de", "es"]


def test_the_summary_gives_prices_in_multiples_of_the_english_name():
    found = tokens.summary(pd.DataFrame({"de": [1.0, 1.0], "xx": [0.0, 2.0]}), "ours")
    assert found.language.tolist() == ["German", "xx"]
    assert found.price.tolist() == [2, 2]
    assert found[["price_low", "price_high"]].to_numpy().tolist() == [[2, 2], [1, 4]]


def test_every_language_of_the_corpus_has_a_name():
    assert set(corpus.names().language) == set(tokens.LANGUAGES)


def test_missing_and_free_names_are_refused():
    with pytest.raises(EssayError, match="every language"):
        tokens.costs(names(en=["a", "b"], de=["a"]), tokens.characters)
    with pytest.raises(EssayError, match="costs something"):
        tokens.costs(names(en=[""]), tokens.characters)
    with pytest.raises(EssayError, match="relative to English"):
        tokens.premiums(names(de=["a"]), tokens.characters)


def test_a_tokenizer_is_cheap_for_what_it_learned_from():
    german = ["lachendes gesicht", "weinendes gesicht", "gesicht mit hut"] * 3
    learned = tokens.learned(german, size=600)
    assert len(learned) <= 600
    cost = tokens.of(learned)(["gesicht", "visage"])
    assert cost[0] == 1 and cost[1] > 3


def test_the_cost_counts_neither_marks_nor_the_limit():
    learned = tokens.learned(["a b"] * 3, size=600)
    assert tokens.of(learned)(["a " * 200]).tolist() == [200]


def test_clips_tokenizer_gives_the_published_ids():
    # As in the documentation of transformers' CLIPTextModel and in Stable Diffusion's own files.
    clip = tokens.clip()
    assert clip("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(clip) == 49408


def test_a_missing_vocabulary_names_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    with pytest.raises(EssayError, match="restore data/vocabularies"):
        tokens.clip()


def test_costs_are_ordered_as_concepts_by_languages():
    table = tokens.costs(names(en=["a", "bb"], de=["ccc", "d"]), tokens.characters)
    assert np.array_equal(table[["en", "de"]], [[1, 3], [2, 1]])
