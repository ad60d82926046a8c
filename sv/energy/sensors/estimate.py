"""The estimates: CPU time of the command's process tree x power of a core, memory x power of a GB.

They need no privilege and work in a virtual machine, but they are models of what the command's
processes use: no idle power, no unused memory, no disks, and a logical CPU counts as a core.
"""

import os
import resource

from sv.energy.config import EnergyConfig
from sv.energy.processes import find_descendants
from sv.energy.sensors.channel import Channel, Reader
from sv.energy.sensors.cpu_power import choose_core_power
from sv.energy.units import UNITS_PER_W, us_from_s

BYTES_PER_GB = 10**9
DRAM_W_PER_GB = 0.3725
DRAM_SOURCE = "Lannelongue et al., Green Algorithms, Advanced Science 8(12), 2021"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
UNCERTAINTY = 0.5
UNCERTAINTY_BASIS = (
    "assumed: a model of rated power; estimates of this kind were found up to 40 % off "
    "(arXiv 2509.22092, 2025)"
)


class EstimateReader(Reader):
    """Reads CPU time and memory of all processes below this one.

    The meter is a subreaper: a process whose parent has gone becomes the meter's child, so none
    leaves the tree. CPU time of finished processes is kept; that of a process whose parent never
    waits for it (SIGCHLD ignored) is lost when it ends, as it is for the shell's ``time``. Made
    before the command is started.
    """

    def __init__(self, config: EnergyConfig) -> None:
        core = choose_core_power(config)
        dram_w_per_gb, dram_source = DRAM_W_PER_GB, DRAM_SOURCE
        if config.dram_power_w_per_gb is not None:
            dram_w_per_gb = config.dram_power_w_per_gb
            dram_source = config.dram_power_source or "config"
        self.channels = [
            Channel(
                id="cpu_time",
                boundary="cpu_package",
                kind="estimated",
                method="cpu_time_x_power",
                source=f"{core.w_per_core:.4g} W a core; {core.source}",
                unit="us",
                power_w_per_core=core.w_per_core,
                resolution=us_from_s(1 / _TICKS_PER_S),
                sensor_rel=UNCERTAINTY,
                sensor_rel_basis=UNCERTAINTY_BASIS,
            ),
            Channel(
                id="dram_time",
                boundary="dram",
                kind="estimated",
                method="power_integral",
                source=(
                    f"{dram_w_per_gb:.4g} W per GB that the command's processes hold for "
                    f"themselves (resident less shared); {dram_source}"
                ),
                unit="mW",
                update_period_s=0.0,  # counted when it is asked for
                resolution=1,
                sensor_rel=UNCERTAINTY,
                sensor_rel_basis=UNCERTAINTY_BASIS,
            ),
        ]
        self._mw_per_gb = dram_w_per_gb * UNITS_PER_W["mW"]
        self._before_us = _read_finished_us()  # git, for the head of the journal
        self._last_us = 0

    def read(self) -> dict[str, int | None]:
        """Give the CPU time so far in microseconds, never backwards, and the memory's power."""
        finished_us = _read_finished_us() - self._before_us
        # Parents are read before children: a child that ends between is missed, not counted twice.
        pids = find_descendants(os.getpid())
        ticks = sum(_read_ticks(pid) for pid in pids)
        now_us = finished_us + us_from_s(ticks / _TICKS_PER_S)
        # A process that ends while the tree is read is missed once and counted the next time.
        self._last_us = max(self._last_us, now_us)
        own_gb = sum(_read_own_bytes(pid) for pid in pids) / BYTES_PER_GB
        return {"cpu_time": self._last_us, "dram_time": round(own_gb * self._mw_per_gb)}


def _read_finished_us() -> int:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return us_from_s(usage.ru_utime + usage.ru_stime)


def _read_ticks(pid: int) -> int:
    """Give the CPU time of a process with its waited-for children."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read()
    except OSError:
        return 0  # it has ended
    # Fields after the name, which is in brackets and may hold anything: 14 to 17 are utime,
    # stime, cutime, cstime (proc_pid_stat(5)).
    fields = stat[stat.rindex(b")") + 2 :].split(maxsplit=15)
    return sum(int(field) for field in fields[11:15])


def _read_own_bytes(pid: int) -> int:
    """Give the resident memory of a process that is not shared (libraries, files, /dev/shm)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            resident, shared = file.read().split()[1:3]
    except (OSError, ValueError):
        return 0  # it has ended
    return max(0, int(resident) - int(shared)) * _PAGE_BYTES
