"""The exception for a user's mistake; everything may import it."""


class SvError(Exception):
    """Bad input: a command line, a config, a file. Shown as one line, without a traceback.

    The message says what is wrong, where it is, and what to do next.
    """


class UsageError(SvError):
    """The command line or a config is wrong: exit status 2 (other ``SvError``: 1)."""
