"""Computed values for prose, and the chapter that is being run.

A chapter's first code cell after its parameters calls `chapter(...)`; figures and claims record
what it says. `glue("share", 0.25, ".0%")` lets the prose say ``{glue:text}`share```. Neither needs
the tools that build the book, so a chapter runs anywhere that a notebook runs.
"""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from essaylib.errors import EssayError

# Where MyST-NB looks for glued values: an output that a notebook stores but does not show.
_MIME_PREFIX = "application/papermill.record/"


@dataclass(frozen=True)
class Chapter:
    """The chapter being run: its id, the parameters it was run with, when it started (UTC)."""

    id: str
    parameters: dict[str, Any] = field(default_factory=dict)
    started: str = ""


_current: Chapter | None = None


def chapter(id: str, **parameters: Any) -> Chapter:
    """Begin a chapter; figures, claims and provenance record its id and parameters.

    >>> chapter("guidance", model="embedded", seed=0).id
    'guidance'
    """
    global _current
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise EssayError(
            f"{id!r} is not a chapter id: use lower-case letters, digits and single hyphens, "
            "as in the chapter's file name."
        )
    executing = os.environ.get("ESSAY_CHAPTER", id)
    if id != executing:
        raise EssayError(f'The chapter {executing} calls chapter("{id}"): give it its own id.')
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    _current = Chapter(id, dict(parameters), started)
    return _current


def current() -> Chapter | None:
    """Return the chapter being run; None outside a chapter."""
    return _current


def glue(name: str, value: Any, fmt: str | None = None) -> None:
    """Keep a value for ``{glue:text}`name``` in this chapter's prose.

    `fmt` is a format specification (".1%", ",.0f"); without one, integers get thousands
    separators, other numbers three significant figures, and the rest is written as it is.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise EssayError(
            f"{name!r} cannot be glued: use letters, digits, hyphens and _, a letter first."
        )
    text = as_text(value, fmt)
    try:
        from IPython.display import display
    except ImportError:
        return
    display(
        {_MIME_PREFIX + "text/plain": repr(text)},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": _MIME_PREFIX}},
    )


def as_text(value: Any, fmt: str | None = None) -> str:
    """Write a value as prose shows it.

    >>> as_text(5901), as_text(0.123456), as_text(0.25, ".0%")
    ('5,901', '0.123', '25%')
    """
    if fmt is None and isinstance(value, Real) and not isinstance(value, bool):
        fmt = "," if isinstance(value, Integral) else ".3g"
    try:
        return format(value, fmt or "")
    except (TypeError, ValueError) as error:
        raise EssayError(f"{value!r} cannot be written as {fmt!r}: {error}.") from error
