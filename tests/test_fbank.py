"""The front end alone: torchaudio's numbers, and the same bits whoever else is computed."""

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi

from sv.data.fbank import CHUNK_FRAMES, FbankConfig, compute_fbank, count_frames

RATE = 16000


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference(samples, config):
    """Torchaudio's features, the utterance mean removed."""
    x = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(samples)[None] * 32768,
        dither=0.0,
        num_mel_bins=config.num_mel_bins,
        use_energy=config.use_energy,
        low_freq=config.low_freq_hz,
        high_freq=config.high_freq_hz,
        frame_length=config.frame_length_ms,
        frame_shift=config.frame_shift_ms,
    )
    return (x - x.mean(0) if config.mean_norm else x).numpy()


def speech(samples, seed=0):
    """Give noise whose level and colour change as in speech, from silence to clipping."""
    rng = np.random.default_rng(seed)
    coloured = np.convolve(rng.normal(size=samples), 0.9 ** np.arange(60), mode="same")
    envelope = np.exp(3 * np.sin(np.arange(samples) / 3000) - 5)
    return np.clip(coloured * envelope, -1, 1).astype(np.float32)


TIME = np.arange(3 * RATE) / RATE
SIGNALS = {
    "speech": speech(10 * RATE),
    "16-bit": np.round(speech(2 * RATE) * 32768).astype(np.float32) / 32768,
    "one window": speech(400),
    "a sample less than two windows": speech(559),
    "a chunk and a frame": speech(400 + 160 * CHUNK_FRAMES),
    "silence": np.zeros(RATE, np.float32),
    "offset": np.full(RATE, 0.1, np.float32),
    "tone": (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32),
    "begins in silence": np.concatenate([np.zeros(RATE, np.float32), speech(RATE)]),
    "click": (np.arange(RATE) == 8000).astype(np.float32),
}
CONFIGS = {
    "the study's": FbankConfig(),
    "without energy and mean": FbankConfig(use_energy=False, mean_norm=False),
    "few filters": FbankConfig(num_mel_bins=4, low_freq_hz=0, high_freq_hz=8000),
    "filters without a bin": FbankConfig(num_mel_bins=200, mean_norm=False),
    "short windows": FbankConfig(num_mel_bins=23, frame_length_ms=20, frame_shift_ms=5),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("signal", SIGNALS)
def test_it_is_torchaudios(signal, config):
    samples, config = SIGNALS[signal], CONFIGS[config]
    ours = compute_fbank(samples, config, RATE)
    assert ours.dtype == np.float32 and ours.shape[1] == config.dim
    assert len(ours) == count_frames(len(samples), config, RATE)
    np.testing.assert_allclose(ours, reference(samples, config), atol=1e-3)


def test_less_than_a_window_gives_no_frame():
    assert compute_fbank(speech(399), FbankConfig(), RATE).shape == (0, 81)
    assert compute_fbank(speech(1)[:0], FbankConfig(), RATE).shape == (0, 81)


def test_the_same_audio_gives_the_same_bytes():
    """After other utterances, at another address, and with another number of threads."""
    config, samples = FbankConfig(), speech(9 * RATE + 77)
    first = compute_fbank(samples, config, RATE)
    for threads in (2, 1):
        torch.set_num_threads(threads)
        for length in (400, 5000, 200_000):
            compute_fbank(speech(length, seed=length), config, RATE)
            moved = np.concatenate([np.zeros(length % 7 + 1, np.float32), samples])
            again = compute_fbank(moved[length % 7 + 1 :], config, RATE)
            assert again.tobytes() == first.tobytes()
