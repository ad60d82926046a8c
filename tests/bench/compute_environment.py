#!/usr/bin/env python3
"""What steps/compute_environment.sh is worth: training steps with and without its settings.

Usage: python3 tests/bench/compute_environment.py [ROUNDS]

Baseline: the plain environment of the same process (OpenMP spinning for ever, glibc's malloc as
it comes). Each figure is the median over interleaved rounds; "busy" has another process on each
core.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"}
SETTINGS = {
    "plain": {},
    "malloc (ours)": MALLOC,
    "malloc, spin 20000": {**MALLOC, "GOMP_SPINCOUNT": "20000"},
    "malloc, passive": {**MALLOC, "OMP_WAIT_POLICY": "PASSIVE"},
}
# One process, one network, crops/s over eight steps after two of warm-up.
STEPS = """
import sys, time, torch
from sv.model_name import parse_model_name
from sv.nnet.xvector import XVector
from sv.nnet.margin import AdditiveAngularMargin
torch.set_num_threads(int(sys.argv[1]))
net = XVector(parse_model_name("resnet18_w0.125"), 41, 128)
head = AdditiveAngularMargin(128, 100, 30.0)
optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.01, momentum=0.9)
x, y = torch.randn(32, 150, 41), torch.arange(32)
for step in range(10):
    if step == 2:
        started = time.monotonic()
    optimizer.zero_grad()
    head(net(x), y, 0.2)[0].backward()
    optimizer.step()
print(8 * 32 / (time.monotonic() - started))
"""


def measure(extra: dict[str, str]) -> float:
    """Crops a second in a fresh process with these variables."""
    cores = len(os.sched_getaffinity(0))
    ours = ("GLIBC_TUNABLES", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    clean = {k: v for k, v in os.environ.items() if k not in ours}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(cores)],
        env={**clean, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(cores), **extra},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


def main() -> None:
    """Measure on the quiet and on the busy machine and print the ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for load in ("quiet", "busy"):
        burners = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(len(os.sched_getaffinity(0)) if load == "busy" else 0)
        ]
        try:
            figures: dict[str, list[float]] = {name: [] for name in SETTINGS}
            for _ in range(rounds):
                for name, extra in SETTINGS.items():
                    figures[name].append(measure(extra))
        finally:
            for burner in burners:
                burner.kill()
        plain = statistics.median(figures["plain"])
        for name, values in figures.items():
            median = statistics.median(values)
            spread = f"({min(values):.0f}-{max(values):.0f})"
            ratio = f"{median / plain:.2f} x plain"
            print(f"{load:5}  {name:28} {median:6.1f} crops/s {spread:10} {ratio}")


if __name__ == "__main__":
    main()
