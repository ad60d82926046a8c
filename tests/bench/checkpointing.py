#!/usr/bin/env python3
"""Time and peak memory of a training step on the CPU, by checkpointing mode and compilation.

Usage: python3 tests/bench/checkpointing.py [--models "NAME..."] [--compile "false true"]
         [--crops N] [--frames N] [--rounds N] [--threads N]

Forward and backward pass over a micro-batch in float32, with the margin head over 5,994 speakers.
The time is the processor time of a step, which others on the machine change little: the median of
the rounds, in which the modes take turns. The peak is what torch's allocator gave during one more
step, by its profiler, with weights and momentum; next to it what sv.bin.model_info computes. Prints
a Markdown table.
"""

import argparse
import statistics
import time

import torch
from timing import ROOT  # noqa: F401 - makes sv importable
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sv.nnet.architectures import build_embedding_network
from sv.nnet.margin import MarginHead
from sv.nnet.memory import StepModel
from sv.nnet.recompute import MODES, set_checkpointing

FEATURES, DIM, SPEAKERS = 81, 256, 5994


def build(name: str) -> tuple[nn.Module, nn.Module]:
    """Build network and head."""
    return build_embedding_network(name, FEATURES, DIM), MarginHead(DIM, SPEAKERS, 30.0)


class Step:
    """The gradients of one micro-batch, in one mode."""

    def __init__(self, name: str, mode: str, crops: int, frames: int, compiled: bool) -> None:
        torch.manual_seed(0)
        self.net, self.head = build(name)
        set_checkpointing(self.net, mode)
        if compiled:
            self.net.compile()
        self.crops, self.speakers = torch.randn(crops, frames, FEATURES), torch.arange(crops)

    def parameters(self) -> list[nn.Parameter]:
        """List all weights."""
        return [*self.net.parameters(), *self.head.parameters()]

    def run(self) -> float:
        """Compute the gradients; return the seconds."""
        for parameter in self.parameters():
            parameter.grad = None
        started = time.process_time()
        loss, _ = self.head(self.net(self.crops), self.speakers, 0.1)
        loss.backward()
        return time.process_time() - started

    def measure_peak(self) -> float:
        """Return the bytes at most of a step, with weights and momentum."""
        for parameter in self.parameters():
            parameter.grad = None
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            self.run()
        events = found.profiler.kineto_results.events()
        sizes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
        alive = peak = 0
        for _, size in sorted(sizes, key=lambda event: event[0]):
            alive += size
            peak = max(peak, alive)
        return peak + 2 * sum(p.nbytes for p in self.parameters())


def main() -> None:
    """Print the table, a model at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="resnet50_d resnet200_d")
    parser.add_argument("--compile", default="false true")
    parser.add_argument("--crops", type=int, default=2)
    parser.add_argument("--frames", type=int, default=350)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.crops} crops of {options.frames} frames, fp32")
    print("\n| system | compiled | checkpointing | CPU s a step | ratio | peak GB | computed GB |")
    print("|---|---|---|---:|---:|---:|---:|", flush=True)
    for name in options.models.split():
        model = StepModel(lambda name=name: build(name), FEATURES)
        for compiled in options.compile.split():
            steps = {
                mode: Step(name, mode, options.crops, options.frames, compiled == "true")
                for mode in MODES
            }
            for step in steps.values():
                step.run()
            times = {mode: [] for mode in MODES}
            for _ in range(options.rounds):
                for mode, step in steps.items():
                    times[mode].append(step.run())
            none = statistics.median(times[MODES[0]])
            for mode, step in steps.items():
                seconds = statistics.median(times[mode])
                memory = model.measure(options.frames, options.crops, checkpointing=mode)
                computed = f"{memory.total(options.crops) / 1e9:.2f}"
                print(
                    f"| {name} | {compiled} | {mode} | {seconds:.2f} | {seconds / none:.2f} | "
                    f"{step.measure_peak() / 1e9:.2f} | {computed} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
