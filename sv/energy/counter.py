"""From readings to energy: counters that wrap or are reset, and the integral of a power."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Above any processor package or board sold (about 1 kW, 2025): a counter that went backwards by
# more than this power explains did not wrap but was reset.
MAX_CHANNEL_W = 2000.0
# Counters are refreshed up to 0.1 s late (NVML; RAPL 1 ms), so two near readings may hold more.
REFRESH_S = 0.1


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


@dataclass(frozen=True)
class CounterSum:
    """Sum of a counter's advances. Without a reset, count = last - first + wraps * max_range.

    ``max_per_s`` is the fastest advance between two readings that are not too near to tell.
    """

    count: int
    wraps: int
    resets: int
    max_per_s: float


def sum_counter(
    readings: Sequence[Reading], max_range: int | None, counts_per_j: float
) -> CounterSum:
    """Add up a counter's advances, reading by reading.

    Args:
        readings: In time order; at least as many as it takes to see every wrap.
        max_range: Value at which the counter starts again from 0; None: it never does.
        counts_per_j: Counts in a joule, to tell a wrap from a reset.

    Returns:
        The sum. After a reset (driver reloaded, machine suspended) it holds only what was
        counted since the reset, so it is a lower bound.
    """
    count, wraps, resets, max_per_s = 0, 0, 0, 0.0
    for before, now in pairwise(readings):
        seconds = now.awake_s - before.awake_s
        advance = now.value - before.value
        if advance < 0:
            limit = MAX_CHANNEL_W * (seconds + REFRESH_S) * counts_per_j
            if max_range is not None and 0 <= advance + max_range <= limit:
                advance += max_range
                wraps += 1
            else:
                advance = now.value
                resets += 1
        count += advance
        if seconds >= REFRESH_S:
            max_per_s = max(max_per_s, advance / seconds)
    return CounterSum(count, wraps, resets, max_per_s)


def integrate_power(readings: Sequence[Reading]) -> float:
    """Integrate power over the time that the machine was awake, by the trapezoid rule.

    Returns:
        The integral, in the readings' unit times seconds.
    """
    return sum(
        (before.value + now.value) / 2 * (now.awake_s - before.awake_s)
        for before, now in pairwise(readings)
    )


def compute_max_gap_s(readings: Sequence[Reading], start_s: float, end_s: float) -> float:
    """Give the longest time without a reading between ``start_s`` and ``end_s``."""
    times = [start_s, *(reading.t_s for reading in readings), end_s]
    return max(now - before for before, now in pairwise(times))
