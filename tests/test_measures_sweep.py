"""The sweep, on answers made by hand."""

import numpy as np
import pandas as pd
import pytest

from essaylib.errors import EssayError
from essaylib.measures.sweep import sweep


@pytest.fixture
def answers():
    rows = [(s, f"c{p}", f"c{p}", k) for s in ("1", "4") for p in range(3) for k in range(4)]
    table = pd.DataFrame(rows, columns=["setting", "prompt", "concept", "seed"])
    strong = (table.setting == "4").to_numpy()
    concept = np.where(strong, table.concept.str[1].astype(int), -1)
    vendor = np.where(strong, 0, np.tile(np.arange(4), 6))
    features = np.where(strong[:, None], np.ones(4), np.eye(4)[np.tile(np.arange(4), 6)])
    return table, {"concept": concept, "vendor": vendor, "features": features}


def test_sweep_by_hand(answers):
    table, seen = answers
    found = sweep(table, seen, ["c0", "c1", "c2"]).set_index("setting")
    assert found.adherence.tolist() == [0, 1]
    assert found.concentration.tolist() == [0, 1]
    assert found.variety.tolist() == pytest.approx([4, 1])
    assert (found.named == 1).all() and (found.images == 12).all()


def test_answers_must_pair(answers):
    table, seen = answers
    with pytest.raises(EssayError, match="must pair"):
        sweep(table.iloc[1:], seen, ["c0", "c1", "c2"])


def test_prompts_must_be_whole(answers):
    table, seen = answers
    short = {name: value[1:] for name, value in seen.items()}
    with pytest.raises(EssayError, match="whole prompts"):
        sweep(table.iloc[1:], short, ["c0", "c1", "c2"])


def test_where_the_judge_is_unsure_there_is_no_concentration(answers):
    table, seen = answers
    unsure = seen | {"vendor": np.full(len(table), -1)}
    found = sweep(table, unsure, ["c0", "c1", "c2"])
    assert found.concentration.isna().all() and (found.named == 0).all()
