"""The one error that essaylib raises on purpose, and how it names what may have been meant."""

from collections.abc import Iterable
from difflib import get_close_matches


class EssayError(Exception):
    """Something the user can mend; the message says what, and how.

    The command line prints the message without a traceback and exits with status 2.
    """


def meant(name: str, known: Iterable[str], several: int = 3) -> str:
    """` Did you mean …?` with the nearest of `known` names, or nothing where none is near."""
    near = get_close_matches(name, list(known), several, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
