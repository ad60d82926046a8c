"""Training steps by several processes: ``step_processes.py FOLDER PROCESSES:STEPS:MODE...``.

The processes of each case are forked, so that torch is imported once. What process R computed is in
``<processes>.<R>.pt``: losses, rows, running statistics after the first and the last step, and, of
the first process, the collectives of a step.
"""

import contextlib
import os
import socket
import sys
from pathlib import Path

import torch
import torch._dynamo  # as DistributedDataParallel does, in each process
from torch.profiler import profile

from sv.data.loader import find_share
from sv.model_name import NetworkConfig
from sv.nnet.margin import MarginHead
from sv.nnet.recompute import set_checkpointing
from sv.nnet.xvector import build_network
from sv.train.config import OptimizerConfig
from sv.train.device import CPU, RUN_ID
from sv.train.group import Group
from sv.train.step import TrainStep

FEATURES, DIM, SPEAKERS, RATE = 21, 16, 12, 1e-3
BATCH, MICRO_BATCH = 32, 8


class Config:
    """The part of a training config that a step reads."""

    precision, compile = "fp32", False
    optimizer = OptimizerConfig(
        batch_size=BATCH, micro_batch_size=MICRO_BATCH, momentum=0.9, weight_decay=1e-4,
        initial_lr=RATE, peak_lr=RATE, warmup_epochs=0, decay_epochs=(), decay_factor=1,
    )  # fmt: skip


def train(group: Group, steps: int, mode: str) -> dict:
    torch.manual_seed(1)
    network = NetworkConfig(base_channels=(4, 4, 4, 4))
    net = build_network("resnet18_d_1111", FEATURES, DIM, network)
    step = TrainStep(net.train(), MarginHead(DIM, SPEAKERS, 8.0), Config, CPU, group)
    set_checkpointing(net, mode)
    rows = find_share(BATCH, MICRO_BATCH, group.rank, group.size).rows
    found: dict = {"losses": [], "rows": list(rows)}
    for number in range(steps):
        crops, speakers = torch.randn(BATCH, 30, FEATURES), torch.randint(SPEAKERS, (BATCH,))
        with profile() if number == 2 and group.is_first else contextlib.nullcontext() as profiled:
            loss, _ = step.compute_gradients(
                crops[rows.start : rows.stop], speakers[rows.start : rows.stop],
                margin=0.1, micro_batch_size=MICRO_BATCH, batch_size=BATCH,
            )  # fmt: skip
        if profiled:
            found["collectives"] = [e.name for e in profiled.events() if "gloo:" in e.name]
        found["losses"].append(group.total(loss.clone()).item())
        step.update(RATE)
        if number in (0, steps - 1):
            found[number] = {key: buffer.clone() for key, buffer in net.named_buffers()}
    return found


def main() -> None:
    folder, *cases = sys.argv[1:]
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    for case in cases:
        size, steps, mode = case.split(":")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(probe.getsockname()[1])
        started = []
        for rank in range(int(size)):
            if pid := os.fork():
                started.append(pid)
                continue
            if size != "1":
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": size, RUN_ID: case}
            group = Group(os.environ)
            with group.joined():
                torch.save(train(group, int(steps), mode), Path(folder, f"{size}.{rank}.pt"))
            os._exit(0)
        if any([os.waitpid(pid, 0)[1] for pid in started]):
            raise SystemExit(f"case {case}: a process has failed")


if __name__ == "__main__":
    main()
