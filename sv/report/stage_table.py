"""Table 3: the energy of every stage that has a sidecar, of all that was tried, and its quality."""

from sv.report.cells import (
    Cell,
    Column,
    Note,
    Row,
    Table,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.companions import companion_notes
from sv.report.evidence import co2_cell, energy_cell, energy_marks, energy_notes
from sv.report.provenance import (
    ENERGY_COLUMNS,
    PROVENANCE_COLUMNS,
    duration_cell,
    provenance_cells,
)
from sv.report.records import RESULTS_STAGE, Results, StageEnergy


def build_stage_table(results: Results) -> Table:
    """Build Table 3: shared stages, then the stages of each system, then stage 8."""
    columns = (
        Column("stage", "Stage"),
        Column("name", "Name", numeric=False),
        Column("system", "System", numeric=False),
        Column("status", "Status", numeric=False),
        *ENERGY_COLUMNS,
        *_choose_columns([stage for system in results.systems for stage in system.stages]),
        Column("energy_all_kwh", "All tried (kWh)", marked=True),
        Column("attempts", "Attempts"),
        Column("duration_s", "Duration"),
        Column("measured_percent", "Measured (%)"),
        Column("estimated_percent", "Estimated (%)"),
    )
    shown = {column.key for column in columns}
    extra = tuple(column for column in PROVENANCE_COLUMNS if column.key not in shown)
    owners = [("shared", stage) for stage in results.shared]
    owners += [(system.name, stage) for system in results.systems for stage in system.stages]
    owners.sort(key=lambda item: item[1].stage >= RESULTS_STAGE)  # stable: only stage 8 moves
    rows = tuple(_build_row(owner, stage) for owner, stage in owners)
    notes = [
        Note(
            "Energy, CO2 and duration (hh:mm:ss) are of the run that made the result, with the "
            "attempts that it resumed; 'All tried' is of every attempt."
        ),
        *energy_notes([(row.label, stage) for row, (_, stage) in zip(rows, owners, strict=True)]),
    ]
    notes += companion_notes(results)
    if any(stage.stage == RESULTS_STAGE for _, stage in owners):
        notes.append(Note("Stage 8 is of an earlier run: this one is still being metered."))
    if results.journals:
        names = ", ".join(str(path) for path in results.journals)
        notes.append(Note(f"Not counted, journals without a sidecar: {names}"))
    return Table("table3", "Energy of every stage", (*columns, *extra), rows, tuple(notes))


def _choose_columns(stages: list[StageEnergy]) -> list[Column]:
    """Choose the columns that only some machines have a figure for; the CSV file has them all."""
    columns = []
    if any(stage.uncertainty_kwh is not None for stage in stages):
        columns.append(Column("uncertainty_kwh", "± (kWh, k = 2)"))
    if any(stage.energy_above_idle_kwh is not None for stage in stages):
        columns.append(Column("energy_above_idle_kwh", "Above idle (kWh)"))
    return columns


def _build_row(owner: str, stage: StageEnergy) -> Row:
    """Build a row; ``owner`` is the system or 'shared'."""
    fraction = None if stage.energy_kwh is None else stage.measured_fraction
    tried = stage.energy_all_kwh
    quality = tuple(mark for mark in energy_marks(stage) if mark != "incomplete")
    cells = {
        **provenance_cells(stage),
        "stage": Cell(f"{stage.stage}", stage.stage),
        "name": text_cell(stage.name),
        "system": text_cell(owner),
        "status": text_cell(stage.status),
        "energy_kwh": energy_cell(stage, "no sidecar"),
        "co2_kg": co2_cell(stage, "no sidecar"),
        "energy_all_kwh": unknown_cell(f"no energy of all attempts in {stage.path.name}")
        if tried is None
        else Cell(format_significant(tried), tried, quality),
        "uncertainty_kwh": _figure_cell(stage.uncertainty_kwh, stage.uncertainty_reason),
        "energy_above_idle_kwh": _figure_cell(stage.energy_above_idle_kwh, stage.above_idle_reason),
        "attempts": Cell(f"{stage.attempts}", stage.attempts),
        "duration_s": duration_cell(stage, "no sidecar"),
        "measured_percent": _percent_cell(fraction, stage),
        "estimated_percent": _percent_cell(None if fraction is None else 1 - fraction, stage),
    }
    return Row(f"{stage.stage:02d}_{stage.name} {owner}", cells)


def _figure_cell(kwh: float | None, reason: str) -> Cell:
    if kwh is None:
        return unknown_cell(reason or "not in the sidecar")
    sign = "-" if kwh < 0 else ""
    return Cell(sign + format_significant(abs(kwh)), kwh)


def _percent_cell(share: float | None, stage: StageEnergy) -> Cell:
    if share is None:
        return unknown_cell(f"{stage.path.name} does not say which part was measured")
    percent = 100 * share
    return Cell(f"{percent:.0f}" if percent in (0, 100) else f"{percent:.1f}", percent)
