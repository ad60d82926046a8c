"""Print what model names stand for, as JSON: blocks, layers, parameters, GMAC, memory."""

import functools
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.model_name import STUDY_NETWORK, NetworkConfig, describe_model_name, read_network_config

if TYPE_CHECKING:
    from torch import nn

VOXCELEB2_SPEAKERS = 5994  # of the development part, on which the study trains
STUDY = (256, 1, 350, 32)  # embedding, centres a speaker, frames a crop, crops a micro-batch


def main(argv: Sequence[str] | None = None) -> int:
    """Print a JSON object for one name, a list of them for several."""
    parser = Parser(__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="e.g. resnet50_d_2882")
    parser.add_argument(
        "--cost",
        type=true_or_false,
        default=True,
        help="true: count parameters and multiply-accumulates from the built network; "
        "false: only what the name says, at once (true)",
    )
    parser.add_argument(
        "--memory",
        type=true_or_false,
        default=True,
        help="with --cost true: compute the GB of a training step, seconds a name (true)",
    )
    parser.add_argument(
        "--config", type=Path, help="conf/train.toml: channels, pooling, head, sizes (the study's)"
    )
    parser.add_argument("--input-dim", type=positive_int, default=81, help="features a frame (81)")
    parser.add_argument("--frames", type=positive_int, help="frames a crop (350, or the config's)")
    parser.add_argument(
        "--micro-batch-size", type=positive_int, help="crops at once (32, or the config's)"
    )
    parser.add_argument(
        "--speakers", type=positive_int, default=VOXCELEB2_SPEAKERS, help="classes (5994)"
    )
    args = parser.parse_args(argv)
    network = read_network_config(args.config) if args.config else STUDY_NETWORK
    infos = [{"name": name, **describe_model_name(name, network)} for name in args.names]
    if args.cost:
        add_cost(infos, network, args)
    print(json.dumps(infos[0] if len(infos) == 1 else infos, indent=1))
    return 0


def add_cost(infos: list[dict[str, Any]], network: NetworkConfig, args: Namespace) -> None:
    """Add parameters, the multiply-accumulates of one crop, and the memory of a training step."""
    # Not above: torch takes seconds to import, a name needs none of it.
    from sv.nnet.architectures import build_embedding_network, compute_cost  # noqa: PLC0415
    from sv.nnet.margin import MarginHead  # noqa: PLC0415
    from sv.nnet.memory import StepModel  # noqa: PLC0415
    from sv.nnet.recompute import MODES  # noqa: PLC0415
    from sv.train.config import read_train_config  # noqa: PLC0415

    dim, centres, frames, crops = STUDY
    if args.config is not None:
        config = read_train_config(args.config)
        dim, centres, frames = config.embedding_dim, config.margin.centres, config.crop_frames
        crops = config.optimizer.micro_batch_size
    frames, crops = args.frames or frames, args.micro_batch_size or crops

    def build(name: str) -> "tuple[nn.Module, nn.Module]":
        head = MarginHead(dim, args.speakers, 1.0, sub_centres=centres)
        return build_embedding_network(name, args.input_dim, dim, network), head

    for info in infos:
        size, gmac = compute_cost(info["name"], args.input_dim, frames, dim, network)
        info["parameters"] = size
        info["parameters_with_head"] = size + args.speakers * centres * dim
        info["gmac"] = round(gmac, 4)
        if not args.memory:
            continue
        model = StepModel(functools.partial(build, info["name"]), args.input_dim)
        info["micro_batch_size"] = crops
        info["memory_gb"] = {
            precision: {
                mode: {"crop": round(step.crop / 1e9, 4), "step": round(step.total(crops) / 1e9, 2)}
                for mode in (MODES if model.has_blocks else MODES[:1])
                for step in [model.measure(frames, crops, checkpointing=mode, half=half)]
            }
            for precision, half in (("fp32", False), ("half", True))
        }


if __name__ == "__main__":
    sys.exit(run("sv.bin.model_info", main))
