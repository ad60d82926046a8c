"""What a channel and a reader are, which channels contain which, and how often to read them.

A channel is one physical or modelled source of energy inside one boundary. A reader owns some
channels and reads all of them at once. Readers never raise for a channel that cannot be read: they
return None for it, and at the start an ``unavailable`` channel whose reason names the remedy.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sv.energy.units import UNITS_PER_J

BOUNDARIES = ("node", "gpu_module", "gpu_board", "cpu_package", "dram", "psys")
# Boundary -> boundaries that have it in them, whichever board or socket they are of.
CONTAINERS = {
    "cpu_package": ("psys", "gpu_module", "node"),
    "dram": ("psys", "gpu_module", "node"),
    "psys": ("node",),
    "gpu_module": ("node",),
    "gpu_board": ("node",),
    "node": (),
}
OF_GPU = {"gpu_board", "gpu_module"}
# Boundary -> what no channel of it can draw. A step of a counter above this power x its time, or a
# power above it, is no reading.
MAX_POWER_W = {
    "cpu_package": 2000.0,  # Intel Xeon 6980P and AMD EPYC 9965: 500 W (2024)
    "gpu_board": 2000.0,  # NVIDIA B300: 1.4 kW (2025)
    "dram": 2000.0,  # 3 TB at 0.3725 W per GB (Green Algorithms, 2021) are 1.1 kW
    "psys": 5000.0,  # a board of two packages with their memory
    "gpu_module": 3000.0,  # NVIDIA GB200: two boards of 1.2 kW and a processor of 0.3 kW (2025)
    "node": 20_000.0,  # NVIDIA DGX B200: 14.3 kW (2025)
}
MAX_TEXT = 300  # characters of an error: a tool may print pages
READINGS_PER_WRAP = 8  # a counter that gets eight times faster still shows every wrap
MAX_READING = 2**63 - 1  # what a journal's column can hold; no counter sold gets near
ALL_ONES = {2**16 - 1, 2**31 - 1, 2**32 - 1}  # what registers and firmware give for no reading
# A power without a counter is read as often as NVML refreshes it: a square wave of 50 and 400 W, a
# second each, is integrated over 20 s to 2 % then, and to half of it or twice at 1 Hz.
POWER_PERIOD_S = 0.1
THROWN = (Exception, SystemExit)  # by the library of a sensor
T = TypeVar("T")
Read = Callable[[], int]
SHORTEST_S = 0.05  # as the config's period_s: no counter sold wraps in under a second


@dataclass(frozen=True)
class ChannelSpec:
    """What is known of a channel before it is read; the head of the journal repeats it.

    Attributes:
        id: Unique in a meter: ``rapl.package.0``, ``nvml.board.GPU-4e81...``, ``cpu_time``.
        boundary: What the energy flows into, one of `BOUNDARIES`: the whole machine (node), a
            board with the CPU on it (gpu_module), gpu_board, cpu_package, dram or psys.
        kind: measured, derived (integral of a measured power), estimated or unavailable.
        method: counter_delta, power_integral or cpu_time_x_power; None if unavailable.
        source: What is read, as a person would look it up.
        unit: Unit of the raw readings: uJ, mJ, J (counters), uW, mW, W (power) or us (CPU time).
        max_range: Value at which a counter starts again from 0, in ``unit``; None: it does not.
        in_total: False for a channel that is never summed: psys, a cross-check.
        reason: Why it is unavailable, or what a reader should know of the figure.
        power_w_per_core: Of cpu_time_x_power only: power of a busy logical CPU (a thread of a
            core that has two).
        contained_in: Ids of the channels whose energy has this one's in it. Where one of them is
            in the total, this one is not.
        update_period_s: How old a reading may be, because the source is refreshed or asked this
            often; None: not known.
        resolution: Smallest step of a reading, in ``unit``.
        max_power_w: The most that it can draw, where its hardware says so; None: what
            `MAX_POWER_W` has for its boundary.
        sensor_rel: Uncertainty of the source itself, relative, k = 2.
        sensor_rel_basis: Where ``sensor_rel`` is from; begins with ``assumed`` where no maker
            states it.
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
    max_power_w: float | None = None
    sensor_rel: float | None = None
    sensor_rel_basis: str | None = None


class Reader:
    """Reads some channels, each by a function of its own.

    Args:
        channels: All of them; one without a function is unavailable.
        reads: Id of a channel -> function that returns its raw reading, or raises.
    """

    def __init__(
        self, channels: Iterable[ChannelSpec] = (), reads: Mapping[str, Read] | None = None
    ) -> None:
        self.channels = list(channels)
        self._reads = dict(reads or {})
        self._failures: dict[str, dict[str, Any]] = {}

    def start(self) -> None:
        """Begin what needs a thread. Called once, after the command was started."""

    def read(self) -> dict[str, int | None]:
        """Return the raw reading of each channel by id; None where there is none now.

        A source that is slower than the meter returns each reading once, None in between.
        """
        return {name: self._read_one(name, read) for name, read in self._reads.items()}

    def _read_one(self, name: str, read: Read) -> int | None:
        try:
            return check_reading(read())
        except THROWN as error:  # it costs this reading and no other
            failure = self._failures.setdefault(name, {"failed": 0})
            failure |= {"failed": failure["failed"] + 1, "last_error": describe(error)}
            return None

    def read_metadata(self) -> dict[str, object]:
        """Return what else is worth knowing, as JSON. Called at the start and the end.

        A channel that failed has its id here, with ``failed`` (readings) and ``last_error``.
        """
        return {name: dict(failure) for name, failure in self._failures.items()}

    def close(self) -> None:
        """End what `start` began; must not wait for a sensor. Called once, at the end."""


def check_reading(value: object) -> int:
    """Return a raw reading, if it can be one.

    Raises:
        ValueError: It is no integer, negative, larger than any counter gets, or all ones.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    if not 0 <= value <= MAX_READING or value in ALL_ONES:
        raise ValueError(f"{value} is no reading of a sensor")
    return value


def describe(error: BaseException) -> str:
    """Say in a line why a sensor gave no reading."""
    # NVML's own errors ask the driver for their text, which may fail as well.
    text = getattr(error, "strerror", None) or ask(lambda: str(error)) or type(error).__name__
    return " ".join(text.split())[:MAX_TEXT]


def ask(call: Callable[[], T]) -> T | None:
    """Return what a sensor's library answers; None where it raises anything."""
    try:
        return call()
    except THROWN:
        return None


def read_word(file: Path) -> str | None:
    """Return what a small text file of the kernel holds; None where it cannot be read."""
    return ask(lambda: file.read_text(encoding="utf-8", errors="replace").strip())


def build_unavailable(channel_id: str, boundary: str, source: str, reason: str) -> ChannelSpec:
    """Build the channel of something that cannot be metered; its energy will be null."""
    return ChannelSpec(
        channel_id, boundary, "unavailable", None, source, in_total=False, reason=reason
    )


def contain(readers: Sequence[Reader], *, node_includes_gpu: bool) -> None:
    """Write into every channel the ids of the channels that contain it.

    Args:
        readers: All readers of a meter; their channels are replaced.
        node_includes_gpu: Whether the machine's power supply feeds the GPUs too.
    """
    available = [c for reader in readers for c in reader.channels if c.kind != "unavailable"]
    has_gpus = any(channel.boundary in OF_GPU for channel in available)
    inside = "inside" if node_includes_gpu else "not inside"
    note = f"the GPUs are assumed to be {inside} (node_includes_gpu in the config)"

    def complete(channel: ChannelSpec) -> ChannelSpec:
        if channel.kind == "unavailable":
            return replace(channel, contained_in=())
        containers = CONTAINERS[channel.boundary]
        if channel.boundary in OF_GPU and not node_includes_gpu:
            containers = ()
        found = [other.id for other in available if other.boundary in containers]
        reason = channel.reason
        if channel.boundary == "node" and has_gpus:
            reason = note if reason is None else f"{reason}; {note}"
        return replace(channel, contained_in=(*channel.contained_in, *found), reason=reason)

    for reader in readers:
        reader.channels = [complete(channel) for channel in reader.channels]


def get_max_power_w(boundary: str, stated_w: float | None) -> float:
    """Return the most that a channel can draw: what its hardware states, or of its boundary."""
    return stated_w or MAX_POWER_W[boundary]


def max_period_s(
    channels: Sequence[ChannelSpec], power_w_by_channel: Mapping[str, float | None]
) -> float:
    """Return the longest time between two samples that misses no wrap and no change of a power.

    Args:
        channels: All channels.
        power_w_by_channel: Power of each that has been seen; one that is missing or None is
            taken to be as large as a channel's can be.

    Returns:
        An eighth of the shortest time to a wrap, in seconds, at least ``SHORTEST_S``; at most
        ``POWER_PERIOD_S`` where a board's power is integrated; else infinity if nothing wraps.
    """
    shortest_s = math.inf
    for channel in channels:
        if channel.method != "counter_delta" or channel.max_range is None:
            continue
        seen_w = power_w_by_channel.get(channel.id)
        power_w = max(seen_w or 0.0, 0.0)
        if seen_w is None:
            power_w = get_max_power_w(channel.boundary, channel.max_power_w)
        if power_w > 0:
            range_j = channel.max_range / UNITS_PER_J[channel.unit or "uJ"]
            shortest_s = min(shortest_s, range_j / power_w)
    powers = (ch for ch in channels if ch.boundary in OF_GPU and ch.method == "power_integral")
    longest_s = POWER_PERIOD_S if any(channel.in_total for channel in powers) else math.inf
    return min(longest_s, max(SHORTEST_S, shortest_s / READINGS_PER_WRAP))
