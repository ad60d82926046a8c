"""The front end and augmentation, checked against torchaudio and their definitions."""

import gzip
import itertools
import json
import random

import kaldiio
import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi

from sv.config import read_config
from sv.data.augment import augment_cut
from sv.data.config import AugmentConfig, FbankConfig
from sv.data.cuts import load_samples
from sv.data.fbank import CHUNK_FRAMES, compute_fbank
from sv.data.manifests import read_manifest
from sv.kaldi.data_dir import read_table

RATE = 16000
TINY = FbankConfig(num_mel_bins=16)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference(samples, config):
    """Return torchaudio's features, the utterance mean removed."""
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


def read(path):
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return samples


def speech(samples, seed=0):
    """Return noise whose level and colour change as in speech, from silence to clipping."""
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
    ours = compute_fbank(samples, config)
    assert ours.dtype == np.float32 and ours.shape[1] == config.dim
    np.testing.assert_allclose(ours, reference(samples, config), atol=1e-3)


def test_less_than_a_window_gives_no_frame():
    assert compute_fbank(speech(399), FbankConfig()).shape == (0, 81)
    assert compute_fbank(speech(1)[:0], FbankConfig()).shape == (0, 81)


def test_the_same_audio_gives_the_same_bytes():
    """After other utterances, at another address, and with another number of threads."""
    config, samples = FbankConfig(), speech(9 * RATE + 77)
    first = compute_fbank(samples, config)
    for threads in (2, 1):
        torch.set_num_threads(threads)
        for length in (400, 5000, 200_000):
            compute_fbank(speech(length, seed=length), config)
            moved = np.concatenate([np.zeros(length % 7 + 1, np.float32), samples])
            again = compute_fbank(moved[length % 7 + 1 :], config)
            assert again.tobytes() == first.tobytes()


def test_features_agree_with_torchaudio_before_compression(tiny, tmp_path, run_cli):
    config = tmp_path / "features.toml"
    config.write_text('num_mel_bins = 16\ncompression = "none"\n')
    out = [tmp_path / name for name in ("f.ark", "f.scp", "frames")]
    test = tiny.data / "mini_test"
    run_cli("sv.bin.make_fbank", "--config", config, test, *out)
    wavs = read_table(test / "wav.scp")
    features = dict(kaldiio.load_scp_sequential(str(out[1])))
    assert features.keys() == wavs.keys() and list(features) == sorted(features)
    for key, matrix in features.items():
        np.testing.assert_allclose(matrix, reference(read(wavs[key]), TINY), atol=1e-3)
        assert str(len(matrix)) == read_table(out[2])[key]


def test_two_byte_archives_are_ordinary_kaldi_and_close(tiny):
    wavs = read_table(tiny.data / "mini_test" / "wav.scp")
    features = dict(kaldiio.load_scp_sequential(str(tiny.data / "mini_test" / "feats.scp")))
    assert features.keys() == wavs.keys()
    for key, matrix in features.items():
        assert np.abs(matrix - reference(read(wavs[key]), TINY)).max() < 5e-4


def test_every_copy_is_there_and_loads_on_its_own(tiny):
    clean = {cut.id: cut for cut in read_manifest(tiny.data / "mini_train" / "cuts.jsonl.gz")}
    for kind in ("babble", "music", "noise", "reverb"):
        path = tiny.data / f"mini_train_{kind}" / "cuts.jsonl.gz"
        with gzip.open(path, "rt") as file:
            lines = [json.loads(line) for line in file]
        assert {line["id"] for line in lines} == {f"{key}-{kind}" for key in clean}
        cuts = list(read_manifest(path))
        for cut in random.Random(0).sample(cuts, 8):
            original = clean[cut.id.removesuffix(f"-{kind}")]
            samples, before = load_samples(cut), load_samples(original)
            assert len(samples) == len(before) and not np.allclose(samples, before)
            assert cut.supervisions[0].speaker == original.supervisions[0].speaker


@pytest.mark.parametrize(("kind", "low", "high"), [("music", 5, 15), ("noise", 0, 15)])
def test_noise_is_mixed_at_the_configured_level(tiny, kind, low, high):
    clean = {cut.id: cut for cut in read_manifest(tiny.data / "mini_train" / "cuts.jsonl.gz")}
    for cut in itertools.islice(
        read_manifest(tiny.data / f"mini_train_{kind}" / "cuts.jsonl.gz"), 12
    ):
        speech = load_samples(clean[cut.id.removesuffix(f"-{kind}")])
        noise = load_samples(cut) - speech
        snr_db = 10 * np.log10((speech**2).mean() / (noise**2).mean())
        assert low - 0.5 <= snr_db <= high + 0.5


def test_babble_is_three_to_seven_talkers_each_at_its_level(tiny):
    for cut in itertools.islice(
        read_manifest(tiny.data / "mini_train_babble" / "cuts.jsonl.gz"), 12
    ):
        talkers = [t for t in cut.tracks[1:] if t.offset == 0]
        assert 3 <= len(talkers) <= 7
        assert all(13 <= track.snr <= 20 for track in cut.tracks[1:])


def test_a_copy_depends_on_its_own_utterance_only(tiny):
    """Rebuilt alone and in another order it is the same; another seed gives another."""
    config = read_config("tests/egs/tiny/conf/augment.toml", AugmentConfig)
    sources = list(read_manifest(tiny.data / "manifests" / "noise_recordings.jsonl.gz"))
    made = {c.id: c for c in read_manifest(tiny.data / "mini_train_noise" / "cuts.jsonl.gz")}
    cuts = list(read_manifest(tiny.data / "mini_train" / "cuts.jsonl.gz"))[::-7]
    for cut in cuts:
        again = augment_cut(cut, "noise", sources, config)
        assert again.to_dict() == made[again.id].to_dict()
    other = AugmentConfig(config.seed + 1, config.babble, config.music, config.noise)
    assert any(
        augment_cut(c, "noise", sources, other).to_dict() != made[f"{c.id}-noise"].to_dict()
        for c in cuts
    )


def test_a_bad_file_is_said_and_does_not_stop_the_others(tiny, tmp_path, run_cli):
    """A zero-byte file among the audio: its features are missing, named, the rest is made."""
    test = tiny.data / "mini_test"
    with gzip.open(test / "cuts.jsonl.gz", "rt") as file:
        cuts = [json.loads(line) for line in file]
    empty = tmp_path / "empty.flac"
    empty.touch()
    cuts[0]["recording"]["sources"][0]["source"] = str(empty)
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(cut) + "\n" for cut in cuts)
    out = [tmp_path / name for name in ("f.ark", "f.scp", "frames")]
    conf = "tests/egs/tiny/conf/features.toml"
    done = run_cli("sv.bin.make_fbank", "--config", conf, tmp_path, *out)
    assert f"no features for {cuts[0]['id']}" in done.stderr
    assert len(read_table(out[1])) == len(cuts) - 1
