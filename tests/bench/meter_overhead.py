#!/usr/bin/env python3
"""What the meter costs: time added to a stage, and the share of a core that it uses while it waits.

Usage: python3 tests/bench/meter_overhead.py [ROUNDS] [SECONDS]

Baseline: the same command without a meter, run in turn with the metered one; medians of ROUNDS.
The share is the meter's own processor time over SECONDS of a sleeping command at 1 Hz, with a fake
RAPL tree of two packages; "busy machine" has 1000 more processes on it.
Targets: under 150 ms, under 0.5 %.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTLED_S = 5.0  # by then the meter's start is over
NS_PER_S = 1e9


def build_sysfs(root: Path) -> None:
    """Write a powercap tree of two packages with memory."""
    for number in range(2):
        zone = root / "class" / "powercap" / f"intel-rapl:{number}"
        for folder, name in ((zone, f"package-{number}"), (zone / f"{zone.name}:0", "dram")):
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text("262143328850\n")
            (folder / "energy_uj").write_text("1000000\n")


def build_words(folder: Path, *command: str) -> dict[str, list[str]]:
    """Return the ways to run a command: alone, below the meter, below its script."""
    options = ["--stage", "5", "--name", "bench", "--dir", str(folder / "energy")]
    options += ["--sysfs", str(folder), "--country", "FRA", "--", *command]
    return {
        "no meter": list(command),
        "sv.bin.meter": [sys.executable, "-m", "sv.bin.meter", *options],
        "utils/meter.sh": ["utils/meter.sh", *options],
    }


def get_environment() -> dict[str, str]:
    """Return what run.sh gives its stages: the environment has been looked for already."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "SV_ENVIRONMENT": sys.executable}


def measure_added_time(rounds: int) -> None:
    """Print the time of ``true`` in each way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_sysfs(folder)
        times: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            for way, words in build_words(folder, "true").items():
                for file in (folder / "energy").glob("*"):
                    file.unlink()
                started = time.perf_counter()
                subprocess.run(
                    words, cwd=ROOT, env=get_environment(), stderr=subprocess.DEVNULL, check=True
                )
                if number > 0:  # the first round warms the files up
                    times.setdefault(way, []).append(1000 * (time.perf_counter() - started))
    alone = statistics.median(times["no meter"])
    for way, values in times.items():
        median = statistics.median(values)
        print(
            f"{way:16} {median:7.1f} ms ({min(values):.1f}-{max(values):.1f})  "
            f"{median - alone:+7.1f} ms, {median / alone:6.1f} x no meter",
            flush=True,
        )


def read_cpu_s(pid: int) -> float:
    """Read the processor time of all threads of a process, in ns resolution."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / NS_PER_S


def measure_share(label: str, seconds: float, others: int) -> None:
    """Print the meter's share of a core next to a sleeping command."""
    shell = f"for i in $(seq {others}); do sleep {seconds + 60} & done; echo up; wait"
    crowd = subprocess.Popen(["bash", "-c", shell], stdout=subprocess.PIPE, start_new_session=True)
    assert crowd.stdout
    crowd.stdout.readline()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            build_sysfs(folder)
            words = build_words(folder, "sleep", f"{seconds + SETTLED_S + 1}")["sv.bin.meter"]
            meter = subprocess.Popen(
                words, cwd=ROOT, env=get_environment(), stderr=subprocess.DEVNULL
            )
            time.sleep(SETTLED_S)
            before_s, started = read_cpu_s(meter.pid), time.monotonic()
            time.sleep(seconds)
            used_s, took_s = read_cpu_s(meter.pid) - before_s, time.monotonic() - started
            meter.wait()
            journal = folder / "energy" / "05_bench.journal.jsonl"
            lines = journal.read_text().splitlines()
            sizes = [len(line) + 1 for line in lines if json.loads(line)["line"] == "sample"]
    finally:
        os.killpg(crowd.pid, 9)
        crowd.wait()
    print(
        f"{label:16} {100 * used_s / took_s:7.3f} % of a core over {took_s:.0f} s, "
        f"journal {statistics.mean(sizes):.0f} bytes a sample",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    measure_added_time(rounds)
    measure_share("quiet machine", seconds, 0)
    measure_share("busy machine", seconds, 1000)


if __name__ == "__main__":
    main()
