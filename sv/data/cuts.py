"""Data sets as Lhotse cuts and Kaldi tables: one utterance, one recording, one cut."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lhotse
import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from sv.data.chunks import map_chunks
from sv.data.manifests import pack_items
from sv.data.recordings import Utterance, build_recording
from sv.errors import SvError
from sv.files import replacing
from sv.kaldi.data_dir import MAX_LISTED, write_data_dir

MIN_KEPT = 0.999  # share of the files that must be usable
PROGRESS_S = 10.0
MANIFESTS = ("recordings", "supervisions", "cuts")


@dataclass(frozen=True)
class _Described:
    """What a chunk of utterances gave: packed manifests, table rows, and the files left out."""

    packed: tuple[bytes, ...]
    rows: list[tuple[str, str, str]]  # utterance, file, seconds
    bad: list[str]


def write_data_set(
    data: Path, name: str, utterances: Iterable[Utterance], *, nj: int = 1
) -> list[str]:
    """Write a set's manifests (``data/manifests``) and Kaldi data directory (``data/<name>``).

    Coded audio (AAC, MP3) is converted into ``data/audio/<name>`` on the way; what has been
    converted before is not converted again. Files that cannot be used are counted and said.

    Args:
        data: Where everything goes.
        name: Name of the set.
        utterances: In any order.
        nj: Processes that read (and convert) the files.

    Returns:
        The ids of the utterances, sorted.

    Raises:
        SvError: An id stands twice or has a space in it, more than one file in a thousand
            cannot be used, or there is no utterance at all.
    """
    wanted = _sort_utterances(name, utterances)
    by_id = {utterance.utterance_id: utterance for utterance in wanted}
    rows: list[tuple[str, str, str]] = []
    bad: list[str] = []
    manifests = data / "manifests"
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(
                replacing(
                    manifests / f"{name}_{kind}.jsonl.gz", mode="wb", keep_if_same=True, packed=True
                )
            )
            for kind in MANIFESTS
        ]
        chunks = map_chunks(
            _describe_chunk, wanted, nj=nj, setup=_set_folder, setup_args=(data / "audio" / name,)
        )
        for part in _log_progress(chunks, name, len(wanted)):
            for file, packed in zip(files, part.packed, strict=True):
                file.write(packed)
            rows += part.rows
            bad += part.bad
        refuse_losses(name, bad, len(wanted))
    write_data_dir(
        data / name,
        {key: by_id[key].speaker_id for key, _, _ in rows},
        wav_scp={key: path for key, path, _ in rows},
        utt2dur={key: seconds for key, _, seconds in rows},
        **_collect_labels(by_id[key] for key, _, _ in rows),
    )
    link_cuts(data, name)
    return [key for key, _, _ in rows]


def _sort_utterances(name: str, utterances: Iterable[Utterance]) -> list[Utterance]:
    ordered = sorted(utterances, key=lambda u: u.utterance_id)
    if not ordered:
        raise SvError(f"{name}: no utterances")
    for before, now in zip(ordered, ordered[1:], strict=False):
        if before.utterance_id == now.utterance_id:
            raise SvError(
                f"{name}: utterance id '{now.utterance_id}' stands twice: "
                f"{before.path} and {now.path}"
            )
    if blank := next((u for u in ordered if len(u.utterance_id.split()) != 1), None):
        raise SvError(
            f"{name}: '{blank.utterance_id}' cannot be an utterance id: no blanks, as they part "
            f"the columns of Kaldi's tables; rename {blank.path}"
        )
    return ordered


_folder = Path()  # of each worker process: where converted audio goes


def _set_folder(folder: Path) -> None:
    global _folder  # noqa: PLW0603
    _folder = folder


def _describe_chunk(utterances: Sequence[Utterance]) -> _Described:
    cuts: list[MonoCut] = []
    bad: list[str] = []
    for utterance in utterances:
        converted = _folder / utterance.speaker_id / f"{utterance.utterance_id}.flac"
        try:
            recording = build_recording(utterance.path, utterance.utterance_id, converted=converted)
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
    return _Described(packed, rows, bad)


def _log_progress(chunks: Iterable[_Described], name: str, total: int) -> Iterator[_Described]:
    done, last = 0, time.monotonic()
    for chunk in chunks:
        yield chunk
        done += len(chunk.rows) + len(chunk.bad)
        if time.monotonic() - last >= PROGRESS_S:
            logging.info("%s: %d of %d files", name, done, total)
            last = time.monotonic()


def refuse_losses(name: str, bad: list[str], total: int) -> None:
    """Say which files were left out; `SvError` if more than one in a thousand were."""
    if bad:
        logging.warning("%s: left out %d of %d files:", name, len(bad), total)
        for message in bad[:MAX_LISTED]:
            logging.warning("  %s", message)
    if total - len(bad) < MIN_KEPT * total:
        raise SvError(f"{name}: {len(bad)} of {total} audio files cannot be used; first: {bad[0]}")


def _collect_labels(utterances: Iterable[Utterance]) -> dict[str, dict[str, str]]:
    """Give a table utt2<label> for each label that some utterance has."""
    tables: dict[str, dict[str, str]] = {}
    for utterance in utterances:
        for label, value in utterance.labels.items():
            tables.setdefault(f"utt2{label}", {})[utterance.utterance_id] = value
    return tables


def link_cuts(data: Path, name: str) -> None:
    """Link ``<name>/cuts.jsonl.gz`` to ``manifests/<name>_cuts.jsonl.gz``."""
    link = data / name / "cuts.jsonl.gz"
    target = Path("..", "manifests", f"{name}_cuts.jsonl.gz")
    link.parent.mkdir(parents=True, exist_ok=True)
    if not (link.is_symlink() and Path(os.readlink(link)) == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def build_cut(recording: Recording, utterance: Utterance) -> MonoCut:
    """Cut a whole recording (its first channel), with its speaker as supervision."""
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
