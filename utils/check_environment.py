#!/usr/bin/env python3
"""Check that this Python can run the recipe: every package of pyproject.toml is installed.

Usage: python3 utils/check_environment.py [EXTRA...]         (status 1 and one line if not)
       python3 utils/check_environment.py --list [EXTRA...]  (print the pinned requirements)

A version other than the pinned one is accepted: who activates an environment has chosen it.
Looking packages up takes milliseconds; importing torch here would cost every script a second.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

NAME = "utils/check_environment.py"
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def read_requirements(extras: list[str]) -> list[str]:
    """Read the recipe's requirements and those of some extras, ``torch==2.13.0``.

    Raises:
        KeyError: There is no such extra.
    """
    import tomllib  # noqa: PLC0415 - not there before Python 3.11, which `main` explains

    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def find_missing(requirements: list[str]) -> list[str]:
    """Return the names of the required packages that are not installed."""
    missing = []
    for requirement in requirements:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


def main(argv: list[str]) -> int:
    """Check, or list, the recipe's packages and those of the extras on the command line."""
    if sys.version_info < (3, 11):  # noqa: UP036 - any Python may be the one that is asked
        print(f"{NAME}: {sys.executable}: Python 3.11 is needed", file=sys.stderr)
        return 1
    extras = [word for word in argv if word != "--list"]
    try:
        requirements = read_requirements(extras)
    except KeyError as error:
        print(f"{NAME}: {PROJECT.name} has no extra {error}", file=sys.stderr)
        return 2
    if "--list" in argv:
        print("\n".join(requirements))
        return 0
    missing = find_missing(requirements)
    if missing:
        print(f"{NAME}: {sys.executable} lacks {', '.join(missing)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
