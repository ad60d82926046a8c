"""Table 3: the energy of every stage that has a sidecar, of all that was tried, and its quality.

Sums are never of figures that cover different parts of the machines. What lies next to the
sidecars (totals of a cluster, forecasts) is a note with its ratio to our figure, and in no sum.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sv.energy.record import Amount, Carbon
from sv.report.results import RESULTS_STAGE, Results, Stage, read_known
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
from sv.report.tables.evidence import (
    ENERGY_COLUMNS,
    PROVENANCE_COLUMNS,
    Labelled,
    co2_cell,
    describe_covered,
    duration_cell,
    energy_cell,
    energy_marks,
    energy_notes,
    fact_cell,
    figure_cell,
    kg_from_g,
    list_some,
    provenance_cells,
)

SHARED, RESULTS, EVERYTHING = "Shared stages", "Results", "Everything"
_TOTALS_NOTE = Note(
    "Totals sum figures that cover the same parts of the machines; others are summed apart and "
    f"never together. '{EVERYTHING}' is of all the stages above: its 'All tried' is what all of "
    "it cost."
)
_OF_ONE_STAGE = ("stage", "status")  # blank in a total


def build_stage_table(results: Results) -> Table:
    """Build Table 3: shared stages, the stages of each system, stage 8; each with its totals."""
    # Not every machine gives an uncertainty; the CSV file has the column all the same.
    owned = [stage for system in results.systems for stage in system.stages]
    certain = any(stage.sidecar.uncertainty_kwh is not None for stage in owned)
    columns = (
        Column("stage", "Stage", numeric=False),
        Column("name", "Name", numeric=False),
        Column("system", "System", numeric=False, csv_only=True),
        Column("status", "Status", numeric=False),
        *ENERGY_COLUMNS,
        *([Column("uncertainty_kwh", "± (kWh, k = 2)")] if certain else []),
        Column("energy_all_kwh", "kWh", "All tried", marked=True),
        Column("co2_all_kg", "CO2 (kg)", "All tried", marked=True),
        Column("attempts", "Attempts"),
        Column("duration_s", "Duration"),
        Column("measured_percent", "Measured (%)"),
        Column("estimated_percent", "Estimated (%)"),
    )
    shown = {column.key for column in columns}
    extra = tuple(column for column in PROVENANCE_COLUMNS if column.key not in shown)
    last = [stage for stage in results.shared if stage.number >= RESULTS_STAGE]
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
        rows += [*members, *(_build_total(owner, *item, section) for item in sums)]
        labelled += found
        totals += sums
    whole = _sum_group(labelled, EVERYTHING)
    rows += [_build_total("all", *item, EVERYTHING) for item in whole]
    notes = [
        Note(
            "Energy, CO2 and duration (hh:mm:ss) are of the run that made the result, with the "
            "attempts that it resumed; 'All tried' is of every attempt, failed ones too."
        ),
        *([_TOTALS_NOTE] if whole else []),
        *energy_notes(labelled, [*totals, *whole]),
        *_list_companions(results),
    ]
    if last:
        notes.append(Note("Stage 8 is of an earlier run: this one is still being metered."))
    if results.journals:
        names = ", ".join(str(path) for path in results.journals)
        notes.append(Note(f"Not counted, journals without a sidecar: {names}"))
    return Table("table3", "Energy of every stage", (*columns, *extra), tuple(rows), tuple(notes))


def _build_row(owner: str, stage: Stage, section: str) -> Row:
    """Build a row; ``owner`` is the system or 'shared'."""
    sidecar, path = stage.sidecar, stage.path
    fraction = None if stage.energy_kwh is None else sidecar.measured_fraction
    quality = tuple(mark for mark in energy_marks(stage) if mark != "incomplete")
    why_not_all = "no {} of every attempt in the sidecar"
    cells = {
        **provenance_cells(stage),
        "stage": Cell(f"{stage.number}", stage.number),
        "name": text_cell(stage.name),
        "system": text_cell(owner),
        "status": text_cell(sidecar.status),
        "energy_kwh": energy_cell(stage, "no sidecar"),
        "co2_kg": co2_cell(stage, "no sidecar"),
        "energy_all_kwh": figure_cell(
            sidecar.energy_all_kwh, why_not_all.format("energy"), path=path, marks=quality
        ),
        "co2_all_kg": figure_cell(
            kg_from_g(sidecar.co2_all_g), why_not_all.format("CO2"), path=path, marks=quality
        ),
        "uncertainty_kwh": figure_cell(
            sidecar.uncertainty_kwh, sidecar.uncertainty_reason or "not in the sidecar", path=path
        ),
        "attempts": Cell(f"{len(sidecar.attempts)}", len(sidecar.attempts)),
        "duration_s": duration_cell(stage, "no sidecar"),
        "measured_percent": _percent_cell(fraction, stage),
        "estimated_percent": _percent_cell(None if fraction is None else 1 - fraction, stage),
    }
    return Row(f"{stage.number:02d}_{stage.name} {owner}", cells, section)


def _build_total(owner: str, label: str, total: Stage, section: str) -> Row:
    cells = {
        **_build_row(owner, total, section).cells,
        "name": text_cell(label.removesuffix(f", {section}")),
        "pue": fact_cell(None),
        **dict.fromkeys(_OF_ONE_STAGE, Cell("", "")),
    }
    cells = {key: replace(cell, sidecar=None) for key, cell in cells.items()}
    return Row(label, cells, section, is_total=True)


def _percent_cell(share: float | None, stage: Stage) -> Cell:
    if share is None:
        return unknown_cell(f"{stage.path.name} does not say which part was measured")
    percent = 100 * share
    return Cell(f"{percent:.0f}" if percent in (0, 100) else f"{percent:.1f}", percent)


# Sums.


def _sum_group(labelled: list[Labelled], section: str) -> list[Labelled]:
    """Sum two stages or more: once, or once for each cover where they cover different parts."""
    sums = sum_by_cover(labelled) if len(labelled) > 1 else {}
    name = "total" if len(sums) == 1 else "total of {}"
    return [(f"{name.format(cover)}, {section}", total) for cover, total in sums.items()]


def sum_by_cover(labelled: Sequence[Labelled]) -> dict[str, Stage]:
    """Sum stages apart by what their energy covers (`describe_covered`).

    Args:
        labelled: At least one stage. Those without an energy are in no sum; every sum then says
            so in its ``reason``.

    Returns:
        By what is covered, a `Stage` whose sidecar has the sums, and all attempts and channels. A
        sum is None where a part of it is not known; uncertainties are added linearly, as those of
        channels are. Without any energy it is one sum without an energy, by the name "".
    """
    known = [item for item in labelled if item[1].energy_kwh is not None]
    unknown = [label for label, stage in labelled if stage.energy_kwh is None]
    if not known:
        return {"": _sum(labelled, f"not known of {list_some(unknown)}")}
    groups: dict[str, list[Labelled]] = {}
    for label, stage in known:
        groups.setdefault(describe_covered(stage), []).append((label, stage))
    sums = {}
    for covered, group in groups.items():
        part = [
            label
            for label, stage in group
            if stage.sidecar.reason or stage.sidecar.status != "complete"
        ]
        why = [f"with {list_some(part)}, which is not complete"] if part else []
        if unknown:
            why.append(f"without {list_some(unknown)}, whose energy is not known")
        sums[covered] = _sum(group, "; ".join(why))
    return sums


def _sum(labelled: Sequence[Labelled], reason: str) -> Stage:
    sidecars = [stage.sidecar for _, stage in labelled]
    scopes = {(sidecar.carbon.scope, sidecar.carbon.basis) for sidecar in sidecars}
    why_no_co2 = _list_lacking(labelled, lambda stage: stage.sidecar.co2_g)
    if len(scopes) > 1:
        why_no_co2 = "grams of different scope or basis are not summed"
    co2_g = None if why_no_co2 else _add(sidecar.co2_g for sidecar in sidecars)
    carbon = Carbon("", None, None, None, None, None, None, why_no_co2 or None, co2_g, ())
    total = replace(
        sidecars[0],
        name="total",
        model=None,
        status="complete",  # what did not complete is in the reason
        exit_code=None,
        host="",
        started_utc="",
        duration_s=sum(sidecar.duration_s for sidecar in sidecars),
        energy_kwh=_add(sidecar.energy_kwh for sidecar in sidecars),
        energy_node_kwh=None,
        energy_all_kwh=_add(sidecar.energy_all_kwh for sidecar in sidecars),
        uncertainty_kwh=_add(sidecar.uncertainty_kwh for sidecar in sidecars),
        uncertainty_reason=_list_lacking(labelled, lambda stage: stage.sidecar.uncertainty_kwh),
        measured_fraction=_weigh_fractions(labelled),
        reason=reason or None,
        co2_g=co2_g,
        co2_all_g=None if len(scopes) > 1 else _add(sidecar.co2_all_g for sidecar in sidecars),
        carbon=carbon,
        run_attempts=(),
        channels=tuple(channel for sidecar in sidecars for channel in sidecar.channels),
        attempts=tuple(attempt for sidecar in sidecars for attempt in sidecar.attempts),
    )
    return Stage(Path("the sum"), total)


def _add(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def _weigh_fractions(labelled: Sequence[Labelled]) -> float | None:
    """Return the measured part of a sum of energies; None if one is not known."""
    whole = measured = 0.0
    for _, stage in labelled:
        fraction = stage.sidecar.measured_fraction
        if stage.energy_kwh is None or fraction is None:
            return None
        whole += stage.energy_kwh
        measured += stage.energy_kwh * fraction
    return measured / whole if whole else None


def _list_lacking(labelled: Sequence[Labelled], take: Callable[[Stage], float | None]) -> str:
    lacking = [label for label, stage in labelled if take(stage) is None]
    return f"not known of {list_some(lacking)}" if lacking else ""


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


def _list_companions(results: Results) -> list[Note]:
    notes = []
    for system in results.systems:
        path = system.directory / "energy" / "ceems.json"
        if path.is_file():
            text = _describe_import(read_known(path, _Imported))
            notes.append(Note(f"{system.name}: {text}"))
        path = system.directory / "forecast.json"
        if path.is_file():
            text = _describe_forecast(read_known(path, _Forecast))
            notes.append(Note(f"{system.name}: {text}"))
    return notes


def _describe_import(found: _Imported) -> str:
    source = found.source
    text = (
        f"{source.system} counts {_format_kwh(found.imported.energy_kwh)} for job {source.job} of "
        f"{source.cluster} (imported, in no sum), our meter {_format_kwh(found.ours.energy_kwh)} "
        f"in its time; ours / theirs {_format_ratio(found.ratio.energy_kwh)}"
    )
    return f"{text} ({found.ratio_reason})" if found.ratio_reason else text


def _describe_forecast(found: _Forecast) -> str:
    expected, outcome = found.expected, found.outcome
    low, high = (_format_kwh(kwh) for kwh in (expected.energy_kwh_low, expected.energy_kwh_high))
    text = f"a forecast of the training gave {_format_kwh(expected.energy_kwh)} ({low} to {high})"
    text += f", an extrapolation ({found.extrapolation})"
    if outcome is None:
        return f"{text}; the training has not ended since"
    ratio = _format_ratio(outcome.ratio.energy_kwh)
    return f"{text}; {_format_kwh(outcome.energy_kwh)} came, {ratio} times the forecast"


def _format_kwh(value: float | None) -> str:
    return "an unknown energy" if value is None else f"{format_significant(value)} kWh"


def _format_ratio(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
