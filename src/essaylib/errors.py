"""The one error that essaylib raises on purpose."""


class EssayError(Exception):
    """Something the user can mend; the message says what, and how.

    The command line prints the message without a traceback and exits with status 2.
    """
