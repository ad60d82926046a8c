"""Which channel's energy is in which other's: the machine has the processors in it, and so on."""

from collections.abc import Sequence
from dataclasses import replace

from sv.energy.sensors.channel import Channel, Reader

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


def contain(readers: Sequence[Reader], *, node_includes_gpu: bool) -> None:
    """Write into every channel the ids of the channels that contain it.

    Args:
        readers: All readers of a meter; their channels are replaced.
        node_includes_gpu: Whether the machine's power supply feeds the GPUs too.
    """
    everything = [channel for reader in readers for channel in reader.channels]
    for reader in readers:
        reader.channels = [
            replace(
                channel,
                contained_in=_find(channel, everything, node_includes_gpu),
                reason=_note(channel, everything, node_includes_gpu),
            )
            for channel in reader.channels
        ]


def _note(channel: Channel, everything: Sequence[Channel], node_includes_gpu: bool) -> str | None:
    gpus = any(other.boundary in OF_GPU and other.kind != "unavailable" for other in everything)
    if channel.boundary != "node" or channel.kind == "unavailable" or not gpus:
        return channel.reason
    inside = "inside" if node_includes_gpu else "not inside"
    note = f"the GPUs are assumed to be {inside} (node_includes_gpu in the config)"
    return note if channel.reason is None else f"{channel.reason}; {note}"


def _find(
    channel: Channel, everything: Sequence[Channel], node_includes_gpu: bool
) -> tuple[str, ...]:
    if channel.kind == "unavailable":
        return ()
    boundaries = CONTAINERS[channel.boundary]
    if channel.boundary in OF_GPU and not node_includes_gpu:
        boundaries = ()
    found = [
        other.id
        for other in everything
        if other.boundary in boundaries and other.kind != "unavailable"
    ]
    return (*channel.contained_in, *found)
