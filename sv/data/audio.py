"""Audio files: which ones libsndfile reads as they are, and how the others become FLAC, once.

VoxCeleb2 is distributed as AAC and Common Voice as MP3. These are decoded in process with PyAV (a
program started for each file costs ten times as much) into FLAC of one channel at 16 kHz. The
number of samples is then that of the decoded signal; the header of an AAC file does not count
the encoder's padding.
"""

import math
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from sv.errors import SvError
from sv.files import replacing

SAMPLE_RATE_HZ = 16000  # of every corpus of the study
DIRECT_SUFFIXES = (".flac", ".wav", ".sph", ".ogg")  # what libsndfile reads in process
CODED_SUFFIXES = (".m4a", ".mp3", ".opus", ".aac")  # what is converted first
# A file cut off in the middle still decodes up to there; AAC's padding makes files longer only.
MAX_LOSS_S = 0.1


def decode_audio(path: Path) -> tuple[np.ndarray, int]:
    """Decode the first audio stream of a file.

    Returns:
        (samples,) float32 of the first channel, and the sample rate in Hz.

    Raises:
        SvError: Not readable as audio, empty, or cut off: its header promises more.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise SvError(f"{path}: no audio stream in it")
            stream = container.streams.audio[0]
            frames = [_take_first_channel(frame) for frame in container.decode(stream)]
            rate, time_base = stream.rate, stream.time_base
            promised_s = float(stream.duration * time_base) if stream.duration else None
    except (av.FFmpegError, OSError) as error:
        raise SvError(f"{path}: not readable as audio ({error.strerror or error})") from error
    if not frames:
        raise SvError(f"{path}: no samples in it")
    samples = np.concatenate(frames)
    seconds = len(samples) / rate
    if promised_s is not None and seconds < promised_s - MAX_LOSS_S:
        raise SvError(f"{path}: cut off after {seconds:.1f} of {promised_s:.1f} s")
    return samples, rate


def read_header_s(path: Path) -> float:
    """Give the duration that a file's header promises, in seconds; errors as `decode_audio`."""
    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None or not stream.duration:
                raise SvError(f"{path}: no audio stream in it, or one without a duration")
            return float(stream.duration * stream.time_base)
    except (av.FFmpegError, OSError) as error:
        raise SvError(f"{path}: not readable as audio ({error.strerror or error})") from error


def _take_first_channel(frame: av.AudioFrame) -> np.ndarray:
    array = frame.to_ndarray()  # planar: (channels, samples); packed: (1, samples * channels)
    first = array[0] if frame.format.is_planar else array[0, :: frame.layout.nb_channels]
    if np.issubdtype(first.dtype, np.integer):
        return first.astype(np.float32) / -float(np.iinfo(first.dtype).min)
    return first.astype(np.float32, copy=False)


def convert_to_flac(source: Path, target: Path) -> None:
    """Decode a file, resample it to 16 kHz and write it as 16-bit FLAC, beside and renamed.

    A target that is not older than its source is left as it is.

    Raises:
        SvError: See `decode_audio`; also NaN or infinity, or the target cannot be written.
    """
    try:
        if target.stat().st_mtime_ns >= source.stat().st_mtime_ns:
            return
    except FileNotFoundError:
        pass  # decode_audio tells if it is the source that is missing
    samples, rate = decode_audio(source)
    if not math.isfinite(float(samples.sum(dtype="f8"))):
        raise SvError(f"{source}: NaN or infinity in its audio")
    if rate != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate, SAMPLE_RATE_HZ)
    with replacing(target, mode="wb") as file:
        soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
