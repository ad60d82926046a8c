"""The meters of an attempt one by one: what each counted, and which of them is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sv.energy.fleet.journals import NodeJournals
from sv.energy.fleet.machine import Machine
from sv.energy.fleet.member import Member
from sv.energy.fleet.nodes import SIBLING
from sv.energy.total import MEASURED_KINDS, list_boundaries
from sv.energy.units import kwh_from_j

Fields = dict[str, Any]
LATE_S = (
    60.0  # one that begins so much later, or ends so much earlier, was not metered all the time
)
MATTERS = 0.01  # part of the energy below which a machine's boundary changes no comparison
GPU = {"gpu_board", "gpu_module"}  # a machine without a GPU covers no less


@dataclass(frozen=True)
class Place:
    """A meter and the machine that it is the ``index``-th meter of."""

    machine: Machine
    index: int
    member: Member


def list_nodes(places: Sequence[Place], nodes: NodeJournals, status: str) -> list[Fields]:
    """List the meters of an attempt, the stage's own first, and those that left nothing.

    Args:
        places: All meters.
        nodes: What was expected, and what could not be read.
        status: Of the stage's attempt: where it is complete, every journal must have an end.

    Returns:
        The sidecar's ``nodes``; the ``energy_kwh`` of all add up to the attempt's.
    """
    late = _find_late(places)
    last = {label: len(groups) for label, groups in nodes.attempts.items()}
    table = []
    for place in places:
        entry = _describe(place)
        member = place.member
        if member.label is not None and member.start == last[member.label]:
            if member.lines.end is None and status == "complete":
                entry["reason"] = "its journal has no end: the figures end with the last sample"
            elif (member.label, member.start) in late:
                entry["reason"] = late[member.label, member.start]
        table.append(entry)
    table.sort(key=lambda entry: (entry["label"] is not None, entry["label"], entry["start"]))
    for label, reason in nodes.unread.items():
        table.append(_describe_missing(label, reason))
    for label in nodes.expected:
        if label not in nodes.attempts and label not in nodes.unread:
            table.append(_describe_missing(label, "it was expected and left no journal"))
    return table


def _describe(place: Place) -> Fields:
    machine, member = place.machine, place.member
    head, end = member.lines.head, member.lines.end
    counted = [
        channel["id"]
        for channel in machine.channels
        if channel["in_total"]
        and channel["kind"] in MEASURED_KINDS
        and member.channels.get(channel["id"], (None, None))[1] is not None
    ]
    reason = machine.attributions[place.index]["reason"]
    energy_kwh = None
    if machine.job is not None:
        energy_kwh = kwh_from_j(machine.shares_j[place.index])
    elif reason is None:
        reason = "no channel has an energy"
    return {
        "label": member.label,
        "start": member.start,
        "host": machine.host,
        "boot_id": machine.boot_id,
        "status": end["status"] if end else "interrupted",
        "exit_code": end["exit_code"] if end else None,
        "started_utc": head["started_utc"],
        "boot_s": list(member.span_s),
        "duration_s": member.span_s[1] - member.span_s[0],
        "counted_s": machine.counted_s[place.index],
        "energy_kwh": energy_kwh,
        "rule": machine.attributions[place.index]["rule"],
        "channels": counted,
        "reason": reason,
    }


def _describe_missing(label: str, reason: str) -> Fields:
    unknown = ("start", "host", "boot_id", "exit_code", "started_utc", "boot_s", "duration_s")
    return {
        "label": label,
        **dict.fromkeys(unknown),
        "status": "missing",
        "counted_s": 0.0,
        "energy_kwh": None,
        "rule": None,
        "channels": [],
        "reason": reason,
    }


def _find_late(places: Sequence[Place]) -> dict[tuple[str, int], str]:
    """Find the meters that saw less of a job than those of its other machines."""
    jobs: dict[str, list[tuple[str, int, float, float]]] = {}
    for place in places:
        match = SIBLING.fullmatch(place.member.label or "")
        if match:
            begin_s, end_s = (at_s + place.machine.offset_s for at_s in place.member.span_s)
            key = f"{match['job']} {place.member.start}"
            jobs.setdefault(key, []).append(
                (place.member.label or "", place.member.start, begin_s, end_s)
            )
    late = {}
    for job in jobs.values():
        first_s, last_s = min(begin for _, _, begin, _ in job), max(end for *_, end in job)
        for label, start, begin_s, end_s in job:
            missed = []
            if begin_s - first_s > LATE_S:
                missed.append(f"the first {begin_s - first_s:.0f} s")
            if last_s - end_s > LATE_S:
                missed.append(f"the last {last_s - end_s:.0f} s")
            if missed:
                late[label, start] = f"without {' and '.join(missed)} of its job"
    return late


def explain_fleet(machines: Sequence[Machine], table: Sequence[Fields]) -> str | None:
    """Say what the total of several machines lacks, by label and host; None: nothing."""
    reasons = []
    for entry in table:
        if entry["reason"]:
            host = f" on {entry['host']}" if entry["host"] else ""
            who = "the stage's own meter" if entry["label"] is None else f"node {entry['label']}"
            reasons.append(f"{who}{host}: {entry['reason']}")
    covered: dict[tuple[str, ...], list[str]] = {}
    whole_j = sum(machine.job.last for machine in machines if machine.job is not None)
    for machine in machines:
        if machine.job is None or machine.job.last < MATTERS * whole_j:
            continue
        boundary = tuple(b for b in list_boundaries(machine.channels) if b not in GPU)
        covered.setdefault(boundary, []).append(machine.host)
    if len(covered) > 1:
        each = (f"{', '.join(hosts)}: {' + '.join(b)}" for b, hosts in covered.items())
        reasons.append(f"machines cover different boundaries: {'; '.join(each)}")
    return "; ".join(reasons) or None
