"""One function for each format of a table: Markdown and LaTeX for people, CSV for programs."""

import csv
import io
from itertools import groupby

from sv.report.cells import MARKS, Cell, Column, Note, Row, Table, missing_lines

_TEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "≈": r"$^\approx$",
}


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


def format_latex(table: Table) -> str:
    r"""Format as a LaTeX ``table*`` float; needs ``\usepackage{booktabs}`` and nothing else."""
    columns = _shown(table)
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in columns)}}}",
        r"\toprule",
        *_latex_headings(columns),
        r"\midrule",
    ]
    for place, (section, rows) in enumerate(_sections(table)):
        if place:
            lines.append(r"\midrule")
        if section:
            heading = rf"\textit{{{escape_latex(section)}}}"
            lines.append(rf"\multicolumn{{{len(columns)}}}{{l}}{{{heading}}} \\")
        for row in rows:
            texts = (escape_latex(_marked(row.cells[column.key])) for column in columns)
            lines.append(" & ".join(texts) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip", r"\begin{minipage}{\textwidth}"]
    texts = [_note_text(note) for note in table.notes]
    texts += [f"Missing: {line}" for line in missing_lines(table)]
    lines += [rf"{escape_latex(text)}\par" for text in texts]
    lines += [r"\end{minipage}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def format_csv(table: Table) -> str:
    """Format as CSV (RFC 4180, CRLF): numbers in full, an empty cell for what is not known.

    Energy columns have a ``_marks`` column beside them; the last column has the reasons of the
    empty cells.
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
                fields.append(" ".join(cell.marks))
        reasons = [row.cells[column.key].reason for column in table.columns]
        writer.writerow([*fields, "; ".join(dict.fromkeys(filter(None, reasons)))])
    return buffer.getvalue()


def escape_latex(text: str) -> str:
    """Escape what LaTeX would read as a command; marks and CO2 become its own signs."""
    escaped = "".join(_TEX_CHARACTERS.get(character, character) for character in text)
    return escaped.replace("CO2", r"CO$_2$")


def _shown(table: Table) -> list[Column]:
    return [column for column in table.columns if not column.csv_only]


def _sections(table: Table) -> list[tuple[str, list[Row]]]:
    return [(section, list(rows)) for section, rows in groupby(table.rows, lambda row: row.section)]


def _marked(cell: Cell) -> str:
    return cell.text + "".join(MARKS[mark] for mark in cell.marks)


def _note_text(note: Note) -> str:
    return f"{MARKS[note.mark]} {note.text}" if note.mark else note.text


def _latex_headings(columns: list[Column]) -> list[str]:
    """Build one heading line, or two where columns are grouped."""
    titles = " & ".join(escape_latex(column.title) for column in columns) + r" \\"
    if not any(column.group for column in columns):
        return [titles]
    cells, rules, start = [], [], 1
    for group, members in groupby(columns, lambda column: column.group):
        count = len(list(members))
        if group:
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(group)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        else:
            cells += [""] * count
        start += count
    return [" & ".join(cells) + r" \\", "".join(rules), titles]
