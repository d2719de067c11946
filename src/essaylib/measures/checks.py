"""What every measure refuses, in one place."""

from typing import Any

import numpy as np

from essaylib.errors import EssayError


def finite(values: Any, name: str, dims: int | None = None, dtype: type = np.float64) -> np.ndarray:
    """`values` as an array of floats; refuse emptiness, NaN, infinity and other numbers of axes."""
    try:
        array = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError):
        raise EssayError(f"{name} must hold numbers, in rows of one length.") from None
    if dims is not None and array.ndim != dims:
        raise EssayError(f"{name} must have {dims} axes, not {array.ndim} (shape {array.shape}).")
    if array.size == 0:
        raise EssayError(f"{name} is empty: nothing can be measured on it.")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise EssayError(
            f"{name} holds {bad} values that are NaN or infinite: find where they arise, or leave "
            "those rows out and say so."
        )
    return array


def paired(**arrays: np.ndarray) -> None:
    """Refuse arrays that differ in shape, by their names."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise EssayError(f"These must pair, value by value: {listed} do not.")


def resamples(draws: int) -> None:
    """Refuse a number of resamples from which no interval can be read."""
    if draws < 1:
        raise EssayError(f"{draws} draws give no interval: use 1,000 or more.")


def labels(values: Any, name: str, rows: int | None = None) -> np.ndarray:
    """`values` as a one-dimensional array of labels, one a row."""
    array = np.asarray(values)
    if array.ndim != 1 or (rows is not None and len(array) != rows):
        wanted = "one label a row" if rows is None else f"{rows} labels, one a row"
        raise EssayError(f"{name} must hold {wanted}; its shape is {array.shape}.")
    return array
