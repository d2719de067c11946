"""What every measure refuses, in one place."""

from typing import Any

import numpy as np

from essaylib.errors import EssayError


def finite(values: Any, name: str, dims: int | None = None, dtype: type = np.float64) -> np.ndarray:
    """`values` as an array of floats; refuse emptiness, NaN, infinity and other numbers of axes."""
    array = np.asarray(values, dtype=dtype)
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


def labels(values: Any, name: str, rows: int | None = None) -> np.ndarray:
    """`values` as a one-dimensional array of labels, one a row."""
    array = np.asarray(values)
    if array.ndim != 1 or (rows is not None and len(array) != rows):
        wanted = "one label a row" if rows is None else f"{rows} labels, one a row"
        raise EssayError(f"{name} must hold {wanted}; its shape is {array.shape}.")
    return array
