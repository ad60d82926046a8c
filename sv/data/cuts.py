"""Lhotse manifests: recordings, supervisions and cuts of a data set, written and read in order.

Manifests are JSON lines in C order of their ids, compressed without a time stamp: preparing the
same corpus again gives the same bytes, and an unchanged manifest keeps its time, so that nothing
made from it is made again.
"""

import gzip
import itertools
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lhotse
import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from sv.errors import SvError
from sv.files import replacing
from sv.kaldi.data_dir import MAX_LISTED, write_data_dir

SAMPLE_RATE_HZ = 16000  # of every corpus of the study
AUDIO_SUFFIXES = (".flac", ".wav", ".sph", ".ogg")  # what libsndfile reads in process


@dataclass(frozen=True)
class Utterance:
    """One utterance as a corpus describes it: who speaks in which file."""

    utterance_id: str
    speaker_id: str
    path: Path
    gender: str | None = None


def list_audio(folder: Path) -> list[Path]:
    """List the audio files below a folder, sorted by path.

    Raises:
        SvError: No such folder, or no audio file in it.
    """
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}")
    found = [
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith(".")
    ]
    if not found:
        raise SvError(f"{folder}: no audio file ({', '.join(AUDIO_SUFFIXES)}) in it")
    return sorted(found)


def build_recording(path: Path, recording_id: str) -> Recording:
    """Describe an audio file, from its header.

    Raises:
        SvError: Not readable as audio, empty, or not 16 kHz.
    """
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise SvError(f"{path}: not readable as audio ({error})") from error
    if info.frames < 1:
        raise SvError(f"{path}: no samples in it")
    if info.samplerate != SAMPLE_RATE_HZ:
        raise SvError(f"{path}: {info.samplerate} Hz; resample it to {SAMPLE_RATE_HZ} Hz")
    return Recording(
        id=recording_id,
        sources=[AudioSource("file", channels=list(range(info.channels)), source=str(path))],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=info.frames / info.samplerate,
    )


def build_recordings(paths: dict[str, Path], *, min_kept: float = 0.999) -> list[Recording]:
    """Describe many files, in order of their ids; the bad ones are counted and said.

    Args:
        paths: Recording id to file.
        min_kept: Share of the files that must be readable.

    Raises:
        SvError: Fewer than ``min_kept`` of the files could be read.
    """

    def build(item: tuple[str, Path]) -> Recording | SvError:
        try:
            return build_recording(item[1], item[0])
        except SvError as error:
            return error

    # Opening files is waiting for the disk; threads wait together.
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(build, sorted(paths.items())))
    bad = [str(r) for r in results if isinstance(r, SvError)]
    if bad:
        logging.warning("left out %d of %d files:", len(bad), len(results))
        for message in bad[:MAX_LISTED]:
            logging.warning("  %s", message)
    if len(results) - len(bad) < min_kept * len(results):
        raise SvError(f"{len(bad)} of {len(results)} audio files cannot be used; first: {bad[0]}")
    return [r for r in results if isinstance(r, Recording)]


def write_manifest(path: Path, items: Iterable[Recording | SupervisionSegment | Cut]) -> int:
    """Write a ``.jsonl.gz`` manifest in the given order; give the number of its items."""
    count = 0
    with replacing(path, keep_if_same=True) as file:
        for item in items:
            file.write(json.dumps(item.to_dict(), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_manifest(path: Path, *, job: int = 1, nj: int = 1) -> Iterator:
    """Read the items of a manifest, or the share of one job among ``nj``.

    Args:
        path: A ``.jsonl.gz`` manifest.
        job: 1-based number of the share: every nj-th item from there.
        nj: Number of shares.

    Raises:
        SvError: No such file, or not a manifest.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            # Lines of other jobs are skipped unparsed.
            for line in itertools.islice(file, job - 1, None, nj):
                yield deserialize_item(json.loads(line))
    except (OSError, EOFError) as error:
        raise SvError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise SvError(f"{path}: not a manifest: {error}") from error


def write_data_set(data: Path, name: str, utterances: Iterable[Utterance]) -> int:
    """Write a set's manifests (``data/manifests``) and Kaldi data directory (``data/<name>``).

    Returns:
        The number of utterances.

    Raises:
        SvError: An id stands twice, too many unreadable files, or no utterance at all.
    """
    by_id: dict[str, Utterance] = {}
    for utterance in utterances:
        if other := by_id.get(utterance.utterance_id):
            raise SvError(
                f"{name}: utterance id '{utterance.utterance_id}' stands twice: "
                f"{other.path} and {utterance.path}"
            )
        by_id[utterance.utterance_id] = utterance
    if not by_id:
        raise SvError(f"{name}: no utterances")
    recordings = build_recordings({key: u.path for key, u in by_id.items()})
    cuts = [build_cut(recording, by_id[recording.id]) for recording in recordings]
    manifests = data / "manifests"
    write_manifest(manifests / f"{name}_recordings.jsonl.gz", recordings)
    write_manifest(
        manifests / f"{name}_supervisions.jsonl.gz", (cut.supervisions[0] for cut in cuts)
    )
    write_data_dir(
        data / name,
        {r.id: by_id[r.id].speaker_id for r in recordings},
        wav_scp={r.id: r.sources[0].source for r in recordings},
        utt2dur={r.id: f"{r.duration:.3f}" for r in recordings},
    )
    write_cuts(data, name, cuts)
    return len(recordings)


def write_cuts(data: Path, name: str, cuts: Iterable[Cut]) -> int:
    """Write ``manifests/<name>_cuts.jsonl.gz`` and link ``<name>/cuts.jsonl.gz`` to it."""
    count = write_manifest(data / "manifests" / f"{name}_cuts.jsonl.gz", cuts)
    link = data / name / "cuts.jsonl.gz"
    target = Path("..", "manifests", f"{name}_cuts.jsonl.gz")
    link.parent.mkdir(parents=True, exist_ok=True)
    if not (link.is_symlink() and Path(os.readlink(link)) == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return count


def build_cut(recording: Recording, utterance: Utterance) -> MonoCut:
    """Cut a whole recording (its first channel), with its speaker as supervision."""
    supervision = SupervisionSegment(
        id=recording.id,
        recording_id=recording.id,
        start=0.0,
        duration=recording.duration,
        speaker=utterance.speaker_id,
        gender=utterance.gender,
    )
    return MonoCut(
        id=recording.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
    )


def load_samples(cut: Cut) -> np.ndarray:
    """Load and, if the cut says so, mix or reverberate the audio of a cut.

    Returns:
        (samples,) float32, nominally in [-1, 1].

    Raises:
        SvError: The audio cannot be read, or holds NaN or infinity.
    """
    try:
        samples = cut.load_audio()[0]
    except Exception as error:  # lhotse wraps any backend's failure in its own types
        raise SvError(f"{cut.id}: cannot load its audio: {str(error).splitlines()[0]}") from error
    if not math.isfinite(float(samples.sum(dtype="f8"))):
        raise SvError(f"{cut.id}: NaN or infinity in its audio")
    return samples


def use_libsndfile() -> None:
    """Read audio through libsndfile alone.

    Lhotse's default tries backends in an order that depends on what is installed (torchaudio,
    ffmpeg, sph2pipe); the same corpus must give the same samples everywhere.
    """
    lhotse.set_current_audio_backend("LibsndfileBackend")
