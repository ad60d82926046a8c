"""Cells of a figure of ours beside the published one, and the columns that they stand in."""

from dataclasses import replace

from sv.report.study.published import Printed
from sv.report.tables.cells import (
    Cell,
    Column,
    Note,
    format_difference,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.tables.evidence import Labelled, energy_notes

MEASURES = (("eer_percent", "EER (%)", 2), ("min_dcf", "minDCF", 3))


def difference_columns(key: str, title: str) -> tuple[Column, ...]:
    """Give the columns of a figure whose difference is shown: ours, published, ours - published."""
    return (
        Column(key, "ours", title),
        Column(f"{key}_published", "study", title),
        Column(f"{key}_difference", "diff.", title),
    )


def ratio_columns(key: str, title: str, *, marked: bool = True) -> tuple[Column, ...]:
    """Give the columns of a figure whose ratio is shown: ours, published, ours / published."""
    return (
        Column(key, "ours", title, marked=marked),
        Column(f"{key}_published", "study", title),
        Column(f"{key}_ratio", "ratio", title, marked=marked),
    )


def published_cell(printed: Printed | None, table: str) -> Cell:
    """Give the cell of a figure as it was printed in a ``table`` of the study."""
    if printed is None:
        return unknown_cell(f"not in the study's {table}")
    return Cell(printed.text, printed.value)


def difference_cells(key: str, ours: Cell, published: Cell, decimals: int) -> dict[str, Cell]:
    """Give the cells of `difference_columns`."""
    if ours.value is None or published.value is None:
        difference = unknown_cell(ours.reason or published.reason)
    else:
        value = float(ours.value) - float(published.value)
        difference = Cell(format_difference(value, decimals), value)
    return {key: ours, f"{key}_published": published, f"{key}_difference": difference}


def ratio_cells(key: str, ours: Cell, published: Cell) -> dict[str, Cell]:
    """Give the cells of `ratio_columns`; a ratio is as good as our figure, and has its marks."""
    if ours.value is None or published.value is None:
        ratio = unknown_cell(ours.reason or published.reason)
    else:
        value = float(ours.value) / float(published.value)
        ratio = Cell(format_significant(value), value, ours.marks)
    ours = replace(ours, best=False)
    return {key: ours, f"{key}_published": published, f"{key}_ratio": ratio}


def system_cells(model: str, study_name: str) -> dict[str, Cell]:
    """Give the cells of `SYSTEM_COLUMNS`."""
    return {"system": text_cell(model), "study_name": text_cell(study_name)}


def our_energy_notes(stages: list[Labelled]) -> list[Note]:
    """Explain our energies: what they cover is not what the study's cover."""
    notes = energy_notes(stages)
    return [note if note.mark else Note(f"Ours: {note.text}") for note in notes]


SYSTEM_COLUMNS = (
    Column("system", "System", numeric=False),
    Column("study_name", "In the study", numeric=False),
)
