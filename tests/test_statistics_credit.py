import numpy as np
import pytest

from essaylib.errors import EssayError
from essaylib.measures import agreement
from essaylib.statistics import credit


def ledgers(own, shared, noise, outputs=40, drawings=300, seed=0):
    """Three ledgers: what they share, what is a ledger's own, what is a seed's own."""
    rng = np.random.default_rng(seed)
    common = shared * rng.normal(size=(outputs, drawings))
    made = {}
    for name, seeds in (("pixels", 1), ("unet", 2), ("gradient", 2)):
        mine = common + own * rng.normal(size=(outputs, drawings))
        made[name] = mine + noise * rng.normal(size=(seeds, outputs, drawings)) * (seeds > 1)
    return made


def test_ledgers_that_measure_different_things_disagree():
    table = credit.agreements(ledgers(own=1, shared=0.3, noise=0.1), top=50)
    test = credit.disagreement(table)
    assert test.low > 0.2 and test.p < 0.001 and test.n == 40
    assert credit.within(table).mean() > 0.5 > credit.between(table).mean()


def test_ledgers_of_one_thing_agree_and_contradict_the_claim():
    test = credit.disagreement(credit.agreements(ledgers(own=0, shared=1, noise=0.3), top=50))
    assert test.high < 0.2


def test_the_table_holds_each_pair_and_each_ledger_with_two_seeds():
    made = ledgers(own=1, shared=1, noise=0.5, outputs=2)
    table = credit.agreements(made, top=20)
    pairs = set(zip(table.one, table.other, strict=True))
    assert pairs == {
        ("pixels", "unet"), ("pixels", "gradient"), ("unet", "gradient"),
        ("unet", "unet"), ("gradient", "gradient"),
    }  # fmt: skip
    row = table[(table.one == "pixels") & (table.other == "unet") & (table.output == 1)]
    expected = agreement.tau(made["pixels"][0, 1], made["unet"][0, 1], top=20)
    assert row.tau.item() == pytest.approx(expected)


def test_what_cannot_be_compared_is_refused():
    made = ledgers(own=1, shared=1, noise=1, outputs=2)
    with pytest.raises(EssayError, match="same drawings"):
        credit.agreements({**made, "clip": np.zeros((1, 2, 7))})
    with pytest.raises(EssayError, match="drawn up twice"):
        credit.disagreement(credit.agreements({"pixels": made["pixels"]}))
