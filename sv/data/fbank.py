"""The front end: log-mel filter banks with log-energy, utterance mean removed.

The values are those of ``torchaudio.compliance.kaldi.fbank`` without dither, to 1e-3, and the
same audio gives the same bytes. The arithmetic is our own because it is more than twice as fast a
core (tests/bench/features.py): `CHUNK_FRAMES` windows at once stay in the cache, power is two
squares and not a squared magnitude, and a filter is multiplied with the bins around it only.
Chunks are counted from the beginning of each utterance, so that no other utterance of a job can
change a bit.

The resolved config is kept as `FRONT_END` with the archives, from stage 3 on. Stage 4 copies it
into egs.json and stage 5 into the model, so that a model knows its input.
"""

import functools
import itertools
from typing import Any

import numpy as np
import torch
import torchaudio.compliance.kaldi
from torch import Tensor

from sv.data.config import SAMPLE_RATE_HZ, FbankConfig

# Kaldi computes on 16-bit integers; its energy floor of 1.0 has a meaning only there.
INT16_SCALE = 32768.0
# Kaldi src/feat/feature-window.h and feature-fbank.h, 2025-07
PREEMPHASIS = 0.97
POVEY_EXPONENT = 0.85
ENERGY_FLOOR = 1.0
EPSILON = float(np.finfo(np.float32).eps)  # floor of a filter's output
CHUNK_FRAMES = 512  # 1 MB of windows
BANDS = 5  # groups of filters; more is slower again: the products become too small


def compute_fbank(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
    """Compute the features of one utterance.

    Args:
        samples: (samples,) float32 in [-1, 1], at `SAMPLE_RATE_HZ`.
        config: The front end.

    Returns:
        (frames, config.dim) float32, log-energy first, then mel bins from low to high. Only whole
        windows count (Kaldi's snip-edges): no frames for less than one window of samples.
    """
    window, padded, bands = _build_filters(config)
    size, shift = len(window), round(config.frame_shift_ms * SAMPLE_RATE_HZ / 1000)
    frames = max(0, 1 + (len(samples) - size) // shift)
    out = np.empty((frames, config.dim), dtype=np.float32)
    if frames == 0:
        return out
    windows = (torch.from_numpy(samples) * INT16_SCALE).unfold(0, size, shift)  # (T, window)
    centred = torch.empty(min(frames, CHUNK_FRAMES), size)
    shaped = torch.zeros(len(centred), padded)
    features = torch.from_numpy(out)
    mel = features[:, int(config.use_energy) :]
    for start in range(0, frames, CHUNK_FRAMES):
        chunk = windows[start : start + CHUNK_FRAMES]
        c, x = centred[: len(chunk)], shaped[: len(chunk)]
        torch.sub(chunk, chunk.mean(dim=1, keepdim=True), out=c)
        # The window is 0 at its first sample, so that what came before it does not matter.
        torch.mul(c[:, :-1], PREEMPHASIS, out=x[:, 1:size])
        torch.sub(c[:, 1:], x[:, 1:size], out=x[:, 1:size])
        x[:, 1:size] *= window[1:]
        power = torch.view_as_real(torch.fft.rfft(x)).flatten(1).square_()  # (T, 2 * bins)
        for which, values, weights in bands:
            mel[start : start + len(chunk), which] = power[:, values] @ weights
        if config.use_energy:
            features[start : start + len(chunk), 0] = c.square_().sum(dim=1)
    np.maximum(out, EPSILON, out=out)
    if config.use_energy:
        np.maximum(out[:, 0], ENERGY_FLOOR, out=out[:, 0])
    np.log(out, out=out)  # five times as fast as torch's
    if config.mean_norm:
        features -= features.mean(dim=0)
    return out


def describe_front_end(config: FbankConfig) -> dict[str, Any]:
    """Return all that another program must know to compute the features.

    They are ``torchaudio.compliance.kaldi.fbank(samples * sample_scale, **fbank)``, whose arguments
    have Kaldi's names: log-energy first, each filter's output at least ``mel_floor``.
    """
    return {
        "sample_scale": INT16_SCALE,
        "mel_floor": EPSILON,
        "fbank": {
            "sample_frequency": float(SAMPLE_RATE_HZ),
            "frame_length": config.frame_length_ms,
            "frame_shift": config.frame_shift_ms,
            "snip_edges": True,
            "dither": 0.0,
            "remove_dc_offset": True,
            "preemphasis_coefficient": PREEMPHASIS,
            "window_type": "povey",
            "round_to_power_of_two": True,
            "num_mel_bins": config.num_mel_bins,
            "low_freq": config.low_freq_hz,
            "high_freq": config.high_freq_hz,
            "use_power": True,
            "use_log_fbank": True,
            "use_energy": config.use_energy,
            "raw_energy": True,
            "energy_floor": ENERGY_FLOOR,
            "htk_compat": False,
            "subtract_mean": config.mean_norm,
        },
    }


@functools.lru_cache(maxsize=4)
def _build_filters(config: FbankConfig) -> tuple[Tensor, int, list[tuple[slice, slice, Tensor]]]:
    """Return what all utterances share: window, size of the Fourier transform, bands.

    A band is a group of filters: which ones, which values of the interleaved squares of real and
    imaginary parts they weight, and the weights (values, filters).
    """
    size = round(config.frame_length_ms * SAMPLE_RATE_HZ / 1000)
    padded = 1 << (size - 1).bit_length()
    weights, _ = torchaudio.compliance.kaldi.get_mel_banks(
        config.num_mel_bins,
        padded,
        float(SAMPLE_RATE_HZ),
        config.low_freq_hz,
        config.high_freq_hz,
        vtln_low=100.0,
        vtln_high=-500.0,
        vtln_warp_factor=1.0,  # no vocal tract normalisation
    )  # (filters, bins)
    bands = []
    edges = [config.num_mel_bins * i // BANDS for i in range(BANDS + 1)]
    for low, high in itertools.pairwise(edges):
        used = weights[low:high].any(dim=0).nonzero().flatten().tolist() or [0]
        bins = slice(used[0], used[-1] + 1)
        values = slice(2 * bins.start, 2 * bins.stop)
        both = weights[low:high, bins].T.repeat_interleave(2, dim=0).contiguous()
        bands.append((slice(low, high), values, both))
    window = torch.hann_window(size, periodic=False).pow(POVEY_EXPONENT)
    return window, padded, bands
