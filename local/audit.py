"""Looking at every audio file of a corpus: hours, files too short, files that cannot be used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import soundfile

from sv.data.audio import CODED_SUFFIXES, decode_audio, read_header_s
from sv.data.chunks import map_chunks
from sv.data.recordings import build_recording
from sv.errors import SvError

SHORT_S = 1.0


@dataclass
class Audit:
    """Sums over files.

    ``short`` has a line for each under a second, ``bad`` one for each that cannot be used.
    """

    seconds: float = 0.0
    short: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def audit_audio(paths: Sequence[Path], *, decode: bool, nj: int) -> Audit:
    """Look at audio files.

    Args:
        paths: The files.
        decode: Decode each to its end and see that it is not silent; else only headers are read.
        nj: Processes.
    """
    total = Audit()
    for part in map_chunks(partial(_audit_chunk, decode=decode), paths, nj=nj):
        total.seconds += part.seconds
        total.short += part.short
        total.bad += part.bad
    return total


def _audit_chunk(paths: list[Path], *, decode: bool) -> Audit:
    audit = Audit()
    for path in paths:
        try:
            seconds = _decode(path) if decode else _read_header(path)
        except SvError as error:
            audit.bad.append(str(error))
            continue
        audit.seconds += seconds
        if seconds < SHORT_S:
            audit.short.append(f"{path}: {seconds:.2f} s")
    return audit


def _read_header(path: Path) -> float:
    if path.suffix.lower() in CODED_SUFFIXES:
        return read_header_s(path)
    return build_recording(path, path.stem).duration


def _decode(path: Path) -> float:
    if path.suffix.lower() in CODED_SUFFIXES:
        samples, rate = decode_audio(path)
    else:
        build_recording(path, path.stem)  # as stage 1 would refuse it
        try:
            samples, rate = soundfile.read(str(path), dtype="float32")
        except (soundfile.LibsndfileError, OSError) as error:
            raise SvError(f"{path}: not readable as audio ({error})") from error
    if not float(abs(samples).sum(dtype="f8")) > 0:  # NaN is not above 0 either
        raise SvError(f"{path}: silent, or NaN in it")
    return len(samples) / rate
