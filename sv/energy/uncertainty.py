"""How far a channel's energy may be off, with a coverage factor k = 2 (about 95 %).

Four parts, added in quadrature:
- ``edge``: a sensor that is refreshed every ``update_period_s`` gives at the start and at the end
  a value that is up to one period old: period x (first power + last power).
- ``resolution``: of a counter one step at either end, evenly distributed, 2 x step / sqrt(6); of a
  power half a step all the time, 2 x step / sqrt(12) x duration.
- ``gap_fill``: where readings are missing. A counter goes on counting, so only time before its
  first and after its last reading counts, at the highest power; an integral also bridges gaps by
  a straight line: half of the range of power seen x the time bridged.
- ``sensor``: the sensor's own relative error x energy, where the maker or a study states one, or
  as assumed.
A part that is not known is null, and so is then the sum. An estimate has the model's stated error
as its ``sensor``, where one is stated.
"""

import math
from typing import Any

from sv.energy.counter import Accumulator
from sv.energy.journal import Record
from sv.energy.units import UNITS_PER_J, UNITS_PER_W

Fields = dict[str, Any]
COVERAGE = 2


def compute_uncertainty(spec: Record, total: Accumulator, unread_s: float) -> Fields:
    """Compute the uncertainty of a channel's energy in joules.

    Args:
        spec: The channel as the head of the journal has it.
        total: Its readings, added up; at least two.
        unread_s: Time before its first and after its last reading.

    Returns:
        Each part in joules, ``total`` of them, and ``reason`` where that is None.
    """
    energy_j = total.energy_j
    rel, basis = spec.get("sensor_rel"), spec.get("sensor_rel_basis")
    if spec["kind"] == "estimated":
        if rel is None:
            return _no_sum("the error of an estimate is not known")
        parts = {"edge": 0.0, "resolution": 0.0, "gap_fill": 0.0, "sensor": rel * energy_j}
        return _sum(parts, basis)
    assert total.first is not None and total.last is not None
    awake_s = total.last.awake_s - total.first.awake_s
    mean_w = energy_j / awake_s if awake_s > 0 else 0.0
    first_w, last_w = total.first_w or mean_w, total.last_w or mean_w
    period_s, step = spec.get("update_period_s"), spec.get("resolution")
    max_w, min_w = total.max_w or mean_w, total.min_w or 0.0
    gap_j = max_w * unread_s
    if spec["method"] == "power_integral":
        gap_j += (max_w - min_w) / 2 * total.gap_s
    parts = {
        "edge": None if period_s is None else period_s * (first_w + last_w),
        "resolution": None if step is None else _resolution_j(spec, step, awake_s),
        "gap_fill": gap_j,
        "sensor": None if rel is None else rel * abs(energy_j),
    }
    return _sum(parts, basis)


def _resolution_j(spec: Record, step: int, awake_s: float) -> float:
    if spec["method"] == "power_integral":
        return COVERAGE * step / UNITS_PER_W[spec["unit"]] / math.sqrt(12) * awake_s
    return COVERAGE * step / UNITS_PER_J[spec["unit"]] / math.sqrt(6)


def _sum(parts: dict[str, float | None], basis: str | None) -> Fields:
    unknown = [name for name, value in parts.items() if value is None]
    known = [value for value in parts.values() if value is not None]
    reason = f"not known: {', '.join(unknown)}" if unknown else None
    total = None if unknown else math.hypot(*known)
    return {"k": COVERAGE, **parts, "sensor_basis": basis, "total": total, "reason": reason}


def _no_sum(reason: str) -> Fields:
    parts = dict.fromkeys(("edge", "resolution", "gap_fill", "sensor", "sensor_basis", "total"))
    return {"k": COVERAGE, **parts, "reason": reason}


def sum_uncertainty(channels: list[Fields]) -> tuple[float | None, str | None]:
    """Add up the uncertainty of the channels in the total, in joules.

    Linearly: sensors of one kind err alike, so nothing is gained by adding them up.

    Returns:
        The sum, and why it is None.
    """
    chosen = [ch for ch in channels if ch["in_total"] and ch["energy_j"] is not None]
    if not chosen:
        return None, "no channel has an energy"
    sum_j = 0.0
    for channel in chosen:
        u = channel["u_energy_j"]
        if u is None or u["total"] is None:
            return None, f"{channel['id']}: {u['reason'] if u else 'not known'}"
        sum_j += u["total"]
    return sum_j, None
