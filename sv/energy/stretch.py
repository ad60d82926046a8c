"""A short metered stretch of training: what its marks say of a step, an epoch's end, the rest."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sv.energy.record import Mark
from sv.energy.units import j_from_kwh

EPOCH_END = ("validation", "epoch")  # marks after which steps begin anew
MIN_PART_S = 10.0  # a mark's energy is known to one sampling period, a second
MIN_PARTS = 3
# Student's t, two-sided 95 %, 1 to 30 degrees of freedom; above it hardly changes.
T_95 = (
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Some steps of the stretch and what they took."""

    steps: int
    amounts: tuple[float, float]  # J, seconds


def list_parts(marks: Sequence[Mark]) -> list[Part]:
    """Give the parts of a stretch, without the first: with that, the program still warms up."""
    parts, start = [], None
    for mark in marks:
        if mark.mark == "stretch" and start is not None:
            parts.append(Part(mark.payload["steps"], _subtract(mark, start)))
        if mark.mark == "stretch" or (start is not None and mark.mark in EPOCH_END):
            start = mark
    return merge_parts(parts)


def merge_parts(parts: Sequence[Part]) -> list[Part]:
    """Join neighbours until each part is long against the meter's period, as far as five stay."""
    least_s = min(MIN_PART_S, sum(part.amounts[1] for part in parts) / 5)
    merged: list[Part] = []
    for part in parts:
        if merged and merged[-1].amounts[1] < least_s:
            merged.append(_join(merged.pop(), part))
        else:
            merged.append(part)
    if len(merged) > 1 and merged[-1].amounts[1] < least_s:
        last = merged.pop()
        merged.append(_join(merged.pop(), last))
    return merged if len(merged) >= MIN_PARTS else list(parts)


def _join(a: Part, b: Part) -> Part:
    energy_j, seconds = (x + y for x, y in zip(a.amounts, b.amounts, strict=True))
    return Part(a.steps + b.steps, (energy_j, seconds))


def estimate_step(parts: list[tuple[int, float]]) -> tuple[float, float]:
    """Give the mean of one step and the half width of its interval."""
    mean = sum(value for _, value in parts) / sum(steps for steps, _ in parts)
    spread = statistics.stdev(value / steps for steps, value in parts)
    # Neighbouring parts are alike: all the steps to come count as one further part, not as many.
    t = T_95[min(len(parts) - 1, len(T_95)) - 1]
    return mean, t * spread * math.sqrt(1 + 1 / len(parts))


def weigh_steps(plan: dict[str, Any]) -> tuple[float, list[str]]:
    """Give the steps of a plan in steps of the stretch: those of fine-tuning have longer crops."""
    fine = plan.get("fine_tuning_steps") or 0
    frames, longer = plan.get("crop_frames"), plan.get("fine_tuning_crop_frames")
    if not fine:
        return plan["total_steps"], []
    if not frames or not longer:
        return plan["total_steps"], [f"{fine} steps of fine-tuning are taken for ordinary ones"]
    note = f"{fine} steps of fine-tuning are counted {longer / frames:.3g} times: longer crops"
    return plan["total_steps"] + fine * (longer / frames - 1), [note]


def find_epoch_end(marks: Sequence[Mark]) -> list[tuple[float, float, int]]:
    """Give a validation, a checkpoint and how many validations there were; J, then seconds."""
    ends = []
    pairs = list(zip(marks, marks[1:], strict=False))
    validations = [_subtract(b, a) for a, b in pairs if b.mark == "validation"]
    # The last one alone follows its stretch at once; another may have had steps before it.
    saves = [_subtract(b, a) for a, b in pairs if (a.mark, b.mark) == ("stretch", "checkpoint")]
    for at in range(2):
        validation = statistics.fmean(v[at] for v in validations) if validations else 0.0
        ends.append((validation, saves[-1][at] if saves else 0.0, len(validations)))
    return ends


def _subtract(now: Mark, before: Mark) -> tuple[float, float]:
    assert now.energy_kwh is not None and before.energy_kwh is not None
    assert now.t_s is not None and before.t_s is not None  # is_metered
    return j_from_kwh(now.energy_kwh - before.energy_kwh), now.t_s - before.t_s


def is_metered(mark: Mark) -> bool:
    """Tell whether a mark has its time and the energy up to it."""
    return mark.energy_kwh is not None and mark.t_s is not None
