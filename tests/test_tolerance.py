import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from essaylib.errors import EssayError
from essaylib.tolerance import compare, fingerprint, image_summary


def test_equal_tables_are_identical_and_name_nothing():
    table = pd.DataFrame({"w": [1, 2], "score": [0.5, math.nan], "who": ["a", None]})
    found = compare(fingerprint(table), fingerprint(table.copy()))
    assert (found.status, found.largest) == ("identical", None)


@pytest.mark.parametrize(
    ("tolerance", "before", "after", "status"),
    [
        (None, [1.0, 2.0], [1.0, 2.01], "within tolerance"),
        (None, [1.0, 2.0], [1.0, 2.1], "changed"),
        (0.1, [1.0, 2.0], [1.0, 2.1], "within tolerance"),
        ({"x": {"absolute": 0.05}}, [1.0, 2.0], [1.0, 2.04], "within tolerance"),
        ({"x": {"absolute": 0.05}}, [1.0, 2.0], [1.0, 2.06], "changed"),
        (None, [3, 4], [3, 5], "changed"),
        ({"x": 1}, [3, 4], [4, 5], "within tolerance"),
        ({"x": {"relative": 0.5}}, [3, 4], [3, 5], "within tolerance"),
        (None, ["a", "b", "c"], ["a", "b", "x"], "changed"),
        ({"x": {"items": 1}}, ["a", "b", "c"], ["a", "b", "x"], "within tolerance"),
        ({"x": {"items": 1}}, ["a", "b", "c"], ["a", "y", "x"], "changed"),
        ({"x": "unlocked"}, [1.0, 2.0], [9.0, 9.0], "identical"),
        (None, [1.0, math.nan], [1.0, 2.0], "changed"),
        (None, [1.0, 2.0], [1.0, math.inf], "changed"),
    ],
)
def test_tolerances(tolerance, before, after, status):
    was = fingerprint(pd.DataFrame({"x": before}), tolerance)
    now = fingerprint(pd.DataFrame({"x": after}), tolerance)
    assert compare(was, now).status == status


def test_the_largest_difference_is_named_with_its_place_and_size():
    was = fingerprint(pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 1.0]}))
    now = fingerprint(pd.DataFrame({"x": [1.0, 2.05], "y": [1.0, 1.5]}))
    found = compare(was, now).largest
    assert (found.column, found.place, found.expected, found.actual) == ("y", "row 2", 1.0, 1.5)
    assert found.size == pytest.approx(0.5)
    assert "y at row 2: 1.0 → 1.5" in str(compare(was, now))


def test_a_value_near_zero_is_measured_against_its_column():
    was = fingerprint(pd.DataFrame({"x": [1e-9, 1.0]}))
    now = fingerprint(pd.DataFrame({"x": [1e-4, 1.0]}))
    assert compare(was, now).status == "within tolerance"


def test_a_difference_below_the_stored_digits_is_still_not_identical():
    was = fingerprint(pd.DataFrame({"x": [1.0]}), {"x": {"absolute": 0}})
    now = fingerprint(pd.DataFrame({"x": [1.0 + 1e-12]}), {"x": {"absolute": 0}})
    assert compare(was, now).status == "within tolerance"


def test_other_rows_and_columns_are_a_change_that_says_so():
    was = fingerprint(pd.DataFrame({"x": [1.0, 2.0]}))
    assert "rows 2 → 1" in str(compare(was, fingerprint(pd.DataFrame({"x": [1.0]}))))
    assert "columns x → z" in str(compare(was, fingerprint(pd.DataFrame({"z": [1.0, 2.0]}))))
    assert "is a text" in str(compare(was, fingerprint(pd.DataFrame({"x": ["a", "b"]}))))


def test_missing_on_either_side():
    was = fingerprint(pd.DataFrame({"x": [1.0]}))
    assert compare(None, was).status == compare(was, None).status == "missing"
    assert not compare(was, None).ok


def test_long_tables_are_kept_short_and_still_compare():
    draws = np.random.default_rng(0).normal(size=(5000, 1))
    table = pd.DataFrame(draws, columns=["x"]).assign(who=["a"] * 4000 + ["b"] * 1000)
    was = fingerprint(table)
    assert "values" not in was["columns"]["x"]
    assert was["columns"]["who"]["frequent"] == {"a": 4000, "b": 1000}
    assert compare(was, fingerprint(table.assign(x=table.x + 0.5))).status == "changed"
    assert compare(was, fingerprint(table.assign(x=table.x + 1e-4))).status == "within tolerance"
    moved = table.assign(who=["a"] * 3990 + ["b"] * 1010)
    assert compare(was, fingerprint(moved)).status == "changed"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 0.019))
def test_a_shift_of_less_than_two_percent_never_changes_a_figure(values, shift):
    was = fingerprint(pd.DataFrame({"x": values}))
    now = fingerprint(pd.DataFrame({"x": [value * (1 + shift) for value in values]}))
    assert compare(was, now).ok


@pytest.mark.parametrize(
    "tolerance", [{"y": 1}, {"x": -1}, {"x": math.nan}, {"x": {"percent": 1}}, {"x": True}, "loose"]
)
def test_unusable_tolerances_name_the_cure(tolerance):
    with pytest.raises(EssayError, match="tolerance|column"):
        fingerprint(pd.DataFrame({"x": [1.0]}), tolerance)


def test_words_take_no_relative_tolerance_and_cells_hold_no_lists():
    with pytest.raises(EssayError, match="items"):
        fingerprint(pd.DataFrame({"x": ["a"]}), {"x": {"relative": 0.1}})
    with pytest.raises(EssayError, match="spreadsheet"):
        fingerprint(pd.DataFrame({"x": [[1, 2]]}))


def test_image_summary_by_hand():
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[1, :, :, 0] = 200
    found = image_summary(images)
    assert found.red.tolist() == [0, 200]
    assert found.blue.tolist() == [0, 0]
    assert found.contrast[1] == pytest.approx(math.sqrt(200**2 * (1 / 3) * (2 / 3)))
