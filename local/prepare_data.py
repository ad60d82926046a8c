"""Stage 1: manifests, data directories and trial lists of every speech corpus of the recipe."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from local.corpora import (
    Request,
    find_lists,
    find_root,
    load_program,
    read_corpora_config,
    write_remarks,
)
from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.errors import SvError, UsageError
from sv.files import write_text
from sv.kaldi.data_dir import (
    MAX_LISTED,
    UTTERANCE_TABLES,
    find_parted_speakers,
    find_problems,
    read_table,
)
from sv.kaldi.trials import read_models, read_trials

WRITTEN = ("wav.scp", "utt2dur")  # with a line for each utterance
LATER = set(UTTERANCE_TABLES) - set(WRITTEN)


def main(argv: Sequence[str] | None = None) -> int:
    """Call local/prepare_<corpus>.py for each corpus, then check the data sets and lists."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("--lists", default="", help="folder of trial lists and speaker tables")
    parser.add_argument("--nj", type=positive_int, default=1, help="processes that read files")
    parser.add_argument(
        "--allow-partial", type=true_or_false, default=False, help="continue without missing parts"
    )
    parser.add_argument("data", type=Path, help="where manifests and data directories go")
    args = parser.parse_args(argv)
    config = read_corpora_config(args.config)
    root = find_root(config, args.corpora, args.config)
    remarks = []
    for name, speech in config.speech.items():
        try:
            program = load_program(speech.kind or name)
        except UsageError as error:
            raise UsageError(f"{args.config}: [speech.{name}]: {error}") from error
        request = Request(
            corpus=root / speech.path,
            data=args.data,
            lists=find_lists(root, speech, args.lists),
            train=config.train,
            trials=config.trials,
            nj=args.nj,
            max_unmatched=speech.max_unmatched,
            allow_partial=args.allow_partial,
        )
        remarks += program.prepare(request)
    for data_set in sorted({config.train, *config.trials.values()}):
        # Only what this stage wrote: the features of a corpus that grew are made by stage 3.
        if problems := find_problems(
            args.data / data_set, require=WRITTEN, skip=LATER, spk_sort=False
        ):
            raise SvError("; ".join(problems))
        if parted := find_parted_speakers(read_table(args.data / data_set / "utt2spk")):
            logging.warning(
                "%s: the id of a speaker is the beginning of another's (%s): this recipe takes it, "
                "Kaldi's validate_data_dir.sh does not", data_set, ", ".join(parted[:MAX_LISTED]),
            )  # fmt: skip
    for name, data_set in config.trials.items():
        _check_trials(args.data / "trials" / name, args.data / data_set)
    for remark in remarks:
        logging.warning("%s: %s", remark.trials, remark.text)
    write_remarks(args.data / "remarks.tsv", remarks)
    write_text(args.data / "train_set", f"{config.train}\n", keep_if_same=True)
    lines = [f"{name} {data_set}\n" for name, data_set in config.trials.items()]
    write_text(args.data / "test_trials", "".join(lines), keep_if_same=True)
    return 0


def _check_trials(path: Path, data_dir: Path) -> None:
    """Check that every utterance of a list, or of its enrolment models, is in the data set."""
    trials, utterances = read_trials(path), read_table(data_dir / "utt2spk")
    models = read_models(path)
    known = utterances.keys() | models.keys()
    named = [*trials.utterances, *(u for model in models.values() for u in model)]
    if unknown := sorted({u for u in named if u not in known}):
        raise SvError(f"{path}: {len(unknown)} utterances are not in {data_dir}: {unknown[0]}, ...")
    targets = int(trials.is_target.sum())
    logging.info("%s: %d trials, %d of them targets", path, len(trials.enrol), targets)


if __name__ == "__main__":
    sys.exit(run("local.prepare_data", main))
