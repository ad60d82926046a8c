"""Which sensor gives the power of the whole machine: as the config says, or what is there.

Unasked, only sensors of the machine itself are tried: nothing goes over the network and nothing
runs with other rights than the meter's own. Most machines have none, so a sensor's code is
imported where it is used.
"""

from collections.abc import Mapping
from pathlib import Path

from sv.energy.config import EnergyConfig
from sv.energy.sensors.channel import Reader

CRAY = Path("cray") / "pm_counters" / "energy"  # below the root of sysfs


def open_node(config: EnergyConfig, sysfs: Path, environ: Mapping[str, str]) -> list[Reader]:
    """Open the sensor of the machine's power.

    Returns:
        One reader; none where the config wants none, or where it says auto and there is nothing.
    """
    chosen = config.node_power
    if chosen == "auto":
        if (sysfs / CRAY).exists():
            chosen = "cray"
        elif any((sysfs / "class" / "ipmi").glob("ipmi*")):
            chosen = "ipmi"
        else:
            chosen = "none"
    if chosen == "none":
        return []
    if chosen == "cray":
        from sv.energy.sensors.cray import CrayReader  # noqa: PLC0415

        return [CrayReader(sysfs / CRAY)]
    from sv.energy.sensors.node_polled import open_polled  # noqa: PLC0415

    return [open_polled(chosen, config, sysfs, environ)]
