"""Compute the features of one job's share of a cut manifest, as a Kaldi archive."""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sv.bin.cli import Parser, positive_int, run
from sv.config import read_config
from sv.data.config import FRONT_END, FbankConfig
from sv.data.cuts import load_samples
from sv.data.fbank import compute_fbank
from sv.data.manifests import read_manifest
from sv.data.parallel import log_progress
from sv.errors import SvError
from sv.files import write_json
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import MAX_LISTED, write_table


def main(argv: Sequence[str] | None = None) -> int:
    """Write the archive, its scp and utt2num_frames; utterances that fail are logged."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/features.toml")
    parser.add_argument("--job", type=positive_int, default=1, help="number of this share")
    parser.add_argument("--nj", type=positive_int, default=1, help="number of shares")
    parser.add_argument("cuts", type=Path, help="cuts.jsonl.gz")
    parser.add_argument("ark", type=Path)
    parser.add_argument("scp", type=Path)
    parser.add_argument("utt2num_frames", type=Path)
    args = parser.parse_args(argv)
    config = read_config(args.config, FbankConfig)
    torch.set_num_threads(1)
    frames: dict[str, int] = {}
    failures: list[str] = []

    def compute() -> Iterator[tuple[str, np.ndarray]]:
        for cut in read_manifest(args.cuts, job=args.job, nj=args.nj):
            try:
                features = compute_fbank(load_samples(cut), config)
                if len(features) == 0:
                    raise SvError(f"{cut.id}: shorter than one window")
            except SvError as error:
                failures.append(str(error))
                continue
            frames[cut.id] = len(features)
            yield cut.id, features

    items = log_progress(compute(), f"job {args.job}")
    write_archive(args.ark, args.scp, items, method=config.compression)
    write_table(args.utt2num_frames, frames)
    write_json(args.ark.parent / FRONT_END, asdict(config))  # every job writes the same
    logging.info("%d utterances, %d failed", len(frames), len(failures))
    for message in failures[:MAX_LISTED]:
        logging.warning("no features for %s", message)
    if failures and not frames:
        raise SvError(f"no utterance could be used; first: {failures[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.make_fbank", main))
