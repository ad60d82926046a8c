"""The kernel's powercap tree: which RAPL zones there are, and a reader for any root of sysfs.

Zones that another one contains are left out (core, uncore) or kept out of the total (psys: the
whole platform). The mirror tree intel-rapl-mmio counts the same packages again and is not read.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sv.energy.sensors.channel import Channel, Reader, unavailable

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


def find_zones(sysfs: Path) -> list[Zone]:
    """Find the zones that are a CPU package, its memory or the whole platform, by name."""
    powercap = sysfs / "class" / "powercap"
    # /sys has every zone as a flat link; another mount may have the real, nested folders only.
    patterns = ("intel-rapl:*", "intel-rapl:*/intel-rapl:*", "intel-rapl/intel-rapl:*",
                "intel-rapl/intel-rapl:*/intel-rapl:*")  # fmt: skip
    folders: dict[str, Path] = {}
    for pattern in patterns:
        for folder in sorted(powercap.glob(pattern)):
            if ZONE_DIR.fullmatch(folder.name):
                folders.setdefault(folder.name, folder)
    names = {key: _read_word(folder / "name") for key, folder in folders.items()}
    zones: dict[str, Zone] = {}
    for key, folder in sorted(folders.items()):
        parent = key.rsplit(":", 1)[0] if key.count(":") > 1 else key
        package = PACKAGE_NAME.fullmatch(names.get(parent) or "")
        if package and (names[key] == "dram" or key == parent):
            kind = "dram" if names[key] == "dram" else "package"
            die = package[2]
            number = package[1] if die is None else f"{package[1]}.die.{die}"
            boundary = "dram" if kind == "dram" else "cpu_package"
            socket = int(package[1]) if die is None else None
            zone_id = f"rapl.{kind}.{number}"
        elif names[key] == "psys" and key == parent:
            zone_id, boundary, socket = "rapl.psys", "psys", None
        else:
            continue
        max_range = _read_word(folder / "max_energy_range_uj")
        max_range_uj = int(max_range or 0) if (max_range or "0").isdigit() else 0
        # Two drivers may offer the same package (MSR and TPMI): one of them is enough.
        zones.setdefault(zone_id, Zone(zone_id, boundary, socket, folder, max_range_uj or None))
    return list(zones.values())


def read_energy_uj(zone: Zone) -> int:
    """Read a zone's counter in microjoules.

    Raises:
        OSError: The file cannot be read (since 2020 only root may, CVE-2020-8694).
        ValueError: It does not hold a number.
    """
    return int(zone.energy_file.read_text(encoding="ascii"))


def build_channel(zone: Zone, source: str) -> Channel:
    """Build the channel of a zone that can be read."""
    reason = "contains cpu_package and dram" if zone.boundary == "psys" else None
    if zone.max_range_uj is None:
        reason = f"{zone.path}/max_energy_range_uj cannot be read: a wrap counts as a reset"
    resolution = None
    if zone.max_range_uj is not None:
        resolution = max(1, round(zone.max_range_uj / 2**COUNTER_BITS))
    sensor_rel, basis = UNCERTAINTY[zone.boundary]
    return Channel(
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


def build_unavailable(zone: Zone, error: Exception, sysfs: Path) -> Channel:
    """Build the channel of a zone that cannot be read; the reason names the remedy."""
    why = getattr(error, "strerror", None) or f"not a number ({error})"
    reason = f"cannot read {zone.energy_file}: {why}"
    if isinstance(error, PermissionError):
        reason += f"; run: sudo chmod a+r {sysfs}/class/powercap/intel-rapl:*/energy_uj"
    return unavailable(zone.id, zone.boundary, f"powercap {zone.path}", reason)


def _read_word(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


class PowercapReader(Reader):
    """Reads zones file by file."""

    def __init__(self, zones: list[Zone], sysfs: Path) -> None:
        self.channels: list[Channel] = []
        self._zones: list[Zone] = []
        for zone in zones:
            try:
                read_energy_uj(zone)
            except (OSError, ValueError) as error:
                self.channels.append(build_unavailable(zone, error, sysfs))
            else:
                self.channels.append(build_channel(zone, f"powercap {zone.energy_file}"))
                self._zones.append(zone)

    def read(self) -> dict[str, int | None]:
        """Read every zone that could be read at the start."""
        return {zone.id: _read_or_none(zone) for zone in self._zones}


def _read_or_none(zone: Zone) -> int | None:
    try:
        return read_energy_uj(zone)
    except (OSError, ValueError):
        return None
