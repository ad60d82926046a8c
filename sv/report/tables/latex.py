r"""LaTeX of a table: ``table*`` floats of booktabs, decimals aligned, bold where best.

Needs the packages booktabs and graphicx (which shrinks what is wider than the page). Numbers of
a column are filled up on the right with digits that do not print, so that their points stand
below each other in an ordinary right-aligned column; marks take no width of their own. A table of
more rows than a page holds goes on in another float with the same number.
"""

import re
from collections.abc import Sequence
from itertools import chain, groupby

from sv.report.tables.cells import MARKS, UNKNOWN, Cell, Column, Row, Table, missing_lines

_CHARACTERS = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "≈": r"$^\approx$",
    "–": "--",
    "’": "'",
    "…": r"\ldots{}",
    **{
        sign: f"${command}$"
        for sign, command in {
            "±": r"\pm", "≤": r"\le", "≥": r"\ge", "×": r"\times", "−": "-", "°": r"^\circ",
            "·": r"\cdot", "ρ": r"\rho", "τ": r"\tau", "Δ": r"\Delta", "µ": r"\mu", "μ": r"\mu",
        }.items()
    },
}  # fmt: skip
_LINES_A_FLOAT = 48  # \scriptsize on 17 cm, the height of a landscape page, with caption and heads
_CHARACTERS_A_LINE = 150  # of a note, \scriptsize on 17.8 cm
_MANY_COLUMNS = 13  # from here on they stand nearer
_EXPONENT = re.compile(r"(-?[\d.]+)e([+-]\d+)")
_LATIN_1_LETTERS = range(0xC0, 0x100)
_NOT_IN_OT1 = "ÐðÞþ"


def format_latex(table: Table) -> str:
    r"""Format as ``table*`` floats to ``\input``; the notes are below the last."""
    texts = [escape_latex(f"{MARKS.get(n.mark, '')} {n.text}".lstrip()) for n in table.notes]
    texts += [escape_latex(f"Missing: {line}") for line in missing_lines(table)]
    note_lines = sum(1 + len(text) // _CHARACTERS_A_LINE for text in texts)
    lines = list(zip(table.shown, _format_rows(table), strict=True))
    parts = _divide(lines, note_lines)
    floats = [
        _format_float(table, part, texts if part is parts[-1] else [], place)
        for place, part in enumerate(parts)
    ]
    return "\n".join(chain.from_iterable(floats))


def escape_latex(text: str) -> str:
    """Escape what LaTeX would read as a command; marks and CO2 become its own signs.

    A character that its standard fonts lack becomes its number, U+4E2D.
    """
    return "".join(map(_escape_character, text)).replace("CO2", r"CO$_2$")


def _escape_character(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    code = ord(character)
    if code < 0x20:
        return " "
    if code < 0x7F or (code in _LATIN_1_LETTERS and character not in _NOT_IN_OT1):
        return character
    return f"U+{code:04X}"


def _divide(lines: list[tuple[Row, str]], note_lines: int) -> list[list[tuple[Row, str]]]:
    """Divide the rows into floats, the last one for the notes alone where they need it.

    A section that a page could hold is not divided; one that is has its heading on every part.
    """
    parts: list[list[tuple[Row, str]]] = [[]]
    height = 0
    for section, group in groupby(lines, lambda line: line[0].section):
        left = list(group)
        if height + len(left) + 1 > _LINES_A_FLOAT and parts[-1]:
            parts.append([])
            height = 0
        while left:
            taken = left[: _LINES_A_FLOAT - height - bool(section)]
            left = left[len(taken) :]
            parts[-1] += taken
            height += len(taken) + bool(section) + 1  # its rule
            if left:
                parts.append([])
                height = 0
    return parts if height + note_lines <= _LINES_A_FLOAT else [*parts, []]


def _format_float(
    table: Table, lines: list[tuple[Row, str]], notes: list[str], place: int
) -> list[str]:
    columns = table.printed
    caption = escape_latex(table.caption)
    head = [r"% Needs \usepackage{booktabs,graphicx}.", r"\begin{table*}[t]", r"\centering"]
    if place:
        head += [r"\addtocounter{table}{-1}", rf"\caption{{{caption} (continued)}}"]
    else:
        head += [rf"\caption{{{caption}}}", rf"\label{{tab:{table.name}}}"]
    separation = 2.6 if len(columns) >= _MANY_COLUMNS else 4
    head += [r"\scriptsize", rf"\setlength{{\tabcolsep}}{{{separation}pt}}"]
    body: list[str] = []
    if lines:
        kinds = "".join("r" if column.numeric else "l" for column in columns)
        body = [rf"\sbox0{{\begin{{tabular}}{{@{{}}{kinds}@{{}}}}", r"\toprule"]
        body += [*_headings(table), *_sections(lines, len(columns))]
        body += [r"\bottomrule", r"\end{tabular}}%"]
        body += [r"\ifdim\wd0>\textwidth\resizebox{\textwidth}{!}{\usebox0}\else\usebox0\fi"]
    if notes:
        body += [r"\par\smallskip", r"\begin{minipage}{\textwidth}"]
        body += [rf"\raggedright {text}\par" for text in notes]
        body += [r"\end{minipage}"]
    return [*head, *body, r"\end{table*}", ""]


def _sections(lines: list[tuple[Row, str]], width: int) -> list[str]:
    body = []
    for section, group in groupby(lines, lambda line: line[0].section):
        body.append(r"\midrule")
        if section:
            heading = rf"\textit{{{escape_latex(section)}}}"
            body.append(rf"\multicolumn{{{width}}}{{@{{}}l}}{{{heading}}} \\")
        totals = False
        for row, text in group:
            if row.is_total and not totals:
                body.append(r"\addlinespace[2pt]")
            totals = row.is_total
            body.append(text)
    return body


def _headings(table: Table) -> list[str]:
    """Build one heading line, or two where columns are grouped."""
    narrow = len(table.printed) >= _MANY_COLUMNS
    titles = " & ".join(_stack(column, narrow=narrow) for column in table.printed) + r" \\"
    if not table.groups:
        return [titles]
    cells, rules, start = [], [], 1
    for group, count in table.groups:
        if group:
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(group)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        else:
            cells += [""] * count
        start += count
    return [" & ".join(cells) + r" \\", "".join(rules), titles]


def _stack(column: Column, *, narrow: bool) -> str:
    """Break a title into the two lines that make it narrowest."""
    words = column.title.split()
    if narrow and column.title == "minDCF":
        words = ["min", "DCF"]
    places = [n for n in range(1, len(words)) if words[n] != "%"]
    breaks = [(" ".join(words[:n]), " ".join(words[n:])) for n in places]
    if not breaks:
        return escape_latex(column.title)
    upper, lower = min(breaks, key=lambda lines: max(map(len, lines)))
    side = "r" if column.numeric else "l"
    return rf"\shortstack[{side}]{{{escape_latex(upper)}\\{escape_latex(lower)}}}"


def _format_rows(table: Table) -> list[str]:
    by_column = []
    for column in table.printed:
        cells = [row.cells[column.key] for row in table.shown]
        words = [_format_figure(cell) + _format_marks(cell) for cell in cells]
        by_column.append(_align(cells) if column.numeric else words)
    lines = [" & ".join(cells) + r" \\" for cells in zip(*by_column, strict=True)]
    # After the row above, LaTeX would take either for an argument of its end.
    return [f"{{}}{line}" if line.lstrip().startswith(("[", "*")) else line for line in lines]


def _align(cells: Sequence[Cell]) -> list[str]:
    """Fill a column's numbers up to the same width on the right of their points."""
    powers = any(_EXPONENT.fullmatch(cell.text) for cell in cells)
    fractions = ["" if powers else _fraction(cell) for cell in cells]
    longest = max(map(len, fractions), default=0)
    marks = max((_format_marks(cell) for cell in cells), key=len, default="")
    texts = []
    for cell, fraction in zip(cells, fractions, strict=True):
        filler = "0" * (longest - len(fraction))
        if longest and not fraction:
            is_number = cell.text[-1:].isdigit() or cell.text == UNKNOWN
            filler = "." + filler[1:] if is_number else ""
        own = _format_marks(cell)
        text = _format_figure(cell) + (rf"\rlap{{{own}}}" if own else "")
        text += rf"\phantom{{{filler}}}" if filler else ""
        texts.append(text + (rf"\phantom{{{marks}}}" if marks else ""))
    return texts


def _fraction(cell: Cell) -> str:
    """Return what stands from the point on; nothing for words."""
    if isinstance(cell.value, str) or cell.value is None:
        return ""
    return "." + cell.text.partition(".")[2] if "." in cell.text else ""


def _format_marks(cell: Cell) -> str:
    return "".join(escape_latex(MARKS[mark]) for mark in cell.marks)


def _format_figure(cell: Cell) -> str:
    power = _EXPONENT.fullmatch(cell.text)
    text = escape_latex(cell.text)
    if power:
        text = rf"${power[1]}\times10^{{{int(power[2])}}}$"
    elif cell.value is None and cell.text == UNKNOWN:
        text = "--"
    elif cell.text.startswith("-") and not isinstance(cell.value, str):
        text = f"$-${text[1:]}"
    if cell.best:
        return rf"{{\boldmath\textbf{{{text}}}}}" if power else rf"\textbf{{{text}}}"
    return text
