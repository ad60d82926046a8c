"""The facts of a sidecar in words: how good its energy is, what it covers, which factor."""

import dataclasses

from sv.energy.record import Attribution, Carbon, Crosscheck
from sv.report.results import Stage
from sv.report.tables.cells import UNKNOWN, format_duration, format_significant
from sv.report.tables.evidence import describe_boundaries, describe_pue, energy_marks

_WHOLE = 1e-6  # of a share of energy: less is rounding


def describe_quality(stage: Stage) -> str:
    """Say in words whether an energy was measured, estimated or incomplete."""
    if stage.energy_kwh is None:
        return "not known"
    complete = "incomplete" not in energy_marks(stage)
    return describe_share(stage.sidecar.measured_fraction, complete=complete)


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


def list_facts(stage: Stage) -> tuple[tuple[str, str], ...]:
    """List what a sidecar says of the run that made the result; what is unknown is left out."""
    sidecar = stage.sidecar
    whole_kwh = sidecar.energy_node_kwh
    phases = [f"{phase.name} {format_kwh(phase.energy_kwh)}" for phase in sidecar.phases]
    gaps = [channel.samples.max_gap_s for channel in sidecar.channels]
    longest_s = max((gap for gap in gaps if gap is not None), default=None)
    facts = [
        ("Energy", _describe_figure(stage)),
        ("All attempts", format_kwh(sidecar.energy_all_kwh)),
        ("Status", sidecar.status),
        ("Reason", sidecar.reason),
        ("Started", sidecar.started_utc),
        ("Duration", format_duration(sidecar.duration_s)),
        ("Covers", describe_boundaries(stage)),
        ("Attribution", _describe_attribution(sidecar.attribution)),
        ("Whole machine", whole_kwh != sidecar.energy_kwh and whole_kwh and format_kwh(whole_kwh)),
        ("Longest gap", longest_s and f"{format_significant(longest_s)} s between two samples"),
        ("CO2", sidecar.co2_g is not None and f"{format_significant(sidecar.co2_g / 1000)} kg"),
        ("Carbon factor", _describe_carbon(sidecar.carbon)),
        ("Recorded factor", stage.recorded_carbon and _describe_carbon(stage.recorded_carbon)),
        ("PUE", describe_pue(stage)),
        ("Crosschecks", "; ".join(_describe_check(check) for check in sidecar.crosschecks)),
        ("Phases", "; ".join(phases)),
    ]
    return tuple((term, text) for term, text in facts if text)


def _describe_figure(stage: Stage) -> str:
    text = describe_quality(stage)
    if stage.energy_kwh is None:
        return text
    text = f"{format_kwh(stage.energy_kwh)}, {text}"
    if stage.sidecar.uncertainty_kwh is not None:
        text += f"; ± {format_kwh(stage.sidecar.uncertainty_kwh)} (k = 2)"
    elif stage.sidecar.uncertainty_reason:
        text += f"; uncertainty not known: {stage.sidecar.uncertainty_reason}"
    return text


def _describe_attribution(attribution: Attribution) -> str:
    inputs = dataclasses.asdict(attribution.inputs)
    words = [f"{key} {value:g}" for key, value in inputs.items() if value is not None]
    words += filter(None, [attribution.reason])
    return f"{attribution.rule} ({', '.join(words)})" if words else attribution.rule


def _describe_carbon(carbon: Carbon) -> str:
    count = len(carbon.intervals)
    facts = [
        carbon.g_per_kwh is not None and f"{format_significant(carbon.g_per_kwh)} g/kWh",
        carbon.provider,
        carbon.zone,
        carbon.year and str(carbon.year),
        carbon.vintage and f"vintage {carbon.vintage}",
        carbon.scope and f"{carbon.scope} scope",
        carbon.basis,
        carbon.source,
        count and f"{count} {'interval' if count == 1 else 'intervals'}",
        carbon.estimated and "estimated by its provider",
        *(f"in place of {other}" for other in carbon.fallback_from),
        carbon.reason,
    ]
    return ", ".join(fact for fact in facts if fact)


def _describe_check(check: Crosscheck) -> str:
    text = f"{check.a} / {check.b} "
    text += "not known" if check.ratio is None else format_significant(check.ratio)
    # Sensors that disagree can make the rest negative.
    return text if check.rest_kwh is None else f"{text}, rest {format_kwh(check.rest_kwh)}"
