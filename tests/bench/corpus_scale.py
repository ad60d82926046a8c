"""Time and memory of stages 1, 2, 4 and what precedes 3 on a tree of VoxCeleb2's shape.

Every file is a hard link to a few short FLAC files; the features that stage 4 indexes are tiny
matrices with real headers. So what is measured is what grows with the number of utterances:
directory walks, headers, manifests, tables, the look at every file before stage 3, the index.
Prints, for each size, seconds and memory (PSS of the whole process tree, sampled) and both against
the smallest size: a ratio to that of the number of utterances of 1 is linear growth.

Targets on 2 cores at 1,092,009 utterances: under 15 minutes and 4 GB.
Usage: python3 tests/bench/corpus_scale.py [10000 100000 1092009]
"""

import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
PER_SPEAKER, PER_VIDEO, LINKS = 182, 8, 30_000  # ext4 allows 65,000 links to a file
KINDS = ("babble", "music", "noise", "reverb")
SETS = ("voxceleb2_dev", *(f"voxceleb2_dev_{kind}" for kind in KINDS))
ROWS, COLUMNS = 400, 1
CONFIG = """train = "voxceleb2_dev"
[trials]
[speech.voxceleb2]
path = "voxceleb2"
[augment]
babble = ["musan/speech"]
music = ["musan/music"]
noise = ["musan/noise"]
reverb = ["rirs"]
"""


def make_tree(folder: Path, utterances: int) -> None:
    """Write the corpora: a hard link an utterance, and forty files to augment with."""
    rng = np.random.default_rng(0)
    sources = []
    for number in range(-(-utterances // LINKS)):
        path = folder / "sources" / f"{number}.flac"
        path.parent.mkdir(exist_ok=True, parents=True)
        soundfile.write(path, rng.normal(0, 0.1, 64_000), 16000)
        sources.append(path)
    for i in range(utterances):
        speaker, rest = divmod(i, PER_SPEAKER)
        video, number = divmod(rest, PER_VIDEO)
        parent = folder / f"voxceleb2/dev/flac/id{speaker:05}/v{video:010}"
        if number == 0:
            parent.mkdir(parents=True)
        os.link(sources[i // LINKS], parent / f"{number:05}.flac")
    for kind in ("musan/speech", "musan/music", "musan/noise", "rirs"):
        (folder / kind).mkdir(parents=True)
        for number in range(10):
            soundfile.write(folder / kind / f"{number}.wav", rng.normal(0, 0.1, 160_000), 16000)


def make_features(data: Path) -> None:
    """Write what stage 3 would: an ark, feats.scp and utt2num_frames for every set."""
    header = struct.pack("<xc4sffii", b"B", b"CM2 ", 0.0, 1.0, ROWS, COLUMNS)
    matrix = header + bytes(2 * ROWS * COLUMNS)
    for name in SETS:
        ark = data / name / "fbank.ark"
        with (
            open(data / name / "utt2spk") as utt2spk,
            open(ark, "wb") as out,
            open(data / name / "feats.scp", "w") as scp,
            open(data / name / "utt2num_frames", "w") as frames,
        ):
            offset = 0
            for line in utt2spk:
                key = line.split()[0]
                offset += len(key) + 1
                scp.write(f"{key} {ark}:{offset}\n")
                frames.write(f"{key} {ROWS}\n")
                out.write(key.encode() + b" " + matrix)
                offset += len(matrix)


def measure(*words: object) -> tuple[float, float]:
    """Run a program; give its seconds and the peak memory of its process tree in GB."""
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", *map(str, words)], cwd=ROOT, env=environment(),
                             stderr=subprocess.PIPE, text=True)  # fmt: skip
    peak_kb = 0
    while child.poll() is None:
        peak_kb = max(peak_kb, sum(read_pss_kb(pid) for pid in find_tree(child.pid)))
        time.sleep(0.25)
    if child.returncode != 0:
        sys.exit(child.stderr.read())
    return time.monotonic() - started, peak_kb / 1e6


def environment() -> dict[str, str]:
    """The recipe's environment: its own code, one OpenMP thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


def find_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in find_tree(int(child)))]


def read_pss_kb(pid: int) -> int:
    """Return the memory of a process, shared pages divided among those that share them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def run(utterances: int, nj: int) -> dict[str, tuple[float, float]]:
    """Run the stages on a tree of one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tree(folder, utterances)
        config = folder / "corpora.toml"
        config.write_text(CONFIG)
        where = ["--config", config, "--corpora", folder, "--nj", nj]
        data = folder / "data"
        found = {"1 manifests": measure("local.prepare_data", *where, data)}
        augment = ["--augment-config", ROOT / "egs/voxceleb/conf/augment.toml"]
        found["2 augment"] = measure("local.augment_data", *where, *augment, data)
        sets = [data / name for name in SETS]
        found["3 inputs"] = measure("sv.bin.recipe", "inputs", "--nj", nj, *sets)
        make_features(data)
        train = folder / "train.toml"  # the smallest tree has 55 speakers
        text = (ROOT / "egs/voxceleb/conf/train.toml").read_text()
        train.write_text(text.replace("valid_speakers = 200", "valid_speakers = 20"))
        found["4 egs"] = measure(
            "sv.bin.make_egs", "--config", train, "--kinds", " ".join(KINDS),
            data / "voxceleb2_dev", data / "egs",
        )  # fmt: skip
        return found


def main() -> int:
    """Print a table, a line a size and stage."""
    sizes = [int(word) for word in sys.argv[1:]] or [10_000, 100_000, 1_092_009]
    nj = len(os.sched_getaffinity(0))
    print(f"{nj} processes; growth: time per utterance against that of {sizes[0]}")
    print("utterances  stage         seconds   GB     growth")
    smallest: dict[str, float] = {}
    for size in sizes:
        found = run(size, nj)
        for stage, (seconds, gb) in found.items():
            each = seconds / size
            growth = each / smallest.setdefault(stage, each)
            print(f"{size:10}  {stage:12} {seconds:8.1f} {gb:6.2f} {growth:8.2f}", flush=True)
        total = sum(seconds for seconds, _ in found.values())
        peak = max(gb for _, gb in found.values())
        print(f"{size:10}  {'total':12} {total:8.1f} {peak:6.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
