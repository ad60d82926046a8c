"""The tables as the page shows them: what to sort by, what each mark says, whose sidecar it is."""

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sv.report.page.provenance import Provenance, link_to
from sv.report.tables.cells import MARKS, Cell, Column, Row, Table, missing_lines

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_SUFFIXES = ("csv", "json", "md", "tex")


@dataclass(frozen=True)
class Field:
    """A cell for the page. ``sort`` is a number, a text, or None (sorted last).

    ``marks`` are signs with their words, ``link`` is the id of the sidecar's provenance.
    """

    text: str
    sort: float | str | None
    numeric: bool
    best: bool
    marks: tuple[tuple[str, str], ...]
    link: str
    reason: str


@dataclass(frozen=True)
class Line:
    """A row for the page; ``is_total`` is that of a sum, which is never sorted among others."""

    fields: tuple[Field, ...]
    is_total: bool


@dataclass(frozen=True)
class Heading:
    """A column's heading. ``full`` names it without its group above it."""

    title: str
    full: str
    numeric: bool


@dataclass(frozen=True)
class Sheet:
    """A table for the page; ``sections`` are titles with their rows."""

    name: str
    short: str
    caption: str
    groups: tuple[tuple[str, int], ...]
    headings: tuple[Heading, ...]
    sections: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    files: tuple[tuple[str, str], ...]


def build_sheet(table: Table, provenance: dict[Path, Provenance], directory: Path) -> Sheet:
    """Prepare a table for the template.

    Args:
        table: As the other formats print it.
        provenance: By the path of the sidecar.
        directory: Of the page and of the table's files.
    """
    columns = [column for column in table.columns if not column.csv_only]
    groups = [(group, len(list(of))) for group, of in groupby(columns, lambda c: c.group)]
    sections = []
    for title, rows in groupby(table.rows, lambda row: row.section):
        lines = [Line(_fields(row, columns, provenance), row.is_total) for row in rows]
        sections.append((title, tuple(lines)))
    files = [(suffix, directory / f"{table.name}.{suffix}") for suffix in _SUFFIXES]
    return Sheet(
        name=table.name,
        short=re.sub(r"(?<=[a-z])(?=[0-9])", " ", table.name.replace("_", " ")).capitalize(),
        caption=table.caption,
        groups=tuple(groups) if any(group for group, _ in groups) else (),
        headings=tuple(
            Heading(c.title or "value", f"{c.group} {c.title}".strip() or c.key, c.numeric)
            for c in columns
        ),
        sections=tuple(sections),
        notes=tuple((MARKS[note.mark] if note.mark else "", note.text) for note in table.notes),
        missing=tuple(missing_lines(table)),
        files=tuple((kind, link_to(path, directory)) for kind, path in files if path.is_file()),
    )


def _fields(
    row: Row, columns: list[Column], provenance: dict[Path, Provenance]
) -> tuple[Field, ...]:
    fields = []
    for column in columns:
        cell = row.cells[column.key]
        fields.append(
            Field(
                text=cell.text,
                sort=_sort_key(cell, column),
                numeric=column.numeric,
                best=cell.best,
                marks=tuple((MARKS[mark], mark.replace("_", " ")) for mark in cell.marks),
                link=provenance[cell.sidecar].key if cell.sidecar else "",
                reason=cell.reason if cell.value is None else "",
            )
        )
    return tuple(fields)


def _sort_key(cell: Cell, column: Column) -> float | str | None:
    """Give a number where there is one: an interval is sorted by its lower end."""
    value = cell.value
    if isinstance(value, str) and column.numeric:
        match = _NUMBER.match(value)
        return float(match.group()) if match else value or None
    return None if value == "" else value
