"""Print what model names stand for, as JSON: blocks, channels, layers, parameters, GMAC."""

import json
import sys
from collections.abc import Sequence

from sv.bin.cli import Parser, positive_int, run
from sv.model_name import parse_model_name
from sv.nnet.xvector import EMBEDDING_DIM, compute_cost

VOXCELEB2_SPEAKERS = 5994  # of the development part, on which the study trains


def main(argv: Sequence[str] | None = None) -> int:
    """Print a JSON object for one name, a list of them for several."""
    parser = Parser(__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="e.g. resnet50_d_2882")
    parser.add_argument("--input-dim", type=positive_int, default=81, help="features a frame (81)")
    parser.add_argument("--frames", type=positive_int, default=350, help="frames a crop (350)")
    parser.add_argument(
        "--speakers", type=positive_int, default=VOXCELEB2_SPEAKERS, help="classes (5994)"
    )
    args = parser.parse_args(argv)
    models = {name: parse_model_name(name) for name in args.names}
    infos = []
    for name, model in models.items():
        cost = compute_cost(model, args.input_dim, args.frames)
        infos.append(
            {
                "name": name,
                "blocks": model.blocks,
                "channels": model.channels,
                "layers": model.layers,
                "parameters": cost.parameters,
                "parameters_with_head": cost.parameters + args.speakers * EMBEDDING_DIM,
                "gmac": round(cost.gmac, 4),
            }
        )
    print(json.dumps(infos[0] if len(infos) == 1 else infos, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.model_info", main))
