"""Train with several processes: starts those of this machine, which meet those of the others."""

import os
import sys
from collections.abc import Sequence

from sv.bin.cli import Parser, positive_int, run
from sv.energy import nodes
from sv.errors import UsageError
from sv.train.device import check_gpus
from sv.train.launch import find_meeting, run_processes


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sv.bin.train`` with the arguments behind ``--`` in every process."""
    parser = Parser(__doc__)
    parser.add_argument("--nnodes", type=positive_int, default=1, help="machines of the training")
    parser.add_argument("--nproc", type=positive_int, required=True, help="processes of this one")
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs of this machine, 0: CPU")
    parser.add_argument("--rdzv", help="host:port of the first machine; not needed under Slurm")
    parser.add_argument("--node-rank", type=int, default=0, help="number of this machine, from 0")
    words = list(sys.argv[1:] if argv is None else argv)
    if "--" not in words:
        raise UsageError("the arguments of sv.bin.train must follow, after --")
    at = words.index("--")
    args = parser.parse_args(words[:at])
    if args.ngpu:
        check_gpus(args.ngpu)
    meeting = find_meeting(os.environ, args.nnodes, args.rdzv, args.node_rank)
    if args.rdzv and meeting.node == 0 and args.nnodes > 1:
        announce(args.nnodes)
    command = ["-m", "sv.bin.train", "--ngpu", str(args.ngpu), *words[at + 1 :]]
    status, message = run_processes(command, args.nproc, meeting)
    if message:
        print(f"sv.bin.train: {message}", file=sys.stderr)
    return status


def announce(count: int) -> None:
    """Say how to start the other machines, and tell the meter that their energy is to come."""
    labels = [f"train.node{number}" for number in range(1, count)]
    nodes.expect(os.environ, labels)
    folder = os.environ.get(nodes.VARIABLE)
    for number, label in enumerate(labels, start=1):
        meter = f"{nodes.VARIABLE}={folder} python3 -m sv.bin.meter --node {label} -- "
        print(
            f"waiting for machine {number}; on it: {meter if folder else ''}"
            f"steps/train_xvector.sh ... --node-rank {number} ...",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(run("sv.bin.train", main))
