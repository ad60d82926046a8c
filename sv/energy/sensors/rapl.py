"""CPU package and memory energy from RAPL: through pyRAPL where it works, else read by ourselves.

pyRAPL gives raw counters in microjoules. It always looks in /sys, knows neither wraps nor dies,
needs every package to have the zone, and raises where energy_uj is for root only: another root
and everything that it cannot do are left to `sv.energy.sensors.powercap`.
"""

import logging
import os
from pathlib import Path

from sv.energy.sensors.channel import Channel, Reader, SilentReader, unavailable
from sv.energy.sensors.powercap import PowercapReader, Zone, build_channel, find_zones

SYSFS_OF_PYRAPL = Path("/sys")  # literal in pyRAPL 0.2.3.1, device_api.py
CPUINFO, MSR = Path("/proc/cpuinfo"), Path("/dev/cpu/0/msr")
MISC_PACKAGE_CTLS, ENERGY_FILTERING = 0xBC, 1  # Intel SDM volume 4: bit 0, ENERGY_FILTERING_ENABLE


class PyraplReader(Reader):
    """Reads the zones of one boundary with a pyRAPL sensor."""

    def __init__(self, zones: list[Zone]) -> None:
        pyrapl = _import_pyrapl()
        dram = zones[0].boundary == "dram"
        self._offset = int(dram)  # energy() is [package 0, dram 0, package 1, dram 1, ...]
        self._zones = zones
        self._errors = (pyrapl.PyRAPLException, OSError, ValueError, IndexError)
        self._sensor = pyrapl.Sensor(devices=[pyrapl.Device.DRAM if dram else pyrapl.Device.PKG])
        if None in self._read_uj():
            raise ValueError("pyRAPL has no reading of a zone")
        self.channels = [build_channel(zone, f"pyRAPL {zone.energy_file}") for zone in zones]

    def _read_uj(self) -> list[int | None]:
        counters = self._sensor.energy()
        values = [counters[2 * (zone.socket or 0) + self._offset] for zone in self._zones]
        return [int(value) if value >= 0 else None for value in values]  # -1: it has none

    def read(self) -> dict[str, int | None]:
        """Read all zones; one that fails makes pyRAPL fail for all."""
        try:
            values = self._read_uj()
        except self._errors:
            values = [None] * len(self._zones)
        return dict(zip((zone.id for zone in self._zones), values, strict=True))


class FilterReader(SilentReader):
    """Tells whether the processor blurs its counters on purpose; has no channel."""

    def __init__(self) -> None:
        super().__init__([])

    def read_facts(self) -> dict[str, object]:
        """Give ``sgx`` and ``energy_filter``: true, false, or null where they cannot be read."""
        return {"rapl": read_filter(CPUINFO, MSR)}


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
    for boundary in ("cpu_package", "dram", "psys"):
        chosen = [zone for zone in zones if zone.boundary == boundary]
        if chosen:
            readers.append(_open_boundary(chosen, sysfs))
        elif boundary != "psys":
            readers.append(SilentReader([_build_missing(boundary, bool(zones), sysfs)]))
    return [*readers, FilterReader()] if zones else readers


def read_filter(cpuinfo: Path, msr: Path) -> dict[str, bool | None]:
    """Read whether RAPL's energies are filtered against side channels (INTEL-SA-00389, 2020).

    Args:
        cpuinfo: /proc/cpuinfo: with SGX switched on, the flag ``sgx``, Intel filters always.
        msr: /dev/cpu/0/msr, which root may read where the msr module is loaded.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        sgx = "sgx" in text.partition("\nflags")[2].partition("\n")[0].split()
    except OSError:
        sgx = None
    try:
        with open(msr, "rb", buffering=0) as file:
            word = os.pread(file.fileno(), 8, MISC_PACKAGE_CTLS)
        filtered = bool(word[0] & ENERGY_FILTERING) if word else None
    except OSError:
        filtered = None
    return {"sgx": sgx, "energy_filter": filtered}


def _open_boundary(zones: list[Zone], sysfs: Path) -> Reader:
    packages_only = all(zone.socket is not None for zone in zones)
    if sysfs == SYSFS_OF_PYRAPL and packages_only:
        try:
            return PyraplReader(zones)
        except Exception:
            # Whatever an outside package finds wrong, our own reader tells the user's reason.
            logging.getLogger(__name__).debug("pyRAPL failed", exc_info=True)
    return PowercapReader(zones, sysfs)


def _import_pyrapl():
    # It warns at import that pymongo and pandas, which nobody needs here, are not installed.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import pyRAPL  # noqa: N813, PLC0415
    finally:
        logging.disable(disabled)
    return pyRAPL


def _build_missing(boundary: str, any_zone: bool, sysfs: Path) -> Channel:
    if any_zone:
        reason = f"this CPU has no {boundary} counter"
    else:
        reason = (
            f"no {sysfs}/class/powercap/intel-rapl:0: a virtual machine, a CPU without RAPL, "
            "or the driver is not loaded; run: sudo modprobe intel_rapl_msr"
        )
    short = "package" if boundary == "cpu_package" else boundary
    return unavailable(f"rapl.{short}", boundary, f"powercap {sysfs}/class/powercap", reason)
