"""The exception for a user's mistake, and other errors in one line; everything may import it."""

import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # not tab and newline


class SvError(Exception):
    """Bad input: a command line, a config, a file. Shown as one line, without a traceback.

    The message says what is wrong, where it is, and what to do next.
    """


class UsageError(SvError):
    """The command line or a config is wrong: exit status 2 (other ``SvError``: 1)."""


def replace_controls(text: str) -> str:
    """Return a text in which a terminal finds nothing to obey: it may be somebody else's."""
    return _CONTROLS.sub("?", text)


def describe(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
