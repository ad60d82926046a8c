"""Export a trained network to TorchScript or ONNX, checked to compute the same embeddings."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, positive_int, run
from sv.config import build_config
from sv.data.config import FbankConfig
from sv.data.fbank import describe_front_end
from sv.errors import UsageError
from sv.train.export import OPSET, SUFFIXES, export_network
from sv.train.store import load_checkpoint, rebuild_network


def main(argv: Sequence[str] | None = None) -> int:
    """Write <exp-dir>/<model>.ts or .onnx and print its name."""
    parser = Parser(__doc__)
    parser.add_argument("--format", required=True, choices=tuple(SUFFIXES))
    parser.add_argument("--opset", type=positive_int, help=f"version of ONNX's operators ({OPSET})")
    parser.add_argument("exp_dir", type=Path, help="model folder with final.pt, e.g. exp/M")
    parser.add_argument("out", type=Path, nargs="?", help="file to write")
    args = parser.parse_args(argv)
    if args.opset is not None and args.format != "onnx":
        raise UsageError("--opset: only ONNX has one")
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they log every node that they fold
        logging.getLogger(name).setLevel(logging.CRITICAL)
    path = args.exp_dir / "final.pt"
    state = load_checkpoint(path)
    net = rebuild_network(state, path)  # first: what is no model's name makes no file's
    what = {key: value for key, value in state.items() if key not in ("format", "net")}
    if state["features"] is not None:
        config = build_config(state["features"], FbankConfig, where=f"{args.exp_dir}/final.pt")
        what["front_end"] = describe_front_end(config)
    out = args.out or args.exp_dir / f"{state['model']}{SUFFIXES[args.format]}"
    difference = export_network(net, out, what, form=args.format, opset=args.opset or OPSET)
    logging.info("embeddings differ from the network's by at most %.2g", difference)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.export", main))
