"""Print the embeddings of audio files as Kaldi text vectors, or the score of two files.

For exactly two files the line is ``<a> <b> <cosine>``, unless --score false.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sv.bin.cli import Parser, positive_int, run, true_or_false, whole_file
from sv.config import build_record, read_config
from sv.data.config import FbankConfig
from sv.errors import UsageError
from sv.score.backends import normalize_length
from sv.score.config import PRECISIONS
from sv.train.device import choose_device, explain_out_of_memory, find_half, set_precision
from sv.train.embed import embed_files
from sv.train.store import load_checkpoint, rebuild_network


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per file, or one line for two files."""
    parser = Parser(__doc__)
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="(fp32)")
    parser.add_argument(
        "--features",
        type=Path,
        help="conf/features.toml (what the model was trained with)",
    )
    parser.add_argument(
        "--score",
        type=true_or_false,
        help="true: print the cosine of two files; false: embeddings (true for two files)",
    )
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU, 1: the first visible GPU (0)")
    parser.add_argument("--num-threads", type=positive_int, default=1, help="CPU threads (1)")
    parser.add_argument("exp_dir", type=Path, help="model folder with final.pt, e.g. exp/M")
    parser.add_argument("audio", type=whole_file, nargs="+", help="16 kHz, one channel")
    args = parser.parse_args(argv)
    score = len(args.audio) == 2 if args.score is None else args.score
    if score and len(args.audio) != 2:
        raise UsageError(f"--score true: give two files, not {len(args.audio)}")
    if not score and (spaced := [str(path) for path in args.audio if len(str(path).split()) != 1]):
        raise UsageError(f"'{spaced[0]}': white space cannot stand in the key of a text vector")
    torch.set_num_threads(args.num_threads)
    device = choose_device(args.ngpu)
    set_precision(args.precision, device)
    savings = [f"embed with --precision {find_half(device)}"] if args.precision == "fp32" else []
    with explain_out_of_memory(device, [*savings, "shorten the audio files"]):
        return embed(args, device, score=score)


def embed(args: Namespace, device: torch.device, *, score: bool) -> int:
    """Print the embeddings of the files, or the score of the two."""
    path = args.exp_dir / "final.pt"
    state = load_checkpoint(path)
    if args.features is not None:
        features = read_config(args.features, FbankConfig)
    elif state.get("features") is not None:
        features = build_record(state["features"], FbankConfig, where=str(path))
    else:
        raise UsageError(f"{path} does not describe its front end; give --features")
    net = rebuild_network(state, path).to(device)
    if features.dim != state["input_dim"]:
        raise UsageError(f"{path} takes {state['input_dim']} features a frame, not {features.dim}")
    found = embed_files(net, args.audio, features, device=device, precision=args.precision)
    if score:
        a, b = normalize_length(np.stack(list(found)).astype(np.float64))
        print(f"{args.audio[0]} {args.audio[1]} {a @ b:.7g}")
        return 0
    for name, embedding in zip(args.audio, found, strict=True):
        # 9 digits represent a float32 exactly.
        print(f"{name}  [ {' '.join(f'{value:.9g}' for value in embedding)} ]", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.embed", main))
