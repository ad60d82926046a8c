"""Samples of an audio file outside any data set, as the recipe would have them."""

import math
from pathlib import Path

import numpy as np
import soundfile

from sv.data.audio import SAMPLE_RATE_HZ
from sv.errors import SvError


def read_samples(path: Path) -> np.ndarray:
    """Read an audio file of one channel at 16 kHz, in any format that libsndfile reads.

    Nothing is resampled or mixed down: how that is done changes an embedding, so whoever has
    such a file decides.

    Returns:
        (samples,) float32, nominally in [-1, 1].

    Raises:
        SvError: Not readable as audio, empty, another rate, several channels, NaN or infinity.
    """
    try:
        samples, rate_hz = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise SvError(f"{path}: not readable as audio ({error})") from error
    if len(samples) == 0:
        raise SvError(f"{path}: no samples in it")
    if rate_hz != SAMPLE_RATE_HZ:
        raise SvError(f"{path}: {rate_hz} Hz; resample it to {SAMPLE_RATE_HZ} Hz")
    if samples.shape[1] != 1:
        raise SvError(f"{path}: {samples.shape[1]} channels; write the one to embed to a file")
    if not math.isfinite(float(samples.sum(dtype="f8"))):
        raise SvError(f"{path}: NaN or infinity in its audio")
    return samples[:, 0].copy()
