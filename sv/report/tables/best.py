"""Which figures of a column are the best, and which of the others are within noise of it.

A column is compared only among figures that mean the same. Where they do not, nothing is bold
and a note says why; a bold figure would be read as a finding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sv.report.noise import Measured, find_ties
from sv.report.results import Stage
from sv.report.tables.cells import Cell, Note, Row
from sv.report.tables.evidence import (
    describe_boundaries,
    describe_factor,
    describe_kinds,
    describe_pue,
)

BEST_NOTE = Note("Bold: the best, which is the lowest, of its column.")
SECTION_NOTE = Note("Bold: the best, which is the lowest, of its column and test set.")
TIE_NOTE = Note(
    "within noise of the best: with other speakers it may be first (Table 4)", "within_noise"
)
_RULES: dict[str, tuple[Callable[[Stage], str], ...]] = {
    "energy_kwh": (describe_boundaries, describe_kinds),
    "co2_kg": (describe_boundaries, describe_kinds, describe_factor, describe_pue),
}
_WHY = {
    describe_boundaries: "cover different parts of the machines",
    describe_kinds: "are measured in some rows and estimated in others",
    describe_factor: "have different CO2 factors",
    describe_pue: "have different PUEs",
}


def mark_lowest(rows: Sequence[Row], key: str, competing: Sequence[bool] | None = None) -> None:
    """Make the lowest figure of a column bold, and all that are printed alike.

    Args:
        rows: Their cells are replaced. With fewer than two figures nothing is bold.
        key: The column.
        competing: Of each row, whether its figure takes part; None: all do.
    """
    taking_part = competing or [True] * len(rows)
    values = {
        place: value
        for place, (row, takes_part) in enumerate(zip(rows, taking_part, strict=True))
        if takes_part and isinstance(value := row.cells[key].value, int | float)
    }
    if len(values) < 2:
        return
    lowest = rows[min(values, key=lambda place: values[place])].cells[key].text
    for place in values:
        cell = rows[place].cells[key]
        if cell.text == lowest:
            rows[place].cells[key] = replace(cell, best=True)


def mark_measures(rows: Sequence[Row], key: str, measured: Mapping[int, Measured]) -> None:
    """Make the best EER or minDCF of a column bold, and mark what is within noise of it.

    Args:
        rows: Their cells are replaced.
        key: The column.
        measured: The figures that have replicates, by their place in ``rows``.
    """
    mark_lowest(rows, key)
    values = {p: row.cells[key].value for p, row in enumerate(rows)}
    known = {p: value for p, value in values.items() if isinstance(value, int | float)}
    if not known:
        return
    for place in find_ties(measured, min(known, key=lambda place: known[place])):
        cell = rows[place].cells[key]
        if not cell.best and cell.value is not None:
            rows[place].cells[key] = _with_mark(cell)


def _with_mark(cell: Cell) -> Cell:
    return replace(cell, marks=(*cell.marks, "within_noise"))


def mark_energies(rows: Sequence[Row], stages: Sequence[Stage | None]) -> list[Note]:
    """Make the lowest energy and CO2 bold where all of the column may be compared.

    Args:
        rows: Their cells are replaced.
        stages: Of each row the stage that its figures are of. One that did not complete never
            competes: its energy is a lower bound.

    Returns:
        Why a column has nothing bold, where its figures are not alike.
    """
    reasons: dict[str, list[str]] = {}
    for key, rules in _RULES.items():
        whole = [
            row.cells[key].value is not None and stage is not None and _is_whole(stage)
            for row, stage in zip(rows, stages, strict=True)
        ]
        known = [stage for stage, ok in zip(stages, whole, strict=True) if ok and stage]
        differing = [_WHY[rule] for rule in rules if len({rule(stage) for stage in known}) > 1]
        if not differing:
            mark_lowest(rows, key, whole)
        else:
            name = "energy" if key == "energy_kwh" else "CO2"
            reasons.setdefault(" and ".join(differing), []).append(name)
    return [
        Note(f"No {' and no '.join(names)} is bold: the figures {why}.")
        for why, names in reasons.items()
    ]


def _is_whole(stage: Stage) -> bool:
    return (
        stage.sidecar.status == "complete"
        and not stage.sidecar.reason
        and stage.sidecar.measured_fraction is not None
    )
