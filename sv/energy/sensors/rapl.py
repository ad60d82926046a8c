"""CPU package and memory energy from RAPL: through pyRAPL where it works, else from powercap.

pyRAPL returns raw counters in microjoules. It always looks in /sys, knows neither wraps nor dies,
needs every package to have the zone, and raises where energy_uj is for root only. Another root of
sysfs and everything that pyRAPL cannot do are read from the kernel's powercap tree by ourselves.

Zones that another one contains are left out (core, uncore) or kept out of the total (psys: the
whole platform). The mirror tree intel-rapl-mmio counts the same packages again and is not read.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sv.energy.sensors.readers import ChannelSpec, Reader, ask, build_unavailable, read_word

SYSFS_OF_PYRAPL = Path("/sys")  # literal in pyRAPL 0.2.3.1, device_api.py
CPUINFO, MSR = Path("/proc/cpuinfo"), Path("/dev/cpu/0/msr")
MISC_PACKAGE_CTLS, ENERGY_FILTERING = 0xBC, 1  # Intel SDM volume 4: bit 0, ENERGY_FILTERING_ENABLE
ZONE_DIR = re.compile(r"intel-rapl:\d+(:\d+)?")
PACKAGE_NAME = re.compile(r"package-(\d+)(?:-die-(\d+))?")
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
        id: Channel id, ``rapl.package.0``, ``rapl.dram.0`` or ``rapl.psys``.
        boundary: cpu_package, dram or psys.
        socket: Number of the package; None for psys and for one die of several.
        path: The zone's folder.
        max_range_uj: Where the counter wraps; None if the kernel does not say.
    """

    id: str
    boundary: str
    socket: int | None
    path: Path
    max_range_uj: int | None

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


def open_rapl(sysfs: Path) -> list[Reader]:
    """Open every RAPL counter of the machine.

    Args:
        sysfs: Root of sysfs, /sys.

    Returns:
        Readers of the packages, their memory and psys; what cannot be read is in them as an
        unavailable channel. Never raises for a machine that is not as expected.
    """
    zones = find_zones(sysfs)
    readers: list[Reader] = []
    for boundary in UNCERTAINTY:
        chosen = [zone for zone in zones if zone.boundary == boundary]
        if chosen:
            readers.append(_open_boundary(chosen, sysfs))
        elif boundary != "psys":
            reason = f"this CPU has no {boundary} counter"
            if not zones:
                reason = (
                    f"no {sysfs}/class/powercap/intel-rapl:0: a virtual machine, a CPU without "
                    "RAPL, or the driver is not loaded; run: sudo modprobe intel_rapl_msr"
                )
            name = f"rapl.{boundary.removeprefix('cpu_')}"
            source = f"powercap {sysfs}/class/powercap"
            readers.append(Reader([build_unavailable(name, boundary, source, reason)]))
    return [*readers, FilterReader()] if zones else readers


def _open_boundary(zones: list[Zone], sysfs: Path) -> Reader:
    if sysfs == SYSFS_OF_PYRAPL and all(zone.socket is not None for zone in zones):
        try:
            return PyraplReader(zones)
        except Exception:
            # Whatever an outside package finds wrong, our own reader gives the user the reason.
            logging.getLogger(__name__).debug("pyRAPL failed", exc_info=True)
    return open_powercap(zones, sysfs)


def find_zones(sysfs: Path) -> list[Zone]:
    """Find the zones that are a CPU package, its memory or the whole platform, by name."""
    # /sys has every zone as a flat link; another mount may have the real, nested folders only.
    found = sorted((sysfs / "class" / "powercap").rglob("intel-rapl:*"))
    folders = {folder.name: folder for folder in found if ZONE_DIR.fullmatch(folder.name)}
    names = {key: read_word(folder / "name") for key, folder in folders.items()}
    zones: dict[str, Zone] = {}
    for key, folder in sorted(folders.items()):
        parent = key.rsplit(":", 1)[0] if key.count(":") > 1 else key
        package = PACKAGE_NAME.fullmatch(names.get(parent) or "")
        if package and (names[key] == "dram" or key == parent):
            boundary, die = "dram" if names[key] == "dram" else "cpu_package", package[2]
            number = package[1] if die is None else f"{package[1]}.die.{die}"
            socket = int(package[1]) if die is None else None
            zone_id = f"rapl.{boundary.removeprefix('cpu_')}.{number}"
        elif names[key] == "psys" and key == parent:
            zone_id, boundary, socket = "rapl.psys", "psys", None
        else:
            continue
        max_range = read_word(folder / "max_energy_range_uj")
        max_range_uj = int(max_range or 0) if (max_range or "0").isdigit() else 0
        # Two drivers may offer the same package (MSR and TPMI): one of them is enough.
        zones.setdefault(zone_id, Zone(zone_id, boundary, socket, folder, max_range_uj or None))
    return list(zones.values())


def build_channel(zone: Zone, source: str) -> ChannelSpec:
    """Build the channel of a zone that can be read."""
    reason = "contains cpu_package and dram" if zone.boundary == "psys" else None
    resolution = None
    if zone.max_range_uj is None:
        reason = f"{zone.path}/max_energy_range_uj cannot be read: a wrap counts as a reset"
    else:
        resolution = max(1, round(zone.max_range_uj / 2**COUNTER_BITS))
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
        reason=reason,
        update_period_s=UPDATE_PERIOD_S,
        resolution=resolution,
        sensor_rel=sensor_rel,
        sensor_rel_basis=basis,
    )


def build_unreadable(zone: Zone, error: Exception, sysfs: Path) -> ChannelSpec:
    """Build the channel of a zone that cannot be read; the reason names the remedy."""
    why = getattr(error, "strerror", None) or f"not a number ({error})"
    reason = f"cannot read {zone.energy_file}: {why}"
    if isinstance(error, PermissionError):
        reason += f"; run: sudo chmod a+r {sysfs}/class/powercap/intel-rapl:*/energy_uj"
    return build_unavailable(zone.id, zone.boundary, f"powercap {zone.path}", reason)


def open_powercap(zones: list[Zone], sysfs: Path) -> Reader:
    """Open zones, to be read file by file; one that cannot be read now is unavailable."""
    channels, reads = [], {}
    for zone in zones:
        try:
            zone.read_uj()
        except (OSError, ValueError) as error:
            channels.append(build_unreadable(zone, error, sysfs))
        else:
            channels.append(build_channel(zone, f"powercap {zone.energy_file}"))
            reads[zone.id] = zone.read_uj
    return Reader(channels, reads, (OSError, ValueError))


class PyraplReader(Reader):
    """Reads the zones of one boundary with a pyRAPL sensor, all by one call."""

    def __init__(self, zones: list[Zone]) -> None:
        pyrapl = _import_pyrapl()
        dram = zones[0].boundary == "dram"
        self._offset = int(dram)  # energy() is [package 0, dram 0, package 1, dram 1, ...]
        self._zones = zones
        self._sensor = pyrapl.Sensor(devices=[pyrapl.Device.DRAM if dram else pyrapl.Device.PKG])
        if None in self._read_uj():
            raise ValueError("pyRAPL has no reading of a zone")
        channels = [build_channel(zone, f"pyRAPL {zone.energy_file}") for zone in zones]
        failures = (pyrapl.PyRAPLException, OSError, ValueError, IndexError)
        super().__init__(channels, failures=failures)

    def _read_uj(self) -> list[int | None]:
        counters = self._sensor.energy()
        values = [counters[2 * (zone.socket or 0) + self._offset] for zone in self._zones]
        return [int(value) if value >= 0 else None for value in values]  # -1: it has none

    def read(self) -> dict[str, int | None]:
        """Read all zones; one that fails makes pyRAPL fail for all."""
        values = ask(self._read_uj, self._failures) or [None] * len(self._zones)
        return dict(zip((zone.id for zone in self._zones), values, strict=True))


def _import_pyrapl():
    # It warns at import that pymongo and pandas, which are not needed here, are not installed.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import pyRAPL  # noqa: N813, PLC0415
    finally:
        logging.disable(disabled)
    return pyRAPL


class FilterReader(Reader):
    """Reports whether the processor blurs its counters on purpose; has no channel."""

    def read_metadata(self) -> dict[str, object]:
        """Return ``sgx`` and ``energy_filter``: true, false, or null where they cannot be read."""
        return {"rapl": read_filter(CPUINFO, MSR)}


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
