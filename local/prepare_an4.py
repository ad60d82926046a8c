"""CMU AN4: ``wav/{an4_clstk,an4test_clstk}/<speaker>/*.{flac,wav,sph}``, 74 and 10 speakers.

AN4 has no official verification trials: every pair of test utterances is one (8,385 pairs).
"""

import itertools
import logging
from pathlib import Path

from sv.data.cuts import Utterance, list_audio, write_data_set
from sv.kaldi.trials import write_trials

FOLDERS = {"an4_train": "an4_clstk", "an4_test": "an4test_clstk"}


def prepare(corpus: Path, data: Path) -> None:
    """Write the sets an4_train and an4_test and the trial list an4.

    Args:
        corpus: The unpacked database, the folder that holds ``wav``.
        data: Where manifests, data directories and trials go.
    """
    for name, folder in FOLDERS.items():
        utterances = [
            Utterance(f"{path.parent.name}-{path.stem}", path.parent.name, path, gender(path))
            for path in list_audio(corpus / "wav" / folder)
        ]
        count = write_data_set(data, name, utterances)
        speakers = {u.utterance_id: u.speaker_id for u in utterances}
        logging.info("%s: %d utterances of %d speakers", name, count, len(set(speakers.values())))
    pairs = itertools.combinations(sorted(speakers), 2)
    write_trials(data / "trials" / "an4", [(a, b, speakers[a] == speakers[b]) for a, b in pairs])


def gender(path: Path) -> str | None:
    """AN4's speaker ids begin with f or m: fejs, mjgm."""
    return path.parent.name[0] if path.parent.name[0] in "fm" else None
