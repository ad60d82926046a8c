"""Shared by every program: one line for a user's mistake, option types, logging."""

import argparse
import inspect
import logging
import math
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sv.errors import SvError, UsageError, replace_controls


class Parser(argparse.ArgumentParser):
    """Argument parser in Kaldi's form: exact option names, errors as `UsageError`."""

    def __init__(self, description: str | None) -> None:
        """Take the text of --help from a docstring; its ``Usage:`` lines are the usage."""
        text = inspect.cleandoc(description or "") + "\n\n"
        usage = re.search(r"^Usage: (.*?)\n\n", text, re.DOTALL | re.MULTILINE)
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        super().__init__(
            prog=f"python3 -m {spec.name}" if spec else None,  # as it is called, not "meter.py"
            usage=usage[1].replace("%", "%%") if usage else None,
            description=(text.replace(usage[0], "") if usage else text).strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage: the message is one line."""
        raise UsageError(f"{message} (see --help)")


def true_or_false(text: str) -> bool:
    """Parse the words true and false (argparse's ``type=bool`` takes 'false' for true)."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not '{text}'")
    return text == "true"


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not '{text}'")
    return int(text)


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not '{text}'")
    return value


class _HeldPath(type(Path())):
    """The path of a pipe: opens what was read from it, as often as it is opened."""

    held = ""

    def __fspath__(self) -> str:
        return self.held or super().__fspath__()


def whole_file(text: str) -> Path:
    """Return the path of a file that can be opened more than once.

    A pipe (``/dev/stdin``, which ``-`` is short for, ``<(command)``) is read here, once and to its
    end.
    """
    text = "/dev/stdin" if text == "-" else text
    path = _HeldPath(text)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return Path(text)
        held = os.memfd_create(path.name)
        with open(path, "rb") as source, open(held, "wb", closefd=False) as copy:
            shutil.copyfileobj(source, copy)
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return Path(text)
    path.held = f"/proc/self/fd/{held}"
    return path


def expanded_path(text: str) -> Path:
    """Parse a path in which ``$NAME`` is a variable of the machine where the program runs."""
    path = os.path.expandvars(text)
    if "$" in path:
        raise argparse.ArgumentTypeError(f"'{text}': no such variable is set on this machine")
    return Path(path)


def run(name: str, main: Callable[[Sequence[str] | None], int]) -> int:
    """Run ``main`` and return its exit status; an `SvError` becomes one line on stderr.

    Args:
        name: The program, as the user calls it: ``sv.bin.train``.
        main: Takes the arguments (None: those of the process), returns the exit status.
    """
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%F %T",
        force=True,
    )
    try:
        return main(None)
    except SvError as error:
        print(f"{name}: {replace_controls(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        # The reader of stdout has ended (`| head`); Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
