"""Stage 1: manifests, data directories and trial lists of every speech corpus of the recipe."""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from local.corpora import find_root, read_corpora_config
from sv.bin.cli import Parser, run
from sv.errors import SvError, UsageError
from sv.files import write_text
from sv.kaldi.data_dir import find_problems, read_table
from sv.kaldi.trials import read_trials


def main(argv: Sequence[str] | None = None) -> int:
    """Call local/prepare_<corpus>.py for each corpus, then check what all of them made."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("data", type=Path, help="where manifests and data directories go")
    args = parser.parse_args(argv)
    config = read_corpora_config(args.config)
    root = find_root(config, args.corpora, args.config)
    for name, speech in config.speech.items():
        module = f"local.prepare_{name}"
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"{args.config}: [speech.{name}]: no local/prepare_{name}.py")
        importlib.import_module(module).prepare(root / speech.path, args.data)
    for data_set in {config.train, *config.trials.values()}:
        if problems := find_problems(args.data / data_set, require=["wav.scp"]):
            raise SvError("; ".join(problems))
    for name, data_set in config.trials.items():
        _check_trials(args.data / "trials" / name, args.data / data_set)
    write_text(args.data / "train_set", f"{config.train}\n", keep_if_same=True)
    lines = [f"{name} {data_set}\n" for name, data_set in config.trials.items()]
    write_text(args.data / "test_trials", "".join(lines), keep_if_same=True)
    return 0


def _check_trials(path: Path, data_dir: Path) -> None:
    trials, utterances = read_trials(path), read_table(data_dir / "utt2spk")
    if unknown := [u for u in trials.utterances if u not in utterances]:
        raise SvError(f"{path}: {len(unknown)} utterances are not in {data_dir}: {unknown[0]}, ...")
    targets = int(trials.is_target.sum())
    logging.info("%s: %d trials, %d of them targets", path, len(trials.enrol), targets)


if __name__ == "__main__":
    sys.exit(run("local.prepare_data", main))
