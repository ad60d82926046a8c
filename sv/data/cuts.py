"""Data sets as Lhotse cuts and Kaldi tables: one utterance, one recording, one cut."""

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lhotse
import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.audio.backend import LibsndfileBackend
from lhotse.audio.utils import (
    get_audio_duration_mismatch_tolerance,
    set_audio_duration_mismatch_tolerance,
)
from lhotse.cut import Cut, MixedCut
from lhotse.utils import compute_num_samples

from sv.data.audio import (
    WHOLE,
    Span,
    convert_to_flac,
    is_coded,
    open_audio,
    read_duration_s,
    read_header,
    stat_regular,
    validate_finite,
)
from sv.data.config import SAMPLE_RATE_HZ
from sv.data.manifests import open_manifests, pack_items
from sv.data.parallel import log_progress, map_chunks
from sv.data.space import Share, require_space
from sv.errors import SvError, describe
from sv.files import validate_name
from sv.kaldi.data_dir import MAX_LISTED, write_data_dir

MIN_KEPT = 0.999  # share of the files that must be usable
# Between a file and its manifest, for rounding. Lhotse would mirror half a second that is missing.
TOLERANCE_S = 1 / SAMPLE_RATE_HZ
MANIFESTS = ("recordings", "supervisions", "cuts")
# 0.7 of 16-bit samples at 16 kHz, as CN-Celeb's FLAC is: 22 GB of 274 h (www.openslr.org/82);
# read speech has 0.54 (LibriSpeech, /12). Noise does not compress.
FLAC_BYTES_PER_S = 22_400
HEADERS_READ = 100  # of the files to convert, evenly spaced
NO_ROOM = "give --data on another disk; what is converted already stays"


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance as a corpus describes it: who speaks in which file.

    ``labels`` is what else is known: gender, language, nationality, ... Utterances of a speaker
    may share one mapping. ``span`` is the part of the file; None: all of it.
    """

    utterance_id: str
    speaker_id: str
    path: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    span: Span | None = None

    @property
    def is_converted(self) -> bool:
        """Whether FLAC is made of it: an utterance of ours is a whole file that Lhotse reads."""
        return self.span is not None or is_coded(self.path)


def write_data_set(
    data: Path, name: str, utterances: Iterable[Utterance], *, nj: int = 1
) -> list[str]:
    """Write a set's manifests (``data/manifests``) and Kaldi data directory (``data/<name>``).

    Coded audio (AAC, MP3) is converted into ``data/audio/<name>``, once, and parts of files are cut
    into it. Files that cannot be
    used are counted, and the first ones are named in the log. ``nj`` processes read the files.

    Returns:
        The ids of the utterances, sorted.

    Raises:
        SvError: A duplicate id, one with a space or none in it, a name that no file can have,
            more than one file in a thousand that cannot be used, no utterance at all, or no room
            for what is converted.
    """
    wanted = _sort_utterances(validate_name(name, "the data set"), utterances)
    if coded := [utterance for utterance in wanted if utterance.is_converted]:
        require_space([_foresee_conversion(name, coded, data / "audio" / name)], NO_ROOM)
    by_id = {utterance.utterance_id: utterance for utterance in wanted}
    rows: list[tuple[str, str, str]] = []
    bad: list[str] = []
    paths = (data / "manifests" / f"{name}_{kind}.jsonl.gz" for kind in MANIFESTS)
    with open_manifests(*paths) as files:
        chunks = map_chunks(_describe_chunk, wanted, data / "audio" / name, nj=nj)
        parts = log_progress(chunks, name, total=len(wanted), count=lambda p: len(p[1]) + len(p[2]))
        for packed, described, unusable in parts:
            for file, lines in zip(files, packed, strict=True):
                file.write(lines)
            rows += described
            bad += unusable
        refuse_losses(name, bad, len(wanted))
    tables: dict[str, dict[str, str]] = {}  # of each label that some utterance has
    for key, path, seconds in rows:
        values = {"wav_scp": path, "utt2dur": seconds}
        for label, value in by_id[key].labels.items():
            if text := " ".join(value.split()):  # else there is none
                values[f"utt2{label}"] = text
        for table, value in values.items():
            tables.setdefault(table, {})[key] = value
    write_data_dir(data / name, {key: by_id[key].speaker_id for key, _, _ in rows}, **tables)
    link_cuts(data, name)
    return [key for key, _, _ in rows]


def _foresee_conversion(name: str, coded: list[Utterance], folder: Path) -> Share:
    """Estimate the FLAC of coded files and parts from the durations of some of them."""
    there, missing = 0, []
    for utterance in coded:
        try:
            there += os.stat(_get_converted(folder, utterance)).st_size
        except FileNotFoundError:
            missing.append(utterance)
    seconds = []
    for utterance in missing[:: -(-len(missing) // HEADERS_READ) or 1]:
        with contextlib.suppress(SvError):  # what cannot be read is counted when it is converted
            start_s, end_s = utterance.span or WHOLE
            if end_s == math.inf:
                end_s = read_duration_s(utterance.path)
            seconds.append(max(0.0, end_s - start_s))
    size = len(missing) * FLAC_BYTES_PER_S * sum(seconds) / max(1, len(seconds))
    return Share(f"{name}: FLAC of {len(coded)} files", folder, there + round(size), there)


def _get_converted(folder: Path, utterance: Utterance) -> Path:
    return folder / utterance.speaker_id / f"{utterance.utterance_id}.flac"


def _sort_utterances(name: str, utterances: Iterable[Utterance]) -> list[Utterance]:
    ordered = sorted(utterances, key=lambda u: u.utterance_id)
    if not ordered:
        raise SvError(f"{name}: no utterances")
    for before, now in zip(ordered, ordered[1:], strict=False):
        if before.utterance_id == now.utterance_id:
            raise SvError(
                f"{name}: duplicate utterance id '{now.utterance_id}': {before.path} and {now.path}"
            )
    if blank := next((u for u in ordered if len(u.utterance_id.split()) != 1), None):
        raise SvError(
            f"{name}: '{blank.utterance_id}' cannot be an utterance id: spaces separate the "
            f"columns of Kaldi's tables; rename {blank.path}"
        )
    for utterance in ordered:
        if len(utterance.speaker_id.split()) != 1:
            raise SvError(f"{name}: {utterance.speaker_id!r} is no speaker id: {utterance.path}")
        if utterance.is_converted:  # the FLAC is called after both
            validate_name(utterance.speaker_id, f"{name}: the speaker")
            validate_name(utterance.utterance_id, f"{name}: the utterance")
    return ordered


def _describe_chunk(
    utterances: Sequence[Utterance], folder: Path
) -> tuple[tuple[bytes, ...], list[tuple[str, str, str]], list[str]]:
    """Return packed manifests, rows (utterance, file, seconds), and why files are left out."""
    cuts: list[MonoCut] = []
    bad: list[str] = []
    for utterance in utterances:
        path, converted = utterance.path, _get_converted(folder, utterance)
        try:
            if utterance.is_converted:
                convert_to_flac(path, converted, utterance.span)
                path = converted
            recording = build_recording(path, utterance.utterance_id)
        except SvError as error:
            bad.append(str(error))
        else:
            cuts.append(build_cut(recording, utterance))
    packed = (
        pack_items(cut.recording for cut in cuts),
        pack_items(cut.supervisions[0] for cut in cuts),
        pack_items(cuts),
    )
    rows = [(cut.id, cut.recording.sources[0].source, f"{cut.duration:.3f}") for cut in cuts]
    return packed, rows, bad


def refuse_losses(name: str, bad: list[str], total: int) -> None:
    """Log which files are left out.

    Raises:
        SvError: More than one in a thousand are.
    """
    if bad:
        logging.warning("%s: left out %d of %d files:", name, len(bad), total)
        for message in bad[:MAX_LISTED]:
            logging.warning("  %s", message)
    if total - len(bad) < MIN_KEPT * total:
        raise SvError(f"{name}: {len(bad)} of {total} audio files cannot be used; first: {bad[0]}")


def link_cuts(data: Path, name: str) -> None:
    """Link ``<name>/cuts.jsonl.gz`` to ``manifests/<name>_cuts.jsonl.gz``."""
    link = data / name / "cuts.jsonl.gz"
    target = Path("..", "manifests", f"{name}_cuts.jsonl.gz")
    link.parent.mkdir(parents=True, exist_ok=True)
    if not (link.is_symlink() and link.readlink() == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def build_recording(path: Path, recording_id: str) -> Recording:
    """Describe an audio file, from its header.

    Raises:
        SvError: See `sv.data.audio.read_header`; also a coded file (AAC, MP3).
    """
    if is_coded(path):
        raise SvError(f"{path}: convert it to FLAC first")
    stat_regular(path)
    num_samples, channels = read_header(path)
    return Recording(
        id=recording_id,
        # Absolute: a manifest can be used from any folder, by Lhotse alone.
        sources=[AudioSource("file", list(range(channels)), str(path.absolute()))],
        sampling_rate=SAMPLE_RATE_HZ,
        num_samples=num_samples,
        duration=num_samples / SAMPLE_RATE_HZ,
    )


def build_cut(recording: Recording, utterance: Utterance) -> MonoCut:
    """Build the cut of a whole recording (its first channel), with its speaker as supervision."""
    supervision = SupervisionSegment(
        id=recording.id,
        recording_id=recording.id,
        start=0.0,
        duration=recording.duration,
        speaker=utterance.speaker_id,
        gender=utterance.labels.get("gender"),
        language=utterance.labels.get("language"),
    )
    return MonoCut(
        id=recording.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
    )


class _Backend(LibsndfileBackend):
    """What Lhotse reads by: `open_audio`, and no sample that is NaN or infinite."""

    def read_audio(
        self,
        path_or_fd: str,
        offset: float = 0.0,
        duration: float | None = None,
        force_opus_sampling_rate: int | None = None,  # noqa: ARG002 - Lhotse's
    ) -> tuple[np.ndarray, int]:
        """Return (channels, samples) float32 and the rate in Hz."""
        with open_audio(Path(path_or_fd)) as file:
            file.seek(compute_num_samples(offset, SAMPLE_RATE_HZ))
            wanted = -1 if duration is None else compute_num_samples(duration, SAMPLE_RATE_HZ)
            samples = file.read(wanted, dtype="float32", always_2d=True).T
        validate_finite(samples, path_or_fd)
        return samples, SAMPLE_RATE_HZ


_BACKEND = _Backend()


def load_samples(cut: Cut) -> np.ndarray:
    """Load the audio of a cut, mixed or reverberated as the cut says.

    Returns:
        (samples,) float32, nominally in [-1, 1].

    Raises:
        SvError: The audio cannot be read, or holds NaN or infinity.
    """
    # Lhotse's default tries backends in an order that depends on what is installed (torchaudio,
    # ffmpeg, sph2pipe); the same corpus must give the same samples everywhere.
    lhotse.set_current_audio_backend(_BACKEND)
    if get_audio_duration_mismatch_tolerance() != TOLERANCE_S:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lhotse's, that it is less than the default
            set_audio_duration_mismatch_tolerance(TOLERANCE_S)
    try:
        samples = cut.load_audio()[0]
    except Exception as error:  # lhotse wraps any backend's failure in its own types
        reason = _find_changed(cut) or describe(error)
        raise SvError(f"{cut.id}: cannot load its audio: {reason}") from error
    validate_finite(samples, cut.id)
    return samples


def name_audio(cut: Cut) -> str:
    """Return the file of a cut; of a mix or a reverberated copy, that of the clean utterance."""
    clean = cut.tracks[0].cut if isinstance(cut, MixedCut) else cut
    return clean.recording.sources[0].source


def _find_changed(cut: Cut) -> str:
    """Name a file that a cut is made from and that has another length than its manifest says."""
    todo = [cut.to_dict()]  # a mix, its cuts and recordings, their impulse responses
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            todo += value.values()
            if not value.get("sources"):
                continue
            path, known = value["sources"][0]["source"], value["num_samples"]
            with contextlib.suppress(SvError):
                found, _ = read_header(Path(path))
                if found != known:
                    return f"{path} had {known} samples in stage 1, has {found}; run stages 1 and 2"
    return ""
