"""Check conf/score.toml and print the value of a key, for run.sh."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.config import read_config
from sv.score.config import ScoreConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Print true or false."""
    parser = Parser(__doc__)
    parser.add_argument("config", type=Path, help="conf/score.toml")
    parser.add_argument("key", choices=[field.name for field in fields(ScoreConfig)])
    args = parser.parse_args(argv)
    print(str(getattr(read_config(args.config, ScoreConfig), args.key)).lower())
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.score_config", main))
