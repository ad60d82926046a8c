"""What a training will cost, from a short stretch of it that was metered.

The stretch's marks cut it into parts; how much these differ gives the interval. The cost of one
step is carried over to all of them, so a forecast is an extrapolation and says by how much.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sv.energy.carbon import compute_co2_g
from sv.energy.record import Attempt, Sidecar
from sv.energy.stretch import (
    MIN_PARTS,
    estimate_step,
    find_epoch_end,
    is_metered,
    list_parts,
    weigh_steps,
)
from sv.energy.summary import format_figure
from sv.energy.units import format_utc, hours_from_s, j_from_kwh, kwh_from_j
from sv.errors import SvError
from sv.files import read_json

SCHEMA = "energy-forecast/1"
Fields = dict[str, Any]


def compute_forecast(sidecar: Sidecar, now_s: float) -> Fields:
    """Give what the whole training is expected to cost.

    Args:
        sidecar: Of the stretch. Its last attempt has the marks ``plan`` (total_steps,
            steps_per_epoch, crops_per_step), ``validation``, ``checkpoint`` and several
            ``stretch`` (steps since the one before).
        now_s: Unix time.

    Returns:
        What ``forecast.json`` holds: energy, hours and CO2, each with the ends of an interval
        of 95 %; ``outcome`` is None until the training has ended.

    Raises:
        SvError: The stretch failed, its energy is not known, or it is too short.
    """
    attempt = sidecar.attempts[-1]
    if attempt.status != "complete" or attempt.energy_kwh is None:
        why = attempt.reason or f"status {attempt.status}"
        raise SvError(f"no forecast: the stretch gave no energy ({why})")
    plan = next((mark.payload for mark in reversed(attempt.marks) if mark.mark == "plan"), None)
    marks = [mark for mark in attempt.marks if is_metered(mark)]
    stretches = [mark for mark in marks if mark.mark == "stretch"]
    if plan is None or len(stretches) < MIN_PARTS + 1:
        raise SvError(
            f"no forecast: the stretch has {len(stretches)} marks with an energy and needs "
            f"{MIN_PARTS + 1}; give it more steps"
        )
    parts = list_parts(marks)
    steps = sum(mark.payload["steps"] for mark in stretches)
    epochs = plan["total_steps"] / plan["steps_per_epoch"]
    weighted, notes = weigh_steps(plan)
    whole = (j_from_kwh(attempt.energy_kwh), _get_work_s(attempt))
    epoch_ends = find_epoch_end(marks)
    expected: Fields = {}
    found: Fields = {}
    for at, (name, convert) in enumerate((("energy_kwh", kwh_from_j), ("hours", hours_from_s))):
        mean, half = estimate_step([(part.steps, part.amounts[at]) for part in parts])
        validation, checkpoint, seen = epoch_ends[at]
        # Imports, data, the first steps' preparations, and the untrained network's validation.
        once = max(0.0, whole[at] - mean * steps - validation * max(0, seen - 1))
        middle = mean * weighted + once + (validation + checkpoint) * epochs
        expected |= {
            name: convert(middle),
            f"{name}_low": convert(max(0.0, middle - half * weighted)),
            f"{name}_high": convert(middle + half * weighted),
        }
        found[name] = {
            "each_step": convert(mean),
            "once": convert(once),
            "each_epoch": convert(validation + checkpoint),
        }
    rate = sidecar.carbon.g_per_kwh
    for end in ("", "_low", "_high"):
        kwh = expected[f"energy_kwh{end}"]
        expected[f"co2_g{end}"] = compute_co2_g(kwh, sidecar.pue.value, rate)
    return {
        "schema": SCHEMA,
        "model": sidecar.model,
        "made_utc": format_utc(now_s),
        "expected": expected,
        "interval": (
            "95 %, from the spread of the stretch's parts (Student's t, one further part); it "
            "knows nothing of another machine, load or grid, nor of the sensors' own error"
        ),
        "extrapolation": f"{plan['total_steps'] / steps:.0f} times the steps that were metered",
        "notes": notes,
        "stretch": {
            "steps": steps,
            "crops": steps * plan["crops_per_step"],
            "parts": [
                {"steps": part.steps, "energy_j": part.amounts[0], "seconds": part.amounts[1]}
                for part in parts
            ],
            "energy_kwh": attempt.energy_kwh,
            "duration_s": whole[1],
            "measured_fraction": attempt.measured_fraction,
            **found,
        },
        "plan": {key: plan[key] for key in ("total_steps", "steps_per_epoch", "crops_per_step")},
        "carbon": {key: getattr(sidecar.carbon, key) for key in _CARBON},
        "pue": asdict(sidecar.pue),
        "boundary": list(attempt.boundary),
        "outcome": None,
    }


def _get_work_s(attempt: Attempt) -> float:
    """Return the time of the work; of a job in a queue without the time that it waited there."""
    jobs_s = [meter.duration_s for meter in attempt.meters if meter.label and meter.duration_s]
    return max(jobs_s, default=attempt.duration_s)


_CARBON = ("provider", "zone", "year", "scope", "basis", "g_per_kwh", "source", "reason")


def add_outcome(forecast: Fields, sidecar: Sidecar) -> Fields:
    """Give a forecast with what the training cost in the end.

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
            "ratio": {
                key: value / expected[key] if value is not None and expected[key] else None
                for key, value in measured.items()
            },
            "inside": {
                key: None
                if value is None or expected[key] is None
                else expected[f"{key}_low"] <= value <= expected[f"{key}_high"]
                for key, value in measured.items()
            },
            "measured_fraction": sidecar.measured_fraction,
            "boundary": boundary,
            "notes": notes,
        },
    }


def read_forecast(path: Path) -> Fields:
    """Read a forecast.

    Raises:
        SvError: It is missing or of another schema.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise SvError(f"{path}: not a record of '{SCHEMA}'")
    return record


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
