"""Choose the training utterances whose embeddings normalise scores."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.config import read_config
from sv.data.training_set import make_cohort_dir
from sv.score.config import ScoreConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Make <cohort-dir>: a data directory of the first utterances of every training speaker."""
    parser = Parser(__doc__)
    parser.add_argument("config", type=Path, help="conf/score.toml")
    parser.add_argument("data_dir", type=Path, help="the training set, with features")
    parser.add_argument("utterances", type=Path, help="table of those that were trained on")
    parser.add_argument("cohort_dir", type=Path)
    args = parser.parse_args(argv)
    per_speaker = read_config(args.config, ScoreConfig).cohort_utterances_per_speaker
    make_cohort_dir(args.data_dir, args.utterances, per_speaker, args.cohort_dir)
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.make_cohort", main))
