#!/usr/bin/env python3
"""What the index of all of VoxCeleb2 costs: memory, loading, and making it in stage 4.

Usage: python3 tests/bench/crop_index.py [UTTERANCES]

1,100,000 utterances in five kinds: 5.5 million matrices. Baseline: the same facts as Python
objects, a dictionary of feats.scp lines, which is what a data set of paths keeps (a tenth of them,
multiplied by ten). Memory is what the resident size of a fresh process grows by. Targets: under
400 MB, loaded in under 2 s. Making the index reads one header a matrix; here the headers are of
one archive that is read again and again, so that the figure is the program's, without the disk.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import ROOT

from sv.data.crops import CropIndex, build_crop_index, save_crop_index
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_table

KINDS = ("clean", "babble", "music", "noise", "reverb")
ARKS = 40  # jobs a kind
BUILT = 50_000

MEASURE = """
import sys, time
from pathlib import Path
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
import sv.data.crops
before, started = resident_mb(), time.perf_counter()
{work}
seconds = time.perf_counter() - started
print(seconds, resident_mb() - before, resident_mb())
"""
LOAD = "index = sv.data.crops.load_crop_index(Path(sys.argv[1]))"
OBJECTS = """
table = {}
for line in open(sys.argv[1]):
    key, entry = line.split()
    table[key] = entry
"""


def measure(work: str, path: Path) -> tuple[float, float, float]:
    """Return seconds, growth in MB and resident MB of a fresh process that does this."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.replace("{work}", work), path],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds, growth, resident = map(float, done.stdout.split())
    return seconds, growth, resident


def make_index(utterances: int) -> CropIndex:
    """Make up an index of the real one's size and types."""
    rng = np.random.default_rng(0)
    shape = (len(KINDS), utterances)
    rows = np.broadcast_to(rng.integers(400, 2000, utterances, dtype=np.int32), shape)
    arks = tuple(f"/data/{kind}/fbank/fbank.{job}.ark" for kind in KINDS for job in range(ARKS))
    return CropIndex(
        kinds=KINDS,
        arks=arks,
        columns=81,
        item_bytes=2,
        content_sha256="0" * 64,
        ark_bytes=np.full(len(arks), 10**10),
        speaker=rng.integers(5994, size=utterances, dtype=np.int32),
        ark=rng.integers(len(arks), size=shape).astype(np.int16),
        offset=rng.integers(10**10, size=shape),
        rows=np.ascontiguousarray(rows),
        minimum=rng.normal(size=shape).astype(np.float32),
        step=rng.random(shape, dtype=np.float32),
    )


def main() -> None:
    """Print memory and time of the arrays and of the objects, then of making an index."""
    utterances = int(sys.argv[1]) if len(sys.argv) > 1 else 1_100_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_crop_index(folder / "train.npz", make_index(utterances))
        seconds, growth, resident = measure(LOAD, folder / "train.npz")
        total = utterances * len(KINDS)
        print(f"{total:,} matrices as arrays (ours): loaded in {seconds:.2f} s, {growth:.0f} MB")
        print(f"  the process holds {resident:.0f} MB, the file {_megabytes(folder):.0f} MB")
        with open(folder / "feats.scp", "w") as file:
            for i in range(total // 10):
                key = f"id{i % 5994:05d}-dQw4w9WgXcQ-{i:05d}-babble"
                file.write(f"{key} data/voxceleb2_babble/fbank/fbank.17.ark:{1234567890 + i}\n")
        seconds_10th, growth_10th, _ = measure(OBJECTS, folder / "feats.scp")
        print(
            f"as objects: loaded in {10 * seconds_10th:.1f} s, {10 * growth_10th:.0f} MB: "
            f"{10 * growth_10th / growth:.1f} x the memory, {10 * seconds_10th / seconds:.1f} x "
            "the time of ours"
        )
        items = ((f"u{i}", np.ones((400, 81), np.float32)) for i in range(100))
        write_archive(folder / "a.ark", folder / "a.scp", items, method="two-byte")
        entries = list(read_table(folder / "a.scp").values())
        ids = [f"u{i}" for i in range(BUILT)]
        table = {key: entries[i % len(entries)] for i, key in enumerate(ids)}
        started = time.perf_counter()
        build_crop_index(ids, dict.fromkeys(ids, 0), {"clean": table})
        rate = BUILT / (time.perf_counter() - started)
        print(f"made from headers: {rate:,.0f} matrices/s, {total / rate:.0f} s for all")


def _megabytes(folder: Path) -> float:
    return (folder / "train.npz").stat().st_size / 1e6


if __name__ == "__main__":
    main()
