"""The estimate: CPU time of the command's whole process tree times a stated power of a core.

It needs no privilege and works in a virtual machine, but it is a model: no idle power, no
memory, no disks, and a logical CPU counts as a core.
"""

import os
import resource

from sv.energy.config import EnergyConfig
from sv.energy.sensors.channel import Channel
from sv.energy.units import us_from_s


class CpuTimeReader:
    """Reads the CPU time of all processes below this one, finished and living.

    The meter is a subreaper: a process whose parent has gone becomes the meter's child, so none
    leaves the tree. Time of a process that its parent never waits for (SIGCHLD ignored) is lost
    when it ends, as it is for the shell's ``time``. Made before the command is started.
    """

    def __init__(self, config: EnergyConfig) -> None:
        self.channels = [
            Channel(
                id="cpu_time",
                boundary="cpu_package",
                kind="estimated",
                method="cpu_time_x_power",
                source=f"{config.cpu_power_w_per_core} W a core; {config.cpu_power_source}",
                unit="us",
                power_w_per_core=config.cpu_power_w_per_core,
            )
        ]
        self._before_us = _read_finished_us()  # git, for the head of the journal
        self._last_us = 0

    def read(self) -> dict[str, int | None]:
        """Give the CPU time so far in microseconds; it never goes backwards."""
        now_us = _read_finished_us() - self._before_us + _read_living_us(os.getpid())
        # A process that ends while the tree is read is missed once and counted the next time.
        self._last_us = max(self._last_us, now_us)
        return {"cpu_time": self._last_us}


def _read_finished_us() -> int:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return us_from_s(usage.ru_utime + usage.ru_stime)


def _read_living_us(root: int) -> int:
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    # Parents are read before children: a child that ends in between is missed, not counted twice.
    ticks = sum(_read_stat(pid)[1] for pid in find_descendants(root))
    return us_from_s(ticks / ticks_per_s)


def find_descendants(root: int) -> list[int]:
    """Find all processes below ``root``, parents before children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_read_stat(int(name))[0], []).append(int(name))
    found: list[int] = list(children.get(root, []))
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, []))
    return found


def _read_stat(pid: int) -> tuple[int, int]:
    """Give the parent and the ticks of a process with those of its waited-for children."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return 0, 0  # it has ended
    # Fields after the name, which is in brackets and may hold anything: 3 is the state, 4 the
    # parent, 14 to 17 utime, stime, cutime, cstime (proc_pid_stat(5)).
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[1]), sum(int(field) for field in fields[11:15])
