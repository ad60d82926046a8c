"""One channel of one attempt: from its readings to its figures."""

from array import array
from typing import Any

from sv.energy.counter import Accumulator, Reading
from sv.energy.journal import Record
from sv.energy.samples import MISSING, AttemptLines, interpolate
from sv.energy.uncertainty import compute_uncertainty

Fields = dict[str, Any]
# A channel that was read over less of the attempt than this does not stand for the whole of it.
MIN_COVERED = 0.9
NEEDED = 2  # readings
HELD_PERIODS = 2  # so long before its first and after its last reading a power is held
COPIED = ("id", "boundary", "kind", "method", "source", "in_total", "reason", "power_w_per_core")


def build_channel(spec: Record, lines: AttemptLines) -> tuple[Fields, array]:
    """Build a channel's figures from its readings.

    Args:
        spec: The channel as the head of the journal has it.
        lines: The attempt.

    Returns:
        The channel as the sidecar has it, and its joules so far at each sample; these are empty
        where the energy is not known.
    """
    start_s, end_s = (lines.t_s[0], lines.t_s[-1]) if lines.t_s else (0.0, 0.0)
    channel: Fields = {
        **{key: spec[key] for key in COPIED},
        "contained_in": list(spec.get("contained_in", ())),
        "energy_j": None,
        "u_energy_j": None,
        "raw": None,
        "power_w": None,
        "samples": {"n": 0, "failed": 0, "max_gap_s": None, "covered": None},
    }
    if spec["kind"] == "unavailable":
        return channel, array("d")
    slow_s = spec.get("update_period_s") or 0.0
    column = lines.raw[spec["id"]]
    read = _find_readings(spec, lines)
    due = len(lines.t_s)
    if slow_s > lines.head["period_s"]:
        due = min(due, int((end_s - start_s) / slow_s) + 1)
    channel["samples"].update(n=len(read), failed=max(0, due - len(read)))
    if len(read) < NEEDED:
        reason = f"{len(read)} of {due} readings succeeded, two are needed"
        return {**channel, "kind": "unavailable", "in_total": False, "reason": reason}, array("d")
    places = find_places(spec, lines)
    total = Accumulator(spec, max(lines.head["period_s"], slow_s))
    so_far = array("d")
    for i in places:
        value = column[min(max(i, read[0]), read[-1])]
        total.add(Reading(lines.t_s[i], lines.awake_s[i], value))
        so_far.append(total.energy_j)
    assert total.first is not None and total.last is not None
    ends_s = (total.first.t_s - start_s, end_s - total.last.t_s)
    max_gap_s = max(total.longest_s, *ends_s)
    covered = (total.last.t_s - total.first.t_s) / (end_s - start_s) if end_s > start_s else 1.0
    awake_s = total.last.awake_s - total.first.awake_s
    channel["samples"].update(max_gap_s=max_gap_s, covered=covered)
    channel["energy_j"] = total.energy_j
    channel["power_w"] = {
        "mean": total.energy_j / awake_s if awake_s > 0 else None,
        "max": total.max_w,
    }
    channel["reason"] = _explain(total, ends_s, max_gap_s, covered) or spec["reason"]
    channel["u_energy_j"] = compute_uncertainty(spec, total, sum(ends_s))
    channel["raw"] = {
        "first": column[read[0]],
        "last": column[read[-1]],
        "unit": spec["unit"],
        "max_range": spec["max_range"],
        "wraps": total.wraps,
        "resets": total.resets,
    }
    return channel, interpolate(places, so_far, lines.awake_s)


def find_places(spec: Record, lines: AttemptLines) -> array:
    """Give the samples at which a channel's energy is known: all that lies between them is read."""
    read = _find_readings(spec, lines)
    if spec["method"] != "power_integral" or len(read) < NEEDED:
        return read
    every_s = max(lines.head["period_s"], spec.get("update_period_s") or 0.0)
    return _hold_ends(read, lines, HELD_PERIODS * every_s)


def _find_readings(spec: Record, lines: AttemptLines) -> array:
    column = lines.raw[spec["id"]]
    return array("l", (i for i, value in enumerate(column) if value != MISSING))


def _hold_ends(places: array, lines: AttemptLines, held_s: float) -> array:
    """Let a power hold from the first to the last sample, where its reading is near enough."""
    places, end = places[:], len(lines.t_s) - 1
    if 0 < lines.t_s[places[0]] - lines.t_s[0] <= held_s:
        places.insert(0, 0)
    if 0 < lines.t_s[end] - lines.t_s[places[-1]] <= held_s:
        places.append(end)
    return places


def _explain(
    total: Accumulator, ends_s: tuple[float, float], max_gap_s: float, covered: float
) -> str | None:
    if total.resets:
        return f"the counter was reset {total.resets} times: the energy is a lower bound"
    if total.may_hide_wrap(max_gap_s):
        return f"{max_gap_s:.0f} s without a reading may hide a wrap: the energy is a lower bound"
    if covered < MIN_COVERED:
        return (
            f"no reading in the first {ends_s[0]:.0f} s and the last {ends_s[1]:.0f} s: "
            "the energy is a lower bound"
        )
    return None
