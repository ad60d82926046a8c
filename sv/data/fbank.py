"""Log-mel filter banks with log-energy, utterance mean removed: what the network sees.

Computed by ``torchaudio.compliance.kaldi.fbank``, on samples scaled to 16-bit integers as Kaldi
does (its energy floor of 1.0 has a meaning only there), without dither: the same audio gives the
same features.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torchaudio.compliance.kaldi

from sv.config import at_least
from sv.data.cuts import SAMPLE_RATE_HZ

INT16_SCALE = 32768.0


@dataclass(frozen=True)
class FbankConfig:
    """conf/features.toml: the front end and how its output is stored."""

    num_mel_bins: int = 80
    use_energy: bool = True
    low_freq_hz: float = 20.0
    high_freq_hz: float = 7600.0
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    mean_norm: bool = True
    compression: str = "two-byte"

    def __post_init__(self) -> None:
        """Check the ranges and the storage format."""
        at_least(self, 1, "num_mel_bins", "frame_length_ms", "frame_shift_ms")
        if not 0 <= self.low_freq_hz < self.high_freq_hz <= SAMPLE_RATE_HZ / 2:
            raise ValueError("0 <= low_freq_hz < high_freq_hz <= 8000 is needed")
        if self.compression not in ("two-byte", "none"):
            raise ValueError(f"compression must be two-byte or none, not '{self.compression}'")

    @property
    def dim(self) -> int:
        """Features a frame: the mel bins and, first, the log-energy."""
        return self.num_mel_bins + int(self.use_energy)


def count_frames(num_samples: int, config: FbankConfig, sample_rate_hz: int) -> int:
    """Frames of an utterance: only whole windows count (Kaldi's snip-edges)."""
    window = round(config.frame_length_ms * sample_rate_hz / 1000)
    shift = round(config.frame_shift_ms * sample_rate_hz / 1000)
    return max(0, 1 + (num_samples - window) // shift)


def compute_fbank(samples: np.ndarray, config: FbankConfig, sample_rate_hz: int) -> np.ndarray:
    """Compute the features of one utterance.

    Args:
        samples: (samples,) float32 in [-1, 1].
        config: The front end.
        sample_rate_hz: Of the samples.

    Returns:
        (frames, config.dim) float32, log-energy first, then mel bins from low to high; no frames
        for less than one window of samples.
    """
    if count_frames(len(samples), config, sample_rate_hz) == 0:
        return np.empty((0, config.dim), dtype=np.float32)
    features = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(samples)[None] * INT16_SCALE,
        num_mel_bins=config.num_mel_bins,
        use_energy=config.use_energy,
        low_freq=config.low_freq_hz,
        high_freq=config.high_freq_hz,
        frame_length=config.frame_length_ms,
        frame_shift=config.frame_shift_ms,
        sample_frequency=float(sample_rate_hz),
        dither=0.0,
    )
    if config.mean_norm:
        features -= features.mean(dim=0)
    return features.numpy()
