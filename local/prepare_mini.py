"""The mini corpus: ``wav/{train,test}/<speaker>/<session>/<number>.flac`` and trials.txt."""

import logging
from pathlib import Path

from local.corpora import Remark, Request
from local.voxceleb import read_trial_list
from sv.data.audio import list_audio
from sv.data.cuts import Utterance, write_data_set
from sv.files import read_text
from sv.kaldi.trials import write_trials


def prepare(request: Request) -> list[Remark]:
    """Write the sets mini_train and mini_test and the trial list mini.

    The corpus is what local/make_mini.py made.
    """
    rows = [line.split("\t") for line in read_text(request.corpus / "speakers.tsv").splitlines()]
    labels = {row[0]: {"gender": row[1]} for row in rows[1:]}
    for split in ("train", "test"):
        folder = request.corpus / "wav" / split
        utterances = [
            Utterance(
                utterance_id(str(path.relative_to(folder))),
                path.parts[-3],
                path,
                labels[path.parts[-3]],
            )
            for path in list_audio(folder)
        ]
        kept = write_data_set(request.data, f"mini_{split}", utterances, nj=request.nj)
        logging.info("mini_%s: %d utterances", split, len(kept))
    trials = read_trial_list(request.corpus / "trials.txt", utterance_id)
    write_trials(request.data / "trials" / "mini", trials)
    return []


def utterance_id(relative: str) -> str:
    """Return ``speaker-session-number`` for ``speaker/session/number.flac``."""
    return "-".join(Path(relative).with_suffix("").parts)
