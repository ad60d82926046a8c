"""What processes are to each other: ending with the parent, adopting orphans, telling no secrets.

The first two are prctl(2), which Python's standard library lacks. Nothing is imported or looked up
late, so a ``preexec_fn`` may call them.
"""

import ctypes
import os
import re
import signal
from collections.abc import Iterable

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36


def end_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to send this process SIGTERM when the process that started it ends.

    A killed script leaves what it runs behind: work whose result nothing would read.

    Args:
        parent: Process id of the parent, where the caller knows it from before the start of this
            process; None: the parent of now.
    """
    parent = os.getppid() if parent is None else parent
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends: they can be counted and ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# The end of a name whose value is a secret: --password, EMAPS_API_TOKEN, ?access_token.
_SECRET = re.compile(
    "(pass(word|wd|phrase)?|token|secret|(api|access|private|secret)[-_]?key|credentials?|auth(orization)?)$",
    re.IGNORECASE,
)
_MASK = "***"


def names_secret(name: str) -> bool:
    """Return whether, by its name, the value of a variable or an option is a secret."""
    return _SECRET.search(name) is not None


def mask_secrets(words: Iterable[str]) -> list[str]:
    """Return the words of a command line as they may be recorded: what is secret is ``***``.

    That is what follows an option whose name says so (``--password x``, ``--token=x``), an
    assignment (``API_TOKEN=x``), a header (``Authorization: x``), and the user and the query of an
    address. The words of a shell's ``-c`` are looked at one by one.
    """
    masked, hide = [], False
    for word in words:
        parts = re.split(r"(\s+)", word)
        for i in range(0, len(parts), 2):  # the others are the spaces between them
            part = parts[i]
            name, equals, _ = part.partition("=")
            if part.endswith(":") and names_secret(part[:-1]):
                parts[i + 1 :] = [" ", _MASK]
                break
            if hide and part:
                parts[i], hide = _MASK, False
            elif "://" in part:
                shown = re.sub("://[^/@]*@", f"://{_MASK}@", part)
                parts[i] = re.sub("([?&])([^=&]*)=[^&]*", _mask_field, shown)
            elif equals and names_secret(name):
                parts[i] = f"{name}={_MASK}"
            elif part.lstrip("'\"(").startswith("-") and names_secret(part):
                hide = True
        masked.append("".join(parts))
    return masked


def _mask_field(field: re.Match[str]) -> str:
    return f"{field[1]}{field[2]}={_MASK}" if names_secret(field[2]) else field[0]
