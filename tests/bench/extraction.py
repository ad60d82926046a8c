#!/usr/bin/env python3
"""How fast whole utterances become embeddings on the CPU, against batch size and memory settings.

Usage: python3 tests/bench/extraction.py [--rounds N] [--threads N] [--utterances N]

Network [2,2,2,2] at width 0.25; utterances of 3 to 12 s, 81 features, two-byte archive. Baseline:
"one by one", the same network in eager float32 and contiguous format, its blocks written without
in-place operations, on one utterance after the other in the order of the table, with glibc's malloc
as it comes: what the extraction scripts of other recipes do. "plain batches" is that network in our
batches of 6000 frames. Ours: channels-last, so many frames a batch. "keep memory" is what
steps/compute_environment.sh sets. Each environment is one child process; all take turns. Before
that ours must give the baseline's embeddings to 1e-4. Target: 2 x plain batches.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from timing import measure_in_environments, print_rates, serve
from train_step import FEATURES, MODEL, PlainBlock

from sv.kaldi.archive import read_matrix, write_archive
from sv.kaldi.data_dir import read_table
from sv.model_name import parse_model_name
from sv.nnet.resnet import Block
from sv.nnet.xvector import XVector
from sv.train.embed import embed_utterances

BATCH_FRAMES = (1500, 3000, 6000, 12000, 24000)
CPU = torch.device("cpu")


@torch.inference_mode()
def embed_one_by_one(net: XVector, feats: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Embed in the order of the table."""
    for key, entry in feats.items():
        yield key, net(torch.from_numpy(read_matrix(entry))[None])[0].numpy()


def write_features(folder: Path, utterances: int) -> tuple[dict[str, str], dict[str, int]]:
    """Write utterances of 3 to 12 s; give their places and frames."""
    rng = np.random.default_rng(0)
    frames = {f"u{i:03d}": int(n) for i, n in enumerate(rng.integers(300, 1200, utterances))}
    items = ((k, rng.normal(size=(n, FEATURES)).astype(np.float32)) for k, n in frames.items())
    write_archive(folder / "f.ark", folder / "f.scp", items, method="two-byte")
    return read_table(folder / "f.scp"), frames


def serve_extraction(options: argparse.Namespace, folder: Path) -> None:
    """Compare every way with the baseline and run those that are asked for."""
    torch.set_num_threads(options.threads)
    feats, frames = write_features(folder, options.utterances)
    nets = []
    for plain in (True, False):
        torch.manual_seed(0)
        nets.append(XVector(parse_model_name(MODEL), FEATURES).eval())
        for module in nets[-1].modules() if plain else ():
            if isinstance(module, Block):
                module.__class__ = PlainBlock
    nets[1].to(memory_format=torch.channels_last)  # as sv.train.store loads it
    expected = dict(embed_one_by_one(nets[0], feats))

    def ours(batch_frames: int) -> dict[str, np.ndarray]:
        pairs = embed_utterances(nets[1], feats, frames, device=CPU, batch_frames=batch_frames)
        return dict(pairs)

    for key, embedding in ours(BATCH_FRAMES[2]).items():
        difference = np.linalg.norm(embedding - expected[key]) / np.linalg.norm(expected[key])
        if not difference < 1e-4:
            raise SystemExit(f"{key}: {difference:.1e} from the embedding of the plain network")
    plain = {"device": CPU, "batch_frames": BATCH_FRAMES[2]}
    ways = {
        "one by one": lambda: len(list(embed_one_by_one(nets[0], feats))),
        "plain batches": lambda: len(list(embed_utterances(nets[0], feats, frames, **plain))),
    }
    ways |= {f"{size} frames a batch": lambda n=size: len(ours(n)) for size in BATCH_FRAMES}
    serve(ways)


def main() -> None:
    """Print every way in every environment against the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--utterances", type=int, default=48)
    parser.add_argument("--serve", default="false", help="used by the program itself")
    options = parser.parse_args()
    if options.serve == "true":
        with tempfile.TemporaryDirectory() as folder:
            serve_extraction(options, Path(folder))
        return
    rates = measure_in_environments(options.threads, options.rounds)
    print(f"{MODEL}, {options.threads} threads")
    print_rates(rates, "utterances", "one by one", "plain batches")


if __name__ == "__main__":
    main()
