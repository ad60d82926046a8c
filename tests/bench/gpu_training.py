#!/usr/bin/env python3
"""Training steps of all sixteen systems on a GPU: crops/s, J per crop, share of the card's peak.

Usage: python3 tests/bench/gpu_training.py [--models "NAME..."] [--precisions "fp32 tf32 bf16"]
         [--formats "contiguous_format channels_last"] [--compile "false true"] [--steps N]
         [--batch B]
 e.g.: python3 tests/bench/gpu_training.py --device cpu --models resnet18_w0.125 --steps 2 \\
         --precisions fp32 --batch 4

350 frames of 81 features, SGD and the margin head over 5,994 speakers, data already on the card.
Without --batch the largest power of two up to 512 that fits. Baseline of the ratio: fp32,
contiguous, not compiled, of the same network. Energy is that of the boards' NVML counters over the
steps, of everything on the board; take --steps so that a line lasts some seconds. The peak is that
of a large matrix product in the same precision, measured here; a training step is counted as three
forward passes of two operations a multiply-accumulate. Prints a Markdown table for
egs/voxceleb/RESULTS.md.
"""

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from timing import ROOT

from sv.energy.sensors.nvml import NvmlReader
from sv.nnet.architectures import build_embedding_network, compute_cost
from sv.nnet.margin import MarginHead
from sv.train.device import autocast, set_precision

FRAMES, FEATURES, DIM, SPEAKERS = 350, 81, 256, 5994
LARGEST_BATCH = 512  # the study's global batch
OURS = "resnet50_d_2882"  # the sixteenth system, beside those of conf/models.txt
WARM_UP = 3
PEAK_SIZE = {"cpu": 1024, "cuda": 8192}
HEAD = "| system | GMAC | precision | format | compiled | batch | crops/s | ratio | J per crop | J per GMAC | share of peak | GB |"  # noqa: E501


@dataclass(frozen=True)
class Way:
    """How one network is trained."""

    precision: str
    format: str
    compiled: bool


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
        """Give the sum of the counters, or None if there is none."""
        if self._reader is None or not self._counters:
            return None
        values = self._reader.read()
        readings = [values[name] for name in self._counters]
        return None if None in readings else sum(readings) / 1000


def synchronize(device: torch.device) -> None:
    """Wait for the card."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_peak(precision: str, device: torch.device) -> float:
    """Give operations a second of a large matrix product."""
    size = PEAK_SIZE[device.type]
    set_precision(precision, device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        synchronize(device)
        started = time.perf_counter()
        a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


@contextlib.contextmanager
def emptied(device: torch.device) -> Iterator[None]:
    """Give the card's memory back at the end."""
    try:
        yield
    finally:
        torch._dynamo.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)


def train(
    name: str, way: Way, batch: int, steps: int, device: torch.device
) -> tuple[float, float | None, float | None]:
    """Give crops/s, J a crop and GB of the card's memory at most."""
    torch.manual_seed(0)
    set_precision(way.precision, device)
    net = build_embedding_network(name, FEATURES, DIM).to(device)
    net = net.to(memory_format=getattr(torch, way.format))
    head = MarginHead(DIM, SPEAKERS, 30.0).to(device)
    parameters = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)
    forward = torch.compile(net) if way.compiled else net
    crops = torch.randn(batch, FRAMES, FEATURES, device=device)
    speakers = torch.randint(SPEAKERS, (batch,), device=device)
    boards, started, before = Boards(device), 0.0, None
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            synchronize(device)
            started, before = time.perf_counter(), boards.read_j()
        optimizer.zero_grad()
        with autocast(way.precision, device):
            loss, _ = head(forward(crops), speakers, 0.1)
        loss.backward()
        optimizer.step()
    synchronize(device)
    seconds, after = time.perf_counter() - started, boards.read_j()
    crop_j = None if before is None or after is None else (after - before) / (steps * batch)
    on_card = device.type == "cuda"
    memory_gb = torch.cuda.max_memory_allocated(device) / 1e9 if on_card else None
    return steps * batch / seconds, crop_j, memory_gb


def fill(name: str, way: Way, device: torch.device) -> int:
    """Find the largest power of two that fits."""
    batch = LARGEST_BATCH
    while batch > 1:
        with emptied(device):
            try:
                train(name, way, batch, 1, device)
                return batch
            except torch.OutOfMemoryError:
                batch //= 2
    raise SystemExit(f"{name}: not even one crop fits")


def cell(value: float | None, form: str) -> str:
    """Format a figure; a dash if it is not known."""
    return "-" if value is None else format(value, form)


def main() -> None:
    """Print the table, line by line."""
    models = (ROOT / "egs/voxceleb/conf/models.txt").read_text().splitlines()
    known = [line for line in models if line and not line.startswith("#")] + [OURS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--models", default=" ".join(known))
    parser.add_argument("--precisions", default="fp32 tf32 bf16")
    parser.add_argument("--formats", default="contiguous_format channels_last")
    parser.add_argument("--compile", default="false true")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=0, help="0: what fills the card")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --device cpu tests the program, not a machine")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    precisions = options.precisions.split()
    peaks = {precision: measure_peak(precision, device) for precision in precisions}
    print(f"{card}, torch {torch.__version__}; peak of a matrix product: ", end="")
    print(", ".join(f"{name} {peak / 1e12:.1f} TFLOP/s" for name, peak in peaks.items()))
    print(f"\n{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}", flush=True)
    for name in options.models.split():
        _, gmac = compute_cost(name, FEATURES, FRAMES, DIM)
        plain = None
        ways = product(precisions, options.formats.split(), options.compile.split())
        for way in (Way(p, f, compiled == "true") for p, f, compiled in ways):
            batch = options.batch or fill(name, way, device)
            with emptied(device):
                rate, crop_j, memory_gb = train(name, way, batch, options.steps, device)
            plain = plain or rate
            share = 6e9 * gmac * rate / peaks[way.precision]
            figures = [
                name, f"{gmac:.2f}", way.precision, way.format, "yes" if way.compiled else "no",
                str(batch), f"{rate:.1f}", f"{rate / plain:.2f}", cell(crop_j, ".3f"),
                cell(crop_j and crop_j / gmac, ".4f"), f"{100 * share:.0f} %",
                cell(memory_gb, ".1f"),
            ]  # fmt: skip
            print(f"| {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
