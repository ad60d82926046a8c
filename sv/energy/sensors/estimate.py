"""The estimates: CPU time of the command's process tree x power of a logical CPU, memory x power.

They need no privilege and work in a virtual machine, but they are models of what the command's
processes use: no idle power, no unused memory, no disks.

The power of a logical CPU is the config's, else TDP / cores / threads per core of the processor
that /proc/cpuinfo names, else of its generation by family and model, else of all generations; all
logical CPUs together never have more than TDP x sockets. cpu_models.csv has the processors,
cpu_generations.csv their generations with the power of a thread in SPECpower, idle and at full
load, as Cloud Carbon Footprint gives it (ccf-coefficients, 2026-03; its figure for EPYC 5th gen,
above the TDP, is left out). That range, and where the processor is not known that of TDP / threads
within its generation, is the stated uncertainty.
"""

import csv
import math
import os
import re
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from sv.energy.config import EnergyConfig
from sv.energy.processes import (
    FLAGS,
    FORKED,
    PARENT,
    find_descendants,
    read_memory,
    read_pss_anon,
    read_stat,
)
from sv.energy.sensors.readers import ChannelSpec, Reader
from sv.energy.units import UNITS_PER_W, us_from_s

CPUINFO = Path("/proc/cpuinfo")
MODELS = Path(__file__).with_name("cpu_models.csv")
GENERATIONS = Path(__file__).with_name("cpu_generations.csv")
# Of a row of cpu_models.csv. Those of AMD and Intel that Boavizta's list lacks were written down as
# the makers print them, and some from memory: docs/energy.md says which.
SOURCES = {
    "AMD": "AMD product page",
    "Ampere": "Ampere product brief",
    "Boavizta": "public specifications, collected by Boavizta (2025)",
    "Intel": "Intel product specifications",
    "like 8480+": "as the Xeon Platinum 8480+, of which it is a variant with the same cores",
}
COVERED = 0.975  # of the threads: with the other end, 95 % as for k = 2
BYTES_PER_GB = 10**9
DRAM_W_PER_GB = 0.3725
DRAM_SOURCE = "Lannelongue et al., Green Algorithms, Advanced Science 8(12), 2021"
UNCERTAINTY = 0.5
UNCERTAINTY_BASIS = (
    "assumed: a model of rated power; estimates of this kind were found up to 40 % off "
    "(arXiv 2509.22092, 2025)"
)
LOOK_S = 10.0  # between two looks at what a process shares
LOOK_PART = 0.02  # of a core, for all such looks: 9 to 11 ms a GB each (Linux 6.18, 2026-11)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
Row = Mapping[str, str]


@dataclass(frozen=True)
class Machine:
    """What /proc/cpuinfo says of the processors.

    Attributes:
        name: ``model name`` with single spaces; empty where there is none (most ARM).
        vendor: ``vendor_id``; ARM: implementer.
        family: ARM: architecture.
        model: ARM: part.
        stepping: 0 where it says none.
        sockets: At least 1.
        logical_cpus: At least 1.
        threads_per_core: None where it is not said, and in a virtual machine, whose cores may be
            threads of the machine below.
    """

    name: str
    vendor: str
    family: int
    model: int
    stepping: int
    sockets: int
    logical_cpus: int
    threads_per_core: float | None


@dataclass(frozen=True)
class CpuPower:
    """Power of one busy logical CPU, with its source and its uncertainty (k = 2, relative)."""

    w: float
    source: str
    sensor_rel: float = UNCERTAINTY
    sensor_rel_basis: str = UNCERTAINTY_BASIS


def choose_cpu_power(config: EnergyConfig, cpuinfo: Path = CPUINFO) -> CpuPower:
    """Choose the power of a logical CPU: the config's, else from the tables, as said above."""
    if config.cpu_power_w_per_core is not None:
        return CpuPower(config.cpu_power_w_per_core, config.cpu_power_source or "")
    machine, rows, generations = read_machine(cpuinfo), _read_csv(MODELS), _read_csv(GENERATIONS)
    named = {_normalise(row["name"]): row for row in rows}
    found = next((named[part] for part in _list_parts(machine.name) if part in named), None)
    missing = f"this CPU ({machine.name or 'unnamed'}) is not in {MODELS.name}"
    if found is not None:
        rows, generation = [found], found["generation"]
        what = f"TDP / cores / threads per core of this CPU, {found['name']}"
        source = SOURCES[found["source"]]
    elif (generation := _find_generation(machine, generations)) is not None:
        rows = [row for row in rows if row["generation"] == generation]
        what = f"typical of {generation}: TDP / threads of its {len(rows)} in {MODELS.name}"
        source = f"{missing}; its family {machine.family}, model {machine.model} is {generation}"
    else:
        ranged = {row["generation"] for row in generations if row["full_w"]}
        rows = [row for row in rows if row["generation"] in ranged]
        what = f"assumption: TDP / threads of {len(rows)} of {len(ranged)} generations"
        source = missing
    if generation is not None:
        generations = [row for row in generations if row["generation"] == generation]
    ranges = [(float(row["idle_w"]), float(row["full_w"])) for row in generations if row["full_w"]]
    return _model_power(machine, rows, ranges, what, source)


def _model_power(
    machine: Machine,
    rows: Sequence[Row],
    ranges: Sequence[tuple[float, float]],
    what: str,
    source: str,
) -> CpuPower:
    """Return the power of a logical CPU of any of ``rows``, each thread of them as likely.

    Args:
        machine: Counts and threads per core of this machine.
        rows: The processors that it may have, of cpu_models.csv.
        ranges: Power of a thread in SPECpower, idle and at full load, of their generations.
        what: What the figure is.
        source: Where it is from.
    """
    tdp_w = [int(row["tdp_w"]) for row in rows]
    listed = [int(row["threads"]) for row in rows]
    threads = listed
    if machine.threads_per_core is not None:
        threads = [int(row["cores"]) * machine.threads_per_core for row in rows]
    w = sum(tdp_w) / sum(threads)
    how = f"({sum(tdp_w)} W / {sum(threads):g})"
    if len(rows) == 1:
        how = f"({tdp_w[0]} W / {rows[0]['cores']} / {threads[0] / int(rows[0]['cores']):.3g})"
    limit_w = max(tdp_w) * machine.sockets / machine.logical_cpus
    if w > limit_w:
        w, how = limit_w, f"{how}, at most {max(tdp_w)} W a socket"
    # A core without hyperthreads has the power of all threads that it is listed with.
    scale = sum(listed) / sum(threads)
    low_w, high_w = 0.0, 2 * w
    basis = "from nothing to twice the figure (SPECpower has no range of this generation)"
    if ranges:
        low_w = scale * min(idle_w for idle_w, _ in ranges)
        high_w = scale * max(full_w for _, full_w in ranges)
        basis = (
            f"from idle ({low_w:.2g} W) to full load ({high_w:.2g} W) of a logical CPU in SPECpower"
            " (Cloud Carbon Footprint, 2026-03)"
        )
    if len(rows) > 1:
        each = sorted(
            (power / number, number) for power, number in zip(tdp_w, threads, strict=True)
        )
        sums = accumulate(number for _, number in each)
        most_w = next(
            of_one_w
            for (of_one_w, _), so_far in zip(each, sums, strict=True)
            if so_far >= COVERED * sum(threads)
        )
        high_w = max(high_w, most_w)
        basis += f", and to the TDP / threads of the processors that it may be ({most_w:.2g} W)"
    rel = max(w - low_w, high_w - w) / w
    return CpuPower(w, f"{what} {how}, all busy; {source}", rel, f"assumed: {basis}")


def read_machine(cpuinfo: Path) -> Machine:
    """Read a cpuinfo; what it does not say is empty or 0."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    facts: dict[str, str] = {}
    sockets, logical_cpus = set(), 0
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        facts.setdefault(key, value)
        logical_cpus += key == "processor"
        if key == "physical id":
            sockets.add(value)

    def number(*keys: str) -> int:
        words = (facts.get(key, "") for key in keys)
        return next((int(word, 0) for word in words if re.fullmatch(r"\d+|0x[\da-f]+", word)), 0)

    siblings, cores = number("siblings"), number("cpu cores")
    is_virtual = "hypervisor" in facts.get("flags", "").split()
    return Machine(
        name=" ".join(facts.get("model name", "").split()),
        vendor=facts.get("vendor_id") or facts.get("CPU implementer", ""),
        family=number("cpu family", "CPU architecture"),
        model=number("model", "CPU part"),
        stepping=number("stepping"),
        sockets=max(1, len(sockets)),
        logical_cpus=max(1, logical_cpus),
        threads_per_core=siblings / cores if siblings and cores and not is_virtual else None,
    )


def _read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _normalise(name: str) -> str:
    """Return a processor's name as tables and cpuinfo both have it, in small letters."""
    words = re.sub(r"\((r|tm)\)", " ", name.lower()).split()
    text = " ".join(word for word in words if word not in ("cpu", "processor", "scalable"))
    return re.sub(r" (v\d)\b", r"\1", text)  # "E5-2650 v4" is no "E5-2650"


def _list_parts(name: str) -> Iterator[str]:
    """List all runs of whole words of a name, the longest first."""
    words = _normalise(name).split()
    for length in range(len(words), 0, -1):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


def _find_generation(machine: Machine, generations: Sequence[Row]) -> str | None:
    """Find the generation by vendor, family, model and stepping; the first of several."""
    for row in generations:
        same = (row["vendor"], int(row["family"])) == (machine.vendor, machine.family)
        if (
            same
            and _is_in(machine.model, row["models"])
            and _is_in(machine.stepping, row["steppings"])
        ):
            return row["generation"]
    return None


def _is_in(number: int, text: str) -> bool:
    """Return whether a number is in ``first-last``, or is the one given; empty: any."""
    first, _, last = text.partition("-")
    return not text or int(first) <= number <= int(last or first)


class OwnMemory:
    """Counts the anonymous memory of a tree of processes: no files, no libraries, no /dev/shm.

    After a fork both processes hold the same pages until one of them writes, and the kernel's
    cheap count (statm) has them in both. What it has too much is looked up for processes that were
    forked, and for their parents, so that a page that several share counts once. The kernel walks
    all pages for it; so there is one look at a process in `LOOK_S`, less often where all together
    would take more than `LOOK_PART`, and what it found holds until the next.
    """

    def __init__(self) -> None:
        self._looks: dict[int, tuple[float, int]] = {}  # process: when, and bytes too much
        self._free_s = 0.0  # until then the looks so far have used up their part of a core

    def sum_bytes(self, stats: Mapping[int, Sequence[bytes]]) -> int:
        """Add up what processes hold for themselves.

        Args:
            stats: Process id -> its fields (`read_stat`), of the whole tree.
        """
        forked = {pid for pid, stat in stats.items() if stat and int(stat[FLAGS]) & FORKED}
        parents = {int(stats[pid][PARENT]) for pid in forked}
        # Parents last: until all are looked at they stand for what the forked ones share.
        family = sorted(forked) + sorted(parents & stats.keys() - forked)
        self._looks = {pid: look for pid, look in self._looks.items() if pid in family}
        self._look(family)
        own_bytes = 0
        for pid in stats:
            anonymous = _read_anonymous(pid)
            # A forked process that was not looked at yet: it still shares nearly all.
            _, too_much = self._looks.get(pid, (0.0, anonymous if pid in forked else 0))
            own_bytes += max(0, anonymous - too_much)
        return own_bytes

    def _look(self, family: Sequence[int]) -> None:
        """Look at processes, those first that were not looked at for the longest time."""
        now_s = time.monotonic()
        self._free_s = max(self._free_s, now_s - LOOK_S)  # what was not used for so long is lost
        last_s = {pid: self._looks[pid][0] if pid in self._looks else -math.inf for pid in family}
        for pid in sorted(family, key=last_s.__getitem__):
            if now_s < max(self._free_s, last_s[pid] + LOOK_S):
                return
            begin_s, anonymous, own = time.thread_time(), _read_anonymous(pid), read_pss_anon(pid)
            self._looks[pid] = (now_s, 0 if own is None else max(0, anonymous - own))
            self._free_s += (time.thread_time() - begin_s) / LOOK_PART


def _read_anonymous(pid: int) -> int:
    resident, shared = read_memory(pid)
    return max(0, resident - shared)


class EstimateReader(Reader):
    """Reads CPU time and memory of all processes below this one.

    The meter is a subreaper: a process whose parent has ended becomes the meter's child, so none
    leaves the tree. CPU time of finished processes is kept; that of a process whose parent never
    waits for it (SIGCHLD ignored) is lost when it ends, as it is for the shell's ``time``. Made
    before the command is started.
    """

    def __init__(self, config: EnergyConfig) -> None:
        cpu = choose_cpu_power(config)
        dram_w_per_gb, dram_source = DRAM_W_PER_GB, DRAM_SOURCE
        if config.dram_power_w_per_gb is not None:
            dram_w_per_gb, dram_source = config.dram_power_w_per_gb, config.dram_power_source
        super().__init__()
        self.channels = [
            ChannelSpec(
                id="cpu_time",
                boundary="cpu_package",
                kind="estimated",
                method="cpu_time_x_power",
                source=f"{cpu.w:.4g} W a logical CPU; {cpu.source}",
                unit="us",
                power_w_per_core=cpu.w,
                resolution=us_from_s(1 / _TICKS_PER_S),
                sensor_rel=cpu.sensor_rel,
                sensor_rel_basis=cpu.sensor_rel_basis,
            ),
            ChannelSpec(
                id="dram_time",
                boundary="dram",
                kind="estimated",
                method="power_integral",
                source=(
                    f"{dram_w_per_gb:.4g} W per GB that the command's processes hold for "
                    f"themselves (anonymous; what a fork shares counts once); {dram_source}"
                ),
                unit="mW",
                update_period_s=0.0,  # counted when it is asked for
                resolution=1,
                sensor_rel=UNCERTAINTY,
                sensor_rel_basis=UNCERTAINTY_BASIS,
            ),
        ]
        self._mw_per_gb = dram_w_per_gb * UNITS_PER_W["mW"]
        self._memory = OwnMemory()
        self._before_us = _read_finished_us()  # git, for the head of the journal
        self._last_us = 0

    def read(self) -> dict[str, int | None]:
        """Return the CPU time so far in microseconds, never backwards, and the memory's power."""
        finished_us = _read_finished_us() - self._before_us
        # Parents are read before children: a child that ends between is missed, not counted twice.
        stats = {pid: read_stat(pid) for pid in find_descendants(os.getpid())}
        ticks = sum(_count_ticks(stat) for stat in stats.values())
        now_us = finished_us + us_from_s(ticks / _TICKS_PER_S)
        # A process that ends while the tree is read is missed once and counted the next time.
        self._last_us = max(self._last_us, now_us)
        own_gb = self._memory.sum_bytes(stats) / BYTES_PER_GB
        return {"cpu_time": self._last_us, "dram_time": round(own_gb * self._mw_per_gb)}


def _read_finished_us() -> int:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return us_from_s(usage.ru_utime + usage.ru_stime)


def _count_ticks(stat: Sequence[bytes]) -> int:
    """Return the CPU time of a process with its waited-for children; 0 if it has ended."""
    # utime, stime, cutime, cstime
    return sum(int(field) for field in stat[11:15])
