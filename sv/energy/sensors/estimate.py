"""The estimates: CPU time of the command's process tree x power of a core, memory x power of a GB.

They need no privilege and work in a virtual machine, but they are models of what the command's
processes use: no idle power, no unused memory, no disks, and a logical CPU counts as a core.

The power of a core is the config's, else the rated power / cores of this CPU from cpu_models.csv,
which has some server processors as their makers publish them, else a stated assumption.
"""

import csv
import os
import resource
from pathlib import Path

from sv.energy.config import EnergyConfig
from sv.energy.processes import find_descendants, read_memory, read_stat
from sv.energy.sensors.readers import ChannelSpec, Reader
from sv.energy.units import UNITS_PER_W, us_from_s

CPUINFO = Path("/proc/cpuinfo")
TABLE = Path(__file__).with_name("cpu_models.csv")
ASSUMED_W_PER_CORE = 6.25  # Intel product specifications: Xeon Platinum 8480+, 350 W / 56 cores
ASSUMPTION = "assumption: TDP / cores of an Intel Xeon Platinum 8480+ (350 W / 56), all cores busy"
BYTES_PER_GB = 10**9
DRAM_W_PER_GB = 0.3725
DRAM_SOURCE = "Lannelongue et al., Green Algorithms, Advanced Science 8(12), 2021"
UNCERTAINTY = 0.5
UNCERTAINTY_BASIS = (
    "assumed: a model of rated power; estimates of this kind were found up to 40 % off "
    "(arXiv 2509.22092, 2025)"
)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def choose_core_power(config: EnergyConfig, cpuinfo: Path = CPUINFO) -> tuple[float, str]:
    """Choose the power of a core: the config's, else the table's for this CPU, else assumed.

    Returns:
        Watts of one busy core, and where the figure is from.
    """
    if config.cpu_power_w_per_core is not None:
        return config.cpu_power_w_per_core, config.cpu_power_source or ""
    name = _read_model_name(cpuinfo)
    with open(TABLE, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            # Whole words: "EPYC 7742" is in "AMD EPYC 7742 64-Core Processor", not in "EPYC 77420".
            if f" {row['model']} " in f" {name} ":
                tdp_w, cores = int(row["tdp_w"]), int(row["cores"])
                source = f"TDP / cores of this CPU ({tdp_w} W / {cores}), all cores busy; "
                return tdp_w / cores, source + row["source"]
    source = f"{ASSUMPTION}; this CPU ({name or 'unnamed'}) is not in {TABLE.name}"
    return ASSUMED_W_PER_CORE, source


def _read_model_name(cpuinfo: Path) -> str:
    """Read the CPU's name, with single spaces; empty where there is none (most ARM)."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return " ".join(value.split())
    except OSError:
        pass
    return ""


class EstimateReader(Reader):
    """Reads CPU time and memory of all processes below this one.

    The meter is a subreaper: a process whose parent has ended becomes the meter's child, so none
    leaves the tree. CPU time of finished processes is kept; that of a process whose parent never
    waits for it (SIGCHLD ignored) is lost when it ends, as it is for the shell's ``time``. Made
    before the command is started.
    """

    def __init__(self, config: EnergyConfig) -> None:
        w_per_core, source = choose_core_power(config)
        dram_w_per_gb, dram_source = DRAM_W_PER_GB, DRAM_SOURCE
        if config.dram_power_w_per_gb is not None:
            dram_w_per_gb, dram_source = config.dram_power_w_per_gb, config.dram_power_source
        self.channels = [
            ChannelSpec(
                id="cpu_time",
                boundary="cpu_package",
                kind="estimated",
                method="cpu_time_x_power",
                source=f"{w_per_core:.4g} W a core; {source}",
                unit="us",
                power_w_per_core=w_per_core,
                resolution=us_from_s(1 / _TICKS_PER_S),
                sensor_rel=UNCERTAINTY,
                sensor_rel_basis=UNCERTAINTY_BASIS,
            ),
            ChannelSpec(
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
        """Return the CPU time so far in microseconds, never backwards, and the memory's power."""
        finished_us = _read_finished_us() - self._before_us
        # Parents are read before children: a child that ends between is missed, not counted twice.
        pids = find_descendants(os.getpid())
        ticks = sum(_read_ticks(pid) for pid in pids)
        now_us = finished_us + us_from_s(ticks / _TICKS_PER_S)
        # A process that ends while the tree is read is missed once and counted the next time.
        self._last_us = max(self._last_us, now_us)
        # What is not shared: without libraries, files, /dev/shm.
        own_bytes = sum(max(0, resident - shared) for resident, shared in map(read_memory, pids))
        own_gb = own_bytes / BYTES_PER_GB
        return {"cpu_time": self._last_us, "dram_time": round(own_gb * self._mw_per_gb)}


def _read_finished_us() -> int:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return us_from_s(usage.ru_utime + usage.ru_stime)


def _read_ticks(pid: int) -> int:
    """Return the CPU time of a process with its waited-for children; 0 if it has ended."""
    # utime, stime, cutime, cstime
    return sum(int(field) for field in read_stat(pid)[11:15])
