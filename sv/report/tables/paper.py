r"""Table 1 as a paper prints it: six columns in one ``table``, numbers aligned by siunitx.

The rows of the first backend, with the study's names of the systems and no long notes: what a
reader must know of the energies stands in the caption. The rest is in table1.tex.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from sv.energy.record import Carbon
from sv.model_name import format_study_name
from sv.report.results import P_TARGET, Results
from sv.report.tables.cells import MARKS, UNKNOWN, Cell, Row, Table, format_significant
from sv.report.tables.evidence import (
    describe_covered,
    energy_marks,
)
from sv.report.tables.latex import escape_latex

_COLUMNS = ("parameters", "eer_percent", "min_dcf", "energy_kwh", "co2_kg")
_NUMBER = re.compile(r"(\d+)(?:\.(\d+))?(?:e([+-])(\d+))?")
_MEANINGS = {
    "estimated": "estimated, not measured",
    "partly_estimated": "partly estimated",
    "incomplete": "incomplete or disputed",
    "unknown_share": "of unknown origin",
}


def format_paper_table(table: Table, results: Results) -> str:
    r"""Format Table 1 as a ``table`` to ``\input`` into a column of a paper."""
    rows = [row for row in table.rows if row.cells["backend"].value == results.backends[0]]
    marks = _list_marks(rows)
    units = {column.key: column.title for column in table.columns}
    heads = ["Params (M)", "EER (%)", "minDCF", units["energy_kwh"], units["co2_kg"]]
    lines = zip(*(head.partition(" ")[::2] for head in ("System", *heads)), strict=True)
    formats = " ".join(_find_format([row.cells[key] for row in rows]) for key in _COLUMNS)
    body: list[str] = []
    for section, members in groupby(rows, lambda row: row.section):
        body += [
            r"\midrule",
            rf"\multicolumn{{6}}{{@{{}}l}}{{\textit{{{escape_latex(section)}}}}} \\",
        ]
        for row in members:
            name = escape_latex(format_study_name(str(row.cells["system"].value)))
            cells = [_format_cell(row.cells[key], marks) for key in _COLUMNS]
            body.append(rf"{name} & {' & '.join(cells)} \\")
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs,siunitx}.",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape_latex(_write_caption(rows, marks, results))}}}",
            r"\label{tab:systems}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\begin{{tabular}}{{@{{}}l {formats}@{{}}}}",
            r"\toprule",
            *(rf"{' & '.join(f'{{{escape_latex(word)}}}' for word in line)} \\" for line in lines),
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _list_marks(rows: Sequence[Row]) -> list[str]:
    """List the marks that not all figures have; what all have is in the caption alone."""
    cells = [row.cells[key] for row in rows for key in ("energy_kwh", "co2_kg")]
    found = [set(cell.marks) for cell in cells if cell.value is not None]
    return [m for m in MARKS if any(m in of for of in found) and not all(m in of for of in found)]


def _find_format(cells: Sequence[Cell]) -> str:
    """Return a column of siunitx with room for the longest number."""
    found = [match.groups() for cell in cells if (match := _NUMBER.fullmatch(cell.text))]
    whole, decimals, _, power = (
        max((len(groups[part] or "") for groups in found), default=0) for part in range(4)
    )
    exponent = f"e-{'9' * power}" if power else ""
    return f"S[table-format={max(whole, 1)}.{decimals}{exponent}]"


def _format_cell(cell: Cell, marks: Sequence[str]) -> str:
    if not _NUMBER.fullmatch(cell.text):
        return "{--}" if cell.text == UNKNOWN else rf"{{{escape_latex(cell.text)}}}"
    own = "".join(escape_latex(MARKS[mark]) for mark in cell.marks if mark in marks)
    return cell.text + (rf" {{{own}}}" if own else "")


def _write_caption(rows: Sequence[Row], marks: Sequence[str], results: Results) -> str:
    lists = ", ".join(results.scored)
    measures = f"EER and minDCF (P_target {P_TARGET}) are"
    measures += f" averages over {lists}" if len(results.scored) > 1 else f" of {lists}"
    sentences = ["Size, verification performance and training energy of each system", measures]
    stages = [row.stage for row in rows if row.stage and row.stage.energy_kwh is not None]
    covers = list(dict.fromkeys(map(describe_covered, stages)))
    some = " in some rows" if len(covers) > 1 else ""
    sentences += [f"Energy covers {covered}{some}" for covered in covers]
    shared = set.intersection(*(set(energy_marks(stage)) for stage in stages)) if stages else set()
    sentences += [f"All energies are {_MEANINGS[m]}" for m in MARKS if m in shared & {*_MEANINGS}]
    sentences += [f"{MARKS[mark]}: {_MEANINGS[mark]}" for mark in marks if mark in _MEANINGS]
    factors = dict.fromkeys(_describe_factor(s.sidecar.carbon) for s in stages if s.co2_kg)
    sentences += [f"CO2 at {' or '.join(factors)}"] if factors else []
    return ". ".join(sentences) + "."


def _describe_factor(carbon: Carbon) -> str:
    factor = "a factor that varies in time"
    if carbon.g_per_kwh is not None:
        factor = f"{format_significant(carbon.g_per_kwh)} g/kWh"
    facts = (carbon.provider, carbon.zone, carbon.year and str(carbon.year))
    return f"{factor} ({', '.join(filter(None, facts))})"
