"""What the results stage knows of one sidecar: the energy of a stage, of what, and its CO2."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Channel:
    """One source of energy in a sidecar; ``kind`` says whether it was measured.

    ``host`` is empty where the sidecar does not say which of several machines it is of.
    """

    id: str
    boundary: str
    kind: str
    method: str
    source: str
    energy_j: float | None
    in_total: bool
    reason: str
    host: str = ""


@dataclass(frozen=True)
class Node:
    """One machine of a stage that ran on several (or of a job that ran elsewhere)."""

    host: str
    label: str
    status: str
    energy_kwh: float | None
    reason: str


@dataclass(frozen=True)
class Carbon:
    """The grid factor behind a CO2 figure, and where it came from."""

    provider: str
    zone: str
    year: str
    vintage: str
    scope: str
    basis: str
    g_per_kwh: float | None
    source: str
    reason: str


@dataclass(frozen=True)
class StageEnergy:
    """One sidecar. ``energy_kwh`` is of the run that made the result, ``_all_`` of all tried.

    ``reason`` is why the energy is not known, or why it is not of the whole run.
    ``energy_node_kwh`` is of the machine, of which ``energy_kwh`` is the job's part by the rule
    ``attribution``. ``uncertainty_kwh`` is with k = 2. ``nodes`` are the machines of a stage that
    ran on others than its meter's; the figures above are of all together.
    """

    path: Path
    stage: int
    name: str
    model: str | None
    status: str
    exit_code: int | None
    host: str
    started_utc: str
    duration_s: float | None
    energy_kwh: float | None
    energy_all_kwh: float | None
    measured_fraction: float | None
    co2_g: float | None
    carbon: Carbon
    pue_value: float | None
    pue_source: str
    channels: tuple[Channel, ...]
    attempts: int
    reason: str
    energy_node_kwh: float | None = None
    attribution: str = "exclusive"
    uncertainty_kwh: float | None = None
    uncertainty_reason: str = ""
    energy_above_idle_kwh: float | None = None
    above_idle_reason: str = ""
    co2_all_g: float | None = None
    nodes: tuple[Node, ...] = ()
