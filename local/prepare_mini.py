"""The mini corpus: ``wav/{train,test}/<speaker>/<session>/<number>.flac`` and trials.txt."""

import logging
from pathlib import Path

from sv.data.cuts import Utterance, list_audio, write_data_set
from sv.errors import SvError
from sv.files import read_text
from sv.kaldi.trials import write_trials


def prepare(corpus: Path, data: Path) -> None:
    """Write the sets mini_train and mini_test and the trial list mini.

    Args:
        corpus: What local/make_mini.py made.
        data: Where manifests, data directories and trials go.
    """
    rows = [line.split("\t") for line in read_text(corpus / "speakers.tsv").splitlines()]
    gender = {row[0]: row[1] for row in rows[1:]}
    for split in ("train", "test"):
        folder = corpus / "wav" / split
        utterances = [
            Utterance(
                utterance_id(path.relative_to(folder)), path.parts[-3], path, gender[path.parts[-3]]
            )
            for path in list_audio(folder)
        ]
        count = write_data_set(data, f"mini_{split}", utterances)
        logging.info("mini_%s: %d utterances", split, count)
    write_trials(data / "trials" / "mini", read_voxceleb_trials(corpus / "trials.txt"))


def utterance_id(relative: Path) -> str:
    """Give ``speaker-session-number`` for ``speaker/session/number.flac``."""
    return "-".join(relative.with_suffix("").parts)


def read_voxceleb_trials(path: Path) -> list[tuple[str, str, bool]]:
    """Read a list in VoxCeleb's form, ``1 <path> <path>``, 1 meaning the same speaker."""
    trials = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        match line.split():
            case [("0" | "1") as label, enrol, test]:
                trials.append((utterance_id(Path(enrol)), utterance_id(Path(test)), label == "1"))
            case _:
                raise SvError(f"{path}: line {number}: expected '1|0 <path> <path>', not {line!r}")
    return trials
