"""Measure the idle power of a machine, once, so that energy above idle can be told."""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from sv.energy.baseline import SCHEMA, Fields
from sv.energy.carbon.utc import format_utc
from sv.energy.counter import Accumulator, Reading
from sv.energy.host import read_boot_id
from sv.energy.sensors.channel import Reader
from sv.energy.total import MEASURED_KINDS
from sv.energy.units import s_from_us
from sv.energy.usage import read_node_cpu_us
from sv.errors import SvError
from sv.files import write_json

FILE_NAME = "baseline.json"
WINDOWS = 6  # the spread is over the means of so many parts of the time
BUSY_CPUS = 0.2  # a machine that does more than this is not idle


def measure_baseline(readers: Sequence[Reader], seconds: float, period_s: float) -> Fields:
    """Measure the mean power of every measured channel while nothing runs.

    Args:
        readers: As `sv.energy.sensors.readers.open_readers` gives them.
        seconds: How long.
        period_s: Time between two samples.

    Returns:
        What baseline.json holds.

    Raises:
        SvError: No channel is measured here.
    """
    specs = {
        channel.id: vars(channel)
        for reader in readers
        for channel in reader.channels
        if channel.kind in MEASURED_KINDS
    }
    if not specs:
        reasons = [c.reason for reader in readers for c in reader.channels if c.reason]
        raise SvError(f"no channel is measured on this machine, so none has an idle power "
                      f"({reasons[0] if reasons else 'no sensor'})")  # fmt: skip
    readings: dict[str, list[Reading]] = {name: [] for name in specs}
    cpu_us, start_s = read_node_cpu_us(), time.monotonic()
    for reader in readers:
        reader.start()
    for k in range(max(2, round(seconds / period_s)) + 1):
        time.sleep(max(0.0, start_s + k * period_s - time.monotonic()))
        for reader in readers:
            for name, value in reader.read().items():
                if name in readings and value is not None:
                    readings[name].append(Reading(_clock(), time.monotonic(), value))
    end_us, took_s = read_node_cpu_us(), time.monotonic() - start_s
    for reader in readers:
        reader.close()
    known = None not in (cpu_us, end_us)
    return {
        "schema": SCHEMA,
        "host": os.uname().nodename,
        "boot_id": read_boot_id(),
        "utc": format_utc(time.time()),
        "seconds": took_s,
        "busy_cpus": s_from_us((end_us or 0) - (cpu_us or 0)) / took_s if known else None,
        "channels": {
            name: figures
            for name, spec in specs.items()
            if (figures := _compute_power(spec, readings[name], period_s)) is not None
        },
    }


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _compute_power(spec: Fields, readings: list[Reading], period_s: float) -> Fields | None:
    if len(readings) < 2:
        return None
    powers_w = []
    size = max(1, (len(readings) - 1) // WINDOWS)
    for i in range(0, len(readings) - 1, size):
        powers_w.append(_mean_power(spec, readings[i : i + size + 1], period_s))
    return {
        "boundary": spec["boundary"],
        "method": spec["method"],
        "power_w": _mean_power(spec, readings, period_s),
        "spread_w": statistics.stdev(powers_w) if len(powers_w) > 1 else None,
        "n": len(readings),
    }


def _mean_power(spec: Fields, readings: list[Reading], period_s: float) -> float:
    total = Accumulator(spec, period_s)
    for reading in readings:
        total.add(reading)
    return total.energy_j / (readings[-1].awake_s - readings[0].awake_s)


def write_baseline(folder: Path, baseline: Fields) -> str:
    """Write baseline.json; give the line that says what is in it.

    Raises:
        SvError: It cannot be written.
    """
    path = folder / FILE_NAME
    write_json(path, baseline)
    powers = ", ".join(f"{name} {ch['power_w']:.1f} W" for name, ch in baseline["channels"].items())
    busy = baseline["busy_cpus"]
    warning = ""
    if busy is not None and busy > BUSY_CPUS:
        warning = f"; NOT idle: {busy:.1f} processors were busy, measure again when nothing runs"
    return f"idle power over {baseline['seconds']:.0f} s: {powers}{warning} -> {path}"
