"""The scoreboard shows what is locked, in units of the smallest interesting effect."""

import numpy as np

from essaylib import claims, scoreboard

LOCK = {
    "values": {
        "verdict": "supported",
        "exploratory": True,
        "control_ok": True,
        "tests": {"unnamed": {"estimate": 0.5, "low": 0.25, "high": 0.75, "p": 1e-4, "n": 1044}},
    }
}


def test_effects_are_in_units_of_delta():
    found = scoreboard.table(locked=LOCK).set_index("claim")
    delta = claims.load()["values"].statistic().delta
    row = found.loc["values"]
    assert row.effect == 0.5 / delta and row.effect_low == 0.25 / delta
    assert row.verdict == "supported" and row.n == 1044


def test_every_claim_has_a_row_whether_or_not_it_was_measured():
    found = scoreboard.table(locked={})
    assert set(found.claim) == {claim.id for claim in claims.load()}
    assert len(found) == sum(len(claim.primary) or 1 for claim in claims.load())
    assert np.isnan(found.effect).all()
    without = found[found.claim == "unmeasured"].iloc[0]
    assert without.verdict == "untestable"
    assert set(found[found.claim != "unmeasured"].verdict) == {scoreboard.PENDING}


def test_the_table_of_the_book_itself_is_readable():
    found = scoreboard.table()
    assert set(found.verdict) <= {*claims.VERDICTS, scoreboard.PENDING}
    assert not found.duplicated(["claim", "statistic"]).any()
