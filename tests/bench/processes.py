#!/usr/bin/env python3
"""Training steps of several processes with a thread each against one process with two threads.

Usage: python3 tests/bench/processes.py [--rounds N] [--model NAME] [--batch B] [--micro-batch M]

350 frames of 81 features, SGD and the margin head over 5,994 speakers, in the environment of
steps/compute_environment.sh. Baseline: one process with two threads. "no group" is the same step
written without sv/train/group.py: what one process pays for there being several. The ways are
processes of their own that take turns, a step each; medians are compared. All must give the same
loss to 1e-4. Then the first process of each is profiled for some steps: how many collectives a step
has, and the time that one is under way, waiting for the other processes included, as a share of the
step (median).
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time

import torch
from timing import ENVIRONMENTS, measure_rates, print_rates
from torch.profiler import profile

from sv.data.loader import find_share
from sv.model_name import STUDY_NETWORK
from sv.nnet.margin import MarginHead
from sv.nnet.xvector import build_network
from sv.train.config import OptimizerConfig
from sv.train.group import Group
from sv.train.step import TrainStep, build_optimizer
from sv.train.trainer import AsyncMetrics

FRAMES, FEATURES, SPEAKERS, RATE = 350, 81, 5994, 1e-4
CPU = torch.device("cpu")
BASELINE = "1 process, 2 threads"
# Name: processes, threads of each, whether the step knows a group.
WAYS = {
    BASELINE: (1, 2, True),
    "no group, 2 threads": (1, 2, False),
    "2 processes, 1 thread": (2, 1, True),
    "4 processes, 1 thread": (4, 1, True),
    "1 process, 1 thread": (1, 1, True),
}


class Steps:
    """A network in training; `step` does one step on made-up crops."""

    def __init__(self, options: argparse.Namespace, group) -> None:
        torch.manual_seed(0)
        self.net = build_network(options.model, FEATURES, 256, STUDY_NETWORK)
        self.head = MarginHead(256, SPEAKERS, 30.0)
        self.optimizer_config = OptimizerConfig(
            batch_size=options.batch, micro_batch_size=options.micro_batch, momentum=0.9,
            weight_decay=1e-4, initial_lr=RATE, peak_lr=RATE, warmup_epochs=0, decay_epochs=(),
            decay_factor=1,
        )  # fmt: skip
        self.batch, self.micro_batch = options.batch, options.micro_batch
        self.crops = torch.randn(options.batch, FRAMES, FEATURES)
        self.crops += 2 * torch.randn(options.batch, 1, FEATURES)
        self.speakers = torch.randint(SPEAKERS, (options.batch,))
        self.net.train()
        self.group = group
        if group is None:
            self.optimizer = build_optimizer(self.net, self.head, self.optimizer_config)
            return
        rows = find_share(self.batch, self.micro_batch, group.rank, group.size).rows
        self.crops, self.speakers = self.crops[rows], self.speakers[rows]

        class Config:  # the part of a training config that a step reads
            precision, compile, optimizer = "fp32", False, self.optimizer_config

        self.train_step = TrainStep(self.net, self.head, Config, CPU, group)
        self.metrics = AsyncMetrics(CPU, group)

    def step(self) -> float:
        """Do one step as the trainer does; return its loss."""
        if self.group is None:
            return self._step_without()
        loss, correct = self.train_step.compute_gradients(
            self.crops,
            self.speakers,
            margin=0.1,
            micro_batch_size=self.micro_batch,
            batch_size=self.batch,
        )
        self.metrics.put(0, loss, correct, crops=self.batch, waited_s=0.0)
        (result,) = self.metrics.take()
        self.train_step.update(RATE)
        return result.loss

    def profile_step(self) -> tuple[int, float]:
        """Do one step; return its number of collectives and the share of time in them."""
        started = time.perf_counter()
        with profile() as profiled:
            self.step()
            step_us = 1e6 * (time.perf_counter() - started)
        found = [event for event in profiled.events() if event.name.startswith("gloo:")]
        return len(found), sum(event.time_range.elapsed_us() for event in found) / step_us

    def _step_without(self) -> float:
        self.optimizer.zero_grad()
        parts, total = self.batch // self.micro_batch, 0.0
        for x, y in zip(self.crops.chunk(parts), self.speakers.chunk(parts), strict=True):
            loss, _ = self.head(self.net(x), y, 0.1)
            (loss / parts).backward()
            total += loss.detach() / parts
        self.optimizer.step()
        return float(total)


def serve(options: argparse.Namespace) -> None:
    """Be one process of a way: a step for each line of input, which names the method."""
    _, threads, has_group = WAYS[options.serve]
    torch.set_num_threads(threads)
    group = Group(os.environ, CPU)
    with group.joined() if has_group else contextlib.nullcontext():
        steps = Steps(options, group if has_group else None)
        for line in sys.stdin:
            print(json.dumps(getattr(steps, line.strip())()), flush=True)


def start(way: str) -> list[subprocess.Popen]:
    """Start the processes of a way."""
    count, threads, _ = WAYS[way]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(count):
        places = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "bench",
                  "GLOO_SOCKET_IFNAME": "lo"} if count > 1 else {}  # fmt: skip
        extra = {"OMP_NUM_THREADS": threads, **places, **ENVIRONMENTS[" + keep memory"]}
        started.append(
            subprocess.Popen(
                [sys.executable, sys.argv[0], "--serve", way, *sys.argv[1:]],
                env=os.environ | {key: str(value) for key, value in extra.items()},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    return started


def ask(processes: list[subprocess.Popen], method: str = "step"):
    """Let a way do a step; give what the first process returns, its loss."""
    for process in processes:
        process.stdin.write(f"{method}\n")
        process.stdin.flush()
    answers = [process.stdout.readline() for process in processes]
    if not all(answers):
        raise SystemExit("a process of the benchmark has failed")
    return json.loads(answers[0])


def main() -> None:
    """Print crops/s of every way against the baseline, and what it exchanges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="resnet18_w0.25")
    parser.add_argument("--batch", type=int, default=16, help="crops of a step")
    parser.add_argument("--micro-batch", type=int, default=4, help="crops at once")
    parser.add_argument("--serve", default="", help="used by the program itself")
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    running = {way: start(way) for way in WAYS}
    losses = {way: ask(processes) for way, processes in running.items()}
    for way, loss in losses.items():
        if abs(loss / losses[BASELINE] - 1) > 1e-4:
            raise SystemExit(f"{way}: loss {loss}, {BASELINE}: {losses[BASELINE]}")

    def work(processes: list[subprocess.Popen]) -> int:
        ask(processes)
        return options.batch

    rates = measure_rates(
        {way: lambda processes=processes: work(processes) for way, processes in running.items()},
        options.rounds,
    )
    exchanges = {
        way: [ask(processes, "profile_step") for _ in range(options.rounds)]
        for way, processes in running.items()
        if WAYS[way][0] > 1
    }
    everything = [process for processes in running.values() for process in processes]
    for process in everything:  # all before any: the two of a way end together
        process.stdin.close()
    for process in everything:
        process.wait()
    print(f"{options.model}, batch {options.batch}, micro-batch {options.micro_batch}")
    print_rates(rates, "crops", BASELINE)
    for way, found in exchanges.items():
        counts, shares = zip(*found, strict=True)
        share = statistics.median(shares)
        print(f"{way}: {counts[-1]} collectives a step, {100 * share:.1f} % of its time")


if __name__ == "__main__":
    main()
