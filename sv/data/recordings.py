"""Recordings of a corpus: which audio files there are, and what each holds."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import soundfile
from lhotse import Recording
from lhotse.audio import AudioSource

from sv.data.audio import CODED_SUFFIXES, DIRECT_SUFFIXES, SAMPLE_RATE_HZ, convert_to_flac
from sv.errors import SvError

SUFFIXES = DIRECT_SUFFIXES + CODED_SUFFIXES


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance as a corpus describes it: who speaks in which file.

    ``labels`` is what else is known: gender, language, nationality, ... Utterances of a speaker
    may share one mapping.
    """

    utterance_id: str
    speaker_id: str
    path: Path
    labels: Mapping[str, str] = field(default_factory=dict)


def list_audio(folder: Path) -> list[Path]:
    """List the audio files below a folder, sorted by path.

    Raises:
        SvError: No such folder, one that cannot be read, or no audio file in it.
    """
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}")
    found = sorted(walk_audio(folder))
    if not found:
        raise SvError(f"{folder}: no audio file ({', '.join(SUFFIXES)}) in it")
    return [Path(path) for path in found]


def walk_audio(folder: Path) -> Iterator[str]:
    """Give the audio files below a folder as they come.

    Raises:
        SvError: A folder cannot be read.
    """
    for parent, _, names in os.walk(folder, followlinks=True, onerror=_refuse):
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)


def _refuse(error: OSError) -> None:
    # os.walk would go on without the folder, and its utterances would be missing without a word.
    raise SvError(f"cannot read folder {error.filename}: {error.strerror}") from error


def build_recording(path: Path, recording_id: str, *, converted: Path | None = None) -> Recording:
    """Describe an audio file, from its header; a coded one (AAC, MP3) is converted first.

    Args:
        path: The file.
        recording_id: Its id.
        converted: Where the FLAC of a coded file goes.

    Raises:
        SvError: Not readable as audio, empty, or not 16 kHz.
    """
    if path.suffix.lower() in CODED_SUFFIXES:
        if converted is None:
            raise SvError(f"{path}: convert it to FLAC first")
        convert_to_flac(path, converted)
        path = converted
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
