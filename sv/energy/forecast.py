"""What a training will cost, from a short metered run of some of its steps.

The marks of that run cut its steps into segments; their spread gives the interval. The cost of one
step is applied to all of them, so a forecast is an extrapolation and says by how much.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sv.energy.factors import compute_co2_g
from sv.energy.record import Attempt, Mark, Sidecar
from sv.energy.units import format_figure, format_utc, hours_from_s, j_from_kwh, kwh_from_j
from sv.errors import SvError
from sv.files import read_json

SCHEMA = "energy-forecast/1"
SEGMENT_END = "stretch"  # the mark that ends a segment
STEPS_BEGIN = (SEGMENT_END, "validation", "epoch")  # marks after which steps begin anew
MIN_SEGMENT_S = 10.0  # a mark's energy is known to one sampling period, a second
MIN_SEGMENTS = 3
# Student's t, two-sided 95 %, 1 to 30 degrees of freedom; above it hardly changes.
T_95 = (
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
)  # fmt: skip
CARBON_KEYS = ("provider", "zone", "year", "scope", "basis", "g_per_kwh", "source", "reason")
INTERVAL = (
    "95 %, from the spread of the stretch's parts (Student's t, one further part); it "
    "knows nothing of another machine, load or grid, nor of the sensors' own error"
)
Fields = dict[str, Any]


@dataclass(frozen=True)
class Segment:
    """Some steps and what they took."""

    steps: int
    energy_j: float
    seconds: float


def compute_forecast(sidecar: Sidecar, now_s: float) -> Fields:
    """Return what the whole training is expected to cost.

    Args:
        sidecar: Of the short run. Its last attempt has the marks ``plan`` (total_steps,
            steps_per_epoch, crops_per_step), ``validation``, ``checkpoint`` and several
            ``stretch`` (steps since the one before).
        now_s: Unix time.

    Returns:
        What ``forecast.json`` holds: energy, hours and CO2, each with the ends of an interval
        of 95 %; ``outcome`` is None until the training has ended.

    Raises:
        SvError: The run failed, its energy is not known, or it is too short.
    """
    attempt = sidecar.run[-1]
    if attempt.status != "complete" or attempt.energy_kwh is None:
        why = attempt.reason or f"status {attempt.status}"
        raise SvError(f"no forecast: the stretch gave no energy ({why})")
    plan = next((mark.payload for mark in reversed(attempt.marks) if mark.mark == "plan"), None)
    marks = [m for m in attempt.marks if m.energy_kwh is not None and m.t_s is not None]
    cuts = [mark for mark in marks if mark.mark == SEGMENT_END]
    if plan is None or len(cuts) < MIN_SEGMENTS + 1:
        raise SvError(
            f"no forecast: the stretch has {len(cuts)} marks with an energy and needs "
            f"{MIN_SEGMENTS + 1}; give it more steps"
        )
    steps = sum(mark.payload["steps"] for mark in cuts)
    segments = list_segments(marks)
    whole = Segment(steps, j_from_kwh(attempt.energy_kwh), _get_work_s(attempt))
    expected: Fields = {}
    found: Fields = {}
    for name, amount, convert in (
        ("energy_kwh", "energy_j", kwh_from_j),
        ("hours", "seconds", hours_from_s),
    ):
        ends, costs = _estimate(amount, marks, segments, whole, plan)
        expected |= {f"{name}{end}": convert(value) for end, value in ends.items()}
        found[name] = {key: convert(value) for key, value in costs.items()}
    for end in ("", "_low", "_high"):
        kwh = expected[f"energy_kwh{end}"]
        expected[f"co2_g{end}"] = compute_co2_g(kwh, sidecar.pue.value, sidecar.carbon.g_per_kwh)
    return {
        "schema": SCHEMA,
        "model": sidecar.model,
        "made_utc": format_utc(now_s),
        "expected": expected,
        "interval": INTERVAL,
        "extrapolation": f"{plan['total_steps'] / steps:.0f} times the steps that were metered",
        "notes": _weigh_steps(plan)[1],
        "stretch": {
            "steps": steps,
            "crops": steps * plan["crops_per_step"],
            "parts": [asdict(segment) for segment in segments],
            "energy_kwh": attempt.energy_kwh,
            "duration_s": whole.seconds,
            "measured_fraction": attempt.measured_fraction,
            **found,
        },
        "plan": {key: plan[key] for key in ("total_steps", "steps_per_epoch", "crops_per_step")},
        "carbon": {key: getattr(sidecar.carbon, key) for key in CARBON_KEYS},
        "pue": asdict(sidecar.pue),
        "boundary": list(attempt.boundary),
        "outcome": None,
    }


def list_segments(marks: Sequence[Mark]) -> list[Segment]:
    """Return the segments, without the first: there the program still warms up."""
    segments, start = [], None
    for mark in marks:
        if mark.mark == SEGMENT_END and start is not None:
            segments.append(_subtract(mark, start))
        if mark.mark == SEGMENT_END or (start is not None and mark.mark in STEPS_BEGIN):
            start = mark
    return merge_segments(segments)


def _subtract(now: Mark, before: Mark) -> Segment:
    """Return what lies between two marks, in energy and time."""
    energy_j = j_from_kwh((now.energy_kwh or 0.0) - (before.energy_kwh or 0.0))
    return Segment(now.payload.get("steps", 0), energy_j, (now.t_s or 0.0) - (before.t_s or 0.0))


def merge_segments(segments: Sequence[Segment]) -> list[Segment]:
    """Join neighbours until each is long against the meter's period, as far as five stay."""
    least_s = min(MIN_SEGMENT_S, sum(segment.seconds for segment in segments) / 5)
    merged: list[Segment] = []
    for segment in segments:
        if merged and merged[-1].seconds < least_s:
            merged[-1] = _join(merged[-1], segment)
        else:
            merged.append(segment)
    if len(merged) > 1 and merged[-1].seconds < least_s:
        merged[-2:] = [_join(*merged[-2:])]
    return merged if len(merged) >= MIN_SEGMENTS else list(segments)


def _join(a: Segment, b: Segment) -> Segment:
    return Segment(a.steps + b.steps, a.energy_j + b.energy_j, a.seconds + b.seconds)


def _estimate(
    amount: str,
    marks: Sequence[Mark],
    segments: Sequence[Segment],
    whole: Segment,
    plan: Mapping[str, Any],
) -> tuple[dict[str, float], dict[str, float]]:
    """Estimate one amount of the whole training, ``energy_j`` or ``seconds``.

    Returns:
        What is expected, with the ends of its interval; and what it is computed from.
    """
    values = [(segment.steps, getattr(segment, amount)) for segment in segments]
    mean = sum(value for _, value in values) / sum(count for count, _ in values)
    spread = statistics.stdev(value / count for count, value in values)
    # Neighbouring segments are alike: all steps to come count as one further segment, not as many.
    t = T_95[min(len(values) - 1, len(T_95)) - 1]
    half = t * spread * math.sqrt(1 + 1 / len(values))
    costs = [
        (before.mark, mark.mark, getattr(_subtract(mark, before), amount))
        for before, mark in pairwise(marks)
    ]
    validations = [cost for _, mark, cost in costs if mark == "validation"]
    # The last checkpoint alone follows its segment at once; another may have had steps before it.
    saves = [cost for *names, cost in costs if names == [SEGMENT_END, "checkpoint"]]
    validation = statistics.fmean(validations) if validations else 0.0
    each_epoch = validation + (saves[-1] if saves else 0.0)
    # Imports, data, the first steps' preparations, and the untrained network's validation.
    once = getattr(whole, amount) - mean * whole.steps - validation * max(0, len(validations) - 1)
    once = max(0.0, once)
    steps, _ = _weigh_steps(plan)
    epochs = plan["total_steps"] / plan["steps_per_epoch"]
    middle = mean * steps + once + each_epoch * epochs
    low, high = max(0.0, middle - half * steps), middle + half * steps
    costs = {"each_step": mean, "once": once, "each_epoch": each_epoch}
    return {"": middle, "_low": low, "_high": high}, costs


def _weigh_steps(plan: Mapping[str, Any]) -> tuple[float, list[str]]:
    """Return the steps of a plan in steps of the run, as fine-tuning has longer crops; notes."""
    fine = plan.get("fine_tuning_steps") or 0
    frames, longer = plan.get("crop_frames"), plan.get("fine_tuning_crop_frames")
    if not fine:
        return plan["total_steps"], []
    if not frames or not longer:
        return plan["total_steps"], [f"{fine} steps of fine-tuning are taken for ordinary ones"]
    note = f"{fine} steps of fine-tuning are counted {longer / frames:.3g} times: longer crops"
    return plan["total_steps"] + fine * (longer / frames - 1), [note]


def _get_work_s(attempt: Attempt) -> float:
    """Return the time of the work; of a job in a queue without the time that it waited there."""
    jobs_s = [meter.duration_s for meter in attempt.meters if meter.label and meter.duration_s]
    return max(jobs_s, default=attempt.duration_s)


def read_forecast(path: Path) -> Fields:
    """Read a forecast.

    Raises:
        SvError: It is missing or of another schema.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise SvError(f"{path}: not a record of '{SCHEMA}'")
    return record


def add_outcome(forecast: Fields, sidecar: Sidecar) -> Fields:
    """Return a forecast with what the training cost in the end.

    Raises:
        SvError: The training has not ended, or the forecast is of another model.
    """
    if sidecar.status != "complete":
        raise SvError(f"the training has not ended (status {sidecar.status})")
    if sidecar.model != forecast["model"]:
        raise SvError(f"the forecast is of {forecast['model']}, not of {sidecar.model}")
    expected = forecast["expected"]
    measured = {
        "energy_kwh": sidecar.energy_kwh,
        "hours": hours_from_s(sidecar.duration_s),
        "co2_g": sidecar.co2_g,
    }
    ratio, inside = {}, {}
    for key, value in measured.items():
        known = value is not None and expected[key] is not None
        ratio[key] = value / expected[key] if known and expected[key] else None
        inside[key] = expected[f"{key}_low"] <= value <= expected[f"{key}_high"] if known else None
    boundary = list(sidecar.boundary)
    notes = []
    if boundary != forecast["boundary"]:
        notes.append(f"the training's figure covers {' + '.join(boundary) or 'nothing'}")
    if len(sidecar.attempts) > 1:
        notes.append(f"the training took {len(sidecar.attempts)} attempts")
    return {
        **forecast,
        "outcome": {
            **measured,
            "ratio": ratio,
            "inside": inside,
            "measured_fraction": sidecar.measured_fraction,
            "boundary": boundary,
            "notes": notes,
        },
    }


def format_forecast(forecast: Fields) -> str:
    """Format what is expected, and the outcome where there is one, for a person."""
    lines, expected, outcome = [], forecast["expected"], forecast["outcome"]
    for key, unit in (("energy_kwh", "kWh"), ("co2_g", "gCO2e"), ("hours", "hours")):
        if expected[key] is None:
            lines.append(f"{unit}: unknown ({forecast['carbon'].get('reason')})")
            continue
        low, high = (format_figure(expected[f"{key}{end}"]) for end in ("_low", "_high"))
        line = f"{unit}: {format_figure(expected[key])} expected, {low} to {high}"
        if outcome is not None and outcome[key] is not None:
            line += f"; {format_figure(outcome[key])} came ({outcome['ratio'][key]:.2f} times)"
        lines.append(line)
    kind = forecast["stretch"]["measured_fraction"]
    share = "not known" if kind is None else f"{kind:.0%}"
    lines += forecast["notes"]
    lines.append(f"an extrapolation: {forecast['extrapolation']}; measured part {share}")
    return "\n".join(lines)
