"""The power of one busy core: from the config, from a table of CPU models, or assumed.

The table has the rated power and the cores of some server processors, as their makers publish
them. A model that is not in it gets a stated assumption.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from sv.energy.config import EnergyConfig

CPUINFO = Path("/proc/cpuinfo")
TABLE = Path(__file__).with_name("cpu_models.csv")
ASSUMED_W_PER_CORE = 6.25  # Intel product specifications: Xeon Platinum 8480+, 350 W / 56 cores
ASSUMPTION = "assumption: TDP / cores of an Intel Xeon Platinum 8480+ (350 W / 56), all cores busy"


@dataclass(frozen=True)
class CorePower:
    """Watts of one busy core, and where the figure is from."""

    w_per_core: float
    source: str


def choose_core_power(config: EnergyConfig, cpuinfo: Path = CPUINFO) -> CorePower:
    """Choose the power of a core: the config's, else the table's for this CPU, else assumed."""
    if config.cpu_power_w_per_core is not None:
        return CorePower(config.cpu_power_w_per_core, config.cpu_power_source or "config")
    name = read_model_name(cpuinfo)
    for row in _read_table():
        # Whole words: "EPYC 7742" is in "AMD EPYC 7742 64-Core Processor" and not in "EPYC 77420".
        if f" {row['model']} " in f" {name} ":
            tdp_w, cores = int(row["tdp_w"]), int(row["cores"])
            source = f"TDP / cores of this CPU ({tdp_w} W / {cores}), all cores busy; "
            return CorePower(tdp_w / cores, source + row["source"])
    return CorePower(
        ASSUMED_W_PER_CORE,
        f"{ASSUMPTION}; this CPU ({name or 'unnamed'}) is not in {TABLE.name}",
    )


def read_model_name(cpuinfo: Path) -> str:
    """Read the CPU's name, with single spaces; empty where there is none (most ARM)."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return " ".join(value.split())
    except OSError:
        pass
    return ""


def _read_table() -> list[dict[str, str]]:
    with open(TABLE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
