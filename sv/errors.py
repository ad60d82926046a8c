"""The exception for a user's mistake, and other errors in one line; everything may import it."""


class SvError(Exception):
    """Bad input: a command line, a config, a file. Shown as one line, without a traceback.

    The message says what is wrong, where it is, and what to do next.
    """


class UsageError(SvError):
    """The command line or a config is wrong: exit status 2 (other ``SvError``: 1)."""


def describe(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
