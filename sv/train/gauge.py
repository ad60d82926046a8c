"""The energy of the running attempt, as its meter says it while the training runs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

J_PER_KWH = 3.6e6
READ_S = 1.0  # the meter samples about once a second; asked more often it says the same
MIN_SPAN_S = 10.0  # of a J-per-crop figure: the moment of a sample is known to a second or so


@dataclass(frozen=True)
class Energy:
    """Energy since the attempt began; ``elapsed_s`` is the moment of the meter's sample."""

    energy_j: float
    measured_j: float  # the part that is no estimate
    elapsed_s: float

    @property
    def energy_kwh(self) -> float:
        """The same in kWh."""
        return self.energy_j / J_PER_KWH


@dataclass(frozen=True)
class CropEnergy:
    """Energy of so many crops."""

    energy_j: float
    measured_j: float
    crops: int


class EnergyGauge:
    """Reads the meter's live figures, at most once a second.

    Args:
        read_live: Gives them as a mapping, or None if there is nothing to read; None if there is
            no meter.
    """

    def __init__(self, read_live: Callable[[], Mapping[str, Any] | None] | None) -> None:
        self._read_live = read_live or (lambda: None)
        self.has_meter = read_live is not None
        self._last: Energy | None = None
        self._read_at: float | None = None
        self._began: tuple[Energy | None, int] = (None, 0)

    def read(self) -> Energy | None:
        """Give the energy so far; None if it is not known."""
        now = time.monotonic()
        if self._read_at is None or now - self._read_at >= READ_S:
            self._read_at, self._last = now, _parse(self._read_live())
        return self._last

    def begin(self, crops: int) -> None:
        """Begin a stretch of training at which ``crops`` crops had been trained on."""
        self._began = self.read(), crops

    def take(self, crops: int) -> CropEnergy | None:
        """Give the energy since the last `begin` or `take` that gave one.

        None if it is not known, or the stretch is too short for a figure (`MIN_SPAN_S`).
        """
        (first, crops_before), last = self._began, self.read()
        if first is None or last is None or last.elapsed_s - first.elapsed_s < MIN_SPAN_S:
            return None
        self._began = last, crops
        return CropEnergy(
            last.energy_j - first.energy_j, last.measured_j - first.measured_j, crops - crops_before
        )

    def end(self, crops: int) -> CropEnergy | None:
        """End the stretch with a last `take`; what follows is not counted until `begin`."""
        energy = self.take(crops)
        self._began = None, 0
        return energy


def _parse(live: Mapping[str, Any] | None) -> Energy | None:
    if live is None or live.get("energy_kwh") is None or live.get("elapsed_s") is None:
        return None
    energy_j = live["energy_kwh"] * J_PER_KWH
    return Energy(energy_j, energy_j * (live.get("measured_fraction") or 0.0), live["elapsed_s"])
