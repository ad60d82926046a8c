"""Where energy went: by stage of the recipe, and by part of the machine.

Parts never add up to more than the energy of their stage. What the sidecar does not divide stays
one part of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sv.energy.record import Channel, Crosscheck
from sv.energy.units import kwh_from_j
from sv.report.results import RESULTS_STAGE, Results, Stage
from sv.report.tables.evidence import list_some

SHARED = "shared stages"
# Part of the machine: how it is called. Undivided: nobody read its parts.
COMPONENTS = {
    "cpu_package": "CPU",
    "dram": "DRAM",
    "gpu_board": "GPU",
    "gpu_module": "GPU module, its CPU included",
    "rest": "rest of the node",
    "undivided": "not divided",
}
_MODEL_STAGES = {5: "train", 6: "extract", 7: "score"}
_UNDIVIDED = "the sidecar does not say which part of the machine used all of it"
_FORECAST = "forecast"  # stage 5 of another kind: some steps, thrown away
_ROUNDING = 1e-6  # of a stage's energy


@dataclass(frozen=True)
class Part:
    """A part of a bar; ``component`` is a key of `COMPONENTS`."""

    component: str
    estimated: bool
    energy_kwh: float


@dataclass(frozen=True)
class Bar:
    """The energy of the shared stages or of one system, divided in two ways.

    ``stages`` are (number of the stage, its name, kWh), ``parts`` one of each kind.
    """

    label: str
    stages: tuple[tuple[int, str, float], ...]
    parts: tuple[Part, ...]

    @property
    def energy_kwh(self) -> float:
        """The whole bar."""
        return sum(kwh for _, _, kwh in self.stages)


def collect_bars(results: Results) -> tuple[list[Bar], list[str]]:
    """Give a bar for the shared stages and one for each system, and a line for what is left out."""
    owners = {SHARED: [s for s in results.shared if s.number < RESULTS_STAGE]}
    owners |= {system.name: list(system.stages) for system in results.systems}
    bars, left_out = [], []
    undivided: dict[str, list[str]] = {}
    for label, tried in owners.items():
        stages = [stage for stage in tried if stage.name != _FORECAST]
        if len(stages) < len(tried):
            left_out.append(f"{label} without its forecast, which made no result")
        known = [stage for stage in stages if stage.energy_kwh is not None]
        unknown = [stage.path.stem for stage in stages if stage.energy_kwh is None]
        if unknown:
            left_out.append(f"{label} without {list_some(unknown)}: the energy is not known")
        if not any(stage.energy_kwh for stage in known):
            if label != SHARED and not unknown:
                left_out.append(f"{label} is not shown: no energy sidecar")
            continue
        parts: list[Part] = []
        for stage in known:
            found, reason = split_energy(stage)
            parts += found
            if reason:
                undivided.setdefault(reason, []).append(f"{stage.path.stem} of {label}")
        bars.append(Bar(label, _sum_stages(known, shared=label == SHARED), _join_parts(parts)))
    for reason, names in undivided.items():
        left_out.append(f"{len(names)} stages are not divided, first {names[0]}: {reason}")
    return bars, left_out


def _sum_stages(stages: list[Stage], *, shared: bool) -> tuple[tuple[int, str, float], ...]:
    """Add up the stages of one number: a system has a stage 6 and 7 for each list."""
    summed: dict[int, tuple[str, float]] = {}
    for stage in stages:
        name, kwh = summed.get(stage.number, ("", 0.0))
        name = name or (stage.name if shared else _MODEL_STAGES.get(stage.number, stage.name))
        summed[stage.number] = (name, kwh + (stage.energy_kwh or 0.0))
    return tuple((number, *summed[number]) for number in sorted(summed))


def _join_parts(parts: Iterable[Part]) -> tuple[Part, ...]:
    summed: dict[tuple[str, bool], float] = {}
    for part in parts:
        key = (part.component, part.estimated)
        summed[key] = summed.get(key, 0.0) + part.energy_kwh
    order = [(component, estimated) for component in COMPONENTS for estimated in (False, True)]
    return tuple(Part(*key, summed[key]) for key in order if summed.get(key))


def split_energy(stage: Stage) -> tuple[list[Part], str]:
    """Divide a stage's energy by part of the machine.

    Channels of the total are parts. Where the whole machine is in the total, its parts are those
    that the sidecar compares with it (`sv.energy.channels`), and its rest.

    Returns:
        Parts that add up to ``energy_kwh``; why they are not all divided, where that is so.
    """
    total_kwh = stage.energy_kwh or 0.0
    whole = [Part("undivided", False, total_kwh)]
    if stage.sidecar.attribution.rule != "exclusive":
        return whole, f"the rule {stage.sidecar.attribution.rule} shares the machine as a whole"
    parts = []
    known = [channel for channel in stage.sidecar.channels if channel.energy_j is not None]
    for channel in (channel for channel in known if channel.in_total):
        if channel.boundary == "node":
            parts += _split_node(channel, known, stage.sidecar.crosschecks)
        else:
            component = channel.boundary if channel.boundary in COMPONENTS else "undivided"
            parts.append(Part(component, channel.kind == "estimated", _kwh(channel)))
    rest_kwh = total_kwh - sum(part.energy_kwh for part in parts)
    if rest_kwh < -_ROUNDING * total_kwh:
        return whole, "its channels add up to more than its energy"
    if rest_kwh > _ROUNDING * total_kwh:
        parts.append(Part("undivided", False, rest_kwh))
    undivided = any(part.component == "undivided" and part.energy_kwh > 0 for part in parts)
    return list(_join_parts(parts)), _UNDIVIDED if undivided else ""


def _split_node(
    node: Channel, channels: Sequence[Channel], crosschecks: Sequence[Crosscheck]
) -> list[Part]:
    """Divide a machine's energy into the parts that were measured inside it, and the rest."""
    inside: set[str] = set()
    for check in crosschecks:
        if check.b == node.id and check.rest_kwh is not None:
            inside |= set(check.a.split(" + "))
    parts = [
        Part(channel.boundary, False, _kwh(channel))
        for channel in channels
        if channel.id in inside
        and channel.host == node.host
        and not channel.in_total
        and channel.boundary in COMPONENTS
    ]
    rest_kwh = _kwh(node) - sum(part.energy_kwh for part in parts)
    if not parts or rest_kwh < 0:
        return [Part("undivided", False, _kwh(node))]
    return [*parts, Part("rest", False, rest_kwh)]


def _kwh(channel: Channel) -> float:
    return kwh_from_j(channel.energy_j or 0.0)
