"""Every reader that this machine and the config have, in the order of the sidecar's channels."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from sv.energy.config import EnergyConfig
from sv.energy.counter import MAX_CHANNEL_W
from sv.energy.sensors.channel import Channel, Reader
from sv.energy.sensors.containment import contain
from sv.energy.sensors.estimate import EstimateReader
from sv.energy.sensors.node import open_node
from sv.energy.sensors.nvml import NvmlReader
from sv.energy.sensors.rapl import open_rapl
from sv.energy.units import UNITS_PER_J

READINGS_PER_WRAP = 8  # a counter that gets eight times faster still shows every wrap
SHORTEST_S = 0.05  # as the config's period_s: no counter sold wraps in under a second


def open_readers(config: EnergyConfig, sysfs: Path, environ: Mapping[str, str]) -> list[Reader]:
    """Open all sensors; what cannot be read is an unavailable channel with its reason.

    Args:
        config: Settings.
        sysfs: Root of sysfs.
        environ: Environment of the metered command: it says which GPUs the command sees, where
            programs are, and holds the user and password of Redfish.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    pci_order = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    readers = [
        *open_rapl(sysfs),
        NvmlReader(visible, pci_order),
        *open_node(config, sysfs, environ),
        EstimateReader(config),
    ]
    contain(readers, node_includes_gpu=config.node_includes_gpu)
    return readers


def max_period_s(
    channels: Iterable[Channel], power_w_by_channel: Mapping[str, float | None]
) -> float:
    """Give the longest time between two samples that lets no counter wrap unseen.

    Args:
        channels: All channels.
        power_w_by_channel: Power of each that has been seen; one that is missing or None is
            taken to be as large as a channel's can be.

    Returns:
        An eighth of the shortest time to a wrap, in seconds, at least ``SHORTEST_S``; infinity if
        nothing wraps.
    """
    shortest_s = math.inf
    for channel in channels:
        if channel.method != "counter_delta" or channel.max_range is None:
            continue
        seen_w = power_w_by_channel.get(channel.id)
        power_w = MAX_CHANNEL_W if seen_w is None else max(seen_w, 0.0)
        if power_w > 0:
            range_j = channel.max_range / UNITS_PER_J[channel.unit or "uJ"]
            shortest_s = min(shortest_s, range_j / power_w)
    return max(SHORTEST_S, shortest_s / READINGS_PER_WRAP)
