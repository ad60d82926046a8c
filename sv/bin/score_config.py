"""Check conf/score.toml and print the values of keys, for run.sh."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.config import read_config
from sv.score.config import ScoreConfig

KEYS = [*(field.name for field in fields(ScoreConfig)), "needs_cohort"]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each key: true or false, a number, or names with spaces between."""
    parser = Parser(__doc__)
    parser.add_argument("config", type=Path, help="conf/score.toml")
    parser.add_argument("keys", choices=KEYS, nargs="+", metavar="key", help=", ".join(KEYS))
    args = parser.parse_args(argv)
    config = read_config(args.config, ScoreConfig)
    for key in args.keys:
        value = getattr(config, key)
        print(" ".join(value) if isinstance(value, tuple) else str(value).lower())
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.score_config", main))
