"""After stage 3: check that every trial list can be scored, before anything is trained.

Stage 1 reads headers, so that a file which is damaged further on is found when its features are
made, and stage 3 goes on without it.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from local.corpora import Remark, append_remarks
from sv.bin.cli import Parser, run, true_or_false
from sv.errors import SvError
from sv.kaldi.data_dir import read_table
from sv.kaldi.trials import Trials, read_models, read_trials, write_trials


def main(argv: Sequence[str] | None = None) -> int:
    """Check the lists; with --allow-partial leave out the trials that cannot be scored."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--allow-partial", type=true_or_false, default=False, help="leave out what has no features"
    )
    parser.add_argument("data", type=Path, help="has test_trials")
    args = parser.parse_args(argv)
    features: dict[str, set[str]] = {}
    for name, data_set in read_table(args.data / "test_trials").items():
        table = args.data / data_set / "feats.scp"
        if not table.is_file():
            raise SvError(f"no such file {table}; run stage 3 first")
        if data_set not in features:
            features[data_set] = set(read_table(table))
        check_list(args.data, name, data_set, features[data_set], args.allow_partial)
    return 0


def check_list(
    data: Path, name: str, data_set: str, features: set[str], allow_partial: bool
) -> None:
    """Check a list; with ``allow_partial`` write it without the trials that cannot be scored.

    Raises:
        SvError: Trials have no features, and ``allow_partial`` is false, or none of one kind is
            left.
    """
    path = data / "trials" / name
    trials, models = read_trials(path), read_models(path)
    whole = {model for model, words in models.items() if features.issuperset(words)}
    known = np.array([u in features or u in whole for u in trials.utterances])
    usable = known[trials.enrol] & known[trials.test]
    lost, total = int((~usable).sum()), len(usable)
    if lost:
        wanted = {u for u in trials.utterances if u not in models}.union(*models.values())
        lacking = sorted(wanted - features)
        text = (
            f"{lost} of {total} trials cannot be scored: no features of {len(lacking)} utterances "
            f"({_name_file(data, data_set, lacking[0])})"
        )
        if not allow_partial:
            raise SvError(
                f"{path}: {text}; mend the file and run again from stage 1, or give "
                "--allow-partial true to leave these trials out"
            )
        trials = Trials(
            trials.utterances, trials.enrol[usable], trials.test[usable], trials.is_target[usable]
        )
    targets = int(trials.is_target.sum())
    if targets in (0, len(trials.is_target)):
        raise SvError(
            f"{path}: {targets} target and {len(trials.is_target) - targets} nontarget trials can "
            "be scored: both are needed; give another list in corpora.toml"
        )
    if lost:
        logging.warning("%s: left out: %s", path, text)
        sides = (trials.enrol, trials.test)
        enrol, test = ([trials.utterances[i] for i in side] for side in sides)
        write_trials(path, list(zip(enrol, test, trials.is_target.tolist(), strict=True)))
        append_remarks(data / "remarks.tsv", [Remark(name, f"partial: {text}")])


def _name_file(data: Path, data_set: str, utterance: str) -> str:
    """Return an utterance with its audio file, and why it has no features, where that is known."""
    for table in (data / data_set / "wav.scp", data / data_set / ".backup" / "wav.scp"):
        if table.is_file() and (path := read_table(table).get(utterance)):
            reasons = (data / data_set / "log").glob("fbank.*.log")
            mark = f"no features for {utterance}: "
            said = [
                line.partition(mark)[2]
                for log in sorted(reasons)
                for line in log.read_text(errors="replace").splitlines()
                if mark in line
            ]
            why = said[0] if said else path
            return f"first: {utterance}: {why if path in why else f'{path}: {why}'}"
    return f"first: {utterance}"


if __name__ == "__main__":
    sys.exit(run("local.check_lists", main))
