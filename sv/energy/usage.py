"""What a job and its machine use of processor and memory: the inputs of attribution."""

import os
from pathlib import Path

from sv.energy.processes import find_descendants
from sv.energy.units import us_from_s

PROC = Path("/proc")
KIB = 1024
# /proc/stat, first line: user nice system idle iowait irq softirq steal guest guest_nice
# (proc_stat(5)); guest is in user. Idle, waiting and stolen time is nobody's work here.
BUSY_FIELDS = (0, 1, 2, 5, 6)


def read_usage(meter: int, *, memory: bool) -> dict[str, int | None]:
    """Read what is used now.

    Args:
        meter: Process id of the meter; the job is all below it.
        memory: Whether to read memory too.

    Returns:
        Processor time of the machine since its boot in us and, if asked for, bytes that the job
        and the machine hold; None for what cannot be read.
    """
    usage: dict[str, int | None] = {"node_cpu_us": read_node_cpu_us()}
    if memory:
        usage["job_bytes"] = sum(_read_resident(pid) for pid in find_descendants(meter))
        usage["node_bytes"] = _read_node_bytes()
    return usage


def read_node_cpu_us(proc: Path = PROC) -> int | None:
    """Read the busy processor time of the machine since its boot, without idle, iowait, steal."""
    try:
        with open(proc / "stat", "rb") as file:
            fields = file.readline().split()[1:]
        ticks = sum(int(fields[i]) for i in BUSY_FIELDS)
    except (OSError, ValueError, IndexError):
        return None
    return us_from_s(ticks / os.sysconf("SC_CLK_TCK"))


def _read_node_bytes(proc: Path = PROC) -> int | None:
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return (kib["MemTotal"] - kib["MemAvailable"]) * KIB
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _read_resident(pid: int) -> int:
    try:
        pages = int((PROC / str(pid) / "statm").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return 0  # it has ended
    return pages * os.sysconf("SC_PAGE_SIZE")
