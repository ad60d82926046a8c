"""The cohort of score normalisation: some utterances of every training speaker."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sv.errors import SvError
from sv.files import read_json
from sv.kaldi.archive import read_vectors
from sv.kaldi.data_dir import read_feats, read_table, write_data_dir


@dataclass(frozen=True)
class Cohort:
    """Embeddings of training speakers.

    ``means`` is (speakers, dim) float32, the mean embedding of each; ``mean`` is (dim,) float64,
    that of all ``utterances``.
    """

    means: np.ndarray
    mean: np.ndarray
    utterances: int


def select_utterances(utt2spk: Mapping[str, str], per_speaker: int) -> dict[str, str]:
    """Give the first utterances of each speaker in C order, with their speakers."""
    kept: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        own = kept.setdefault(utt2spk[utterance], [])
        if len(own) < per_speaker:
            own.append(utterance)
    return {utterance: speaker for speaker, own in kept.items() for utterance in own}


def make_cohort_dir(data_dir: Path, utterances: Path, per_speaker: int, cohort_dir: Path) -> None:
    """Make a data directory of clean utterances that were trained on.

    Args:
        data_dir: The training set, with features.
        utterances: Table of the utterances that were trained on and their speakers.
        per_speaker: At most so many of each.
        cohort_dir: The directory to make; unchanged tables keep their time.

    Raises:
        SvError: A table is missing, or an utterance has no features.
    """
    chosen = select_utterances(read_table(utterances), per_speaker)
    feats, frames = read_feats(data_dir / "feats.scp", data_dir / "utt2num_frames")
    durations = read_table(data_dir / "utt2dur")
    if missing := sorted(chosen.keys() - (feats.keys() & durations.keys())):
        raise SvError(
            f"{data_dir}: {len(missing)} of the {len(chosen)} utterances chosen from {utterances} "
            f"are missing (first: {missing[0]}); make stages 3 and 4 again"
        )
    write_data_dir(
        cohort_dir,
        chosen,
        feats_scp={u: feats[u] for u in chosen},
        utt2num_frames={u: frames[u] for u in chosen},
        utt2dur={u: durations[u] for u in chosen},
    )


def read_cohort(directory: Path, info: Mapping[str, object]) -> Cohort:
    """Read the embeddings of a cohort and average them by speaker.

    Args:
        directory: Holds xvector.scp, info.json and utt2spk.
        info: The info.json of the embeddings that are scored.

    Raises:
        SvError: A file is missing or broken, an embedding has no speaker, or the cohort's are of
            another network or precision.
    """
    own = read_json(directory / "info.json")
    for key in ("model", "precision"):
        if own.get(key) != info.get(key):
            raise SvError(
                f"{directory}: its {key} is {own.get(key)}, that of the embeddings to score is "
                f"{info.get(key)}; make stage 6 again"
            )
    utt2spk = read_table(directory / "utt2spk")
    keys, vectors = read_vectors(directory / "xvector.scp")
    unknown = [key for key in keys if key not in utt2spk]
    if unknown:
        raise SvError(
            f"{directory / 'utt2spk'}: {len(unknown)} utterances of xvector.scp missing "
            f"(first: {unknown[0]}); make stage 6 again"
        )
    _, speaker_of = np.unique([utt2spk[key] for key in keys], return_inverse=True)
    sums = np.zeros((speaker_of.max() + 1, vectors.shape[1]))
    np.add.at(sums, speaker_of, vectors)  # float64
    counts = np.bincount(speaker_of)
    mean = sums.sum(axis=0) / len(keys)
    return Cohort((sums / counts[:, None]).astype(np.float32), mean, len(keys))
