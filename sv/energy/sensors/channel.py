"""What a channel is: one physical or modelled source of energy inside one boundary.

A reader owns some channels and reads all of them at once. Readers never raise for a channel
that cannot be read: they give None for it, and at the start an ``unavailable`` channel whose
reason names the remedy.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Channel:
    """What is known of a channel before it is read; the head of the journal repeats it.

    Attributes:
        id: Unique in a meter: ``rapl.package.0``, ``nvml.board.GPU-4e81...``, ``cpu_time``.
        boundary: What the energy flows into: cpu_package, dram, gpu_board or psys.
        kind: measured, derived (integral of a measured power), estimated or unavailable.
        method: counter_delta, power_integral or cpu_time_x_power; None if unavailable.
        source: What is read, as a person would look it up.
        unit: Unit of the raw readings: uJ or mJ (counters), mW (power) or us (CPU time).
        max_range: Value at which a counter starts again from 0, in ``unit``; None: it does not.
        in_total: False for a channel that another one contains (psys).
        reason: Why it is unavailable, or what a reader should know of the figure.
        power_w_per_core: Of cpu_time_x_power only.
    """

    id: str
    boundary: str
    kind: str
    method: str | None
    source: str
    unit: str | None = None
    max_range: int | None = None
    in_total: bool = True
    reason: str | None = None
    power_w_per_core: float | None = None


class Reader(Protocol):
    """Anything that reads channels."""

    channels: list[Channel]

    def read(self) -> dict[str, int | None]:
        """Give the raw reading of each channel by id; None where it cannot be read now."""


def unavailable(channel_id: str, boundary: str, source: str, reason: str) -> Channel:
    """Build the channel of something that cannot be metered; its energy will be null."""
    return Channel(channel_id, boundary, "unavailable", None, source, in_total=False, reason=reason)
