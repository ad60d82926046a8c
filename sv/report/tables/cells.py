"""A table: columns, rows of cells, notes; how numbers become text, and how a table does.

A cell keeps the number (for CSV and JSON) and its text (for people). A cell without a number has a
reason, which the formats list below the table. Markdown is for people, CSV and JSON are for
programs; LaTeX is in latex.py.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from sv.errors import replace_controls
from sv.report.results import Stage

if TYPE_CHECKING:
    from sv.score.bootstrap import Measured

UNKNOWN = "-"
# Marks after a figure, in the order in which they are printed and explained: of an energy or a
# CO2 figure; then that of an EER or minDCF.
MARKS = {"estimated": "†", "partly_estimated": "‡", "incomplete": "§", "unknown_share": "¶"}
MARKS |= {"within_noise": "≈"}
_ACTIVE_IN_MARKDOWN = re.compile(r"[\\`|]|<(?=[A-Za-z/!?])|(?<=\])[(\[:]")
_INTERVAL = re.compile(r"-|[-+]?[\d.]+( to [-+]?[\d.]+)?", re.ASCII)  # our own text of figures
# Units that an energy or a mass may be printed in, and how many of them the first is.
_UNITS = {
    "kWh": (("kWh", 1.0), ("Wh", 1e3), ("mWh", 1e6)),
    "kg": (("kg", 1.0), ("g", 1e3), ("mg", 1e6)),
}
_SCHEMA = "report-table/1"
JSON_START = f'{{\n "schema": "{_SCHEMA}"'  # every file of `format_json` begins with it


@dataclass(frozen=True)
class Cell:
    """One cell. ``value`` None means unknown, then ``reason`` says why.

    ``best`` is true for the best figure of a column (or of a column's section). ``sidecar`` is the
    file that an energy or CO2 figure, or its absence, is from; None where it is of no single one.
    ``measured`` has the replicates of an EER or minDCF, if there are any.
    """

    text: str
    value: float | int | str | None
    marks: tuple[str, ...] = ()
    reason: str = ""
    best: bool = False
    sidecar: Path | None = None
    measured: "Measured | None" = field(default=None, compare=False)


BLANK = Cell("", "")  # of a figure that has no meaning in its row, or stands in another


@dataclass(frozen=True)
class Column:
    """One column. ``group`` joins neighbours under one heading; ``csv_only`` hides it elsewhere.

    ``marked`` columns have a column of marks in words next to them in the CSV file. The figures of
    one with a ``unit``, kWh or kg, may be printed in a smaller one (`choose_units`).
    """

    key: str
    title: str
    group: str = ""
    numeric: bool = True
    marked: bool = False
    csv_only: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Row:
    """One row; ``section`` is the heading above it, printed where it changes.

    ``stage`` is the one whose energy it shows, ``tried`` the same of every attempt where the row
    shows that too; ``is_total``: it sums others of its section. One that is ``folded`` is in the
    CSV and JSON files alone; in print ``folds`` stands for such rows.
    """

    label: str
    cells: dict[str, Cell]
    section: str = ""
    stage: Stage | None = None
    is_total: bool = False
    folded: bool = False
    folds: bool = False
    tried: Stage | None = None


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

    @property
    def printed(self) -> list[Column]:
        """The columns that are not in the CSV and JSON files alone."""
        return [column for column in self.columns if not column.csv_only]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over the printed columns, each with how many it is of; empty without any."""
        groups = [(g, len(list(of))) for g, of in groupby(self.printed, lambda c: c.group)]
        return groups if any(group for group, _ in groups) else []

    @property
    def shown(self) -> list[Row]:
        """The printed rows."""
        return [row for row in self.rows if not row.folded]

    @property
    def sections(self) -> list[tuple[str, list[Row]]]:
        """The printed rows under each heading."""
        return [(title, list(rows)) for title, rows in groupby(self.shown, lambda r: r.section)]

    @property
    def filed(self) -> list[Row]:
        """The rows of the CSV and JSON files."""
        return [row for row in self.rows if not row.folds]


def choose_unit(values: Iterable[float], unit: str) -> tuple[str, float]:
    """Return the unit, kWh or kg or a smaller one, in which the largest value is at least 1.

    The second value is how many of it ``unit`` is.
    """
    largest = max(map(abs, values), default=1.0)
    units = _UNITS[unit]
    return next((found for found in units if largest * found[1] >= 1), units[-1])


def choose_units(columns: Iterable[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Print all energies of a table in one unit, and all masses: that of the largest.

    The texts of the cells are replaced, their values are not.

    Returns:
        The columns, with the units in their titles.
    """
    columns = tuple(columns)
    chosen = {}
    for unit in _UNITS:
        cells = [row.cells[c.key] for row in rows for c in columns if c.unit == unit]
        chosen[unit] = choose_unit([v for c in cells if isinstance(v := c.value, float)], unit)
    for row in rows:
        for column in columns:
            value = row.cells[column.key].value
            if column.unit and isinstance(value, float):
                text = format_significant(value * chosen[column.unit][1])
                row.cells[column.key] = replace(row.cells[column.key], text=text)
    return tuple(
        replace(c, title=c.title.replace(c.unit, chosen[c.unit][0])) if c.unit else c
        for c in columns
    )


def missing_lines(table: Table) -> list[str]:
    """List what a table lacks, one line for each reason: ``columns: reason: rows``."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in table.filed:
        titles: dict[str, list[str]] = {}
        for column in table.printed:
            cell = row.cells[column.key]
            if cell.value is None:
                titles.setdefault(cell.reason, []).append(f"{column.group} {column.title}".strip())
        for reason, columns in titles.items():
            rows.setdefault((", ".join(columns), reason), []).append(row.label)
    return [f"{what}: {reason}: {', '.join(labels)}" for (what, reason), labels in rows.items()]


def unknown_cell(reason: str, sidecar: Path | None = None) -> Cell:
    """Return the cell of a figure that is not known."""
    assert reason, "an unknown figure needs a reason"
    return Cell(UNKNOWN, None, reason=reason, sidecar=sidecar)


def text_cell(text: str) -> Cell:
    """Return a cell of words."""
    return Cell(text, text)


def fact_cell(value: float | int | str | None) -> Cell:
    """Return a cell for the CSV file alone: unknown is empty there and needs no reason."""
    return Cell(UNKNOWN, None) if value in (None, "") else Cell(f"{value}", value)


def figure_cell(
    value: float | None,
    form: str | Callable[[float], str],
    reason: str = "",
    marks: tuple[str, ...] = (),
    sidecar: Path | None = None,
) -> Cell:
    """Return the cell of a figure; ``form`` is a format, as ".2f", or a function.

    Where ``value`` is None, ``reason`` says why.
    """
    if value is None:
        return unknown_cell(reason, sidecar)
    return Cell(form(value) if callable(form) else f"{value:{form}}", value, marks, sidecar=sidecar)


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
    """Format parameters in millions, rounded to three figures: 0.167, 8.04, 14.9, 134."""
    millions = count / 1e6
    return f"{millions:#.3g}".removesuffix(".") if millions < 999.5 else f"{millions:.0f}"


def format_duration(duration_s: float) -> str:
    """Format as hh:mm:ss, with tenths under ten seconds (hours may pass 99)."""
    tenths = round(duration_s * 10)
    if tenths < 100:
        return f"00:00:{tenths // 10:02d}.{tenths % 10}"
    whole = round(duration_s)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


# Formats.


def format_markdown(table: Table) -> str:
    """Format as a Markdown pipe table with its caption above, notes and missing figures below."""
    columns = table.printed
    grid = [[f"{column.group} {column.title}".strip() for column in columns]]
    for section, rows in table.sections:
        if section:
            grid.append([f"**{escape_markdown(section)}**", *[""] * (len(columns) - 1)])
        grid.extend([_marked(row.cells[column.key]) for column in columns] for row in rows)
    widths = [max(len(line[place]) for line in grid) for place in range(len(columns))]
    rule = [
        "-" * (w - 1) + ":" if c.numeric else "-" * w for c, w in zip(columns, widths, strict=True)
    ]
    lines = [f"### {table.caption}", ""]
    for line in [grid[0], rule, *grid[1:]]:
        padded = [
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        lines.append(f"| {' | '.join(padded)} |")
    notes = [f"{MARKS[n.mark]} {n.text}" if n.mark else n.text for n in table.notes]
    lines += ["", *(f"- {escape_markdown(text)}" for text in notes)]
    missing = [escape_markdown(line) for line in missing_lines(table)]
    if missing:
        lines += ["", "Missing:", "", *(f"- {line}" for line in missing)]
    return "\n".join(lines) + "\n"


def format_csv(table: Table) -> str:
    """Format as CSV (RFC 4180, CRLF): numbers in full, an empty cell for what is not known.

    Columns of measures and energies have a ``_marks`` column next to them (keys of `MARKS`, and
    ``best``); the last column has the reasons of the empty cells.
    """
    header = []
    for column in table.columns:
        header += [column.key, f"{column.key}_marks"] if column.marked else [column.key]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([*header, "missing"])
    for row in table.filed:
        fields: list[object] = []
        for column in table.columns:
            cell = row.cells[column.key]
            fields.append("" if cell.value is None else cell.value)
            if column.marked:
                fields.append(" ".join([*cell.marks, *(["best"] if cell.best else [])]))
        reasons = [row.cells[column.key].reason for column in table.columns]
        fields.append("; ".join(dict.fromkeys(filter(None, reasons))))
        writer.writerow(map(_escape_csv, fields))
    return buffer.getvalue()


def format_json(table: Table) -> str:
    """Format as JSON, for pages and programs.

    ``{"schema": "report-table/1", "name", "caption", "columns", "rows", "notes", "missing"}``:
    ``columns``: ``key``, ``title``, ``group`` (a heading over neighbours, or ""), ``numeric``, and
    ``csv_only`` (true: the printed table lacks it). ``rows``: ``label``, ``section`` (a heading
    over neighbours, or ""), ``total`` (true: sums other rows of its section) and ``cells``, by key
    of the column: ``value`` (number, text or null: not known), ``text`` (as printed, without
    marks), ``marks`` (keys of `MARKS`), ``best`` (true: bold) and ``reason`` (why a value is null,
    else null). ``notes``: ``mark`` (one of these keys, or null) and ``text``.
    ``missing``: the lines below the Markdown table.
    """
    record = {
        "schema": _SCHEMA,
        "name": table.name,
        "caption": table.caption,
        "columns": [
            {key: getattr(column, key) for key in ("key", "title", "group", "numeric", "csv_only")}
            for column in table.columns
        ],
        "rows": [
            {
                "label": row.label,
                "section": row.section,
                "total": row.is_total,
                "cells": {
                    column.key: {
                        "value": cell.value,
                        "text": cell.text,
                        "marks": list(cell.marks),
                        "best": cell.best,
                        "reason": cell.reason or None,
                    }
                    for column in table.columns
                    for cell in [row.cells[column.key]]
                },
            }
            for row in table.filed
        ],
        "notes": [{"mark": note.mark or None, "text": note.text} for note in table.notes],
        "missing": missing_lines(table),
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def escape_markdown(text: str) -> str:
    """Escape what would be HTML, a link, code or another cell, and what a terminal would obey."""
    return _ACTIVE_IN_MARKDOWN.sub(r"\\\g<0>", replace_controls(" ".join(text.splitlines())))


def _escape_csv(value: object) -> object:
    """Mark text that a spreadsheet would compute, as they all do: by an apostrophe."""
    is_formula = isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@"))
    return f"'{value}" if is_formula and not _INTERVAL.fullmatch(value) else value


def _marked(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    return text + "".join(MARKS[mark] for mark in cell.marks)
