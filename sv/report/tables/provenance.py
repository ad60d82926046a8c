"""What the tables share: columns of energy and its provenance, and why a file is absent."""

from sv.report.records import StageEnergy, System
from sv.report.tables.cells import (
    UNKNOWN,
    Cell,
    Column,
    format_duration,
    unknown_cell,
)

ENERGY_COLUMNS = (
    Column("energy_kwh", "Energy (kWh)", marked=True),
    Column("co2_kg", "CO2 (kg)", marked=True),
)
# What a CSV row says about its energy beyond the printed columns.
PROVENANCE_COLUMNS = tuple(
    Column(key, key, csv_only=True)
    for key in (
        *("status", "measured_fraction", "energy_all_kwh", "attempts", "kinds", "boundary"),
        *("attribution", "energy_node_kwh", "uncertainty_kwh", "energy_above_idle_kwh"),
        *("host", "started_utc", "pue", "g_per_kwh", "carbon_provider", "carbon_zone"),
        *("carbon_year", "carbon_vintage", "carbon_scope", "carbon_basis"),
    )
)


def fact_cell(value: float | int | str | None) -> Cell:
    """Give a cell for the CSV file alone: unknown is empty there and needs no reason."""
    return Cell(UNKNOWN, None) if value in (None, "") else Cell(f"{value}", value)


def provenance_cells(stage: StageEnergy | None) -> dict[str, Cell]:
    """Give the cells of `PROVENANCE_COLUMNS`."""
    if stage is None:
        return {column.key: fact_cell(None) for column in PROVENANCE_COLUMNS}
    counted = [channel for channel in stage.channels if channel.in_total]
    carbon = stage.carbon
    facts = {
        "status": stage.status,
        "measured_fraction": stage.measured_fraction,
        "energy_all_kwh": stage.energy_all_kwh,
        "attempts": stage.attempts,
        "kinds": " ".join(dict.fromkeys(channel.kind for channel in counted)),
        "boundary": " ".join(sorted({channel.boundary for channel in counted})),
        "attribution": stage.attribution,
        "energy_node_kwh": stage.energy_node_kwh,
        "uncertainty_kwh": stage.uncertainty_kwh,
        "energy_above_idle_kwh": stage.energy_above_idle_kwh,
        "host": " ".join(dict.fromkeys([stage.host, *_hosts(stage)])).strip(),
        "started_utc": stage.started_utc,
        "pue": stage.pue_value,
        "g_per_kwh": carbon.g_per_kwh,
        **{
            f"carbon_{key}": getattr(carbon, key)
            for key in ("provider", "zone", "year", "vintage", "scope", "basis")
        },
    }
    return {key: fact_cell(value) for key, value in facts.items()}


def _hosts(stage: StageEnergy) -> list[str]:
    return [node.host for node in stage.nodes if node.host]


def metric_cells(
    eer_percent: float | None,
    min_dcf: float | None,
    reason: str,
    *,
    decimals: int,
    suffix: str = "",
) -> dict[str, Cell]:
    """Give the cells of an EER (with ``decimals``) and a minDCF; ``reason`` is for what is None."""
    pairs = (("eer_percent", eer_percent, decimals), ("min_dcf", min_dcf, 3))
    return {
        f"{key}{suffix}": unknown_cell(reason)
        if value is None
        else Cell(f"{value:.{digits}f}", value)
        for key, value, digits in pairs
    }


def duration_cell(stage: StageEnergy | None, absent: str) -> Cell:
    """Give the cell of a stage's duration."""
    if stage is None:
        return unknown_cell(absent)
    if stage.duration_s is None:
        return unknown_cell(f"no duration in {stage.path.name}")
    return Cell(format_duration(stage.duration_s), stage.duration_s)


def absent_file(system: System, name: str) -> str:
    """Say why a file of a system is not there."""
    return f"no {name}" if system.directory.is_dir() else f"no folder {system.directory}"


def absent_stage(system: System, stem: str) -> str:
    """Say why there is no sidecar ``stem`` (``05_train``) of a system."""
    journal = system.directory / "energy" / f"{stem}.journal.jsonl"
    if journal.is_file():
        return f"energy/{journal.name} has no sidecar yet (steps/make_results.sh makes it)"
    return absent_file(system, f"energy/{stem}.json")
