#!/usr/bin/env python3
"""Say whether this Python can run the recipe: every package of requirements.txt is there.

Usage: python3 utils/check_environment.py [REQUIREMENTS...]   (status 1 and one line if not)

A version other than the pinned one is accepted: who activates an environment has chosen it.
Looking modules up takes milliseconds; importing torch here would cost every script a second.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

NAME = "utils/check_environment.py"


def missing_packages(requirements: Path) -> list[str]:
    """List the packages of a requirements file that are not installed here."""
    missing = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        name = re.match(r"[A-Za-z0-9_.-]+", line.split("#")[0])
        if name is None:
            continue
        try:
            importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            missing.append(name[0])
    return missing


def main() -> int:
    """Check every requirements file named on the command line (default: the recipe's)."""
    if sys.version_info < (3, 11):  # noqa: UP036 - any Python may be the one that is asked
        print(f"{NAME}: {sys.executable}: Python 3.11 is needed", file=sys.stderr)
        return 1
    here = Path(__file__).resolve().parent
    files = [Path(arg) for arg in sys.argv[1:]] or [here / "requirements.txt"]
    missing = [name for file in files for name in missing_packages(file)]
    if missing:
        print(f"{NAME}: {sys.executable} lacks {', '.join(missing)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
