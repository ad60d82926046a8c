"""A table before it has a format: columns, rows of cells, notes; and how numbers become text.

A cell keeps the number (for CSV and for tests) beside its text (for people). A cell without a
number has a reason, which the formats list below the table.
"""

import math
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "-"
# Marks after a figure, in the order in which they are printed and explained: of an energy or a
# CO2 figure; then that of an EER or minDCF.
MARKS = {"estimated": "†", "partly_estimated": "‡", "incomplete": "§", "unknown_share": "¶"}
MARKS |= {"within_noise": "≈"}


@dataclass(frozen=True)
class Cell:
    """One cell. ``value`` None means unknown, then ``reason`` says why.

    ``best`` is true for the best figure of a column (or of a column's section). ``sidecar`` is the
    file that an energy or CO2 figure, or its absence, is from; None where it is of no single one.
    """

    text: str
    value: float | int | str | None
    marks: tuple[str, ...] = ()
    reason: str = ""
    best: bool = False
    sidecar: Path | None = None


@dataclass(frozen=True)
class Column:
    """One column. ``group`` joins neighbours under one heading; ``csv_only`` hides it elsewhere.

    ``marked`` columns have a column of marks in words beside them in the CSV file.
    """

    key: str
    title: str
    group: str = ""
    numeric: bool = True
    marked: bool = False
    csv_only: bool = False


@dataclass(frozen=True)
class Row:
    """One row; ``section`` is the heading above it, printed where it changes.

    ``is_total`` is that of a row that sums others of its section.
    """

    label: str
    cells: dict[str, Cell]
    section: str = ""
    is_total: bool = False


@dataclass(frozen=True)
class Note:
    """One line below a table; ``mark`` is a key of `MARKS`, or empty."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table with all that is said about it; the formats add nothing."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...]


def missing_lines(table: Table) -> list[str]:
    """List what a table lacks, one line for each reason: ``columns: reason: rows``."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in table.rows:
        titles: dict[str, list[str]] = {}
        for column in table.columns:
            cell = row.cells[column.key]
            if cell.value is None and not column.csv_only:
                titles.setdefault(cell.reason, []).append(f"{column.group} {column.title}".strip())
        for reason, columns in titles.items():
            rows.setdefault((", ".join(columns), reason), []).append(row.label)
    return [f"{what}: {reason}: {', '.join(labels)}" for (what, reason), labels in rows.items()]


def unknown_cell(reason: str, sidecar: Path | None = None) -> Cell:
    """Return the cell of a figure that is not known."""
    assert reason, "an unknown figure needs a reason"
    return Cell(UNKNOWN, None, reason=reason, sidecar=sidecar)


def text_cell(text: str) -> Cell:
    """Give a cell of words."""
    return Cell(text, text)


def format_significant(value: float, digits: int = 3) -> str:
    """Format with significant digits and no exponent down to 1e-6: 895.7, 51.69, 0.00123.

    From 1 up there is one digit more, so that a column of kWh reads like the study's.
    """
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - min(exponent, 3) + (1 if exponent >= 0 else 0))
    return f"{value:.{decimals}f}"


def format_difference(value: float, decimals: int) -> str:
    """Format with a sign; what rounds to 0 is neither more nor less and has none."""
    text = f"{value:+.{decimals}f}"
    return text if float(text) else text[1:]


def format_millions(count: float) -> str:
    """Format parameters in millions: cut to whole from 10 M (as the study does), else 3 digits."""
    millions = count / 1e6
    return str(int(millions)) if millions >= 10 else f"{millions:#.3g}"


def format_duration(duration_s: float) -> str:
    """Format as hh:mm:ss, with tenths under ten seconds (hours may pass 99)."""
    tenths = round(duration_s * 10)
    if tenths < 100:
        return f"00:00:{tenths // 10:02d}.{tenths % 10}"
    whole = round(duration_s)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
