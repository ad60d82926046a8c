"""Extract the embeddings of one job's share of a data directory."""

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.data.parallel import log_progress
from sv.files import hash_file, write_json
from sv.kaldi.archive import write_archive
from sv.kaldi.data_dir import read_feats
from sv.score.config import PRECISIONS
from sv.train.device import choose_device, explain_out_of_memory, find_half, set_precision
from sv.train.embed import embed_utterances
from sv.train.store import load_network


def main(argv: Sequence[str] | None = None) -> int:
    """Write the embeddings, in order of their ids, to an ark and its scp."""
    parser = Parser(__doc__)
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument("--untrained", type=true_or_false, default=False, help="first weights")
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU, 1: the first visible GPU")
    parser.add_argument("--num-threads", type=positive_int, default=1, help="CPU threads")
    parser.add_argument("--job", type=positive_int, default=1, help="number of this share")
    parser.add_argument("--nj", type=positive_int, default=1, help="number of shares")
    parser.add_argument("model", type=Path, help="final.pt of a model folder")
    parser.add_argument("feats", type=Path, help="feats.scp")
    parser.add_argument("utt2num_frames", type=Path)
    parser.add_argument("ark", type=Path)
    parser.add_argument("scp", type=Path)
    parser.add_argument("info", type=Path, help="JSON: what was extracted, how")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.num_threads)
    device = choose_device(args.ngpu)
    set_precision(args.precision, device)
    savings = ["with fewer jobs at a time"] if args.ngpu == 0 else ["on a card that has more"]
    if args.precision == "fp32":
        savings.insert(0, f"with --precision {find_half(device)}")
    with explain_out_of_memory(device, [f"extract {savings[0]}", *savings[1:]]):
        return extract(args, device)


def extract(args: Namespace, device: torch.device) -> int:
    """Embed the share."""
    net = load_network(args.model, device, args.precision, untrained=args.untrained)
    digest = hash_file(args.model, "sha256")  # now: a training may replace it meanwhile
    feats, frames = read_feats(args.feats, args.utt2num_frames)
    # Every nj-th utterance: the shares are of equal length whatever the order of the speakers.
    frames = {key: frames[key] for key in sorted(frames)[args.job - 1 :: args.nj]}
    logging.info("%d utterances, %s on %s", len(frames), args.precision, device)
    pairs = embed_utterances(net, feats, frames, device=device, precision=args.precision)
    embeddings = sorted(log_progress(pairs, f"job {args.job}", total=len(frames)))
    write_archive(args.ark, args.scp, iter(embeddings), method="none")
    info = {
        "model": str(args.model),
        "model_sha256": digest,
        "precision": args.precision,
        "untrained": args.untrained,
        "utterances": len(frames),
        "frames": sum(frames.values()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
    write_json(args.info, info)
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.extract", main))
