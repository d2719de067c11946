"""Arrays that ship: read, some rows made again, and made whole where they are not there."""

import contextlib

import numpy as np
import pytest

from essaylib import rechecked, store
from essaylib.errors import EssayError

VALUES = {"one": np.arange(20.0), "many": np.arange(60.0).reshape(20, 3)}


@pytest.fixture
def asked(sandbox):
    """The rows that were asked for, call by call, and the function that makes them."""
    calls = []

    def make(rows):
        calls.append(rows)
        return {name: values[rows] for name, values in VALUES.items()}

    return calls, make


def test_what_does_not_ship_is_made(asked):
    calls, make = asked
    found = rechecked.load("kind", "k", 20, make)
    assert calls == [rechecked.ALL] and np.array_equal(found["many"], VALUES["many"])


def test_what_ships_is_read_and_a_few_rows_made_again(asked):
    calls, make = asked
    old = rechecked.ship("kind", "old", VALUES)
    path = rechecked.ship("kind", "k", VALUES)
    assert path.parent == store.shipped() and path.is_file() and not old.exists()
    found = rechecked.load("kind", "k", 20, make)
    assert [len(rows) for rows in calls] == [rechecked.AGAIN]
    assert all(np.array_equal(found[name], values) for name, values in VALUES.items())


def test_what_comes_out_otherwise_is_an_error(asked):
    rechecked.ship("kind", "k", VALUES | {"many": VALUES["many"] + 1})
    with pytest.raises(EssayError, match="does not come out again"):
        rechecked.load("kind", "k", 20, asked[1])


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None])
def test_what_is_damaged_or_of_another_length_is_made(asked, damage):
    calls, make = asked
    path = rechecked.ship("kind", "k", {name: values[:9] for name, values in VALUES.items()})
    if damage is not None:
        path.write_bytes(damage)
    assert len(rechecked.load("kind", "k", 20, make)["one"]) == 20
    assert calls == [rechecked.ALL]


def test_one_flipped_byte_is_no_traceback(asked):
    _, make = asked
    path = rechecked.ship("kind", "k", VALUES)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with contextlib.suppress(EssayError):  # values that came out otherwise
            rechecked.load("kind", "k", 20, make)
