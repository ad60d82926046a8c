"""CPU package and memory energy from RAPL: through pyRAPL where it works, else from powercap.

pyRAPL returns raw counters in microjoules. It always looks in /sys, knows neither wraps nor dies,
and raises where energy_uj is for root only. It is asked for one socket at a time, so that one bad
socket costs no other. Another root of sysfs and everything that pyRAPL cannot do are read from the
kernel's powercap tree by ourselves.

Zones that another one contains are left out (core, uncore) or kept out of the total (psys: the
whole platform). The mirror tree intel-rapl-mmio counts the same packages again and is not read.
Processors of AMD and Hygon have one counter a package, whatever zones the kernel makes of it. Other
zones that mirror each other are found by their readings, when they are added up.
"""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sv.energy.sensors.readers import (
    MAX_POWER_W,
    MAX_READING,
    THROWN,
    ChannelSpec,
    Read,
    Reader,
    ask,
    build_unavailable,
    check_reading,
    describe,
    read_word,
)
from sv.energy.units import UNITS_PER_W

SYSFS_OF_PYRAPL = Path("/sys")  # literal in pyRAPL 0.2.3.1, device_api.py
CPUINFO, MSR = Path("/proc/cpuinfo"), Path("/dev/cpu/0/msr")
MISC_PACKAGE_CTLS, ENERGY_FILTERING = 0xBC, 1  # Intel SDM volume 4: bit 0, ENERGY_FILTERING_ENABLE
ZONE_DIR = re.compile(r"intel-rapl(?::[0-9a-f]+){1,2}")  # Linux, powercap_sys.c: "%s:%x"
PACKAGE_NAME = re.compile(r"package-(\d+)(?:-die-(\d+))?")
# AMD and Hygon in the modalias of a CPU: Linux, X86_VENDOR_* of arch/x86/include/asm/processor.h.
# "AMD/HYGON platforms use per-PKG package energy counter" (intel_rapl_common.c, Linux 6.12): before
# it, 6.10 and 6.11 made a zone of each core complex, all of one counter; so do the dies of Zen 1.
COUNTER_PER_PACKAGE = re.compile("ven(0002|0009)fam")
# A package exceeds its enforced limits only for milliseconds.
LIMIT_MARGIN = 2.0
COUNTER_BITS = 32  # Intel SDM volume 3B, 15.10: energy status registers
UPDATE_PERIOD_S = 0.001  # the same: refreshed about every millisecond
UNCERTAINTY = {  # of the counter itself, k = 2, with its basis
    "cpu_package": (
        0.05,
        "assumed: Intel and AMD state none; follows measured power closely "
        "(Khan et al., RAPL in Action, ACM TOMPECS 2018)",
    ),
    "dram": (
        0.2,
        "assumed: none is stated; a constant offset, larger when idle "
        "(Desrochers et al., MEMSYS 2016)",
    ),
    "psys": (0.2, "assumed: none is stated, and what it covers depends on the board"),
}


@dataclass(frozen=True)
class Zone:
    """One counter of the powercap tree.

    Attributes:
        id: Channel id, ``rapl.package.0``, ``rapl.dram.0`` or ``rapl.psys``. Zones of one id are
            the same counter.
        boundary: cpu_package, dram or psys.
        package: Number of the package; None for psys.
        die: Number of the die, where the counter is of one of several.
        path: The zone's folder.
        max_range_uj: Where the counter wraps; None if the kernel does not say.
        max_power_w: The most that it can draw; None if nothing limits it.
    """

    id: str
    boundary: str
    package: int | None
    die: int | None
    path: Path
    max_range_uj: int | None
    max_power_w: float | None

    @property
    def energy_file(self) -> Path:
        """The counter, in microjoules."""
        return self.path / "energy_uj"

    def read_uj(self) -> int:
        """Read the counter in microjoules.

        Raises:
            OSError: The file cannot be read (since 2020 only root may, CVE-2020-8694).
            ValueError: It does not hold a number.
        """
        return int(self.energy_file.read_text(encoding="ascii"))


class RaplReader(Reader):
    """Reads every RAPL counter of the machine; what cannot be read is an unavailable channel.

    Args:
        sysfs: Root of sysfs, /sys.
    """

    def __init__(self, sysfs: Path) -> None:
        self._zones = find_zones(sysfs)
        opened = open_zones(self._zones, sysfs)
        opened += [(channel, None) for channel in find_absent(self._zones, sysfs)]
        opened.sort(key=lambda each: list(UNCERTAINTY).index(each[0].boundary))
        reads = {channel.id: read for channel, read in opened if read is not None}
        super().__init__([channel for channel, _ in opened], reads)

    def read_metadata(self) -> dict[str, object]:
        """Return the failures, and whether the processor blurs its counters on purpose."""
        blurred = {"rapl": read_filter(CPUINFO, MSR)} if self._zones else {}
        return {**super().read_metadata(), **blurred}


def open_rapl(sysfs: Path) -> list[Reader]:
    """Open every RAPL counter of the machine, below a root of sysfs."""
    return [RaplReader(sysfs)]


def find_zones(sysfs: Path) -> list[Zone]:
    """Find the zones that are a CPU package, its memory or the whole platform, by name."""
    # /sys has every zone as a flat link; another mount may have the real, nested folders only.
    found = (sysfs / "class" / "powercap").rglob("intel-rapl:*")
    folders = {folder.name: folder for folder in sorted(found) if ZONE_DIR.fullmatch(folder.name)}
    names = {key: read_word(folder / "name") for key, folder in folders.items()}
    modalias = read_word(sysfs / "devices" / "system" / "cpu" / "modalias") or ""
    per_package = COUNTER_PER_PACKAGE.search(modalias) is not None
    zones = []
    for key in sorted(folders, key=lambda key: [int(part, 16) for part in key.split(":")[1:]]):
        parent = key.rsplit(":", 1)[0] if key.count(":") > 1 else key
        match = PACKAGE_NAME.fullmatch(names.get(parent) or "")
        package = die = None
        if match and (names[key] == "dram" or key == parent):
            boundary = "dram" if names[key] == "dram" else "cpu_package"
            package = int(match[1])
            die = None if match[2] is None or per_package else int(match[2])
            zone_id = f"rapl.{boundary.removeprefix('cpu_')}.{package}"
            zone_id += "" if die is None else f".die.{die}"
        elif names[key] == "psys" and key == parent:
            zone_id, boundary = "rapl.psys", "psys"
        else:
            continue
        max_range_uj = _read_number(folders[key] / "max_energy_range_uj") or None
        max_power_w = read_max_power_w(folders[key], boundary)
        zones.append(Zone(zone_id, boundary, package, die, folders[key], max_range_uj, max_power_w))
    return zones


def _read_number(file: Path) -> int | None:
    """Read a file's number; None where it holds none, or one that a journal cannot."""
    number = ask(lambda: int(file.read_text(encoding="ascii")))
    return number if number is not None and 0 <= number <= MAX_READING else None


def read_max_power_w(folder: Path, boundary: str) -> float | None:
    """Return the most that a zone can draw: its highest limit with a margin; None without one."""
    limits_uw = {file.name: _read_number(file) or 0 for file in folder.glob("constraint_*_uw")}
    of_hardware = any(limit for name, limit in limits_uw.items() if name.endswith("_max_power_uw"))
    # Limits that nothing enforces, or that root alone set and may raise while the command runs.
    if read_word(folder / "enabled") == "0" or not of_hardware:
        return None
    return min(LIMIT_MARGIN * max(limits_uw.values()) / UNITS_PER_W["uW"], MAX_POWER_W[boundary])


def open_zones(zones: Iterable[Zone], sysfs: Path) -> list[tuple[ChannelSpec, Read | None]]:
    """Open each counter by the first of its zones that can be read.

    Args:
        zones: From `find_zones`.
        sysfs: Root of sysfs.

    Returns:
        A channel for each counter, and how it is read; None: it is unavailable.
    """
    counters: dict[str, list[Zone]] = {}
    for zone in zones:
        counters.setdefault(zone.id, []).append(zone)
    return [_open_counter(same, sysfs) for same in counters.values()]


def _open_counter(zones: Sequence[Zone], sysfs: Path) -> tuple[ChannelSpec, Read | None]:
    errors = []
    for zone in zones:
        try:
            source, read = _find_read(zone, sysfs)
            if (zone.max_range_uj or 0) < read():  # the kernel's is wrong
                zone = replace(zone, max_range_uj=None)  # noqa: PLW2901
        except THROWN as error:
            errors.append(error)
        else:
            others = [each for each in zones if each.path != zone.path]
            return build_channel(zone, source, others), read
    return build_unreadable(zones[0], errors[0], sysfs), None


def _find_read(zone: Zone, sysfs: Path) -> tuple[str, Read]:
    """Return how a zone is read, with the name of the source, after a first reading."""
    if sysfs == SYSFS_OF_PYRAPL and zone.package is not None and zone.die is None:
        try:
            read = build_pyrapl(zone)
            check_reading(read())
            return f"pyRAPL {zone.energy_file}", read
        except THROWN:
            # Whatever an outside package finds wrong, our own reader gives the user the reason.
            logging.getLogger(__name__).debug("pyRAPL failed", exc_info=True)
    check_reading(zone.read_uj())
    return f"powercap {zone.energy_file}", zone.read_uj


def build_channel(zone: Zone, source: str, left_out: Sequence[Zone] = ()) -> ChannelSpec:
    """Build the channel of a zone that can be read.

    Args:
        zone: The zone.
        source: What it is read by.
        left_out: Other zones of the same counter.
    """
    notes = ["contains cpu_package and dram"] if zone.boundary == "psys" else []
    resolution = None
    if zone.max_range_uj is None:
        notes.append(f"{zone.path}/max_energy_range_uj has no usable range: a wrap is bridged")
    else:
        resolution = max(1, round(zone.max_range_uj / 2**COUNTER_BITS))
    if left_out:
        names = ", ".join(
            f"{each.path.name} ({read_word(each.path / 'name')})" for each in left_out
        )
        notes.append(f"the same counter as {names}, left out")
    sensor_rel, basis = UNCERTAINTY[zone.boundary]
    return ChannelSpec(
        id=zone.id,
        boundary=zone.boundary,
        kind="measured",
        method="counter_delta",
        source=source,
        unit="uJ",
        max_range=zone.max_range_uj,
        in_total=zone.boundary != "psys",
        reason="; ".join(notes) or None,
        update_period_s=UPDATE_PERIOD_S,
        resolution=resolution,
        max_power_w=zone.max_power_w,
        sensor_rel=sensor_rel,
        sensor_rel_basis=basis,
    )


def build_unreadable(zone: Zone, error: Exception, sysfs: Path) -> ChannelSpec:
    """Build the channel of a zone that cannot be read; the reason names the remedy."""
    reason = f"cannot read {zone.energy_file}: {describe(error)}"
    if isinstance(error, PermissionError):
        reason += f"; run: sudo chmod a+r {sysfs}/class/powercap/intel-rapl:*/energy_uj"
    return build_unavailable(zone.id, zone.boundary, f"powercap {zone.path}", reason)


def find_absent(zones: Sequence[Zone], sysfs: Path) -> list[ChannelSpec]:
    """Build the channels of what powercap has no zone of: a boundary, or one of the packages."""
    source, known = f"powercap {sysfs}/class/powercap", {zone.boundary for zone in zones}
    absent = []
    for boundary in ("cpu_package", "dram"):
        reason = f"this CPU has no {boundary} counter"
        if not zones:
            reason = (
                f"no {sysfs}/class/powercap/intel-rapl:0: a virtual machine, a CPU without "
                "RAPL, or the driver is not loaded; run: sudo modprobe intel_rapl_msr"
            )
        if boundary not in known:
            name = f"rapl.{boundary.removeprefix('cpu_')}"
            absent.append(build_unavailable(name, boundary, source, reason))
    files = (sysfs / "devices" / "system" / "cpu").glob("cpu[0-9]*/topology/physical_package_id")
    packages = {number for file in files if (number := _read_number(file)) is not None}
    counted = {zone.package for zone in zones if zone.boundary == "cpu_package"}
    # The kernel may number zones otherwise than packages: only a smaller count means a missing one.
    for number in sorted(packages - counted) if 0 < len(counted) < len(packages) else ():
        reason = f"the machine has a package {number}, and no zone of powercap is its"
        absent.append(build_unavailable(f"rapl.package.{number}", "cpu_package", source, reason))
    return absent


def build_pyrapl(zone: Zone) -> Read:
    """Build the reading of one zone by a pyRAPL sensor of its socket alone.

    Raises:
        Exception: pyRAPL cannot read it, or is not there.
    """
    pyrapl = _import_pyrapl()
    assert zone.package is not None
    dram = zone.boundary == "dram"
    device = pyrapl.Device.DRAM if dram else pyrapl.Device.PKG
    sensor = pyrapl.Sensor(devices=[device], socket_ids=[zone.package])
    # energy() is [package 0, dram 0, package 1, dram 1, ...]; -1 where it has none
    return lambda: int(sensor.energy()[2 * zone.package + dram])


def _import_pyrapl():
    # It warns at import that pymongo and pandas, which are not needed here, are not installed.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import pyRAPL  # noqa: N813, PLC0415
    finally:
        logging.disable(disabled)
    return pyRAPL


def read_filter(cpuinfo: Path, msr: Path) -> dict[str, bool | None]:
    """Read whether RAPL's energies are filtered against side channels (INTEL-SA-00389, 2020).

    Args:
        cpuinfo: /proc/cpuinfo: with SGX switched on, the flag ``sgx``, Intel filters always.
        msr: /dev/cpu/0/msr, which root may read where the msr module is loaded.
    """
    text = read_word(cpuinfo)
    flags = text and text.partition("\nflags")[2].partition("\n")[0].split()
    sgx = None if flags is None else "sgx" in flags
    try:
        with open(msr, "rb", buffering=0) as file:
            word = os.pread(file.fileno(), 8, MISC_PACKAGE_CTLS)
        filtered = bool(word[0] & ENERGY_FILTERING) if word else None
    except OSError:
        filtered = None
    return {"sgx": sgx, "energy_filter": filtered}
