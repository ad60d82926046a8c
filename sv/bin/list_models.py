"""Check model names and print them, one a line; ``study`` is all of a file, nothing its first."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.errors import UsageError
from sv.files import read_text
from sv.model_name import check_model_name


def main(argv: Sequence[str] | None = None) -> int:
    """Print the names; a wrong one ends with its right spelling and status 2."""
    parser = Parser(__doc__)
    parser.add_argument("--study", type=Path, required=True, help="conf/models.txt")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args(argv)
    names: list[str] = []
    for name in args.names or [""]:
        if name in ("study", ""):
            lines = (line.split("#")[0].strip() for line in read_text(args.study).splitlines())
            listed = [line for line in lines if line]
            if not listed:
                raise UsageError(f"{args.study}: no model name in it")
            names += listed if name else listed[:1]
        else:
            names.append(name)
    for name in names:
        check_model_name(name)
    print("\n".join(dict.fromkeys(names)))
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.list_models", main))
