"""The machine's energy from Cray's pm_counters: files of the kernel, refreshed ten times a second.

A file holds ``<count> J <microseconds> us``. The time tells an old figure: one that has not moved
between two samples is not taken again.
"""

import re
from pathlib import Path

from sv.energy.sensors.channel import Channel, Reader, unavailable

ENERGY = re.compile(r"(\d+) J(?: (\d+) us)?")
SCAN_HZ = 10  # HPE Cray EX documentation; raw_scan_hz says it where it is there


class CrayReader(Reader):
    """Reads the node's energy counter.

    Args:
        file: ``energy`` of pm_counters.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: str | None = None
        if self._read() is None:
            reason = f"{self._file} cannot be read"
            self.channels = [unavailable("node.cray", "node", "Cray pm_counters", reason)]
        else:
            self.channels = [
                Channel(
                    id="node.cray",
                    boundary="node",
                    kind="measured",
                    method="counter_delta",
                    source=f"Cray pm_counters {self._file}",
                    unit="J",
                    update_period_s=1 / _read_scan_hz(file.with_name("raw_scan_hz")),
                    resolution=1,
                    sensor_rel=0.05,
                    sensor_rel_basis="assumed: the maker states none for this counter",
                )
            ]

    def read(self) -> dict[str, int | None]:
        """Give the joules so far; None if the file fails or has not moved since the last call."""
        found = self._read()
        if found is None:
            return {"node.cray": None}
        energy_j, stamp = found
        stale = stamp is not None and stamp == self._stamp
        self._stamp = stamp
        return {"node.cray": None if stale else energy_j}

    def _read(self) -> tuple[int, str | None] | None:
        try:
            match = ENERGY.fullmatch(self._file.read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            return None
        return match and (int(match[1]), match[2])


def _read_scan_hz(path: Path) -> float:
    try:
        return float(path.read_text(encoding="ascii")) or SCAN_HZ
    except (OSError, ValueError):
        return SCAN_HZ
