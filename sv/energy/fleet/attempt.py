"""An attempt of a stage that ran on several machines: one total of all their meters.

A pure function of the journals: the stage's own and those of its other meters
(journals.py). Machines are told apart by host and boot; machine.py counts each of them once.
"""

from dataclasses import dataclass, replace
from typing import Any

from sv.energy.attempt import build_attempt, list_factors
from sv.energy.attribution import join_attributions
from sv.energy.carbon import CarbonFactor, apply_factors, join_carbon
from sv.energy.crosscheck import compute_crosschecks
from sv.energy.events import NO_TIME, PHASE, build_phases
from sv.energy.fleet.journals import NodeJournals
from sv.energy.fleet.machine import Machine, build_machine, find_offset
from sv.energy.fleet.member import WAITING, Member, build_member
from sv.energy.fleet.nodes import SIBLING
from sv.energy.fleet.table import Place, explain_fleet, list_nodes
from sv.energy.journal import RESUMED, Record
from sv.energy.samples import AttemptLines
from sv.energy.total import list_boundaries, sum_energy
from sv.energy.uncertainty import sum_uncertainty
from sv.energy.units import kwh_from_j

Fields = dict[str, Any]


@dataclass(frozen=True)
class Fleet:
    """The machines of one attempt; the first is the one of the stage's own meter."""

    machines: list[Machine]

    @property
    def begin_unix_s(self) -> float:
        """When the stage's own meter began."""
        own = next(m for m in self.machines[0].members if m.label is None)
        return own.span_s[0] + self.machines[0].offset_s

    def read_j(self, unix_s: float) -> float | None:
        """Give the joules of all machines up to a moment; None where none of them is known."""
        known = [(m.job, m.offset_s) for m in self.machines if m.job is not None]
        return sum(job.read(unix_s - offset_s) for job, offset_s in known) if known else None

    def list_points(self) -> list[tuple[float, float]]:
        """Give Unix time and joules so far, at all moments at which a machine's are known."""
        moments = sorted(
            {at_s + m.offset_s for m in self.machines if m.job is not None for at_s in m.job.t_s}
        )
        return [(unix_s, self.read_j(unix_s) or 0.0) for unix_s in moments]


def build_fleet(lines: AttemptLines, nodes: NodeJournals) -> Fleet:
    """Join the meters of an attempt, machine by machine."""
    members = [build_member(None, 1, lines, _choose_rule(lines.head, nodes))]
    for label, groups in sorted(nodes.attempts.items()):
        for start, group in enumerate(groups, start=1):
            members.append(build_member(label, start, group, _get_rule(group.head)))
    machines: dict[tuple[str, str], list[Member]] = {}
    for member in members:
        head = member.lines.head
        machines.setdefault((head["host"], head["boot_id"]), []).append(member)
    marked_s = [
        line["t_s"] + find_offset(group)
        for group in machines.values()
        for member in group
        for line in member.lines.marks
        if line["t_s"] is not None
    ]
    return Fleet([build_machine(group, marked_s) for group in machines.values()])


def _get_rule(head: Record) -> str:
    return (head.get("config") or {}).get("attribution", "exclusive")


def _choose_rule(head: Record, nodes: NodeJournals) -> str:
    """Give the rule for the machine that the stage was started on.

    A job whose machine 0 has no meter of its own has it below the stage's: that one works too.
    """
    matches = [SIBLING.fullmatch(label) for label in {*nodes.expected, *nodes.attempts}]
    jobs = {match["job"] for match in matches if match}
    begun = {match["job"] for match in matches if match and match[0] == f"{match['job']}.node0"}
    config = head.get("config") or {}
    waits = config.get("submit_attribution", "cpu_share") == "cpu_share" and jobs == begun
    return WAITING if waits else _get_rule(head)


def build_fleet_attempt(number: int, lines: AttemptLines, nodes: NodeJournals) -> Fields:
    """Build the figures of an attempt with other meters.

    Args:
        number: 1 for the first attempt of the stage.
        lines: The stage's own.
        nodes: The other meters' journals.

    Returns:
        As `sv.energy.attempt.build_attempt`, of all machines together, with ``nodes``; host,
        times and status are those of the stage's own meter.
    """
    fleet = build_fleet(lines, nodes)
    own = build_attempt(number, lines)
    machines = fleet.machines
    channels = [{**ch, "host": m.host} for m in machines for ch in m.channels]
    nodes_j = [sum_energy(m.channels)[0] for m in machines]
    jobs_j = [get_job_j(machine) for machine in machines]
    energy_kwh, node_kwh = _sum_kwh(jobs_j), _sum_kwh(nodes_j)
    known_j = sum(joules for joules in jobs_j if joules is not None)
    measured_j = sum(machine.measured_j for machine in machines)
    marks = _build_marks(fleet)
    places = [
        Place(machine, i, member)
        for machine in machines
        for i, member in enumerate(machine.members)
    ]
    table = list_nodes(places, nodes, own["status"])
    uncertainty_kwh, uncertainty_reason = _sum_uncertainties(machines)
    carbon = _build_carbon(machines, own["pue"]["value"])
    return {
        **own,
        "resumed": _is_resumed(lines, nodes),
        "energy_kwh": energy_kwh,
        "energy_node_kwh": node_kwh,
        "uncertainty_kwh": uncertainty_kwh,
        "uncertainty_reason": uncertainty_reason,
        "measured_fraction": measured_j / known_j if known_j else None,
        "boundary": list_boundaries(channels),
        "attribution": join_attributions(
            [{"attribution": machine.attribution} for machine in machines]
        ),
        "reason": explain_fleet(machines, table),
        "co2_g": carbon["co2_g"],
        "carbon": carbon,
        "channels": channels,
        "crosschecks": compute_crosschecks(channels),
        "marks": marks,
        "phases": build_phases(marks, own["duration_s"], energy_kwh),
        "nodes": table,
    }


def get_job_j(machine: Machine) -> float | None:
    """Give the stage's joules on a machine; where all of it is the stage's, as it was counted."""
    if machine.job is None:
        return None
    return sum_energy(machine.channels)[0] if machine.is_exclusive else machine.job.last


def _sum_kwh(joules: list[float | None]) -> float | None:
    known = [value for value in joules if value is not None]
    return kwh_from_j(sum(known)) if known else None


def _build_marks(fleet: Fleet) -> list[Fields]:
    """Build the marks of all meters in order of time, with the energy of all machines."""
    marks = []
    for machine in fleet.machines:
        for member in machine.members:
            origin = {} if member.label is None else {"node": member.label}
            for line in member.lines.marks:
                mark: Fields = {**line["said"], **origin, "t_s": None, "energy_kwh": None}
                mark["energy_reason"] = NO_TIME
                if line["t_s"] is not None and member.lines.t_s:
                    first_s, last_s = member.span_s
                    unix_s = min(max(line["t_s"], first_s), last_s) + machine.offset_s
                    energy_j = fleet.read_j(unix_s)
                    mark["t_s"] = max(0.0, unix_s - fleet.begin_unix_s)
                    mark["energy_kwh"] = None if energy_j is None else kwh_from_j(energy_j)
                    mark["energy_reason"] = "the energy is not known" if energy_j is None else None
                marks.append(mark)
    return sorted(marks, key=lambda mark: float("inf") if mark["t_s"] is None else mark["t_s"])


def _is_resumed(lines: AttemptLines, nodes: NodeJournals) -> bool:
    """Tell whether the attempt went on from what lies before it.

    A requeued job goes on from what the same attempt left: only the first of its starts that left
    anything tells.
    """
    own = [line["said"]["mark"] for line in lines.marks]
    if RESUMED in own:
        return True
    for groups in nodes.attempts.values():
        for group in groups:
            said = [line["said"]["mark"] for line in group.marks]
            if RESUMED in said:
                return True
            is_complete = group.end is not None and group.end["status"] == "complete"
            if is_complete or any(mark != PHASE for mark in said):
                break
    return False


def _sum_uncertainties(machines: list[Machine]) -> tuple[float | None, str | None]:
    """Add up the uncertainties of the machines, each by the stage's part of it."""
    summed_j, reasons = 0.0, []
    for machine in machines:
        uncertainty_j, reason = sum_uncertainty(machine.channels)
        node_j, job_j = sum_energy(machine.channels)[0], get_job_j(machine)
        if uncertainty_j is None or job_j is None:
            reasons.append(f"{machine.host}: {reason or 'its energy is not known'}")
        elif node_j:
            summed_j += uncertainty_j * job_j / node_j
    return (None, "; ".join(reasons)) if reasons else (kwh_from_j(summed_j), None)


def _build_carbon(machines: list[Machine], pue: float) -> Fields:
    """Give each machine's energy its own factors, and add up the grams."""
    found = []
    for machine in machines:
        points = []
        if machine.job is not None:
            pairs = zip(machine.job.t_s, machine.job.value, strict=True)
            points = [(at_s + machine.offset_s, joules) for at_s, joules in pairs]
        factors = [f for member in machine.members for f in list_factors(member.lines)]
        carbon = apply_factors(points, _drop_repeated(factors), pue)
        carbon["intervals"] = [{**part, "host": machine.host} for part in carbon["intervals"]]
        found.append(carbon)
    return join_carbon(found, of="machines")


def _drop_repeated(factors: list[CarbonFactor]) -> list[CarbonFactor]:
    """Leave out what a second meter of the machine was told again."""
    kept: list[CarbonFactor] = []
    for factor in sorted(factors, key=lambda f: f.valid_from_utc or ""):
        before = kept[-1] if kept else None
        if before is None or replace(factor, valid_from_utc=before.valid_from_utc) != before:
            kept.append(factor)
    return kept
