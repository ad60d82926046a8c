#!/usr/bin/env python3
"""How fast the loader makes training batches, and how long training waits for them.

Usage: python3 tests/bench/loader.py [ROUNDS]

A batch is what training gets: 512 crops of 350 frames of randomly chosen copies (clean and four
augmented ones) with SpecAugment masks. Baselines: the same work one crop at a time, the whole
matrix read by kaldiio, as a map-style data set does it; and one reading thread, whose batches must
be the same, bit for bit. Each read is delayed by as much as the disk is said to take to answer:
0, 1 and 3 ms (Lustre under load takes 0.5 to 5). Targets: 5,000, 4,000 and 2,500 crops/s, and
without a delay no less than one thread.

Then the smallest networks train from that loader, on one thread a core. Waiting is the share of the
time between asking for a batch and having it; target: under 2 %.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import kaldiio
import numpy as np
import torch
from timing import measure_rates, print_rates

from sv.data.config import SpecAugmentConfig
from sv.data.crops import CropIndex, CropReader, build_crop_index
from sv.data.loader import Batch, iterate_batches
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_table
from sv.model_name import parse_model_name
from sv.nnet.xvector import XVector

FRAMES, FEATURES, UTTERANCES = 350, 81, 1024
KINDS = ("clean", "babble", "music", "noise", "reverb")
MASKS = SpecAugmentConfig(0.6, 1, 20, 1, 10)  # egs/voxceleb/conf/train.toml
BATCH = 512
DELAYS_MS = (0, 1, 3)
MODELS = ("resnet18_w0.125", "resnet50_w0.25")
TRAIN_BATCH, STEPS = 16, 6


def write_set(folder: Path) -> tuple[CropIndex, list[dict[str, str]]]:
    """Write five two-byte arks (0.5 GB) of 4 to 8 s; give their index and their tables."""
    rng = np.random.default_rng(0)
    ids = [f"u{i:04d}" for i in range(UTTERANCES)]
    rows = rng.integers(400, 800, UTTERANCES)
    values = rng.normal(size=(800, FEATURES)).astype(np.float32) * 4
    tables = {}
    for kind in KINDS:
        scp = folder / f"{kind}.scp"
        items = ((key, values[:n]) for key, n in zip(ids, rows, strict=True))
        write_archive(folder / f"{kind}.ark", scp, items, method="two-byte")
        tables[kind] = read_table(scp)
    return build_crop_index(ids, dict.fromkeys(ids, 0), tables), list(tables.values())


def read_one_by_one(tables: list[dict[str, str]], rng: np.random.Generator) -> int:
    """Make one batch as a map-style data set would; give its crops."""
    ids, crops = list(tables[0]), []
    for i in rng.integers(len(ids), size=BATCH):
        matrix = kaldiio.load_mat(tables[rng.integers(len(tables))][ids[i]])
        start = rng.integers(len(matrix) - FRAMES + 1)
        crop = matrix[start : start + FRAMES].copy()
        if rng.random() < MASKS.probability:
            for axis, widest in ((0, MASKS.time_width), (1, MASKS.frequency_width)):
                width = rng.integers(widest + 1)
                first = rng.integers(crop.shape[axis] - width + 1)
                crop[(slice(None),) * axis + (slice(first, first + width),)] = 0
        crops.append(crop)
    return len(np.stack(crops))


def batches(reader: CropReader, epoch: int, size: int) -> Iterator[Batch]:
    """Return one epoch of the loader."""
    return iterate_batches(
        reader, seed=1, epoch=epoch, batch_size=size, frames=FRAMES, specaugment=MASKS
    )


def delayed(work: Callable[[], int], delay_ms: int) -> int:
    """Work while every read of a crop takes so much longer."""
    preadv = os.preadv

    def read(*args: object) -> int:
        time.sleep(delay_ms / 1000)
        return preadv(*args)

    with mock.patch("os.preadv", read if delay_ms else preadv):
        return work()


def train(reader: CropReader, name: str) -> tuple[float, float]:
    """Train some steps; give crops/s and the share of the time that was waiting, in percent."""
    net = XVector(parse_model_name(name), FEATURES)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    waited, before, started = 0.0, 0.0, 0.0
    for step, batch in enumerate(batches(reader, 1, TRAIN_BATCH)):
        arrived = time.perf_counter()
        if step == 0:
            started = arrived  # the first batch of an epoch is not ready
        else:
            waited += arrived - before
        if step == STEPS:
            break
        optimizer.zero_grad()
        net(torch.from_numpy(batch.crops)).square().mean().backward()
        optimizer.step()
        before = time.perf_counter()
    seconds = time.perf_counter() - started
    return STEPS * TRAIN_BATCH / seconds, 100 * waited / seconds


def main() -> None:
    """Print batches of both ways, then waiting of each network."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        index, tables = write_set(Path(folder))
        reader = CropReader(index)
        readers = {"one thread": CropReader(index, threads=1), "ours": reader}

        def work(reader: CropReader) -> int:
            return sum(len(batch.speakers) for batch in batches(reader, 0, BATCH))

        for one, our in zip(*(batches(r, 0, BATCH) for r in readers.values()), strict=True):
            assert (one.crops == our.crops).all() and (one.speakers == our.speakers).all()
        plain = "crop by crop, kaldiio two-byte"
        for delay_ms in DELAYS_MS:
            ways = {plain: lambda: read_one_by_one(tables, rng)} if delay_ms == 0 else {}
            for name, way in readers.items():
                ways[f"{name}, {delay_ms} ms"] = partial(delayed, partial(work, way), delay_ms)
            baselines = [name for name in ways if not name.startswith("ours")]
            print_rates(measure_rates(ways, rounds), "crops", *baselines)
        for name in MODELS:
            rate, waiting = train(reader, name)
            rest = f"waiting {waiting:.2f} %, {torch.get_num_threads()} threads"
            print(f"training {name:27} {rate:10.1f} crops/s, {rest}")


if __name__ == "__main__":
    main()
