"""CMU AN4: ``wav/{an4_clstk,an4test_clstk}/<speaker>/*.{flac,wav,sph}``, 74 and 10 speakers.

AN4 has no official verification trials: every pair of test utterances is one (8,385 pairs).
"""

import itertools
import logging
from pathlib import Path

from local.corpora import Remark, Request
from sv.data.audio import list_audio
from sv.data.cuts import Utterance, write_data_set
from sv.kaldi.trials import write_trials

FOLDERS = {"an4_train": "an4_clstk", "an4_test": "an4test_clstk"}


def prepare(request: Request) -> list[Remark]:
    """Write the sets an4_train and an4_test and the trial list an4.

    The corpus is the unpacked database, the folder that holds ``wav``.
    """
    for name, folder in FOLDERS.items():
        utterances = [
            Utterance(f"{path.parent.name}-{path.stem}", path.parent.name, path, label(path))
            for path in list_audio(request.corpus / "wav" / folder)
        ]
        kept = set(write_data_set(request.data, name, utterances, nj=request.nj))
        speakers = {u.utterance_id: u.speaker_id for u in utterances if u.utterance_id in kept}
        logging.info("%s: %d utterances of %d speakers", name, len(kept), len({*speakers.values()}))
    pairs = itertools.combinations(sorted(speakers), 2)
    rows = [(a, b, speakers[a] == speakers[b]) for a, b in pairs]
    write_trials(request.data / "trials" / "an4", rows)
    return []


def label(path: Path) -> dict[str, str]:
    """AN4's speaker ids begin with f or m: fejs, mjgm."""
    first = path.parent.name[0]
    return {"gender": first} if first in "fm" else {}
