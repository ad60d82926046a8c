"""What lies beside the sidecars, as notes of a table: totals of a cluster, forecasts, new grams.

None of it is in a sum; each has its ratio to our figure.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sv.errors import SvError
from sv.report.fields import read_object, take_number, take_part, take_text
from sv.report.records import Results
from sv.report.tables.cells import Note, format_significant


def companion_notes(results: Results) -> list[Note]:
    """Give a note for each companion of each system, then of the shared stages.

    Raises:
        SvError: A file is not as agreed.
    """
    notes = []
    for system in results.systems:
        notes += _explain(system.directory / "energy" / "ceems.json", system.name, _explain_import)
        notes += _explain(system.directory / "forecast.json", system.name, _explain_forecast)
    folders = [(system.name, system.directory / "energy") for system in results.systems]
    for owner, folder in [("shared", results.data / "energy"), *folders]:
        for path in sorted((folder / "recost").glob("*.json")):
            notes += _explain(path, owner, _explain_recost)
    return notes


def _explain(path: Path, owner: str, explain: Callable[..., str]) -> list[Note]:
    if not path.is_file():
        return []
    record = read_object(path)
    schema = take_text(record, "schema")
    if schema != _SCHEMAS[explain]:
        raise SvError(f"{path}: schema is '{schema}', expected '{_SCHEMAS[explain]}'")
    return [Note(f"{owner}: {explain(record, path)}")]


def _explain_import(record: dict[str, Any], path: Path) -> str:
    source = take_part(record, "source", dict, path)
    theirs, ours, ratio = (
        take_number(take_part(record, part, dict, path), "energy_kwh", path)
        for part in ("imported", "ours", "ratio")
    )
    reason = take_text(record, "ratio_reason")
    who, job, cluster = (take_text(source, key) for key in ("system", "job", "cluster"))
    return (
        f"{who} counts {_kwh(theirs)} for job {job} of {cluster} (imported, in no sum), our meter "
        f"{_kwh(ours)} in its time; ours / theirs {_ratio(ratio)}"
        f"{f' ({reason})' if reason else ''}"
    )


def _explain_forecast(record: dict[str, Any], path: Path) -> str:
    expected = take_part(record, "expected", dict, path)
    kwh, low, high = (
        take_number(expected, f"energy_kwh{end}", path) for end in ("", "_low", "_high")
    )
    text = f"a forecast of the training gave {_kwh(kwh)} ({_kwh(low)} to {_kwh(high)}), an "
    text += f"extrapolation ({take_text(record, 'extrapolation')})"
    outcome = take_part(record, "outcome", dict, path)
    if not outcome:
        return f"{text}; the training has not ended since"
    ratio = take_number(take_part(outcome, "ratio", dict, path), "energy_kwh", path)
    came = take_number(outcome, "energy_kwh", path)
    return f"{text}; {_kwh(came)} came, {_ratio(ratio)} times the forecast"


def _explain_recost(record: dict[str, Any], path: Path) -> str:
    carbon = take_part(record, "carbon", dict, path)
    facts = [take_text(carbon, key) for key in ("provider", "zone", "year", "scope", "basis")]
    co2_g, ratio = (take_number(record, key, path) for key in ("co2_g", "ratio"))
    grams = "unknown" if co2_g is None else f"{format_significant(co2_g)} gCO2e"
    return (
        f"{take_text(record, 'sidecar')} costed anew: {grams} "
        f"({', '.join(fact for fact in facts if fact)}), {_ratio(ratio)} times the table's figure"
    )


_SCHEMAS = {
    _explain_import: "energy-imported/1",
    _explain_forecast: "energy-forecast/1",
    _explain_recost: "energy-recost/1",
}


def _kwh(value: float | None) -> str:
    return "an unknown energy" if value is None else f"{format_significant(value)} kWh"


def _ratio(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
