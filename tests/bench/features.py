#!/usr/bin/env python3
"""How fast a core turns audio into archives, and which part of stage 3 takes the time.

Usage: python3 tests/bench/features.py [--rounds N]

Baseline: soundfile, torchaudio.compliance.kaldi.fbank, mean removed, kaldiio float32. Ours: the
path of sv.bin.make_fbank (lhotse cut, sv.data.fbank, two-byte archive). Utterances of 4 to 12 s,
16-bit WAV and FLAC, one thread; files lie in memory, so that no disk is measured. "keep memory" is
what steps/compute_environment.sh sets. Target: 2 x from WAV. FLAC is bound by libFLAC, which both
use.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import kaldiio
import lhotse
import numpy as np
import soundfile
import torch
import torchaudio.compliance.kaldi
from timing import measure_in_environments, print_rates, serve

from sv.data.config import SAMPLE_RATE_HZ, FbankConfig
from sv.data.cuts import load_samples
from sv.data.fbank import compute_fbank
from sv.kaldi.archive import write_archive

UTTERANCES = 100
CONFIG = FbankConfig()


def write_audio(folder: Path, ending: str) -> list[Path]:
    """Write noise with the envelope and colour of speech: FLAC takes it for what it is."""
    rng, paths = np.random.default_rng(0), []
    for i in range(UTTERANCES):
        time = np.arange(int(rng.integers(4, 12)) * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
        tones = sum(np.sin(2 * np.pi * f * time) / f for f in (120, 240, 600, 1800)) * 40
        samples = (tones + rng.normal(size=len(time)) * 0.05) * (np.sin(9 * time) ** 2 + 0.02) * 0.3
        paths.append(folder / f"u{i:03d}.{ending}")
        soundfile.write(paths[-1], samples.astype(np.float32), SAMPLE_RATE_HZ, "PCM_16")
    return paths


def compute_with_torchaudio(samples: np.ndarray) -> np.ndarray:
    """Compute the same features with torchaudio."""
    x = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(samples)[None] * 32768,
        dither=0.0,
        num_mel_bins=CONFIG.num_mel_bins,
        use_energy=CONFIG.use_energy,
        low_freq=CONFIG.low_freq_hz,
        high_freq=CONFIG.high_freq_hz,
    )
    return (x - x.mean(dim=0)).numpy()


def build_ways(folder: Path) -> dict[str, Callable[[], int]]:
    """Write the audio; give what can be timed."""
    ark, scp = folder / "f.ark", folder / "f.scp"

    def baseline(paths: list[Path]) -> int:
        with open(ark, "wb") as file:
            for path in paths:
                samples, _ = soundfile.read(path, dtype="float32")
                kaldiio.save_ark(file, {path.stem: compute_with_torchaudio(samples)})
        return len(paths)

    def ours(cuts: list[lhotse.MonoCut]) -> int:
        items = ((c.id, compute_fbank(load_samples(c), CONFIG)) for c in cuts)
        return write_archive(ark, scp, items, method=CONFIG.compression)

    ways: dict[str, Callable[[], int]] = {}
    for ending in ("wav", "flac"):
        paths = write_audio(folder, ending)
        cuts = [lhotse.Recording.from_file(p).to_cut() for p in paths]
        ways[f"{ending}, torchaudio + kaldiio"] = lambda p=paths: baseline(p)
        ways[f"{ending} (ours)"] = lambda c=cuts: ours(c)
        ways[f"{ending}, load alone"] = lambda c=cuts: len([load_samples(cut) for cut in c])
    audio = [load_samples(cut) for cut in cuts]
    for samples in audio:
        difference = np.abs(compute_fbank(samples, CONFIG) - compute_with_torchaudio(samples)).max()
        if not difference < 1e-3:
            raise SystemExit(f"features differ by {difference:.1e}")
    ways["fbank alone, torchaudio"] = lambda: len([compute_with_torchaudio(x) for x in audio])
    ways["fbank alone (ours)"] = lambda: len([compute_fbank(x, CONFIG) for x in audio])
    return ways


def main() -> None:
    """Print utterances/s of both paths from both formats, and of their parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", default="false", help="used by the program itself")
    options = parser.parse_args()
    if options.serve == "true":
        torch.set_num_threads(1)
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            serve(build_ways(Path(folder)))
        return
    rates = measure_in_environments(1, options.rounds)
    print_rates(rates, "utterances", "wav, torchaudio + kaldiio", "fbank alone, torchaudio")


if __name__ == "__main__":
    main()
