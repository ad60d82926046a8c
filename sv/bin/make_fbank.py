"""Compute the features of one job's share of a data directory's cuts, as a Kaldi archive."""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sv.bin.cli import Parser, positive_int, run
from sv.config import read_config
from sv.data.audio import validate_finite
from sv.data.config import FRONT_END, FbankConfig
from sv.data.cuts import load_samples, name_audio
from sv.data.fbank import compute_fbank
from sv.data.inputs import CUTS
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
    parser.add_argument("--inputs", type=Path, help="what the share is made from: for its proof")
    parser.add_argument("data_dir", type=Path, help="has cuts.jsonl.gz")
    parser.add_argument("ark", type=Path)
    parser.add_argument("scp", type=Path)
    parser.add_argument("utt2num_frames", type=Path)
    args = parser.parse_args(argv)
    config = read_config(args.config, FbankConfig)
    torch.set_num_threads(1)
    frames: dict[str, int] = {}
    failures: list[str] = []
    silent: list[str] = []

    def compute() -> Iterator[tuple[str, np.ndarray]]:
        for cut in read_manifest(args.data_dir / CUTS, job=args.job, nj=args.nj):
            try:
                samples = load_samples(cut)
                features = compute_fbank(samples, config)
                if len(features) == 0:
                    raise SvError(f"{cut.id}: shorter than one window")
                validate_finite(features, f"{cut.id}: its features (of {name_audio(cut)})")
            except SvError as error:
                failures.append(str(error))
                continue
            if samples.min() == samples.max():
                silent.append(f"{cut.id} ({name_audio(cut)})")
            frames[cut.id] = len(features)
            yield cut.id, features

    if args.scp.parent == args.data_dir / "fbank":
        # It fits what other jobs will have made anew, perhaps by another front end.
        (args.data_dir / "feats.scp").unlink(missing_ok=True)
    items = log_progress(compute(), f"job {args.job}")
    write_archive(args.ark, args.scp, items, method=config.compression, checksum=True)
    write_table(args.utt2num_frames, frames)
    write_json(args.ark.parent / FRONT_END, asdict(config))  # every job writes the same
    logging.info("%d utterances, %d failed, %d silent", len(frames), len(failures), len(silent))
    for name in silent[:MAX_LISTED]:
        logging.warning("silent: %s", name)
    for message in failures[:MAX_LISTED]:
        logging.warning("no features for %s", message)
    if failures and not frames:
        raise SvError(f"no utterance could be used; first: {failures[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.make_fbank", main))
