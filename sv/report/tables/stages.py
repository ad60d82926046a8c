"""Table 3: the energy of every stage that has a sidecar, of all that was tried, and its quality.

Sums are never of figures that cover different parts of the machines. What lies next to the
sidecars (totals of a cluster, forecasts) is a note with its ratio to our figure, and in no sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sv.energy.record import Amount, Carbon
from sv.errors import SvError
from sv.report.results import RESULTS_STAGE, Results, Stage, read_known
from sv.report.tables.cells import (
    BLANK,
    Column,
    Note,
    Row,
    Table,
    choose_units,
    fact_cell,
    figure_cell,
    format_significant,
    text_cell,
)
from sv.report.tables.evidence import (
    ENERGY_COLUMNS,
    PROVENANCE_COLUMNS,
    TRIED,
    co2_marks,
    describe_covered,
    energy_marks,
    energy_notes,
    explain_incomplete,
    format_kwh,
    list_some,
    provenance_cells,
    show_tried,
    stage_cells,
)

SHARED, RESULTS, EVERYTHING = "Shared stages", "Results", "Everything"
_TOTALS_NOTE = Note(
    "Totals sum figures that cover the same parts of the machines; others are summed apart and "
    f"never together. '{EVERYTHING}' is of all the stages above: its 'All tried' is what all of "
    "it cost."
)
_LITTLE = 0.01  # of the energy of a section
_LEAST_FOLDED = 2  # rows: one would only lose its name


def build_stage_table(results: Results) -> Table:
    """Build Table 3: shared stages, the stages of each system, stage 8; each with its totals."""
    # Not every machine gives an uncertainty; the CSV file has the column all the same.
    owned = [stage for system in results.metered for stage in system.stages]
    certain = any(stage.sidecar.uncertainty_kwh is not None for stage in owned)
    columns = (
        Column("stage", "Stage", numeric=False),
        Column("name", "Name", numeric=False),
        Column("system", "System", numeric=False, csv_only=True),
        Column("status", "Status", numeric=False),
        *ENERGY_COLUMNS,
        *([Column("uncertainty_kwh", "± (kWh, k = 2)", unit="kWh")] if certain else []),
        Column("energy_all_kwh", "kWh", "All tried", marked=True, unit="kWh"),
        Column("co2_all_kg", "CO2 (kg)", "All tried", marked=True, unit="kg"),
        Column("attempts", "Attempts"),
        Column("duration_s", "Duration"),
        Column("measured_percent", "Measured (%)"),
        Column("estimated_percent", "Estimated (%)"),
    )
    shown = {column.key for column in columns}
    extra = tuple(column for column in PROVENANCE_COLUMNS if column.key not in shown)
    last = [stage for stage in results.shared if stage.number >= RESULTS_STAGE]
    groups = {SHARED: [stage for stage in results.shared if stage not in last]}
    groups |= {system.name: list(system.stages) for system in results.metered}
    groups[RESULTS] = last
    rows: list[Row] = []
    for section, stages in groups.items():
        owner = "shared" if section in (SHARED, RESULTS) else section
        members = [_build_row(owner, stage, section) for stage in stages]
        rows += [*_fold(owner, members, section), *_build_totals(owner, members, section)]
    every = [row for row in rows if not row.is_total and not row.folds]
    whole = _build_totals("all", every, EVERYTHING)
    rows += whole
    columns = choose_units(columns, rows)
    notes = [
        Note(
            "Energy, CO2, duration (hh:mm:ss) and measured part are of the run that made the "
            "result, with the attempts that it resumed; 'All tried' is of every attempt, failed "
            "ones too, and so are its marks."
        ),
        *([_TOTALS_NOTE] if whole else []),
        *energy_notes(rows, sources=True),
        *_list_companions(results),
    ]
    if last:
        notes.append(Note("Stage 8 is of an earlier run: this one is still being metered."))
    if results.journals:
        names = ", ".join(str(path) for path in results.journals)
        notes.append(Note(f"Not counted, journals without a sidecar: {names}"))
    return Table("table3", "Energy of every stage", (*columns, *extra), tuple(rows), tuple(notes))


def _build_row(owner: str, stage: Stage, section: str, tried: Stage | None = None) -> Row:
    """Build a row.

    Args:
        owner: The system, or 'shared'.
        stage: Whose figures it shows.
        section: The heading above it.
        tried: The same of every attempt (`show_tried`); None: of ``stage``.
    """
    tried = tried or show_tried(stage)
    sidecar, path = stage.sidecar, stage.path
    fraction = None if stage.energy_kwh is None else sidecar.measured_fraction
    percents = (None, None) if fraction is None else (100 * fraction, 100 * (1 - fraction))
    no_percent = f"{path.name} does not say which part was measured"
    uncertainty_kwh = sidecar.uncertainty_kwh
    not_certain = sidecar.uncertainty_reason or "not in the sidecar"
    all_cells = stage_cells(tried)
    cells = {
        **provenance_cells(stage),
        **stage_cells(stage),
        "stage": figure_cell(stage.number, ""),
        "name": text_cell(stage.name),
        "system": text_cell(owner),
        "status": text_cell(sidecar.status),
        "attempts": figure_cell(len(sidecar.attempts), ""),
        "measured_percent": figure_cell(percents[0], _format_percent, no_percent),
        "estimated_percent": figure_cell(percents[1], _format_percent, no_percent),
        "uncertainty_kwh": figure_cell(
            uncertainty_kwh, format_significant, not_certain, sidecar=path
        ),
        **dict(zip(TRIED, (all_cells["energy_kwh"], all_cells["co2_kg"]), strict=True)),
    }
    return Row(f"{stage.number:02d}_{stage.name} {owner}", cells, section, stage, tried=tried)


def _fold(owner: str, members: list[Row], section: str) -> list[Row]:
    """Fold what is under `_LITTLE` of a section into a row, where several stages are, all whole."""
    whole_kwh = sum(row.stage.energy_kwh or 0.0 for row in members if row.stage)
    little: dict[str, list[Row]] = {}
    for row in members:
        stage = row.stage
        if stage and not explain_incomplete(stage) and stage.energy_kwh < _LITTLE * whole_kwh:
            little.setdefault(describe_covered(stage), []).append(row)
    folds = []
    for group in little.values():
        if len(group) >= _LEAST_FOLDED:
            name = f"{len(group)} stages under {100 * _LITTLE:.0f} % each"
            (sums,) = _sum_by_cover(group).values()
            folds.append(replace(_build_sum(owner, name, sums, section), folds=True))
            members = [replace(row, folded=True) if row in group else row for row in members]
    return [*members, *folds]


def _build_totals(owner: str, members: Sequence[Row], section: str) -> list[Row]:
    """Sum two rows or more: once, or once for each cover where they cover different parts."""
    by_cover = _sum_by_cover(members) if len(members) > 1 else {}
    rows = []
    for cover, sums in by_cover.items():
        name = "total" if len(by_cover) == 1 else f"total of {cover}"
        rows.append(replace(_build_sum(owner, name, sums, section), is_total=True))
    return rows


def _build_sum(owner: str, name: str, sums: tuple[Stage, Stage], section: str) -> Row:
    total, tried = sums
    cells = {
        **_build_row(owner, total, section, tried).cells,
        "name": text_cell(name),
        "pue": fact_cell(None),
        "stage": BLANK,  # these are of one stage
        "status": BLANK,
    }
    cells = {key: replace(cell, sidecar=None) for key, cell in cells.items()}
    return Row(f"{name}, {section}", cells, section, total, tried=tried)


def _format_percent(percent: float) -> str:
    return f"{percent:.0f}" if percent in (0, 100) else f"{percent:.1f}"


# Sums.


def _sum_by_cover(rows: Sequence[Row]) -> dict[str, tuple[Stage, Stage]]:
    """Sum the stages of rows apart by what their energy covers (`describe_covered`).

    Those without an energy are in no sum; every sum then says so in its ``reason``.

    Returns:
        By what is covered, two `Stage`, of the runs and of everything tried, whose sidecars have
        the sums, and all attempts and channels. A sum is None where a part of it is not known;
        uncertainties are added linearly, as those of channels are. Without any energy it is one
        sum without an energy, by the name "".
    """
    unknown = [row.label for row in rows if row.stage and row.stage.energy_kwh is None]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.stage and row.stage.energy_kwh is not None:
            groups.setdefault(describe_covered(row.stage), []).append(row)
    if not groups:
        groups, unknown = {"": [row for row in rows if row.stage]}, []
    sums = {}
    for covered, group in groups.items():
        runs = [(row.label, row.stage) for row in group if row.stage]
        tried = [(row.label, row.tried) for row in group if row.tried]
        sums[covered] = (_sum(runs, unknown), _sum(tried, unknown))
    return sums


def _sum(labelled: Sequence[tuple[str, Stage]], left_out: Sequence[str]) -> Stage:
    """Sum stages by label; ``left_out`` are others whose energy is not known."""
    lacking = [label for label, stage in labelled if stage.energy_kwh is None]
    part = [
        label
        for label, stage in labelled
        if label not in lacking and "incomplete" in energy_marks(stage)
    ]
    why = [f"not known of {list_some(lacking)}"] if lacking else []
    why += [f"with {list_some(part)}, which is incomplete or disputed"] if part else []
    why += [f"without {list_some(left_out)}, whose energy is not known"] if left_out else []
    sidecars = [stage.sidecar for _, stage in labelled]

    def add(name: str) -> float | None:
        """Sum a figure; None where one is not known."""
        values = [getattr(sidecar, name) for sidecar in sidecars]
        return None if None in values else sum(values)

    def explain(name: str) -> str:
        lacking = [label for label, stage in labelled if getattr(stage.sidecar, name) is None]
        return f"not known of {list_some(lacking)}" if lacking else ""

    alike = len({(sidecar.carbon.scope, sidecar.carbon.basis) for sidecar in sidecars}) == 1
    co2_g = add("co2_g") if alike else None
    no_co2 = explain("co2_g") if alike else "grams of different scope or basis are not summed"
    if co2_g is not None:  # what has an incomplete energy is in the reason of the energy
        part = [
            label
            for label, stage in labelled
            if "incomplete" in co2_marks(stage) and "incomplete" not in energy_marks(stage)
        ]
        no_co2 = f"with {list_some(part)}, whose CO2 is incomplete or disputed" if part else ""
    measured = None
    if all(s.energy_kwh is not None and s.measured_fraction is not None for s in sidecars):
        kwh = [(s.energy_kwh or 0.0, s.measured_fraction or 0.0) for s in sidecars]
        whole = sum(energy for energy, _ in kwh)
        measured = sum(energy * share for energy, share in kwh) / whole if whole else None
    total = replace(
        sidecars[0],
        name="total",
        model=None,
        status="complete",  # what did not complete is in the reason
        exit_code=None,
        host="",
        started_utc="",
        duration_s=add("duration_s"),
        energy_kwh=add("energy_kwh"),
        energy_node_kwh=None,
        energy_all_kwh=add("energy_all_kwh"),
        uncertainty_kwh=add("uncertainty_kwh"),
        uncertainty_reason=explain("uncertainty_kwh"),
        measured_fraction=measured,
        reason="; ".join(why) or None,
        co2_g=co2_g,
        co2_all_g=add("co2_all_g") if alike else None,
        carbon=Carbon("", None, None, None, None, None, None, no_co2 or None, co2_g, ()),
        run_attempts=(),
        channels=tuple(channel for sidecar in sidecars for channel in sidecar.channels),
        attempts=tuple(attempt for sidecar in sidecars for attempt in sidecar.attempts),
    )
    return Stage(Path("the sum"), total)


# What lies next to the sidecars; the energy package writes it.


@dataclass(frozen=True)
class _Energy:
    energy_kwh: Amount | None


@dataclass(frozen=True)
class _Job:
    system: str
    job: str
    cluster: str


@dataclass(frozen=True)
class _Imported:
    """energy/ceems.json: a cluster's total of a job and our energy in its time."""

    schema: Literal["energy-imported/1"]
    source: _Job
    imported: _Energy
    ours: _Energy
    ratio: _Energy
    ratio_reason: str | None = None


@dataclass(frozen=True)
class _Expected(_Energy):
    energy_kwh_low: Amount | None
    energy_kwh_high: Amount | None


@dataclass(frozen=True)
class _Outcome(_Energy):
    ratio: _Energy


@dataclass(frozen=True)
class _Forecast:
    """forecast.json: what a training was expected to take."""

    schema: Literal["energy-forecast/1"]
    expected: _Expected
    extrapolation: str
    outcome: _Outcome | None = None


def _describe_import(found: _Imported) -> str:
    source = found.source
    text = (
        f"{source.system} counts {_format_kwh(found.imported)} for job {source.job} of "
        f"{source.cluster} (imported, in no sum; its rules may multiply by PUE), "
        f"our meter {_format_kwh(found.ours)} in its time; "
        f"ours / theirs {_format_ratio(found.ratio)}"
    )
    return f"{text} ({found.ratio_reason})" if found.ratio_reason else text


def _describe_forecast(found: _Forecast) -> str:
    expected, outcome = found.expected, found.outcome
    ends = (_Energy(expected.energy_kwh_low), _Energy(expected.energy_kwh_high))
    text = (
        f"a forecast of the training gave {_format_kwh(expected)} "
        f"({' to '.join(map(_format_kwh, ends))}), an extrapolation ({found.extrapolation})"
    )
    if outcome is None:
        return f"{text}; the training has not ended since"
    return f"{text}; {_format_kwh(outcome)} came, {_format_ratio(outcome.ratio)} times the forecast"


def _format_kwh(found: _Energy) -> str:
    kwh = found.energy_kwh
    return "an unknown energy" if kwh is None else format_kwh(kwh)


def _format_ratio(found: _Energy) -> str:
    return "not known" if found.energy_kwh is None else f"{found.energy_kwh:.2f}"


# File of a model folder: its record, and what a note says of it.
_COMPANIONS: dict[str, tuple[type, Callable[[Any], str]]] = {
    "energy/ceems.json": (_Imported, _describe_import),
    "forecast.json": (_Forecast, _describe_forecast),
}


def _list_companions(results: Results) -> list[Note]:
    notes = []
    for system in results.metered:
        for name, (record, describe) in _COMPANIONS.items():
            path = system.directory / name
            try:
                if path.is_file():
                    notes.append(Note(f"{system.name}: {describe(read_known(path, record))}"))
            except SvError as error:  # of no figure in a table
                notes.append(Note(f"{system.name}: {error}"))
    return notes
