"""Train an embedding network on the training set of stage 4; resumes by itself."""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from sv.bin.cli import Parser, positive_int, run
from sv.bin.device import choose_device
from sv.energy.marks import write_mark
from sv.model_name import parse_model_name
from sv.train.config import read_train_config
from sv.train.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or go on training, until the last epoch of the config."""
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, help="name, e.g. resnet50_d_2882")
    parser.add_argument("--config", type=Path, required=True, help="conf/train.toml")
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU, 1: the first visible GPU")
    parser.add_argument("--num-threads", type=positive_int, default=1, help="CPU threads")
    parser.add_argument("egs_dir", type=Path, help="training set, e.g. data/egs")
    parser.add_argument("exp_dir", type=Path, help="where the model goes, e.g. exp/resnet50_d")
    args = parser.parse_args(argv)
    parse_model_name(args.model)
    torch.set_num_threads(args.num_threads)
    Trainer(
        args.model,
        read_train_config(args.config),
        args.egs_dir,
        args.exp_dir,
        device=choose_device(args.ngpu),
        mark=functools.partial(write_mark, os.environ.get("SV_METER_MARKS")),
    ).run()
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.train", main))
