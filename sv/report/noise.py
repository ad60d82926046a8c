"""Which differences between systems mean anything, which figures of a column are the best.

A replicate of stage 7 is the same draw of speakers for every system and list, so that a difference
and a mean over lists are taken replicate by replicate. A column is compared only among figures that
mean the same; where they do not, nothing is bold and a note says why, because a bold figure would
be read as a finding.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from sv.report.results import P_TARGET, Results, System, compute_average, find_score
from sv.report.tables.cells import Cell, Note, Row, figure_cell
from sv.report.tables.evidence import LIKE
from sv.score.bootstrap import Measured, subtract
from sv.score.record import ScoredList

LEAST_SPEAKERS = 25  # with fewer, intervals held the truth too rarely (sv.score.bootstrap)
K = TypeVar("K")


def find_measured(
    system: System, lists: tuple[str, ...], measure: str, precision: str = "fp32"
) -> Measured | None:
    """Return a measure (EER or minDCF), the mean over ``lists``; None if one list lacks it."""
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
        value, values = score.min_dcf.get(P_TARGET), boot.min_dcf.get(P_TARGET, ())
    if value is None or not values:
        return None
    return Measured(value, (boot.draws,), boot.speakers, np.array(values, dtype=float))


def find_ties(measured: Mapping[K, Measured], best: K) -> set[K]:
    """Return those that are not ``best``, but within noise of it; none without its replicates."""
    if best not in measured:
        return set()
    others = {key: subtract(item, measured[best]) for key, item in measured.items() if key != best}
    return {key for key, item in others.items() if item is not None and item.within_noise}


def measure_cells(
    view: System,
    lists: tuple[str, ...],
    *,
    precision: str = "fp32",
    suffix: str = "",
) -> dict[str, Cell]:
    """Return the cells of an EER and a minDCF, the means over ``lists``.

    The keys end in ``suffix``.
    """
    average = compute_average(view, lists, precision)
    cells = {}
    for key, form in {"eer_percent": ".2f", "min_dcf": ".3f"}.items():
        cell = figure_cell(getattr(average, key), form, average.reason)
        measured = find_measured(view, lists, key, precision)
        cells[f"{key}{suffix}"] = replace(cell, measured=measured)
    return cells


# The best of a column.


def mark_lowest(rows: Sequence[Row], key: str, places: Iterable[int]) -> int | None:
    """Make the lowest figure of a column bold, and all that are printed alike.

    Args:
        rows: Their cells are replaced.
        key: The column.
        places: The rows whose figures are compared.

    Returns:
        The place of the lowest; None with fewer than two figures: nothing is bold.
    """
    cells = {place: rows[place].cells[key] for place in places}
    values = {p: cell.value for p, cell in cells.items() if isinstance(cell.value, int | float)}
    if len(values) < 2:
        return None
    best = min(values, key=lambda place: values[place])
    for place in values:
        if cells[place].text == cells[best].text:
            rows[place].cells[key] = replace(cells[place], best=True)
    return best


def mark_measures(rows: Sequence[Row], key: str) -> None:
    """Make the best EER or minDCF of a column bold, and mark what is within noise of it.

    Figures are compared among the rows of one backend, whose cells are replaced.
    """
    backends: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        backends.setdefault(row.cells["backend"].value, []).append(place)
    for places in backends.values():
        best = mark_lowest(rows, key, places)
        found = {place: rows[place].cells[key].measured for place in places}
        measured = {place: item for place, item in found.items() if item is not None}
        for place in find_ties(measured, best):
            cell = rows[place].cells[key]
            if not cell.best and cell.value is not None:
                rows[place].cells[key] = replace(cell, marks=(*cell.marks, "within_noise"))


def mark_energies(rows: Sequence[Row]) -> list[Note]:
    """Make the lowest energy and CO2 bold where all of the column may be compared.

    The cells of ``rows`` are replaced. A stage that did not complete never competes: its energy is
    a lower bound.

    Returns:
        Why a column has nothing bold, where its figures are not alike.
    """
    reasons: dict[str, list[str]] = {}
    for key, rules in LIKE.items():
        whole = {
            place: row.stage
            for place, row in enumerate(rows)
            if row.stage is not None
            and row.cells[key].value is not None
            and not {"incomplete", "unknown_share"}.intersection(row.cells[key].marks)
        }
        unlike = [why for rule, why in rules.items() if len(set(map(rule, whole.values()))) > 1]
        if unlike:
            name = "energy" if key == "energy_kwh" else "CO2"
            reasons.setdefault(" and ".join(unlike), []).append(name)
        else:
            mark_lowest(rows, key, whole)
    return [
        Note(f"No {' and no '.join(names)} is bold: the figures {why}.")
        for why, names in reasons.items()
    ]


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
