"""Sources of augmentation: recordings of noise, music and voices, and room impulse responses."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lhotse import Recording

from local.corpora import Count
from sv.data.audio import decode_audio, list_audio, open_audio, validate_finite
from sv.data.cuts import build_recording, refuse_losses
from sv.data.parallel import map_chunks
from sv.errors import SvError
from sv.files import read_text
from sv.kaldi.data_dir import MAX_LISTED

BLOCK_SAMPLES = 16_000  # most files need one: they begin with sound
RIR_LIST = "rir_list"  # name of RIRS_NOISES' tables of impulse responses


def list_sources(root: Path, kind: str, entries: list[str], *, nj: int = 1) -> list[Recording]:
    """Describe every audio file of some entries of [augment], sorted by id.

    Args:
        root: Folder of the corpora; ids are paths below it.
        kind: What they are for. An impulse response for reverb is read whole: what is convolved
            with zeros is silent. Silent noise is left out: what is mixed with it is no other copy.
        entries: Folders, or RIRS_NOISES' ``rir_list`` tables. The folder of the real impulse
            responses also holds noises, and their names do not distinguish them: 107 of its 325
            responses do not have "rir" in theirs. Its list names the responses.
        nj: Processes.

    Raises:
        SvError: A folder or a file is missing, or too many files cannot be used.
    """
    paths = [path for entry in entries for path in _find(root, root / entry)]
    recordings, bad, silent = [], [], []
    for found, unusable, zeros in map_chunks(_describe_chunk, sorted(paths), (root, kind), nj=nj):
        recordings += found
        bad += unusable
        silent += zeros
    name = ", ".join(entries)
    refuse_losses(name, bad, len(paths))
    if silent:
        listed = ", ".join(silent[:MAX_LISTED])
        logging.warning("%s: left out %d silent files: %s", name, len(silent), listed)
    if not recordings:
        raise SvError(f"{name}: every file is silent")
    return recordings


def _describe_chunk(
    paths: list[Path], shared: tuple[Path, str]
) -> tuple[list[Recording], list[str], list[str]]:
    """Return recordings, why files cannot be used, and the files that are silent."""
    root, kind = shared
    recordings, bad, silent = [], [], []
    for path in paths:
        try:
            recording = build_recording(path, Path(os.path.relpath(path, root)).as_posix())
            if kind == "reverb":
                _validate_response(path)
            elif _is_silent(path):
                silent.append(str(path))
                continue
            recordings.append(recording)
        except SvError as error:
            bad.append(str(error))
    return recordings, bad, silent


def _validate_response(path: Path) -> None:
    samples, _ = decode_audio(path)
    validate_finite(samples, path)
    if not samples.any():
        raise SvError(f"{path}: an impulse response of zeros (its first channel)")


def _is_silent(path: Path) -> bool:
    with open_audio(path) as file:
        blocks = file.blocks(BLOCK_SAMPLES, dtype="float32", always_2d=True)
        return not any(block[:, 0].any() for block in blocks)


def find_missing_sources(root: Path, augment: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return entries of [augment] that are not there: ``augment <kind> <entry>``, and why."""
    missing = {}
    for kind, entries in augment.items():
        for entry in entries:
            try:
                _find(root, root / entry)
            except SvError as error:
                missing[f"augment {kind} {entry}"] = str(error)
    return missing


# www.openslr.org/17 and /28, counted in the archives by public toolkits, 2025.
PUBLISHED = {
    "musan/speech": 426,
    "musan/music": 660,
    "musan/noise": 930,
    "RIRS_NOISES/simulated_rirs/smallroom": 20_000,
    "RIRS_NOISES/simulated_rirs/mediumroom": 20_000,
    "RIRS_NOISES/simulated_rirs/largeroom": 20_000,
    "RIRS_NOISES/real_rirs_isotropic_noises/rir_list": 325,
}


def count_sources(root: Path, kind: str, entries: list[str], *, published: bool) -> list[Count]:
    """Count the files of each entry; errors as `list_sources`.

    ``published`` says whether the corpora are the public ones, whose numbers are known.
    """
    counts = []
    for entry in entries:
        paths = tuple(_find(root, root / entry))
        what = f"audio files in {root / entry}"
        number = PUBLISHED.get(entry) if published else None
        counts.append(Count(f"augment {kind}", what, len(paths), number, paths))
    return counts


def _find(root: Path, entry: Path) -> list[Path]:
    if entry.name != RIR_LIST:
        return list_audio(entry)
    # Kaldi's options, then the file, relative to the folder that holds RIRS_NOISES:
    # --rir-id 00001 --room-id 001 RIRS_NOISES/real_rirs_isotropic_noises/RWCP_...wav
    named = [line.split()[-1] for line in read_text(entry).splitlines() if line.strip()]
    if not named:
        raise SvError(f"{entry}: empty")
    top = entry
    while top.name != Path(named[0]).parts[0] and top not in (root, top.parent):
        top = top.parent
    paths = [top.parent / name for name in named]
    if missing := [path for path in paths if not path.is_file()]:
        raise SvError(f"{entry}: {len(missing)} of {len(paths)} files missing: {missing[0]}, ...")
    return paths
