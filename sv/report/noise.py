"""Which differences between systems mean anything, which figures of a column are the best.

A replicate of stage 7 is the same draw of speakers for every system and list, so that a difference
and a mean over lists are taken replicate by replicate. A column is compared only among figures that
mean the same; where they do not, nothing is bold and a note says why, because a bold figure would
be read as a finding.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from sv.report.results import P_TARGET, Results, Stage, System, find_score
from sv.report.tables.cells import Cell, Note, Row
from sv.report.tables.evidence import (
    describe_boundaries,
    describe_factor,
    describe_kinds,
    describe_pue,
)
from sv.score.bootstrap import Measured, subtract
from sv.score.record import ScoredList

MEASURES = ("eer_percent", "min_dcf")
LEAST_SPEAKERS = 25  # with fewer, intervals held the truth too rarely (sv.score.bootstrap)
K = TypeVar("K")
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


def find_measured(
    system: System, lists: tuple[str, ...], measure: str, precision: str = "fp32"
) -> Measured | None:
    """Return a measure (of `MEASURES`), the mean over ``lists``; None if one list lacks it."""
    found = [_measured(find_score(system, name, precision), measure) for name in lists]
    known = [item for item in found if item is not None]
    if not known or len(known) < len(found) or len({len(m.replicates) for m in known}) > 1:
        return None
    return Measured(
        value=float(np.mean([item.value for item in known])),
        draws=tuple(draw for item in known for draw in item.draws),
        speakers=min(item.speakers for item in known),
        replicates=np.mean([item.replicates for item in known], axis=0),
    )


def _measured(score: ScoredList | None, measure: str) -> Measured | None:
    if score is None or score.bootstrap is None:
        return None
    boot = score.bootstrap
    value, values = score.eer_percent, boot.eer_percent
    if measure == "min_dcf":
        cost, values = score.min_dcf.get(P_TARGET), boot.min_dcf.get(P_TARGET, ())
        if cost is None or not values:
            return None
        value = cost
    return Measured(value, (boot.draws,), boot.speakers, np.array(values, dtype=float))


def find_ties(measured: Mapping[K, Measured], best: K) -> set[K]:
    """Return those that are not ``best``, but within noise of it; none without its replicates."""
    if best not in measured:
        return set()
    found = measured.items()
    return {key for key, item in found if key != best and _tied(item, measured[best])}


def _tied(item: Measured, best: Measured) -> bool:
    difference = subtract(item, best)
    return difference is not None and difference.within_noise


# The best of a column.


def mark_lowest(rows: Sequence[Row], key: str, places: Iterable[int]) -> None:
    """Make the lowest figure of a column bold, and all that are printed alike.

    Args:
        rows: Their cells are replaced. With fewer than two figures nothing is bold.
        key: The column.
        places: The rows whose figures are compared.
    """
    values = {
        place: value
        for place in places
        if isinstance(value := rows[place].cells[key].value, int | float)
    }
    if len(values) < 2:
        return
    lowest = rows[min(values, key=lambda place: values[place])].cells[key].text
    for place in values:
        cell = rows[place].cells[key]
        if cell.text == lowest:
            rows[place].cells[key] = replace(cell, best=True)


def mark_measures(rows: Sequence[Row], key: str, measured: Sequence[Measured | None]) -> None:
    """Make the best EER or minDCF of a column bold, and mark what is within noise of it.

    Figures are compared among the rows of one backend.

    Args:
        rows: Their cells are replaced.
        key: The column.
        measured: The figure of each row, None without replicates.
    """
    backends: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        backends.setdefault(row.cells["backend"].value, []).append(place)
    for places in backends.values():
        mark_lowest(rows, key, places)
        values = {place: rows[place].cells[key].value for place in places}
        known = {place: value for place, value in values.items() if isinstance(value, int | float)}
        replicated = {place: item for place in places if (item := measured[place]) is not None}
        best = min(known, key=lambda place: known[place], default=-1)
        for place in find_ties(replicated, best):
            cell = rows[place].cells[key]
            if not cell.best and cell.value is not None:
                rows[place].cells[key] = replace(cell, marks=(*cell.marks, "within_noise"))


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
        whole = {
            place: stage
            for place, stage in enumerate(stages)
            if stage is not None and rows[place].cells[key].value is not None and _is_whole(stage)
        }
        differing = [_WHY[rule] for rule in rules if len(set(map(rule, whole.values()))) > 1]
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
    sidecar = stage.sidecar
    is_complete = sidecar.status == "complete" and not sidecar.reason
    return is_complete and sidecar.measured_fraction is not None


def describe_best(rows: Sequence[Row], results: Results, where: str) -> list[Note]:
    """Say what bold means, if anything is; ``where`` is what it is the best of."""
    if not any(cell.best for row in rows for cell in row.cells.values()):
        return []
    alike = f", measures among the rows of one backend ({', '.join(results.backends)})"
    several = alike if len(results.backends) > 1 else ""
    return [Note(f"Bold: the best, which is the lowest, of its {where}{several}.")]


def note_ties(cells: Iterable[Cell]) -> list[Note]:
    """Explain the mark of figures within noise, if one of them has it."""
    if not any("within_noise" in cell.marks for cell in cells):
        return []
    text = "within noise of the best: with other speakers it may be first (Table 4)"
    return [Note(text, "within_noise")]
