"""Print what model names stand for, as JSON: blocks, channels, layers, parameters, GMAC."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.model_name import STUDY_NETWORK, NetworkConfig, describe_model_name, read_network_config

VOXCELEB2_SPEAKERS = 5994  # of the development part, on which the study trains
STUDY = (256, 1, 350)  # embedding, centres a speaker, frames a crop


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
        "--config", type=Path, help="conf/train.toml: channels, pooling, head, sizes (the study's)"
    )
    parser.add_argument("--input-dim", type=positive_int, default=81, help="features a frame (81)")
    parser.add_argument("--frames", type=positive_int, help="frames a crop (350, or the config's)")
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
    """Add the networks' parameters and, of one crop, their multiply-accumulates."""
    # Not above: torch takes seconds to import, a name needs none of it.
    from sv.nnet.architectures import compute_cost  # noqa: PLC0415
    from sv.train.config import read_train_config  # noqa: PLC0415

    dim, centres, frames = STUDY
    if args.config is not None:
        config = read_train_config(args.config)
        dim, centres, frames = config.embedding_dim, config.margin.centres, config.crop_frames
    frames = args.frames or frames
    for info in infos:
        size, gmac = compute_cost(info["name"], args.input_dim, frames, dim, network)
        info["parameters"] = size
        info["parameters_with_head"] = size + args.speakers * centres * dim
        info["gmac"] = round(gmac, 4)


if __name__ == "__main__":
    sys.exit(run("sv.bin.model_info", main))
