"""Table 3: the energy of every stage that has a sidecar, of all that was tried, and its quality."""

from sv.report.records import RESULTS_STAGE, Results
from sv.report.stage_energy import StageEnergy
from sv.report.tables.cells import (
    Cell,
    Column,
    Note,
    Row,
    Table,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.tables.companions import companion_notes
from sv.report.tables.evidence import (
    Labelled,
    co2_cell,
    energy_cell,
    energy_marks,
    energy_notes,
)
from sv.report.tables.provenance import (
    ENERGY_COLUMNS,
    PROVENANCE_COLUMNS,
    duration_cell,
    provenance_cells,
)
from sv.report.tables.stage_totals import sum_by_cover

SHARED, RESULTS, EVERYTHING = "Shared stages", "Results", "Everything"
_TOTALS_NOTE = Note(
    "Totals sum figures that cover the same parts of the machines; others are summed apart and "
    f"never together. '{EVERYTHING}' is of all the stages above: its 'All tried' is what all of "
    "it cost."
)


def build_stage_table(results: Results) -> Table:
    """Build Table 3: shared stages, the stages of each system, stage 8; each with its totals."""
    columns = (
        Column("stage", "Stage", numeric=False),
        Column("name", "Name", numeric=False),
        Column("system", "System", numeric=False, csv_only=True),
        Column("status", "Status", numeric=False),
        *ENERGY_COLUMNS,
        *_choose_columns([stage for system in results.systems for stage in system.stages]),
        Column("energy_all_kwh", "kWh", "All tried", marked=True),
        Column("co2_all_kg", "CO2 (kg)", "All tried", marked=True),
        Column("attempts", "Attempts"),
        Column("duration_s", "Duration"),
        Column("measured_percent", "Measured (%)"),
        Column("estimated_percent", "Estimated (%)"),
    )
    shown = {column.key for column in columns}
    extra = tuple(column for column in PROVENANCE_COLUMNS if column.key not in shown)
    last = [stage for stage in results.shared if stage.stage >= RESULTS_STAGE]
    groups = {SHARED: [stage for stage in results.shared if stage not in last]}
    groups |= {system.name: list(system.stages) for system in results.systems}
    groups[RESULTS] = last
    rows: list[Row] = []
    labelled: list[Labelled] = []
    totals: list[Labelled] = []
    for section, stages in groups.items():
        owner = "shared" if section in (SHARED, RESULTS) else section
        members = [_build_row(owner, stage, section) for stage in stages]
        found = [(row.label, stage) for row, stage in zip(members, stages, strict=True)]
        sums = _sum_group(found, section)
        rows += [*members, *(_total_row(owner, *item, section) for item in sums)]
        labelled += found
        totals += sums
    whole = _sum_group(labelled, EVERYTHING)
    rows += [_total_row("all", *item, EVERYTHING) for item in whole]
    notes = [
        Note(
            "Energy, CO2 and duration (hh:mm:ss) are of the run that made the result, with the "
            "attempts that it resumed; 'All tried' is of every attempt, failed ones too."
        ),
        *([_TOTALS_NOTE] if whole else []),
        *energy_notes(labelled, [*totals, *whole]),
        *companion_notes(results),
    ]
    if last:
        notes.append(Note("Stage 8 is of an earlier run: this one is still being metered."))
    if results.journals:
        names = ", ".join(str(path) for path in results.journals)
        notes.append(Note(f"Not counted, journals without a sidecar: {names}"))
    return Table("table3", "Energy of every stage", (*columns, *extra), tuple(rows), tuple(notes))


def _choose_columns(stages: list[StageEnergy]) -> list[Column]:
    """Choose the columns that only some machines have a figure for; the CSV file has them all."""
    columns = []
    if any(stage.uncertainty_kwh is not None for stage in stages):
        columns.append(Column("uncertainty_kwh", "± (kWh, k = 2)"))
    if any(stage.energy_above_idle_kwh is not None for stage in stages):
        columns.append(Column("energy_above_idle_kwh", "Above idle (kWh)"))
    return columns


def _build_row(owner: str, stage: StageEnergy, section: str) -> Row:
    """Build a row; ``owner`` is the system or 'shared'."""
    fraction = None if stage.energy_kwh is None else stage.measured_fraction
    quality = tuple(mark for mark in energy_marks(stage) if mark != "incomplete")
    cells = {
        **provenance_cells(stage),
        "stage": Cell(f"{stage.stage}", stage.stage),
        "name": text_cell(stage.name),
        "system": text_cell(owner),
        "status": text_cell(stage.status),
        "energy_kwh": energy_cell(stage, "no sidecar"),
        "co2_kg": co2_cell(stage, "no sidecar"),
        "energy_all_kwh": _all_cell(stage.energy_all_kwh, quality, "energy"),
        "co2_all_kg": _all_cell(_kg(stage.co2_all_g), quality, "CO2"),
        "uncertainty_kwh": _figure_cell(stage.uncertainty_kwh, stage.uncertainty_reason),
        "energy_above_idle_kwh": _figure_cell(stage.energy_above_idle_kwh, stage.above_idle_reason),
        "attempts": Cell(f"{stage.attempts}", stage.attempts),
        "duration_s": duration_cell(stage, "no sidecar"),
        "measured_percent": _percent_cell(fraction, stage),
        "estimated_percent": _percent_cell(None if fraction is None else 1 - fraction, stage),
    }
    return Row(f"{stage.stage:02d}_{stage.name} {owner}", cells, section)


def _sum_group(labelled: list[Labelled], section: str) -> list[Labelled]:
    """Sum two stages or more: once, or once for each cover where they cover different parts."""
    sums = sum_by_cover(labelled) if len(labelled) > 1 else {}
    name = "total" if len(sums) == 1 else "total of {}"
    return [(f"{name.format(cover)}, {section}", total) for cover, total in sums.items()]


def _total_row(owner: str, label: str, total: StageEnergy, section: str) -> Row:
    name = text_cell(label.removesuffix(f", {section}"))
    cells = {**_build_row(owner, total, section).cells, "name": name}
    return Row(
        label, cells | dict.fromkeys(("stage", "status"), Cell("", "")), section, is_total=True
    )


def _all_cell(value: float | None, marks: tuple[str, ...], what: str) -> Cell:
    if value is None:
        return unknown_cell(f"no {what} of every attempt in the sidecar")
    return Cell(format_significant(value), value, marks)


def _kg(grams: float | None) -> float | None:
    return None if grams is None else grams / 1000


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
