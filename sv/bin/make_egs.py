"""Make the training set: filter, map speakers, hold out validation trials, index the crops."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.data.training_set import make_training_set
from sv.jobs.completion import marking_changes
from sv.train.config import read_train_config


def main(argv: Sequence[str] | None = None) -> int:
    """Make <egs-dir> from a data directory with features and its augmented copies."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/train.toml")
    parser.add_argument("--kinds", default="", help="augmented copies to add: <data-dir>_<kind>")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("egs_dir", type=Path)
    args = parser.parse_args(argv)
    config = read_train_config(args.config)
    copies = [Path(f"{args.data_dir}_{kind}") for kind in args.kinds.split()]
    with marking_changes(args.egs_dir, args.egs_dir / "valid"):
        make_training_set(args.data_dir, copies, args.egs_dir, config.set)
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.make_egs", main))
