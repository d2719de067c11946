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


def test_the_floor_of_a_pair_is_the_less_consistent_of_the_two():
    made = ledgers(own=1, shared=1, noise=0.5)
    made["unet"] = made["unet"][:1].repeat(2, axis=0)  # a ledger that always says the same
    table = credit.agreements(made, top=50)
    square = credit.matrix(table)
    assert list(square) == ["pixels", "unet", "gradient"] and square.equals(square.T)
    assert np.isnan(square.loc["pixels", "pixels"])
    assert square.loc["unet", "unet"] == pytest.approx(1)
    rows = credit.pairs(table).set_index(["one", "other"])
    assert rows.loc[("pixels", "unet"), "floor"] == pytest.approx(1)
    both = rows.loc[("unet", "gradient")]
    assert both.floor == pytest.approx(square.loc["gradient", "gradient"])
    assert both.gap == pytest.approx(both.floor - both.tau)
    strict = credit.disagreement(credit.against_least(table))
    expected = square.loc["gradient", "gradient"] - rows.tau.mean()
    assert strict.estimate == pytest.approx(expected)
    assert strict.estimate < credit.disagreement(table).estimate


def test_ledgers_that_share_no_maker_move_all_the_money():
    vendor = np.array([0, 0, 1, 1])
    near = np.array([[[-1.0, -2.0, -4.0, -4.0]]])
    pull = np.array([[[-1.0, 0.0, 1.0, 3.0]]])
    paid = credit.payments({"pixels": near, "gradient": pull}, vendor, top=2, of=2)
    assert paid["pixels"][0, 0] == pytest.approx([1, 0])
    assert paid["gradient"][0, 0] == pytest.approx([0, 1])
    assert credit.transfers(paid).moved.item() == 1
    whole = credit.payments({"pixels": near}, vendor, top=4, of=2)["pixels"][0, 0]
    assert whole == pytest.approx([1.25 / 1.375, 0.125 / 1.375])


def test_overlap_is_the_share_of_first_drawings_in_common():
    made = {"a": np.array([[[4.0, 3, 2, 1]]]), "b": np.array([[[4.0, 1, 3, 2]]])}
    assert credit.overlaps(made, top=2).shared.item() == 0.5
    assert credit.overlaps(made, top=9).shared.item() == 1


def test_what_cannot_be_compared_is_refused():
    made = ledgers(own=1, shared=1, noise=1, outputs=2)
    with pytest.raises(EssayError, match="same drawings"):
        credit.agreements({**made, "clip": np.zeros((1, 2, 7))})
    with pytest.raises(EssayError, match="drawn up twice"):
        credit.disagreement(credit.agreements({"pixels": made["pixels"]}))
    with pytest.raises(EssayError, match="none has a floor"):
        credit.against_least(credit.agreements({n: made[n][:1] for n in ("pixels", "unet")}))
