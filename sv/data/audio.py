"""Audio files: finding them, reading them, and converting coded ones (AAC, MP3, Opus) to FLAC.

libsndfile reads FLAC, WAV, NIST SPHERE and OGG as they are. VoxCeleb2 is distributed as AAC and
Common Voice as MP3; these are decoded in process with PyAV (a program started for each file costs
ten times as much) and converted once to 16 kHz FLAC of one channel. The number of samples is then
that of the decoded signal: the header of an AAC file does not count the encoder's padding. A
decoded copy names the size and time of its source in a comment, and is made again when they change.

`open_audio` is the one door for all that libsndfile reads, Lhotse's cuts included: what it refuses
is refused everywhere, with the file's path.
"""

import contextlib
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from sv.data.config import MAX_SAMPLES, SAMPLE_RATE_HZ
from sv.errors import SvError
from sv.files import replacing

FLOATING = ("FLOAT", "DOUBLE", "VORBIS", "OPUS")  # libsndfile's forms that have no integers
Span = tuple[float, float]  # start and end of a part of a file, in seconds
WHOLE = (0.0, math.inf)
MAX_OVERSHOOT_S = 0.5  # of a segment over its recording's end; Kaldi's extract-segments, 2025
CODED_SUFFIXES = (".m4a", ".mp3", ".opus", ".aac")  # what is converted first
SUFFIXES = (".flac", ".wav", ".sph", ".ogg", *CODED_SUFFIXES)
# A truncated file still decodes up to its end; AAC's padding only makes files longer.
MAX_LOSS_S = 0.1
# libsndfile's log of a file that ends before its data do: WAV, AIFF, AU; W64 and RF64.
CUT_OFF = re.compile(r"(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)")
# Claimed by programs that write to a pipe and do not know the length (SoX, FFmpeg).
UNKNOWN_BYTES = 0x7FFFF000
SPHERE_SAMPLES = re.compile(rb"^sample_count -i (\d{1,18})$", re.MULTILINE)


def list_audio(folder: Path) -> list[Path]:
    """List the audio files below a folder, sorted by path.

    Raises:
        SvError: No such folder, a folder that cannot be read, or no audio file in it.
    """
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}")
    found = sorted(walk_audio(folder))
    if not found:
        raise SvError(f"{folder}: no audio file ({', '.join(SUFFIXES)}) in it")
    return [Path(path) for path in found]


def walk_audio(folder: Path) -> Iterator[str]:
    """Yield the audio files below a folder, in no particular order; links are followed.

    A folder that several links lead to is listed once.

    Raises:
        SvError: A folder cannot be read.
    """
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above, or a second one
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)


def _raise_unreadable(error: OSError) -> None:
    # By default os.walk skips the folder, and its utterances would be missing silently.
    raise SvError(f"cannot read folder {error.filename}: {error.strerror}") from error


def is_coded(path: Path) -> bool:
    """Whether a file has to be converted (AAC, MP3, Opus), by its suffix."""
    return path.suffix.lower() in CODED_SUFFIXES


@contextlib.contextmanager
def open_audio(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open an uncoded file.

    Raises:
        SvError: Not readable as audio (also while the block reads it), empty, longer than a day,
            cut off, not 16 kHz, or a name that is not UTF-8.
    """
    with _naming(path), soundfile.SoundFile(os.fspath(path)) as file:
        _validate_form(path, file.frames, file.samplerate)
        promised = _read_promised_samples(path, file)
        if promised > file.frames + MAX_LOSS_S * SAMPLE_RATE_HZ:
            raise SvError(f"{path}: cut off after {file.frames} of {promised} samples")
        yield file


def _read_promised_samples(path: Path, file: soundfile.SoundFile) -> int:
    """Return the samples of each channel that a header claims; 0: as many as there are."""
    if file.format == "NIST":
        with open(path, "rb") as raw:
            found = SPHERE_SAMPLES.search(raw.read(1024))
        return int(found[1]) if found else 0
    sizes = [tuple(map(int, sizes)) for sizes in CUT_OFF.findall(file.extra_info)]
    claimed, there = sizes[-1] if sizes else (0, 0)
    return file.frames * claimed // there if claimed < UNKNOWN_BYTES and there else 0


def read_header(path: Path) -> tuple[int, int]:
    """Return the samples of each channel, and the channels; errors as `open_audio`."""
    with open_audio(path) as file:
        return file.frames, file.channels


def read_duration_s(path: Path) -> float:
    """Read the duration of a file from its header, in seconds; a coded file's is approximate.

    Raises:
        SvError: Not readable as audio or without a duration; see also `read_header`.
    """
    if not is_coded(path):
        return read_header(path)[0] / SAMPLE_RATE_HZ
    with _opening(path) as (_, promised_s):
        if promised_s is None:
            raise SvError(f"{path}: its header has no duration")
        return promised_s


def decode_audio(path: Path) -> tuple[np.ndarray, int]:
    """Decode an audio file of any known kind to its end.

    Returns:
        (samples,) float32 of the first channel, and the sample rate in Hz.

    Raises:
        SvError: Not readable as audio, empty, or truncated (shorter than its header says); also
            not 16 kHz, where libsndfile reads the file.
    """
    if not is_coded(path):
        return _read_channels(path)[:, 0].copy(), SAMPLE_RATE_HZ
    with _opening(path) as (stream, promised_s):
        frames, rate_hz, left = [], stream.rate, MAX_SAMPLES
        form = stream.container.format.name
        for frame in stream.container.decode(stream):
            frames.append(_take_first_channel(frame))
            left -= len(frames[-1])
            if left < 0:
                raise SvError(f"{path}: more than {MAX_SAMPLES} samples")
    if not frames:
        raise SvError(f"{path}: no samples in it")
    samples = np.concatenate(frames)
    seconds = len(samples) / rate_hz
    if promised_s is not None and seconds < promised_s - MAX_LOSS_S and _knows_length(path, form):
        raise SvError(f"{path}: truncated after {seconds:.1f} of {promised_s:.1f} s")
    return samples, rate_hz


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[tuple[av.AudioStream, float | None]]:
    """Open the first audio stream of a coded file, with the duration that its header says."""
    with _naming(path), av.open(os.fspath(path)) as container:
        if not container.streams.audio:
            raise SvError(f"{path}: no audio stream in it")
        stream = container.streams.audio[0]
        yield stream, float(stream.duration * stream.time_base) if stream.duration else None


def _knows_length(path: Path, form: str) -> bool:
    """Return whether a coded file says how long it is: else FFmpeg guesses by its bit rate."""
    if form != "mp3":
        return form != "aac"  # ADTS has no header of the whole
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":  # its size has seven bits a byte
            size = sum(byte << 7 * i for i, byte in enumerate(reversed(head[6:10])))
            file.seek(10 + size)
        first_frame = head + file.read(4096)
        return any(tag in first_frame for tag in (b"Xing", b"Info", b"VBRI"))


def _take_first_channel(frame: av.AudioFrame) -> np.ndarray:
    array = frame.to_ndarray()  # planar: (channels, samples); packed: (1, samples * channels)
    first = array[0] if frame.format.is_planar else array[0, :: frame.layout.nb_channels]
    if np.issubdtype(first.dtype, np.integer):
        return first.astype(np.float32) / -float(np.iinfo(first.dtype).min)
    return first.astype(np.float32, copy=False)


def read_samples(path: Path) -> np.ndarray:
    """Read an audio file of one channel at 16 kHz, in any format that libsndfile reads.

    Nothing is resampled or mixed down: the way this is done changes an embedding, so it is left
    to the user.

    Returns:
        (samples,) float32, nominally in [-1, 1].

    Raises:
        SvError: Not readable as audio, empty, another rate, several channels, NaN or infinity.
    """
    samples = _read_channels(path)
    if samples.shape[1] != 1:
        raise SvError(f"{path}: {samples.shape[1]} channels; write the one to embed to a file")
    validate_finite(samples, path)
    return samples[:, 0].copy()


def _read_channels(path: Path) -> np.ndarray:
    with open_audio(path) as file:
        samples = file.read(dtype="float32", always_2d=True)
    if not len(samples):
        raise SvError(f"{path}: no samples in it")
    return samples  # (samples, channels)


def _validate_form(path: Path, num_samples: int, rate_hz: int) -> None:
    if num_samples < 1:
        raise SvError(f"{path}: no samples in it")
    if num_samples > MAX_SAMPLES:
        raise SvError(
            f"{path}: its header does not tell its length, or one of more than a day "
            f"({num_samples} samples); write it again, e.g. by flac -d and flac"
        )
    if rate_hz != SAMPLE_RATE_HZ:
        raise SvError(f"{path}: {rate_hz} Hz; resample it to {SAMPLE_RATE_HZ} Hz")


def validate_finite(samples: np.ndarray, name: object) -> None:
    """Raise `SvError`, which begins with ``name``, if a sample is NaN or infinite."""
    if not math.isfinite(float(samples.sum(dtype="f8"))):
        raise SvError(f"{name}: NaN or infinity in its audio")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn the errors of both libraries into an `SvError` that names the file."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        name = ascii(os.fspath(path))
        raise SvError(f"{name}: its name is not UTF-8, as tables are; rename it") from None
    try:
        yield
    except (av.FFmpegError, soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or error
        if not path.exists():
            reason = "no such file"
        raise SvError(f"{path}: not readable as audio ({reason})") from error


def stat_regular(path: Path) -> os.stat_result:
    """Return size and time of a file of a corpus, which is read again and again.

    Raises:
        SvError: There is none, or it is a pipe, a folder or a device.
    """
    with _naming(path):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise SvError(f"{path}: not a regular file, and a corpus is read more than once")
    return status


def convert_to_flac(source: Path, target: Path, span: Span | None = None) -> None:
    """Decode a file, or a part of it, resample it to 16 kHz and write it as 16-bit FLAC.

    A target that was made from the source as it is now, by size and time, is left as it is.

    Raises:
        SvError: See `decode_audio`; also NaN or infinity, a part that is not in the file, or the
            target cannot be written.
    """
    status = stat_regular(source)
    made_from = f"decoded from {status.st_size} bytes of {status.st_mtime_ns} ns"
    if span:
        made_from += f", {span[0]} to {span[1]} s of {source.name}"
    with contextlib.suppress(soundfile.LibsndfileError), soundfile.SoundFile(target) as file:
        if file.comment == made_from:
            return
    if span and not is_coded(source):
        samples, rate_hz = _read_part(source, span), SAMPLE_RATE_HZ
    else:
        samples, rate_hz = decode_audio(source)
        samples = samples[_find_part(source, span or WHOLE, len(samples), rate_hz)]
    validate_finite(samples, source)
    if rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
    with (
        replacing(target, mode="wb") as raw,
        soundfile.SoundFile(raw, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as file,
    ):
        file.comment = made_from
        file.write(samples)


def _read_part(path: Path, span: Span) -> np.ndarray:
    """Read a part of the first channel of an uncoded file, as the integers that are in it."""
    with open_audio(path) as file:
        part = _find_part(path, span, file.frames, file.samplerate)
        file.seek(part.start)
        kind = "float32" if file.subtype in FLOATING else "int16"
        samples = file.read(part.stop - part.start, dtype=kind, always_2d=True)
    if len(samples) < part.stop - part.start:
        raise SvError(f"{path}: truncated, {span[0]} to {span[1]} s are not in it")
    return samples[:, 0].copy()


def _find_part(path: Path, span: Span, num_samples: int, rate_hz: int) -> slice:
    """Return the samples of a part; an end a little behind the file's, or infinite, is the file's.

    Raises:
        SvError: The part is not in the file.
    """
    start, end = (min(seconds * rate_hz, num_samples) for seconds in span)
    over_s = span[1] - num_samples / rate_hz
    if round(start) >= round(end) or math.inf > over_s > MAX_OVERSHOOT_S:
        seconds = num_samples / rate_hz
        raise SvError(f"{path}: {span[0]} to {span[1]} s are not in its {seconds:.2f} s")
    return slice(round(start), round(end))
