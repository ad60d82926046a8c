"""Formats of a table: Markdown for people, CSV and JSON for programs; LaTeX is in latex.py."""

import csv
import io
import json
from itertools import groupby

from sv.report.tables.cells import MARKS, Cell, Column, Note, Row, Table, missing_lines

_SCHEMA = "report-table/1"
JSON_START = f'{{\n "schema": "{_SCHEMA}"'  # every file of `format_json` begins with it


def format_markdown(table: Table) -> str:
    """Format as a Markdown pipe table with its caption above, notes and missing figures below."""
    columns = _shown(table)
    grid = [[f"{column.group} {column.title}".strip() for column in columns]]
    for section, rows in _sections(table):
        if section:
            grid.append([f"**{section}**", *[""] * (len(columns) - 1)])
        grid.extend([_marked(row.cells[column.key]) for column in columns] for row in rows)
    grid = [[text.replace("|", "\\|") for text in line] for line in grid]
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
    lines += ["", *(f"- {_note_text(note)}" for note in table.notes)]
    missing = missing_lines(table)
    if missing:
        lines += ["", "Missing:", "", *(f"- {line}" for line in missing)]
    return "\n".join(lines) + "\n"


def format_csv(table: Table) -> str:
    """Format as CSV (RFC 4180, CRLF): numbers in full, an empty cell for what is not known.

    Columns of measures and energies have a ``_marks`` column beside them (keys of `MARKS`, and
    ``best``); the last column has the reasons of the empty cells.
    """
    header = []
    for column in table.columns:
        header += [column.key, f"{column.key}_marks"] if column.marked else [column.key]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([*header, "missing"])
    for row in table.rows:
        fields: list[object] = []
        for column in table.columns:
            cell = row.cells[column.key]
            fields.append("" if cell.value is None else cell.value)
            if column.marked:
                fields.append(" ".join([*cell.marks, *(["best"] if cell.best else [])]))
        reasons = [row.cells[column.key].reason for column in table.columns]
        writer.writerow([*fields, "; ".join(dict.fromkeys(filter(None, reasons)))])
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
                "cells": {c.key: _cell_record(row.cells[c.key]) for c in table.columns},
            }
            for row in table.rows
        ],
        "notes": [{"mark": note.mark or None, "text": note.text} for note in table.notes],
        "missing": missing_lines(table),
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _cell_record(cell: Cell) -> dict[str, object]:
    return {
        "value": cell.value,
        "text": cell.text,
        "marks": list(cell.marks),
        "best": cell.best,
        "reason": cell.reason or None,
    }


def _shown(table: Table) -> list[Column]:
    return [column for column in table.columns if not column.csv_only]


def _sections(table: Table) -> list[tuple[str, list[Row]]]:
    return [(section, list(rows)) for section, rows in groupby(table.rows, lambda row: row.section)]


def _marked(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return text + "".join(MARKS[mark] for mark in cell.marks)


def _note_text(note: Note) -> str:
    return f"{MARKS[note.mark]} {note.text}" if note.mark else note.text
