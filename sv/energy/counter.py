"""From readings to energy: counters that wrap or are reset, and the integral of a power.

One class adds up every kind of channel, reading by reading: the meter for its live view, and the
rebuilding of a sidecar from its journal. So both always give the same figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sv.energy.units import UNITS_PER_J, j_from_count, s_from_us, w_from_count

# Above any processor package or board sold (about 1 kW, 2025): a counter that went backwards by
# more than this power explains did not wrap but was reset.
MAX_CHANNEL_W = 2000.0
# Counters are refreshed up to 0.1 s late (NVML; RAPL 1 ms), so two near readings may hold more.
REFRESH_S = 0.1
# Samples further apart than this many periods are a gap: a busy machine makes some late.
GAP_PERIODS = 2.5


@dataclass(frozen=True)
class Reading:
    """One raw reading of a channel.

    Attributes:
        t_s: CLOCK_BOOTTIME, which goes on while the machine is suspended.
        awake_s: CLOCK_MONOTONIC, which does not.
        value: The raw reading.
    """

    t_s: float
    awake_s: float
    value: int


class Accumulator:
    """Adds up one channel, reading by reading.

    Attributes:
        n: Readings so far.
        first, last: First and last of them; None before.
        energy_j: Joules since the first reading. After a reset of the counter (driver reloaded,
            machine suspended) only what was counted since: a lower bound.
        wraps, resets: Of a counter. Without a reset its advance is
            ``last - first + wraps * max_range``.
        max_w, min_w: Highest and lowest mean power between two readings that are not too near
            to tell; None where there are no such two.
        first_w, last_w: Mean power of the first and of the last such interval.
        gap_s: Time awake in intervals longer than ``GAP_PERIODS`` periods, less one period each.
    """

    def __init__(self, spec: Mapping[str, Any], period_s: float) -> None:
        self.n = 0
        self.first: Reading | None = None
        self.last: Reading | None = None
        self.wraps = self.resets = 0
        self.max_w: float | None = None
        self.min_w: float | None = None
        self.first_w: float | None = None
        self.last_w: float | None = None
        self.gap_s = 0.0
        self.longest_s = 0.0  # the longest time between two readings
        self._count = 0  # of a counter, in its own unit: exact
        self._sum_j = 0.0
        self._method, self._unit = spec["method"], spec["unit"]
        self._max_range = spec["max_range"]
        self._w_per_core = spec["power_w_per_core"]
        self._period_s = period_s

    @property
    def energy_j(self) -> float:
        """Joules since the first reading."""
        return (
            j_from_count(self._count, self._unit)
            if self._method == "counter_delta"
            else self._sum_j
        )

    def add(self, now: Reading) -> None:
        """Take one more reading, later than the last."""
        before, self.last = self.last, now
        self.n += 1
        if before is None:
            self.first = now
            return
        seconds = now.awake_s - before.awake_s
        if self._method == "counter_delta":
            counts = self._advance(now.value - before.value, now.value, seconds)
            self._count += counts
            energy_j = j_from_count(counts, self._unit)
        elif self._method == "power_integral":
            # The trapezoid rule, over the time that the machine was awake.
            energy_j = w_from_count((before.value + now.value) / 2, self._unit) * seconds
        else:
            energy_j = s_from_us(now.value - before.value) * self._w_per_core
        self._sum_j += energy_j
        self.longest_s = max(self.longest_s, now.t_s - before.t_s)
        if seconds > GAP_PERIODS * self._period_s:
            self.gap_s += seconds - self._period_s
        if seconds >= REFRESH_S:
            self._note_power(energy_j / seconds)

    def _advance(self, advance: int, value: int, seconds: float) -> int:
        if advance >= 0:
            return advance
        limit = MAX_CHANNEL_W * (seconds + REFRESH_S) * UNITS_PER_J[self._unit]
        if self._max_range is not None and 0 <= advance + self._max_range <= limit:
            self.wraps += 1
            return advance + self._max_range
        self.resets += 1
        return value

    def _note_power(self, power_w: float) -> None:
        if self.first_w is None:
            self.first_w = self.max_w = self.min_w = power_w
        self.last_w = power_w
        self.max_w = max(self.max_w or 0.0, power_w)
        self.min_w = power_w if self.min_w is None else min(self.min_w, power_w)

    def may_hide_wrap(self, longest_s: float) -> bool:
        """Tell whether the counter may have gone round between two readings ``longest_s`` apart.

        Safe is less than half a wrap at the highest power seen.
        """
        if self._max_range is None or self._method != "counter_delta" or self.max_w is None:
            return False
        return self.max_w * longest_s > j_from_count(self._max_range, self._unit) / 2
