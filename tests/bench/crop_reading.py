#!/usr/bin/env python3
"""How fast 350-frame crops are read from archives, one process, one thread, page cache warm.

Usage: python3 tests/bench/crop_reading.py [ROUNDS]

Baseline: kaldiio.load_mat of the whole matrix and a slice of it, which is what a data set of
feats.scp lines does, from Kaldi's default compressed format and from float32. Ours: CropReader on
two-byte, one-byte and float32 archives. Utterances of 4 to 16 s, 81 features. Target: 25,000
crops/s from two-byte archives.
"""

import functools
import sys
import tempfile
from pathlib import Path

import kaldiio
import numpy as np
from timing import measure_rates, print_rates

from sv.data.crops import CropReader, build_crop_index
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_table

FRAMES, FEATURES, UTTERANCES = 350, 81, 300
BATCH, BATCHES = 64, 16
METHODS = {"two-byte": "two-byte", "one-byte": "one-byte", "float32": "none"}


def write_arks(folder: Path) -> dict[str, dict[str, str]]:
    """Write the same matrices in each format; give each format's table."""
    rng = np.random.default_rng(0)
    shapes = [(int(rows), FEATURES) for rows in rng.integers(400, 1600, UTTERANCES)]
    items = {f"u{i:04d}": rng.normal(size=s).astype(np.float32) * 4 for i, s in enumerate(shapes)}
    tables = {}
    for name, method in METHODS.items():
        scp = folder / f"{name}.scp"
        write_archive(folder / f"{name}.ark", scp, iter(items.items()), method=method)
        tables[name] = read_table(scp)
    scp = str(folder / "compressed.scp")
    kaldiio.save_ark(str(folder / "compressed.ark"), items, scp=scp, compression_method=2)
    tables["compressed"] = read_table(Path(scp))
    return tables


def main() -> None:
    """Print crops/s of each way and the ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        tables = write_arks(Path(folder))
        rng = np.random.default_rng(1)
        out = np.empty((BATCH, FRAMES, FEATURES), np.float32)

        def whole(table: dict[str, str]) -> int:
            entries = list(table.values())
            for i in rng.integers(UTTERANCES, size=len(out)):
                matrix = kaldiio.load_mat(entries[i])
                start = rng.integers(len(matrix) - FRAMES + 1)
                out[i % BATCH] = matrix[start : start + FRAMES]
            return len(out)

        def rows(reader: CropReader) -> int:
            for _ in range(BATCHES):
                order = rng.integers(UTTERANCES, size=BATCH)
                room = reader.index.rows[0, order] - FRAMES + 1
                starts = (rng.random(BATCH) * room).astype(np.int64)
                reader.read(np.zeros(BATCH, np.int64), order, starts, out)
            return BATCH * BATCHES

        ids = sorted(tables["float32"])
        labels = dict.fromkeys(ids, 0)
        readers = {
            name: CropReader(build_crop_index(ids, labels, {"clean": tables[name]}))
            for name in METHODS
        }
        compressed, floats = "kaldiio, compressed (CM)", "kaldiio, float32"
        ways = {
            compressed: lambda: whole(tables["compressed"]),
            floats: lambda: whole(tables["float32"]),
            "kaldiio, two-byte": lambda: whole(tables["two-byte"]),
        }
        for name, reader in readers.items():
            ways[f"rows of {name} (ours)"] = functools.partial(rows, reader)
        print_rates(measure_rates(ways, rounds), "crops", compressed, floats)


if __name__ == "__main__":
    main()
