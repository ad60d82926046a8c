"""Print a line for each scored list: EER, minDCF, the interval if there is one."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.score.record import describe, read_scored_list


def main(argv: Sequence[str] | None = None) -> int:
    """Print the lines in the order of the files."""
    parser = Parser(__doc__)
    parser.add_argument("metrics", type=Path, nargs="+", help="exp/M/scores/<name>.json")
    for path in parser.parse_args(argv).metrics:
        print(describe(read_scored_list(path)))
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.list_scores", main))
