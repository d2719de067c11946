import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from essaylib.errors import EssayError
from essaylib.measures import frontier

X, Y = np.array([0.2, 0.4, 0.8]), np.array([5.0, 4.0, 3.0])


def test_a_curve_is_linear_between_its_points():
    assert [frontier.at(X, Y, level) for level in (0.2, 0.3, 0.4, 0.6, 0.8)] == pytest.approx(
        [5, 4.5, 4, 3.5, 3]
    )


@given(st.floats(0.2, 0.8))
def test_rising_curves_match_numpy(level):
    assert frontier.at(X, Y, level) == pytest.approx(np.interp(level, X, Y))


def test_a_curve_that_turns_back_counts_where_it_first_arrives():
    assert frontier.at([0, 1, 0], [0, 10, 50], 0.5) == pytest.approx(5)


def test_the_gap_is_taken_at_equal_adherence():
    # Curve b obeys less at every setting, and lies one lower at equal adherence.
    xb, line = X - 0.1, 6 - 5 * X
    assert frontier.common(X, xb) == pytest.approx((0.2, 0.7))
    assert frontier.gap(X, line, xb, (6 - 5 * xb) - 1) == pytest.approx(1)
    assert frontier.gap(X, Y, X, Y) == 0
    assert frontier.gap(X, Y, X, Y - 2, level=0.3) == pytest.approx(2)


def test_curves_without_a_common_range_are_refused():
    with pytest.raises(EssayError, match="no range"):
        frontier.gap(X, Y, X + 1, Y)
    with pytest.raises(EssayError, match="never reaches 0.9"):
        frontier.at(X, Y, 0.9)
    with pytest.raises(EssayError, match="must pair"):
        frontier.at(X, Y[:2], 0.3)
    with pytest.raises(EssayError, match="NaN"):
        frontier.at([np.nan, 1], [1, 2], 0.5)


# Outcomes: prompts x settings x (adherence, log variety).


def made(adherence, variety, prompts=12, spread=0.0, seed=0):
    """Outcomes whose means are exactly the given curve."""
    rng = np.random.default_rng(seed)
    off = rng.normal(size=(prompts, 1, 2)) * spread
    return np.stack([adherence, variety], -1)[None] + off - off.mean(0)


def drawn_run(adherence, features):
    """A run of two prompts, two images each, at two settings; whatever the judge said of it."""
    from types import SimpleNamespace

    import pandas as pd
    import torch

    from essaylib.runs import Run

    rows = [(s, p, p, 2 * i + k) for s in "ab" for i, p in enumerate(("x", "y")) for k in range(2)]
    table = pd.DataFrame(rows, columns=["setting", "prompt", "concept", "seed"])
    run = Run(SimpleNamespace(seeds=2), table, torch.zeros(8), {})
    return run, {"concept": np.array(adherence), "features": np.array(features)}


def test_outcomes_by_hand():
    one, other = [1.0, 0.0], [0.0, 1.0]
    run, seen = drawn_run([0, -1, 1, 1, 0, 0, 0, -1], [one, one, one, other] * 2)
    found = frontier.outcomes(run, seen, ["x", "y"], ["b", "a"])
    assert found[:, :, 0].tolist() == [[1.0, 0.5], [0.0, 1.0]]
    assert found[:, :, 1] == pytest.approx(np.array([[0, 0], [np.log(2)] * 2]), abs=1e-9)
    table = frontier.table(found, ["b", "a"]).set_index("setting")
    assert table.adherence.to_dict() == {"b": 0.5, "a": 0.75}
    assert table.variety.tolist() == pytest.approx([np.sqrt(2)] * 2)
    assert (table.variety_low <= table.variety).all()


def test_outcomes_name_what_is_missing():
    run, seen = drawn_run([0] * 8, [[1.0, 0.0]] * 8)
    with pytest.raises(EssayError, match="not drawn at 'c'"):
        frontier.outcomes(run, seen, ["x", "y"], ["c"])
    with pytest.raises(EssayError, match="knows no 'y'"):
        frontier.outcomes(run, seen, ["x"], ["a"])


def test_two_curves_are_compared_where_both_have_been():
    a = made([0.2, 0.4, 0.8], [1.5, 1.3, 0.9], spread=0.02)
    b = made([0.1, 0.3, 0.7], [1.5, 1.3, 0.9], spread=0.02, seed=1)
    found = frontier.between(a, b, draws=2000)
    # Common range 0.2 to 0.7; at 0.45 a gives 1.25 and b 1.15.
    assert found.level == pytest.approx(0.45)
    assert found.difference.estimate == pytest.approx(0.1)
    assert found.difference.low < 0.1 < found.difference.high
    assert found.null.p == pytest.approx(1 / 2001)
    assert found.reference == pytest.approx(1.15)
    assert found.chance[0] < np.exp(1.15) < found.chance[1] < np.exp(1.25)
    assert abs(found.null.mean) < 0.02


def test_a_curve_does_not_differ_from_itself():
    a = made([0.2, 0.8], [1.5, 0.9], spread=0.05)
    found = frontier.between(a, a, draws=2000)
    assert found.difference.estimate == 0 and found.null.p == 1
    with pytest.raises(EssayError, match="no range"):
        frontier.between(a, a + [1, 0], draws=2000)
    with pytest.raises(EssayError, match="must pair"):
        frontier.between(a, a[:, :1], draws=2000)


def test_a_point_is_compared_with_the_curve_at_its_own_adherence():
    along = made([0.2, 0.4, 0.8], [1.5, 1.3, 0.9], spread=0.02)
    point = made([0.6], [1.3], spread=0.02, seed=1)[:, 0]
    found = frontier.beyond(point, along, draws=2000)
    assert found.level == pytest.approx(0.6)
    assert found.difference.estimate == pytest.approx(0.2)
    assert found.null.p < 0.01 and found.difference.low > 0.1
    on_it = made([0.6], [1.1], spread=0.02, seed=1)[:, 0]
    assert frontier.beyond(on_it, along, draws=2000).difference.estimate == pytest.approx(0)
    with pytest.raises(EssayError, match="never reaches 0.9"):
        frontier.beyond(point + [0.3, 0], along, draws=2000)
    with pytest.raises(EssayError, match="must pair"):
        frontier.beyond(point[1:], along, draws=2000)


def test_a_resample_that_leaves_the_curve_is_compared_with_its_end():
    along = made([0.2, 0.8], [1.5, 0.9], spread=0.3)
    point = made([0.79], [1.0])[:, 0]
    assert np.isfinite(frontier.beyond(point, along, draws=2000).difference.high)
