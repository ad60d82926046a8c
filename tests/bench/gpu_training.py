#!/usr/bin/env python3
"""The recipe's training steps of all fifteen systems: crops/s, J per crop, where the time goes.

Usage: python3 tests/bench/gpu_training.py [--models "NAME..."] [--precision fp16] [--steps N]
         [--batch-size B] [--micro-batch-size M] [--checkpointing MODE] [--compile true]
 e.g.: python3 tests/bench/gpu_training.py --device cpu --models resnet18_w0.125

What a training runs: batches of the loader from archives on disk, copies to the card,
micro-batches, checkpointing, scaled loss, update, results a step late; settings of
egs/voxceleb/conf/train.toml, those above and a CPU's small sizes excepted. Energy is that of the
visible boards' NVML counters over the steps, of everything on the board; take --steps so that a
line lasts some seconds. Shares of the time are of one more step under torch's profiler:
convolutions and other products, elementwise work (and all else), transposes and copies; waiting is
when the device did nothing (on a CPU: waited for data).

The roofline is what the step would take if every operation ran at the rate of a large product or of
a large copy, whichever takes longer, both measured here; operations and bytes are counted on fake
tensors, each operand read once, without the update and what checkpointing computes again. Goal: 60
% of it for resnet50_d in half precision. Prints a Markdown table for egs/voxceleb/RESULTS.md.
"""

import argparse
import itertools
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from loader import FEATURES, batches, write_set
from timing import ROOT
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sv.data.crops import CropReader
from sv.energy.sensors.nvml import NvmlReader
from sv.errors import UsageError
from sv.nnet.margin import MarginHead
from sv.nnet.recompute import MODES, set_checkpointing
from sv.train.config import FineTuningConfig, TrainConfig, read_train_config
from sv.train.device import AUTOCAST, is_out_of_memory, set_precision
from sv.train.group import Group
from sv.train.step import TrainStep
from sv.train.store import build_head, build_network
from sv.train.trainer import AsyncMetrics, prefetch

SPEAKERS = 5994
WARM_UP = {"cpu": 1, "cuda": 3}  # steps
SIZES = {"cpu": (4, 2, 2), "cuda": (None, None, 20)}  # batch, micro-batch (None: config's), steps
PRODUCT, COPY = {"cpu": 1024, "cuda": 8192}, {"cpu": 2**24, "cuda": 2**28}
# In the names of CUDA kernels and of CPU operations.
KINDS = {
    "transposes": r"nchwToNhwc|nhwcToNchw|transpose|permute|reorder|copy|memcpy|memset|contiguous",
    "conv": r"conv|gemm|xmma|cutlass|wgrad|dgrad|fprop|winograd|sm\d\d_|aten::(add|b)?mm",
}
HEAD = "| system | precision | crops/s | J per crop | conv | elementwise | transposes | waiting | roofline crops/s | share of it | GB |"  # noqa: E501


@dataclass(frozen=True)
class Rates:
    """Measured rates of the device: operations a second of a product, bytes a second of a copy."""

    product: float
    copy: float


class Boards:
    """Energy of the visible boards since a moment, if their drivers count it."""

    def __init__(self, device: torch.device) -> None:
        self._reader = None
        if device.type == "cuda":
            pci_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
            self._reader = NvmlReader(os.environ.get("CUDA_VISIBLE_DEVICES"), pci_order)
            units = {channel.id: channel.unit for channel in self._reader.channels}
            self._counters = [name for name, unit in units.items() if unit == "mJ"]

    def read_j(self) -> float | None:
        """Return the sum of the counters, or None if there is none."""
        if self._reader is None or not self._counters:
            return None
        values = self._reader.read()
        readings = [values[name] for name in self._counters]
        return None if None in readings else sum(readings) / 1000


def synchronize(device: torch.device) -> None:
    """Wait for the card."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_rates(precision: str, device: torch.device) -> Rates:
    """Measure a large product in the precision, and a large copy."""
    set_precision(precision, device)
    size = PRODUCT[device.type]
    dtype = AUTOCAST.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source, target = (torch.zeros(COPY[device.type], device=device) for _ in range(2))

    def time_s(work) -> float:
        seconds = []
        for _ in range(10):
            synchronize(device)
            started = time.perf_counter()
            work()
            synchronize(device)
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    copied = 2 * source.numel() * source.element_size()
    return Rates(2 * size**3 / time_s(lambda: a @ b), copied / time_s(lambda: target.copy_(source)))


class Roofline(TorchDispatchMode):
    """Adds up the seconds that the operations of a step take at least."""

    def __init__(self, rates: Rates) -> None:
        super().__init__()
        self.rates, self.seconds = rates, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = func(*args, **(kwargs or {}))
        if any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            return out  # a view
        count = flop_registry.get(func.overloadpacket)
        operations = count(*args, **(kwargs or {}), out_val=out) if count else 0
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        moved = sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)
        self.seconds += max(operations / self.rates.product, moved / self.rates.copy)
        return out


def compute_roofline(name: str, config: TrainConfig, rates: Rates) -> float:
    """Return the crops/s of a micro-batch's forward and backward pass at these rates."""
    crops, half = config.optimizer.micro_batch_size, AUTOCAST.get(config.precision)
    with FakeTensorMode():
        net, head = build(name, config)
        x = torch.empty(crops, config.crop_frames, FEATURES)
        y = torch.zeros(crops, dtype=torch.int64)
        with Roofline(rates) as roofline:
            with torch.autocast("cpu", half, enabled=half is not None):
                loss, _ = head(net.train()(x), y, 0.1)
            loss.backward()
    return crops / roofline.seconds


def build(name: str, config: TrainConfig) -> tuple[nn.Module, MarginHead]:
    """Build network and head as a training does."""
    return build_network(name, config, FEATURES), build_head(config, SPEAKERS)


class Training:
    """One system that trains from a loader, step by step."""

    def __init__(
        self, name: str, config: TrainConfig, reader: CropReader, device: torch.device
    ) -> None:
        net, head = (module.to(device) for module in build(name, config))
        self.config, self.device = config, device
        set_checkpointing(net, config.checkpointing)
        self.step = TrainStep(net.train(), head, config, device, Group())
        self.metrics, self.wait_s, self.steps = AsyncMetrics(device, Group()), 0.0, 0
        size = config.optimizer.batch_size
        epochs = (batches(reader, epoch, size) for epoch in itertools.count())
        self.batches = prefetch(itertools.chain.from_iterable(epochs), device)
        torch.backends.cudnn.benchmark = True  # as sv.train.trainer sets it

    def run(self, steps: int) -> None:
        """Do steps as `sv.train.trainer.Trainer` does them, and wait for the device."""
        for _ in range(steps):
            asked = time.monotonic()
            crops, speakers, _ = next(self.batches)
            waited_s = time.monotonic() - asked
            self.metrics.begin()
            loss, correct = self.step.compute_gradients(
                crops, speakers, margin=0.1,
                micro_batch_size=self.config.optimizer.micro_batch_size,
            )  # fmt: skip
            self.metrics.put(self.steps, loss, correct, crops=len(speakers), waited_s=waited_s)
            self._note(everything=False)
            self.step.update(1e-4)
            self.steps += 1
        self._note(everything=True)
        synchronize(self.device)

    def _note(self, *, everything: bool) -> None:
        self.wait_s += sum(result.wait_s for result in self.metrics.take(everything=everything))


def measure_shares(training: Training) -> dict[str, float]:
    """Return the shares of a step's time by kind of work; what is left of 1 the device waited."""
    on_gpu = training.device.type == "cuda"
    waited_s = training.wait_s
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        training.run(1)
        wall_s = time.perf_counter() - started
    seconds = dict.fromkeys((*KINDS, "elementwise"), 0.0)
    for row in profiler.key_averages():
        if on_gpu:
            is_work = str(row.device_type).endswith("CUDA") and not row.is_user_annotation
            spent_us = row.self_device_time_total if is_work else 0.0
        else:
            spent_us = row.self_cpu_time_total
        found = (kind for kind, names in KINDS.items() if re.search(names, row.key, re.I))
        seconds[next(found, "elementwise")] += spent_us / 1e6
    if on_gpu:
        return {kind: spent_s / wall_s for kind, spent_s in seconds.items()}
    work_s = sum(seconds.values())
    busy = max(0.0, 1 - (training.wait_s - waited_s) / wall_s)
    return {kind: busy * spent_s / work_s for kind, spent_s in seconds.items()}


def measure(
    name: str, config: TrainConfig, reader: CropReader, steps: int, device: torch.device
) -> Iterator[str]:
    """Yield the measured cells of a system's line: from crops/s to waiting, and GB."""
    training = Training(name, config, reader, device)
    training.run(WARM_UP[device.type])
    boards = Boards(device)
    started, before = time.perf_counter(), boards.read_j()
    training.run(steps)
    seconds, after = time.perf_counter() - started, boards.read_j()
    crops = steps * config.optimizer.batch_size
    known = before is not None and after is not None
    yield f"{crops / seconds:.1f}"
    yield f"{(after - before) / crops:.3f}" if known else "-"
    shares = measure_shares(training)
    for kind in ("conv", "elementwise", "transposes"):
        yield f"{100 * shares[kind]:.0f} %"
    yield f"{100 * max(0.0, 1 - sum(shares.values())):.0f} %"
    on_gpu = device.type == "cuda"
    yield f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f}" if on_gpu else "-"


def main() -> None:
    """Print the table, line by line."""
    models = (ROOT / "egs/voxceleb/conf/models.txt").read_text().splitlines()
    config = read_train_config(ROOT / "egs/voxceleb/conf/train.toml")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(cuda where it is, else cpu)")
    parser.add_argument("--models", default=" ".join(m for m in models if m and m[0] != "#"))
    parser.add_argument("--precision", help="(the recipe's on a GPU, fp32 on a CPU)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--steps", type=int, default=0, help="(20, on a CPU 2)")
    parser.add_argument("--batch-size", type=int, default=0, help="(the recipe's, on a CPU 4)")
    parser.add_argument("--micro-batch-size", type=int, default=0, help="(likewise, on a CPU 2)")
    parser.add_argument("--checkpointing", choices=MODES, default=config.checkpointing)
    parser.add_argument("--compile", choices=("true", "false"), default=str(config.compile).lower())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    batch, micro, steps = SIZES[device.type]
    optimizer = config.optimizer
    optimizer = replace(
        optimizer,
        batch_size=options.batch_size or batch or optimizer.batch_size,
        micro_batch_size=options.micro_batch_size or micro or optimizer.micro_batch_size,
    )
    precision = options.precision or (config.precision if device.type == "cuda" else "fp32")
    fine_tuning = FineTuningConfig()  # none: its micro-batch need not fit these
    config = replace(
        config, optimizer=optimizer, precision=precision, fine_tuning=fine_tuning,
        checkpointing=options.checkpointing, compile=options.compile == "true",
    )  # fmt: skip
    try:
        rates = measure_rates(precision, device)
    except UsageError as error:
        raise SystemExit(str(error)) from error
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}, {precision}: ", end="")
    print(f"product {rates.product / 1e12:.2f} TFLOP/s, copy {rates.copy / 1e9:.1f} GB/s; ", end="")
    print(f"batches of {optimizer.batch_size} by {optimizer.micro_batch_size}; ", end="")
    print(f"checkpointing {config.checkpointing}{', compiled' * config.compile}")
    print(f"\n{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        index, _ = write_set(Path(folder))
        reader = CropReader(index)
        for name in options.models.split():
            roofline = compute_roofline(name, config, rates)
            try:
                cells = list(measure(name, config, reader, options.steps or steps, device))
                share = f"{100 * float(cells[0]) / roofline:.0f} %"
                cells = [*cells[:-1], f"{roofline:.1f}", share, cells[-1]]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                cells = ["out of memory", *["-"] * 5, f"{roofline:.1f}", "-", "-"]
            print(f"| {' | '.join([name, precision, *cells])} |", flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
        reader.close()


if __name__ == "__main__":
    main()
