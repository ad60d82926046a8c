"""What a channel is: one physical or modelled source of energy inside one boundary.

A reader owns some channels and reads all of them at once. Readers never raise for a channel
that cannot be read: they give None for it, and at the start an ``unavailable`` channel whose
reason names the remedy.
"""

from dataclasses import dataclass
from typing import Protocol

BOUNDARIES = ("node", "gpu_module", "gpu_board", "cpu_package", "dram", "psys")


@dataclass(frozen=True)
class Channel:
    """What is known of a channel before it is read; the head of the journal repeats it.

    Attributes:
        id: Unique in a meter: ``rapl.package.0``, ``nvml.board.GPU-4e81...``, ``cpu_time``.
        boundary: What the energy flows into, one of `BOUNDARIES`: the whole machine (node), a
            board with the CPU on it (gpu_module), gpu_board, cpu_package, dram or psys.
        kind: measured, derived (integral of a measured power), estimated or unavailable.
        method: counter_delta, power_integral or cpu_time_x_power; None if unavailable.
        source: What is read, as a person would look it up.
        unit: Unit of the raw readings: uJ or mJ (counters), mW (power) or us (CPU time).
        max_range: Value at which a counter starts again from 0, in ``unit``; None: it does not.
        in_total: False for a channel that is never summed: psys, a cross-check.
        reason: Why it is unavailable, or what a reader should know of the figure.
        power_w_per_core: Of cpu_time_x_power only.
        contained_in: Ids of the channels whose energy has this one's in it. Where one of them is
            in the total, this one is not.
        update_period_s: How old a reading may be, because the source is refreshed or asked this
            often; None: not known.
        resolution: Smallest step of a reading, in ``unit``.
        sensor_rel: Uncertainty of the source itself, relative, k = 2.
        sensor_rel_basis: Where ``sensor_rel`` is from; begins with ``assumed`` where nobody
            guarantees it.
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
    contained_in: tuple[str, ...] = ()
    update_period_s: float | None = None
    resolution: int | None = None
    sensor_rel: float | None = None
    sensor_rel_basis: str | None = None


class Reader(Protocol):
    """Anything that reads channels; only `read` must be written."""

    channels: list[Channel]

    def start(self) -> None:
        """Begin what needs a thread. Called once, after the command was started."""

    def read(self) -> dict[str, int | None]:
        """Give the raw reading of each channel by id; None where there is none now.

        A source that is slower than the meter gives each of its readings once, None in between.
        """
        ...

    def read_facts(self) -> dict[str, object]:
        """Give what is worth knowing and no channel, as JSON. Called at the start and the end."""
        return {}

    def close(self) -> None:
        """End what `start` began; must not wait for a sensor. Called once, at the end."""


class SilentReader(Reader):
    """Stands for a sensor that cannot be read.

    Args:
        channels: Unavailable, each with its reason.
    """

    def __init__(self, channels: list[Channel]) -> None:
        self.channels = channels

    def read(self) -> dict[str, int | None]:
        """Give nothing."""
        return {}


def unavailable(channel_id: str, boundary: str, source: str, reason: str) -> Channel:
    """Build the channel of something that cannot be metered; its energy will be null."""
    return Channel(channel_id, boundary, "unavailable", None, source, in_total=False, reason=reason)
