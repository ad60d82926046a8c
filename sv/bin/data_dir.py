"""Validate or fix a Kaldi data directory (utils/validate_data_dir.sh, utils/fix_data_dir.sh)."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.kaldi.data_dir import find_problems, fix_data_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Validate: status 1 and the problems on stderr. Fix: the changes on stderr."""
    parser = Parser(__doc__)
    parser.add_argument("--require", default="", help="tables that must be there, with spaces")
    parser.add_argument("action", choices=["validate", "fix"])
    parser.add_argument("data_dir", type=Path)
    args = parser.parse_args(argv)
    script = f"utils/{args.action}_data_dir.sh"
    if args.action == "validate":
        lines = find_problems(args.data_dir, require=args.require.split())
        status = int(bool(lines))
        lines = [*lines, "utils/fix_data_dir.sh may repair it"] if lines else []
    else:
        lines, status = fix_data_dir(args.data_dir), 0
    for line in lines:
        print(f"{script}: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(run("sv.bin.data_dir", main))
