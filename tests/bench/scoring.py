#!/usr/bin/env python3
"""Scoring at the study's size: text list and ark in, text scores and metrics out.

Usage: python3 tests/bench/scoring.py [ROUNDS [TRIALS...]]
 e.g.: python3 tests/bench/scoring.py 3 580000 9700000

Ours is sv.bin.score_trials with a thread a core. Baselines: a straightforward vectorised numpy
version (lines split in Python into index arrays, products of gathered rows, scores written with
formatted strings, EER and minDCF from one argsort), and a loop over the trials, which is run on a
sample and scaled to the whole. Each is a process of its own, the rounds are interleaved, times and
peak memory (resident) are medians. 100,000 utterances of 256 dimensions, trials in random order.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sv.kaldi.archive import write_archive  # noqa: E402

UTTERANCES, SPEAKERS, DIM = 100_000, 2000, 256
SAMPLE = 50_000  # trials of the loop
CORES = len(os.sched_getaffinity(0))

PLAIN = """
import json, sys
import kaldiio, numpy as np
xvectors, trials, out = sys.argv[1:]
items = dict(kaldiio.load_scp_sequential(xvectors + "/xvector.scp"))
row = {key: i for i, key in enumerate(items)}
unit = np.stack(list(items.values()))
unit /= np.linalg.norm(unit, axis=1, keepdims=True)
enrol, test, target = [], [], []
with open(trials) as file:
    for line in file:
        a, b, label = line.split()
        enrol.append(row[a]); test.append(row[b]); target.append(label == "target")
enrol, test, target = np.array(enrol), np.array(test), np.array(target)
scores = np.empty(len(enrol), dtype=np.float32)
for i in range(0, len(scores), 65536):
    part = slice(i, i + 65536)
    scores[part] = np.einsum("ij,ij->i", unit[enrol[part]], unit[test[part]])
names = list(items)
with open(out + ".txt", "w") as file:
    rows = zip(enrol, test, scores.tolist())
    file.writelines(f"{names[e]} {names[t]} {s:.7g}\\n" for e, t, s in rows)
order = np.argsort(scores)
miss = np.cumsum(target[order]) / target.sum()
false_alarm = 1 - np.cumsum(~target[order]) / (~target).sum()
at = np.argmax(miss >= false_alarm)
json.dump({"eer_percent": 100 * (miss[at] + false_alarm[at]) / 2,
           "min_dcf": (0.01 * miss + 0.99 * false_alarm).min() / 0.01}, open(out + ".json", "w"))
"""
LOOP = """
import sys, time
import kaldiio, numpy as np
xvectors, trials, out, sample = sys.argv[1:]
items = dict(kaldiio.load_scp_sequential(xvectors + "/xvector.scp"))
started, done = time.monotonic(), 0
with open(trials) as file, open(out + ".txt", "w") as scores:
    for line in file:
        a, b, label = line.split()
        x, y = items[a], items[b]
        score = np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))
        scores.write(f"{a} {b} {score:.7g}\\n")
        done += 1
        if done == int(sample):
            break
print((time.monotonic() - started) / done)
"""


def name_utterances() -> tuple[list[str], np.ndarray]:
    """Return the names of the utterances and their speakers."""
    speaker = np.arange(UTTERANCES) * SPEAKERS // UTTERANCES
    names = [f"id{s:05d}-{i * 2654435761 % 2**32:08x}abc-{i:05d}" for i, s in enumerate(speaker)]
    return names, speaker


def make_embeddings(folder: Path) -> None:
    """Write embeddings as stage 6 does."""
    rng = np.random.default_rng(0)
    names, speaker = name_utterances()
    centres = rng.normal(size=(SPEAKERS, DIM))
    vectors = (centres[speaker] + 3 * rng.normal(size=(UTTERANCES, DIM))).astype(np.float32)
    items = zip(names, vectors, strict=True)
    write_archive(folder / "xvector.1.ark", folder / "xvector.scp", items, method="none")
    (folder / "info.json").write_text('{"data_set": "bench", "precision": "fp32"}')


def make_list(path: Path, trials: int) -> None:
    """Write a list of distinct trials in random order, every tenth a target."""
    names, speaker = name_utterances()
    rng = np.random.default_rng(trials)
    own = UTTERANCES // SPEAKERS
    enrol = rng.integers(0, UTTERANCES, 2 * trials)
    test = rng.integers(0, UTTERANCES, 2 * trials)
    test[::10] = speaker[enrol[::10]] * own + test[::10] % own
    _, firsts = np.unique(enrol * UTTERANCES + test, return_index=True)
    chosen = rng.permutation(np.sort(firsts)[:trials])
    enrol, test = enrol[chosen], test[chosen]
    ids, labels = pa.array(names), pa.array(["nontarget", "target"])
    same = (speaker[enrol] == speaker[test]).astype(np.int8)
    columns = [ids.take(pa.array(enrol)), ids.take(pa.array(test)), labels.take(pa.array(same))]
    options = pv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    pv.write_csv(pa.table(columns, names=["e", "t", "l"]), path, options)


def run(argv: list[object], threads: int) -> tuple[float, float, str]:
    """Run Python with these arguments: wall seconds, peak resident MB, stdout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *map(str, argv)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{argv}: status {child.returncode}")
    return time.monotonic() - started, usage.ru_maxrss / 1000, output


def compare(ours: Path, plain: Path) -> float:
    """Return the largest difference of the first million scores; both must be the same list."""
    largest = 0.0
    with open(ours) as a, open(plain) as b:
        for _, x, y in zip(range(1_000_000), a, b, strict=False):
            (*pair, score), (*same, other) = x.split(), y.split()
            assert pair == same
            largest = max(largest, abs(float(score) - float(other)))
    return largest


def main() -> None:
    """Measure each size and print the ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    # What makes the data is a process of its own: the peak of a child counts its parent's memory.
    maker = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with tempfile.TemporaryDirectory() as name, maker:
        folder = Path(name)
        maker.submit(make_embeddings, folder).result()
        for trials in [int(text) for text in sys.argv[2:]] or [580_000, 9_700_000]:
            path = folder / f"trials_{trials}"
            maker.submit(make_list, path, trials).result()
            ours = ["-m", "sv.bin.score_trials", "--num-threads", CORES]
            ours += [folder, path, folder]
            plain = ["-c", PLAIN, folder, path, folder / "plain"]
            loop = ["-c", LOOP, folder, path, folder / "loop", SAMPLE]
            figures: dict[str, list[tuple[float, float]]] = {}
            for _ in range(rounds):
                figures.setdefault("ours", []).append(run(ours, 1)[:2])
                figures.setdefault("plain numpy", []).append(run(plain, CORES)[:2])
                _, peak, each = run(loop, 1)
                key = f"loop ({SAMPLE} trials, scaled)"
                figures.setdefault(key, []).append((float(each) * trials, peak))
            largest = compare(folder / f"{path.name}_cosine.txt", folder / "plain.txt")
            print(f"{trials} trials, {CORES} cores, {rounds} rounds; largest difference of scores "
                  f"{largest:.1e}")  # fmt: skip
            base = statistics.median(wall for wall, _ in figures["ours"])
            for label, values in figures.items():
                walls = [wall for wall, _ in values]
                wall, peak = statistics.median(walls), statistics.median(p for _, p in values)
                spread = f"({min(walls):.1f}-{max(walls):.1f})"
                ratio = f"{wall / base:6.1f} x ours"
                print(f"  {label:30} {wall:8.1f} s {spread:16} {peak:6.0f} MB  {ratio}")


if __name__ == "__main__":
    main()
