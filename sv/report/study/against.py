"""Our figures beside those of a published study, for the systems and lists that both have.

Tables ``against1`` (averages, training energy), ``against1_lists`` (each list), ``against2``
(inference) and ``against_ranks`` (whether both order the systems alike).
"""

from pathlib import Path

from sv.report.results import (
    FAMILIES,
    P_TARGET,
    TRAIN_STAGE,
    Results,
    System,
    compute_average,
    family_of,
    find_score,
    find_stage,
)
from sv.report.study.against_cells import (
    MEASURES,
    SYSTEM_COLUMNS,
    difference_cells,
    difference_columns,
    our_energy_notes,
    published_cell,
    ratio_cells,
    ratio_columns,
    system_cells,
)
from sv.report.study.against_inference import build_inference_comparison
from sv.report.study.published import Measures, Study, Training, read_study
from sv.report.study.ranks import Rank, compute_rank
from sv.report.tables.cells import Cell, Column, Note, Row, Table, text_cell, unknown_cell
from sv.report.tables.evidence import (
    absent_file,
    absent_stage,
    co2_cell,
    energy_cell,
    fact_cell,
    metric_cells,
)

_TABLE = "Table 1"


def build_comparison(results: Results, study: Path | None) -> list[Table]:
    """Build the tables that lay our figures beside the published ones.

    Args:
        results: All that stage 8 found.
        study: The folder of the published figures, or None.

    Returns:
        No table where ``study`` is None or no system is in both.

    Raises:
        SvError: A file of the study is not as agreed.
    """
    if study is None:
        return []
    published = read_study(study)
    pairs = _find_pairs(results, published)
    if not pairs:
        return []
    lists = tuple(name for name in published.lists if name in results.scored)
    remarks = tuple(Note(f"{trials or 'All lists'}: {text}.") for trials, text in results.remarks)
    tables = [_build_averages(results, published, pairs, lists, remarks)]
    if lists:
        tables.append(_build_lists(published, pairs, lists, remarks))
    inference = build_inference_comparison(results, published, remarks)
    tables += [inference] if inference else []
    return [*tables, _build_ranks(published, tables)]


def _find_pairs(results: Results, study: Study) -> list[tuple[System, Training]]:
    rows = {row.model: row for row in study.trainings}
    return [(system, rows[system.name]) for system in results.systems if system.name in rows]


def _build_averages(
    results: Results,
    study: Study,
    pairs: list[tuple[System, Training]],
    lists: tuple[str, ...],
    remarks: tuple[Note, ...],
) -> Table:
    columns = (
        *SYSTEM_COLUMNS,
        *(
            column
            for key, title, _ in MEASURES
            for column in difference_columns(key, f"Average {title}")
        ),
        *ratio_columns("energy_kwh", "Energy (kWh)"),
        *ratio_columns("co2_kg", "CO2 (kg)"),
        *(Column(f"{key}_printed", "", csv_only=True) for key, *_ in MEASURES),
    )
    rows, stages = [], []
    for system, row in pairs:
        stage = find_stage(system, TRAIN_STAGE, "train")
        absent = absent_stage(system, f"{TRAIN_STAGE:02d}_train")
        average = compute_average(system, lists)
        ours = metric_cells(average.eer_percent, average.min_dcf, average.reason, decimals=2)
        cells = system_cells(system.name, row.study_name)
        for key, _, decimals in MEASURES:
            theirs = _published_average(row, lists, key, decimals)
            cells |= difference_cells(key, ours[key], theirs, decimals)
            printed = getattr(row.average, key)
            cells[f"{key}_printed"] = published_cell(printed, _TABLE)
        cells |= ratio_cells(
            "energy_kwh", energy_cell(stage, absent), published_cell(row.energy_kwh, _TABLE)
        )
        cells |= ratio_cells("co2_kg", co2_cell(stage, absent), published_cell(row.co2_kg, _TABLE))
        rows.append(Row(system.name, cells, FAMILIES[family_of(system.name)]))
        stages += [(system.name, stage)] if stage else []
    names = {system.name for system, _ in pairs}
    missing = [row.model for row in study.trainings if row.model not in names]
    absent_lists = [name for name in study.lists if name not in lists]
    notes = [
        *_common_notes(study),
        Note(
            f"Averages are over {', '.join(lists) or 'no list'}, those of the study too: they are "
            "computed from its printed lists."
            + (f" It also has {', '.join(absent_lists)}, not scored here." if absent_lists else "")
        ),
        *our_energy_notes(stages),
        Note(f"The study's energy: {study.about.energy}."),
        *([Note(f"Not here, in the study: {', '.join(missing)}.")] if missing else []),
        *remarks,
    ]
    caption = "Our training beside the study's: averages over the same lists, energy and CO2"
    return Table("against1", caption, columns, tuple(rows), tuple(notes))


def _published_average(row: Training, lists: tuple[str, ...], key: str, decimals: int) -> Cell:
    """Average the printed figures of some lists; every list or no average."""
    printed = [getattr(row.lists[name], key) for name in lists]
    missing = [name for name, figure in zip(lists, printed, strict=True) if figure is None]
    if missing or not printed:
        what = f"of {', '.join(missing)} " if missing else ""
        return unknown_cell(f"no figure {what}in the study's {_TABLE} for the lists scored here")
    mean = sum(figure.value for figure in printed) / len(printed)
    return Cell(f"{mean:.{decimals}f}", mean)


def _build_lists(
    study: Study,
    pairs: list[tuple[System, Training]],
    lists: tuple[str, ...],
    remarks: tuple[Note, ...],
) -> Table:
    columns = (
        *SYSTEM_COLUMNS,
        Column("trial_list", "", csv_only=True),
        *(column for key, title, _ in MEASURES for column in difference_columns(key, title)),
    )
    rows = [
        Row(f"{system.name} {name}", _list_cells(system, row, name), name)
        for name in lists
        for system, row in pairs
    ]
    caption = "Our measures beside the study's, for each trial list"
    notes = (*_common_notes(study), *remarks)
    return Table("against1_lists", caption, columns, tuple(rows), notes)


def _list_cells(system: System, row: Training, name: str) -> dict[str, Cell]:
    score = find_score(system, name)
    pair = (score.eer_percent, score.min_dcf.get(P_TARGET)) if score else (None, None)
    reason = absent_file(system, f"scores/{name}_cosine.json")
    if score is not None:
        reason = f"no minDCF at P {P_TARGET} in {score.path.name}"
    ours = metric_cells(*pair, reason, decimals=2)
    theirs: Measures = row.lists[name]
    cells = {**system_cells(system.name, row.study_name), "trial_list": text_cell(name)}
    for key, _, decimals in MEASURES:
        printed = published_cell(getattr(theirs, key), _TABLE)
        cells |= difference_cells(key, ours[key], printed, decimals)
    return cells


def _common_notes(study: Study) -> list[Note]:
    return [
        Note(f"Study: {study.about.title}. Its figures are as printed."),
        Note(
            "diff.: ours - study, in points of EER or of minDCF; ratio: ours / study. The study "
            "gives no intervals; how far another training moves a figure is in neither."
        ),
    ]


def _build_ranks(study: Study, tables: list[Table]) -> Table:
    """Correlate the columns of the other tables, over the systems that have both figures."""
    columns = (
        Column("what", "Figure", numeric=False),
        Column("systems", "Systems"),
        Column("rho", "Spearman's rho"),
        Column("interval", "95 %"),
        Column("p", "p"),
        Column("rho_low", "", csv_only=True),
        Column("rho_high", "", csv_only=True),
    )
    rows = []
    for table in tables:
        # The rows of against1 have the sections of the study's Table 1, but are one ranking.
        whole = table.name == "against1"
        titles = {"eer_percent": "EER", "energy_kwh": "energy"}
        parts = {"average" if whole else row.section: [] for row in table.rows}
        for row in table.rows:
            parts["average" if whole else row.section].append(row)
        for part, members in parts.items():
            for key, title in titles.items():
                if key in members[0].cells:
                    what = "training" if whole and key == "energy_kwh" else part
                    rows.append(_rank_row(f"{title} ({what})", _rank_column(members, key)))
    notes = (
        Note(f"Study: {study.about.title}. 1: ours and the study's order the systems alike."),
        Note("95 %: Fisher's z (Bonett and Wright, 2000). p: permutations of the systems."),
    )
    caption = "Rank correlation of our figures with the study's, over systems"
    return Table("against_ranks", caption, columns, tuple(rows), notes)


def _rank_column(rows: list[Row], key: str) -> Rank:
    both = [(row.cells[key].value, row.cells[f"{key}_published"].value) for row in rows]
    known = [(float(a), float(b)) for a, b in both if a is not None and b is not None]
    return compute_rank([a for a, _ in known], [b for _, b in known])


def _rank_row(what: str, rank: Rank) -> Row:
    cells = {"what": text_cell(what), "systems": Cell(f"{rank.systems}", rank.systems)}
    for key, value, text in (("rho", rank.rho, "{:.2f}"), ("p", rank.p_value, "{:.4f}")):
        known = value is not None
        cells[key] = Cell(text.format(value), value) if known else unknown_cell(rank.reason)
    low, high = rank.interval or (None, None)
    known = rank.interval is not None
    text = f"{low:.2f} to {high:.2f}" if known else ""
    cells["interval"] = text_cell(text) if known else unknown_cell(rank.reason)
    cells |= {"rho_low": fact_cell(low), "rho_high": fact_cell(high)}
    return Row(what, cells)
