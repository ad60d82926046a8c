"""Train an embedding network on the training set of stage 4; resumes by itself."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from sv.bin.cli import Parser, expanded_path, positive_float, positive_int, run
from sv.energy.journal import write_mark
from sv.energy.live import read_live
from sv.files import write_json
from sv.model_name import check_model_name
from sv.train.config import read_train_config, validate_device
from sv.train.device import (
    choose_device,
    explain_compiler,
    explain_out_of_memory,
    list_savings,
)
from sv.train.group import Group, report_to_launcher
from sv.train.stopping import StopConditions
from sv.train.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or resume a training, until the last epoch of the config, a limit, or a signal."""
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, help="name, e.g. resnet50_d_2882")
    parser.add_argument("--config", type=Path, required=True, help="conf/train.toml")
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs of this machine, 0: CPU")
    parser.add_argument("--num-threads", type=positive_int, default=1, help="of this process")
    parser.add_argument("--max-kwh", type=positive_float, help="end at this energy of the attempt")
    parser.add_argument("--max-steps", type=positive_int, help="end after so many more steps")
    parser.add_argument("--backup", type=Path, help="first move an earlier run to this folder")
    parser.add_argument("--features-root", type=expanded_path, help="read copies from here")
    parser.add_argument("egs_dir", type=Path, help="training set, e.g. data/egs")
    parser.add_argument("exp_dir", type=Path, help="where the model goes, e.g. exp/resnet50_d")
    args = parser.parse_args(argv)
    config = read_train_config(args.config)
    check_model_name(args.model, config.network)
    validate_device(config.precision, args.ngpu)
    torch.set_num_threads(args.num_threads)
    device = choose_device(args.ngpu, os.environ)
    group = Group(os.environ, device)
    meter = os.environ if group.is_first else {}  # one process reads the meter and writes marks
    if not group.is_first:
        logging.disable(logging.INFO)
    live, marks = meter.get("SV_METER_LIVE"), meter.get("SV_METER_MARKS")
    job = meter.get("SV_JOB_CHECKPOINT")  # of sv/jobs/slurm_job.py
    max_kwh = args.max_kwh if group.is_first else None

    def mark(name: str, /, **payload: float | str) -> None:
        write_mark(marks, name, **payload)
        if job and name == "checkpoint":
            write_json(Path(job), payload)

    read = functools.partial(read_live, live) if live else None
    conditions = StopConditions(read, max_kwh=max_kwh, max_steps=args.max_steps)
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, conditions.request_stop)
    with (
        explain_compiler(config.compile),
        explain_out_of_memory(device, list_savings(config, device)),
        group.joined(),
    ):
        stop = Trainer(
            args.model,
            config,
            args.egs_dir,
            args.exp_dir,
            device=device,
            mark=mark,
            conditions=conditions,
            group=group,
            backup=args.backup,
            features_root=args.features_root,
        ).run()
    if stop is None:
        return 0
    if group.is_first:
        print(f"sv.bin.train: {stop.reason}", file=sys.stderr)
    return stop.status


if __name__ == "__main__":
    sys.exit(run("sv.bin.train", report_to_launcher(main)))
