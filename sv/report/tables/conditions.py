"""The table of sv.bin.score_conditions: measures of the trials of each condition."""

from collections.abc import Mapping, Sequence

from sv.report.tables.cells import Column, Note, Row, Table, figure_cell, text_cell

_TITLES = {
    "trials": "Trials", "targets": "Targets", "nontargets": "Nontargets", "eer_percent": "EER (%)",
    "min_dcf": "minDCF", "miss_percent": "Misses (%)", "fa_percent": "False alarms (%)",
}  # fmt: skip
_DECIMALS = {"min_dcf": 3, "eer_percent": 2, "miss_percent": 2, "fa_percent": 3}


def build_condition_table(rows: Sequence[Mapping[str, object]], caption: str) -> Table:
    """Build the table.

    Args:
        rows: ``name``, ``reason`` and the keys of the columns; a value that is not known is None.
        caption: What is measured, by which condition.
    """
    columns = [Column("condition", "Condition", numeric=False)]
    columns += [Column(key, title) for key, title in _TITLES.items()]
    body = []
    for row in rows:
        name, reason = str(row["name"]), str(row["reason"])
        cells = {"condition": text_cell(name)}
        for key in _TITLES:
            value = row[key]
            known = value if isinstance(value, int | float) else None
            cells[key] = figure_cell(known, f".{_DECIMALS.get(key, 0)}f", reason)
        body.append(Row(name, cells))
    note = Note("Misses and false alarms are at one threshold: that of the EER of all trials.")
    return Table("conditions", caption, tuple(columns), tuple(body), (note,))
