"""One attempt of a stage, from its lines in the journal to its figures."""

from array import array
from itertools import pairwise
from typing import Any

from sv.energy.attribution import attribute
from sv.energy.carbon import CarbonFactor, apply_factors, parse_factor
from sv.energy.channel_figures import build_channel
from sv.energy.crosscheck import compute_crosschecks
from sv.energy.events import build_marks, build_phases
from sv.energy.journal import RESUMED
from sv.energy.samples import AttemptLines
from sv.energy.total import choose_total, list_boundaries, sum_energy
from sv.energy.uncertainty import sum_uncertainty
from sv.energy.units import kwh_from_j, parse_utc

Fields = dict[str, Any]
# Carbon factors hold for minutes: this many seconds between two points of energy are near enough.
POINT_S = 10.0


def build_attempt(number: int, lines: AttemptLines) -> Fields:
    """Build the figures of one attempt.

    Args:
        number: 1 for the first attempt of the stage.
        lines: The attempt's part of the journal.

    Returns:
        The attempt as the sidecar has it. Without an end line it was interrupted, and the
        figures end with the last sample.
    """
    head, end = lines.head, lines.end
    start_s = lines.t_s[0] if lines.t_s else head["t_s"]
    end_s = lines.t_s[-1] if lines.t_s else head["t_s"]
    awake_s = lines.awake_s[-1] - lines.awake_s[0] if lines.awake_s else 0.0
    duration_s = end_s - start_s
    channels, curve_j, attribution, _ = build_curve(lines)
    node_j, measured_fraction, reason = sum_energy(channels)
    energy_j = curve_j[-1] if curve_j else None
    if node_j is not None and attribution["rule"] == "exclusive":
        energy_j = node_j
    energy_kwh = None if energy_j is None else kwh_from_j(energy_j)
    marks = build_marks(lines.marks, curve_j, lines.t_s)
    uncertainty_j, uncertainty_reason = sum_uncertainty(channels)
    if energy_j is not None and node_j and uncertainty_j is not None:
        uncertainty_j *= energy_j / node_j
    carbon = _build_carbon(lines, curve_j)
    return {
        "attempt": number,
        "status": end["status"] if end else "interrupted",
        "exit_code": end["exit_code"] if end else None,
        "resumed": any(mark["mark"] == RESUMED for mark in marks),
        "host": head["host"],
        "boot_id": head["boot_id"],
        "started_utc": head["started_utc"],
        "boot_s": [start_s, end_s],
        "duration_s": duration_s,
        "suspended_s": max(0.0, duration_s - awake_s),
        "clock_step_s": _find_clock_step(lines),
        "argv": head["argv"],
        "git": head["git"],
        "energy_kwh": energy_kwh,
        "energy_node_kwh": None if node_j is None else kwh_from_j(node_j),
        "uncertainty_kwh": None if uncertainty_j is None else kwh_from_j(uncertainty_j),
        "uncertainty_reason": uncertainty_reason,
        "measured_fraction": measured_fraction,
        "boundary": list_boundaries(channels),
        "attribution": attribution,
        "reason": reason or attribution["reason"],
        "co2_g": carbon["co2_g"],
        "carbon": carbon,
        "pue": head["pue"],
        "period_s": head["period_s"],
        "max_gap_s": max((now - before for before, now in pairwise(lines.t_s)), default=None),
        "meter_cpu_s": end["meter_cpu_s"] if end else None,
        "facts": [line["facts"] for line in lines.facts],
        "channels": channels,
        "crosschecks": compute_crosschecks(channels),
        "marks": marks,
        "phases": build_phases(marks, duration_s, energy_kwh),
    }


def build_curve(
    lines: AttemptLines,
) -> tuple[list[Fields], array | None, Fields, dict[str, array]]:
    """Give an attempt's channels, and how its energy grew.

    Returns:
        The channels as the sidecar has them; the job's joules so far at each sample (None: not
        known); the sidecar's attribution; and each channel's joules so far.
    """
    built = [build_channel(spec, lines) for spec in lines.head["channels"]]
    channels = [channel for channel, _ in built]
    so_far = {channel["id"]: curve_j for channel, curve_j in built}
    choose_total(channels)
    _, curve_j, attribution = attribute(channels, so_far, lines)
    return channels, curve_j, attribution, so_far


def list_points(lines: AttemptLines, curve_j: array | None) -> list[tuple[float, float]]:
    """Give Unix time and the job's joules so far, a point every `POINT_S` or more.

    The moments are those of the start by the clock of the world, and from then on by one that
    nobody sets.
    """
    points: list[tuple[float, float]] = []
    if not curve_j:
        return points
    start_unix_s = parse_utc(lines.head["started_utc"])
    for i, t_s in enumerate(lines.t_s):
        unix_s = start_unix_s + t_s - lines.t_s[0]
        if not points or i == len(lines.t_s) - 1 or unix_s - points[-1][0] >= POINT_S:
            points.append((unix_s, curve_j[i]))
    return points


def _build_carbon(lines: AttemptLines, curve_j: array | None) -> Fields:
    factors = list_factors(lines)
    return apply_factors(list_points(lines, curve_j), factors, lines.head["pue"]["value"])


def list_factors(lines: AttemptLines) -> list[CarbonFactor]:
    """Give the carbon factors of an attempt as they came."""
    records = [line["factor"] for line in lines.factors]
    if "carbon" in lines.head:  # a journal of before factors had lines of their own
        records.append(lines.head["carbon"])
    return [parse_factor(record) for record in records]


def _find_clock_step(lines: AttemptLines) -> float | None:
    """Give by how much somebody set the clock of the world; it enters no other figure."""
    end = lines.end
    if end is None or "ended_utc" not in end:
        return None
    by_world_s = parse_utc(end["ended_utc"]) - parse_utc(lines.head["started_utc"])
    return round(by_world_s - (end["t_s"] - lines.head["t_s"]), 3)
