"""Every reader that this machine and the config have, in the order of the sidecar's channels."""

from collections.abc import Mapping
from pathlib import Path

from sv.energy.config import EnergyConfig
from sv.energy.sensors.channel import Reader
from sv.energy.sensors.estimate import CpuTimeReader
from sv.energy.sensors.nvml import NvmlReader
from sv.energy.sensors.rapl import open_rapl


def open_readers(config: EnergyConfig, sysfs: Path, environ: Mapping[str, str]) -> list[Reader]:
    """Open all sensors; what cannot be read is an unavailable channel with its reason.

    Args:
        config: Settings.
        sysfs: Root of sysfs.
        environ: Environment of the metered command: it says which GPUs the command sees.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    pci_order = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    return [*open_rapl(sysfs), NvmlReader(visible, pci_order), CpuTimeReader(config)]
