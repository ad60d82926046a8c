"""Interleaved timing: every way runs once a round, so that a busy moment hits all of them."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# With and without what steps/compute_environment.sh sets.
ENVIRONMENTS = {
    "": {},
    " + keep memory": {
        "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    },
}
# The benchmarks are started as files; the recipe's packages lie above them.
sys.path.insert(0, str(ROOT))


def measure_rates(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each way once to warm up, then once a round.

    Args:
        ways: Name to a function that works and returns how many items it did.
        rounds: How often.

    Returns:
        Items a second of each way, one value a round.
    """
    for work in ways.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            started = time.perf_counter()
            count = work()
            rates[name].append(count / (time.perf_counter() - started))
    return rates


def print_rates(rates: Mapping[str, list[float]], unit: str, *baselines: str) -> None:
    """Print median, range and the ratio of medians to each baseline."""
    for name, values in rates.items():
        median = statistics.median(values)
        ratios = [f"{median / statistics.median(rates[b]):6.2f} x {b}" for b in baselines]
        print(
            f"{name:36} {median:10.1f} {unit}/s ({min(values):.1f}-{max(values):.1f})  "
            + "  ".join(ratios),
            flush=True,
        )


def measure_in_environments(threads: int, rounds: int) -> dict[str, list[float]]:
    """Run this program once in each environment, with ``--serve true``; their ways take turns.

    Returns:
        Items a second of each way of each environment; the baseline's is the first.
    """
    clean = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    ways: dict[str, Callable[[], float]] = {}
    children = []
    for environment, extra in ENVIRONMENTS.items():
        child = subprocess.Popen(
            [sys.executable, sys.argv[0], "--serve", "true", *sys.argv[1:]],
            env={**clean, "OMP_NUM_THREADS": str(threads), **extra},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        children.append(child)
        names = child.stdout.readline()
        if not names:
            raise SystemExit(child.wait())
        for name in json.loads(names):

            def ask(name: str = name, child: subprocess.Popen[str] = child) -> float:
                child.stdin.write(f"{name}\n")
                child.stdin.flush()
                return float(child.stdout.readline())

            ways[name + environment] = ask
    rates = measure_rates(ways, rounds)
    for child in children:
        child.stdin.close()
        child.wait()
    return rates


def serve(ways: Mapping[str, Callable[[], float]]) -> None:
    """Be a child of `measure_in_environments`: run the way that each line of input names."""
    print(json.dumps(list(ways)), flush=True)
    for line in sys.stdin:
        print(ways[line.strip()](), flush=True)
