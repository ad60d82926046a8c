"""The facts of a sidecar in words: how good its energy is, what it covers, which factor."""

from pathlib import Path
from typing import Any

from sv.report.fields import take_number, take_part, take_text
from sv.report.stage_energy import StageEnergy
from sv.report.tables.cells import UNKNOWN, format_duration, format_significant
from sv.report.tables.evidence import describe_boundaries, describe_pue, energy_marks

_WHOLE = 1e-6  # of a share of energy: less is rounding


def describe_quality(stage: StageEnergy) -> str:
    """Say in words whether an energy was measured, estimated or incomplete."""
    if stage.energy_kwh is None:
        return "not known"
    complete = "incomplete" not in energy_marks(stage)
    return describe_share(stage.measured_fraction, complete=complete)


def describe_share(share: float | None, *, complete: bool = True) -> str:
    """Say in words what the measured share of an energy means."""
    if share is None:
        words = "not known whether measured"
    elif share < _WHOLE:
        words = "estimated"
    elif share > 1 - _WHOLE:
        words = "measured"
    else:
        words = f"partly estimated ({format_significant(100 * (1 - share), 2)} %)"
    return words if complete else f"{words}, incomplete"


def format_kwh(value: float | None) -> str:
    """Format an energy with its unit; a negative one keeps its sign."""
    if value is None:
        return UNKNOWN
    return f"{'-' if value < 0 else ''}{format_significant(abs(value))} kWh"


def take_objects(record: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Take a list of objects; absent and null are empty."""
    items = take_part(record, key, list, path)
    return [take_part({key: item}, key, dict, path) for item in items]


def list_facts(stage: StageEnergy, record: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """List what a sidecar says of the run that made the result; what is not said is left out.

    Args:
        stage: The sidecar as the tables know it.
        record: The same file as it was read.
    """
    path = stage.path
    whole_kwh = stage.energy_node_kwh
    whole = "" if whole_kwh in (None, stage.energy_kwh) else format_kwh(whole_kwh)
    phases = [
        f"{take_text(phase, 'name')} {format_kwh(take_number(phase, 'energy_kwh', path))}"
        for phase in take_objects(record, "phases", path)
    ]
    facts = [
        ("Energy", _energy(stage)),
        ("All attempts", format_kwh(stage.energy_all_kwh)),
        ("Status", stage.status),
        ("Reason", stage.reason),
        ("Started", stage.started_utc),
        ("Duration", "" if stage.duration_s is None else format_duration(stage.duration_s)),
        ("Covers", describe_boundaries(stage)),
        ("Attribution", _attribution(stage, take_part(record, "attribution", dict, path))),
        ("Whole machine", whole),
        ("Above idle", _above_idle(stage)),
        ("Longest gap", _longest_gap(record, path)),
        ("CO2", "" if stage.co2_g is None else f"{format_significant(stage.co2_g / 1000)} kg"),
        ("Carbon factor", _factor(take_part(record, "carbon", dict, path), path)),
        ("PUE", "" if stage.pue_value is None else describe_pue(stage)),
        ("Crosschecks", "; ".join(_check(c) for c in take_objects(record, "crosschecks", path))),
        ("Phases", "; ".join(phases)),
    ]
    return tuple((term, text) for term, text in facts if text)


def _energy(stage: StageEnergy) -> str:
    text = describe_quality(stage)
    if stage.energy_kwh is None:
        return text
    text = f"{format_kwh(stage.energy_kwh)}, {text}"
    if stage.uncertainty_kwh is not None:
        text += f"; ± {format_kwh(stage.uncertainty_kwh)} (k = 2)"
    elif stage.uncertainty_reason:
        text += f"; uncertainty not known: {stage.uncertainty_reason}"
    return text


def _attribution(stage: StageEnergy, record: dict[str, Any]) -> str:
    inputs = take_part(record, "inputs", dict, stage.path)
    words = [f"{key} {value:g}" for key, value in inputs.items() if isinstance(value, int | float)]
    words += filter(None, [take_text(record, "reason")])
    return f"{stage.attribution} ({', '.join(words)})" if words else stage.attribution


def _above_idle(stage: StageEnergy) -> str:
    if stage.energy_above_idle_kwh is not None:
        return format_kwh(stage.energy_above_idle_kwh)
    return stage.above_idle_reason and f"not known: {stage.above_idle_reason}"


def _longest_gap(record: dict[str, Any], path: Path) -> str:
    gaps = [
        take_number(take_part(channel, "samples", dict, path), "max_gap_s", path)
        for channel in take_objects(record, "channels", path)
    ]
    longest_s = max((gap for gap in gaps if gap is not None), default=None)
    return "" if longest_s is None else f"{format_significant(longest_s)} s between two samples"


def _factor(record: dict[str, Any], path: Path) -> str:
    g_per_kwh = take_number(record, "g_per_kwh", path)
    vintage = take_text(record, "vintage")
    scope = take_text(record, "scope")
    count = len(take_part(record, "intervals", list, path))
    facts = [
        "" if g_per_kwh is None else f"{format_significant(g_per_kwh)} g/kWh",
        *(take_text(record, key) for key in ("provider", "zone", "year")),
        vintage and f"vintage {vintage}",
        scope and f"{scope} scope",
        *(take_text(record, key) for key in ("basis", "source")),
        f"{count} {'interval' if count == 1 else 'intervals'}" if count else "",
        "estimated by its provider" if record.get("estimated") else "",
        *(f"in place of {other}" for other in take_part(record, "fallback_from", list, path)),
        take_text(record, "reason"),
    ]
    return ", ".join(fact for fact in facts if fact)


def _check(check: dict[str, Any]) -> str:
    ratio, rest_kwh = check.get("ratio"), check.get("rest_kwh")
    text = f"{take_text(check, 'a')} / {take_text(check, 'b')} "
    text += format_significant(ratio) if isinstance(ratio, int | float) else "not known"
    # Sensors that disagree can make the rest negative.
    return text + (f", rest {format_kwh(rest_kwh)}" if isinstance(rest_kwh, int | float) else "")
