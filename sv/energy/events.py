"""Energy at the moments that a command marked, and of the phases between them."""

from array import array
from bisect import bisect_right
from typing import Any

from sv.energy.journal import Record
from sv.energy.units import kwh_from_j

Fields = dict[str, Any]
PHASE = "phase"  # a mark that begins a phase; its ``name`` says which
NO_TIME = "said after the last sample of a killed meter"


def read_curve(curve_j: array | None, t_s: array, at_s: float) -> float | None:
    """Give the joules at a moment, evenly between two samples; None where they are not known."""
    if not curve_j or not t_s:
        return None
    after = bisect_right(t_s, at_s)
    if after == 0:
        return curve_j[0]
    if after == len(t_s):
        return curve_j[-1]
    a, b = after - 1, after
    width = t_s[b] - t_s[a]
    part = (at_s - t_s[a]) / width if width > 0 else 1.0
    return curve_j[a] + part * (curve_j[b] - curve_j[a])


def build_marks(marks: list[Record], curve_j: array | None, t_s: array) -> list[Fields]:
    """Build the marks of an attempt.

    Args:
        marks: Their lines in the journal.
        curve_j: The job's joules so far at each sample; None: not known.
        t_s: Time of each sample.

    Returns:
        What the command said, with ``t_s`` since the first sample and ``energy_kwh`` of the
        attempt so far; that is None with ``energy_reason`` where it is not known.
    """
    built = []
    for line in marks:
        at_s = line["t_s"]
        mark: Fields = {**line["said"], "t_s": None, "energy_kwh": None, "energy_reason": NO_TIME}
        if at_s is not None and t_s:
            energy_j = read_curve(curve_j, t_s, at_s)
            mark["t_s"] = max(0.0, at_s - t_s[0])
            mark["energy_kwh"] = None if energy_j is None else kwh_from_j(energy_j)
            mark["energy_reason"] = "the energy is not known" if energy_j is None else None
        built.append(mark)
    return built


def build_phases(marks: list[Fields], duration_s: float, energy_kwh: float | None) -> list[Fields]:
    """Give time and energy of each phase of an attempt: from its mark to the next or the end.

    Args:
        marks: As `build_marks` gives them.
        duration_s: Of the attempt.
        energy_kwh: Of the attempt.
    """
    begins = [mark for mark in marks if mark["mark"] == PHASE and mark["t_s"] is not None]
    ends = [(mark["t_s"], mark["energy_kwh"]) for mark in begins[1:]] + [(duration_s, energy_kwh)]
    phases = []
    for mark, (end_s, end_kwh) in zip(begins, ends, strict=False):
        start_kwh = mark["energy_kwh"]
        known = start_kwh is not None and end_kwh is not None
        phases.append(
            {
                "name": str(mark.get("name", "")),
                "duration_s": max(0.0, end_s - mark["t_s"]),
                "energy_kwh": end_kwh - start_kwh if known else None,
            }
        )
    return phases


def sum_phases(attempts: list[Fields]) -> list[Fields]:
    """Add up the phases of a run's attempts by name, in the order in which they first began."""
    by_name: dict[str, list[Fields]] = {}
    for phase in (phase for attempt in attempts for phase in attempt["phases"]):
        by_name.setdefault(phase["name"], []).append(phase)
    summed = []
    for name, phases in by_name.items():
        known = [phase["energy_kwh"] for phase in phases]
        summed.append(
            {
                "name": name,
                "duration_s": sum(phase["duration_s"] for phase in phases),
                "energy_kwh": None if None in known else sum(known),
                "times": len(phases),
            }
        )
    return summed
