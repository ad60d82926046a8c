"""Our figures compared with those of a published study, for the systems and lists that both have.

Tables ``against1`` (averages, training energy), ``against1_lists`` (each list), ``against2``
(inference) and ``against_ranks`` (whether both order the systems alike). Ours are of the first
backend.
"""

from dataclasses import replace
from pathlib import Path

from sv.report.published import (
    Inference,
    Printed,
    Rank,
    Study,
    Training,
    compute_rank,
    read_study,
)
from sv.report.results import (
    EXTRACT_STAGE,
    FAMILIES,
    TRAIN_STAGE,
    Results,
    Stage,
    System,
    compute_average,
    extract_name,
    family_of,
    find_score,
    find_stage,
)
from sv.report.tables.cells import (
    Cell,
    Column,
    Note,
    Row,
    Table,
    format_difference,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.tables.evidence import (
    Labelled,
    absent_stage,
    co2_cell,
    duration_cell,
    energy_cell,
    energy_notes,
    fact_cell,
    metric_cells,
    score_cells,
)

_TABLE_1, _TABLE_2 = "Table 1", "Table 2"
_DECIMALS_2 = 3  # as the study prints both measures of Table 2
_MEASURES = (("eer_percent", "EER (%)", 2), ("min_dcf", "minDCF", 3))
_SYSTEM_COLUMNS = (
    Column("system", "System", numeric=False),
    Column("study_name", "In the study", numeric=False),
)


def build_comparison(results: Results, study: Path | None) -> list[Table]:
    """Build the tables that lay our figures beside the published ones.

    Args:
        results: All that stage 8 found.
        study: The folder of the published figures, or None.

    Returns:
        No table where ``study`` is None or no system is in both.

    Raises:
        SvError: A file of the study is not valid.
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
    inference = _build_inference(results, published, remarks)
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
        *_SYSTEM_COLUMNS,
        *(
            column
            for key, title, _ in _MEASURES
            for column in _difference_columns(key, f"Average {title}")
        ),
        *_ratio_columns("energy_kwh", "Energy (kWh)"),
        *_ratio_columns("co2_kg", "CO2 (kg)"),
        *(Column(f"{key}_printed", "", csv_only=True) for key, *_ in _MEASURES),
    )
    rows, stages = [], []
    for system, row in pairs:
        stage = find_stage(system, TRAIN_STAGE, "train")
        absent = absent_stage(system, f"{TRAIN_STAGE:02d}_train")
        average = compute_average(system, lists)
        ours = metric_cells(average.eer_percent, average.min_dcf, average.reason, decimals=2)
        cells = _system_cells(system.name, row.study_name)
        for key, _, decimals in _MEASURES:
            theirs = _published_average(row, lists, key, decimals)
            cells |= _difference_cells(key, ours[key], theirs, decimals)
            printed = getattr(row.average, key)
            cells[f"{key}_printed"] = _published_cell(printed, _TABLE_1)
        cells |= _ratio_cells(
            "energy_kwh", energy_cell(stage, absent), _published_cell(row.energy_kwh, _TABLE_1)
        )
        cells |= _ratio_cells(
            "co2_kg", co2_cell(stage, absent), _published_cell(row.co2_kg, _TABLE_1)
        )
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
        *_our_energy_notes(stages),
        Note(f"The study's energy: {study.about.energy}."),
        *([Note(f"Not here, in the study: {', '.join(missing)}.")] if missing else []),
        *remarks,
    ]
    caption = "Our training and the study's: averages over the same lists, energy and CO2"
    return Table("against1", caption, columns, tuple(rows), tuple(notes))


def _published_average(row: Training, lists: tuple[str, ...], key: str, decimals: int) -> Cell:
    """Average the printed figures of some lists; every list or no average."""
    printed = [getattr(row.lists[name], key) for name in lists]
    missing = [name for name, figure in zip(lists, printed, strict=True) if figure is None]
    if missing or not printed:
        what = f"of {', '.join(missing)} " if missing else ""
        return unknown_cell(f"no figure {what}in the study's {_TABLE_1} for the lists scored here")
    mean = sum(figure.value for figure in printed) / len(printed)
    return Cell(f"{mean:.{decimals}f}", mean)


def _build_lists(
    study: Study,
    pairs: list[tuple[System, Training]],
    lists: tuple[str, ...],
    remarks: tuple[Note, ...],
) -> Table:
    columns = (
        *_SYSTEM_COLUMNS,
        Column("trial_list", "", csv_only=True),
        *(column for key, title, _ in _MEASURES for column in _difference_columns(key, title)),
    )
    rows = [
        Row(f"{system.name} {name}", _list_cells(system, row, name), name)
        for name in lists
        for system, row in pairs
    ]
    caption = "Our measures and the study's, for each trial list"
    notes = (*_common_notes(study), *remarks)
    return Table("against1_lists", caption, columns, tuple(rows), notes)


def _list_cells(system: System, row: Training, name: str) -> dict[str, Cell]:
    ours = score_cells(system, name, decimals=2)
    theirs = row.lists[name]
    cells = {**_system_cells(system.name, row.study_name), "trial_list": text_cell(name)}
    for key, _, decimals in _MEASURES:
        printed = _published_cell(getattr(theirs, key), _TABLE_1)
        cells |= _difference_cells(key, ours[key], printed, decimals)
    return cells


def _common_notes(study: Study) -> list[Note]:
    return [
        Note(f"Study: {study.about.title}. Its figures are as printed."),
        Note(
            "diff.: ours - study, in points of EER or of minDCF; ratio: ours / study. The study "
            "gives no intervals; how far another training moves a figure is in neither."
        ),
    ]


# Inference.


def _build_inference(results: Results, study: Study, remarks: tuple[Note, ...]) -> Table | None:
    """Build table against2; None where nothing of the study's Table 2 was done here.

    Of each list and precision that anyone did, the table has every system of both.
    """
    systems = {system.name: system for system in results.systems}
    rows, stages, left_out = [], [], []
    for trials, precision in dict.fromkeys((row.trials, row.precision) for row in study.inferences):
        published = [
            (systems[row.model], row)
            for row in study.inferences
            if (row.trials, row.precision) == (trials, precision) and row.model in systems
        ]
        done = [_find_stage(results, system, row) for system, row in published]
        scored = [find_score(system, trials, precision) for system, _ in published]
        if not any(done) and not any(scored):
            left_out += [f"{trials} in {precision}"] if published else []
            continue
        for (system, row), stage in zip(published, done, strict=True):
            section = f"{trials}, {precision.upper()}"
            label = f"{system.name} {trials} {precision}"
            rows.append(Row(label, _inference_cells(results, system, row, stage), section))
            stages += [(label, stage)] if stage else []
    if not rows:
        return None
    columns = (
        *_SYSTEM_COLUMNS,
        Column("trial_list", "", csv_only=True),
        Column("precision", "", csv_only=True),
        *(column for key, title, _ in _MEASURES for column in _difference_columns(key, title)),
        *_ratio_columns("energy_kwh", "Energy (kWh)"),
        *_ratio_columns("co2_kg", "CO2 (kg)"),
        *_ratio_columns("duration_s", "Duration", marked=False),
    )
    notes = [
        Note(f"Study: {study.about.title}. Its figures are as printed."),
        Note(
            "Energy, CO2 and duration (hh:mm:ss) are of the embeddings of all utterances of the "
            "list's test set. diff.: ours - study; ratio: ours / study."
        ),
        *_our_energy_notes(stages),
        Note(f"The study's energy: {study.about.energy}, on {study.about.gpu}."),
        *([Note(f"Not done here: {', '.join(left_out)}.")] if left_out else []),
        *remarks,
    ]
    caption = "Our extraction of embeddings and the study's"
    return Table("against2", caption, columns, tuple(rows), tuple(notes))


def _find_stage(results: Results, system: System, row: Inference) -> Stage | None:
    name = _stage_name(results, row)
    return find_stage(system, EXTRACT_STAGE, name) if name else None


def _stage_name(results: Results, row: Inference) -> str | None:
    data_set = results.trial_sets.get(row.trials)
    return None if data_set is None else f"extract_{extract_name(data_set, row.precision)}"


def _inference_cells(
    results: Results, system: System, row: Inference, stage: Stage | None
) -> dict[str, Cell]:
    name = _stage_name(results, row) or f"extract_{row.trials}"
    absent = absent_stage(system, f"{EXTRACT_STAGE:02d}_{name}")
    ours = score_cells(system, row.trials, decimals=_DECIMALS_2, precision=row.precision)
    cells = {
        **_system_cells(system.name, row.study_name),
        "trial_list": text_cell(row.trials),
        "precision": text_cell(row.precision),
    }
    for key, *_ in _MEASURES:
        printed = _published_cell(getattr(row.measures, key), _TABLE_2)
        cells |= _difference_cells(key, ours[key], printed, _DECIMALS_2)
    for key, cell in (
        ("energy_kwh", energy_cell(stage, absent)),
        ("co2_kg", co2_cell(stage, absent)),
        ("duration_s", duration_cell(stage, absent)),
    ):
        cells |= _ratio_cells(key, cell, _published_cell(getattr(row, key), _TABLE_2))
    return cells


# Ranks.


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


# Cells of a figure of ours and the published one.


def _difference_columns(key: str, title: str) -> tuple[Column, ...]:
    """Return the columns of a figure and its difference: ours, published, ours - published."""
    return (
        Column(key, "ours", title),
        Column(f"{key}_published", "study", title),
        Column(f"{key}_difference", "diff.", title),
    )


def _ratio_columns(key: str, title: str, *, marked: bool = True) -> tuple[Column, ...]:
    """Return the columns of a figure and its ratio: ours, published, ours / published."""
    return (
        Column(key, "ours", title, marked=marked),
        Column(f"{key}_published", "study", title),
        Column(f"{key}_ratio", "ratio", title, marked=marked),
    )


def _published_cell(printed: Printed | None, table: str) -> Cell:
    """Return the cell of a figure as it was printed in a ``table`` of the study."""
    if printed is None:
        return unknown_cell(f"not in the study's {table}")
    return Cell(printed.text, printed.value)


def _difference_cells(key: str, ours: Cell, published: Cell, decimals: int) -> dict[str, Cell]:
    """Return the cells of `_difference_columns`."""
    if ours.value is None or published.value is None:
        difference = unknown_cell(ours.reason or published.reason)
    else:
        value = float(ours.value) - float(published.value)
        difference = Cell(format_difference(value, decimals), value)
    return {key: ours, f"{key}_published": published, f"{key}_difference": difference}


def _ratio_cells(key: str, ours: Cell, published: Cell) -> dict[str, Cell]:
    """Return the cells of `_ratio_columns`; a ratio is as good as our figure, and has its marks."""
    if ours.value is None or published.value is None:
        ratio = unknown_cell(ours.reason or published.reason)
    else:
        value = float(ours.value) / float(published.value)
        ratio = Cell(format_significant(value), value, ours.marks)
    ours = replace(ours, best=False)
    return {key: ours, f"{key}_published": published, f"{key}_ratio": ratio}


def _system_cells(model: str, study_name: str) -> dict[str, Cell]:
    """Return the cells of `_SYSTEM_COLUMNS`."""
    return {"system": text_cell(model), "study_name": text_cell(study_name)}


def _our_energy_notes(stages: list[Labelled]) -> list[Note]:
    """Explain our energies: what they cover is not what the study's cover."""
    notes = energy_notes(stages)
    return [note if note.mark else Note(f"Ours: {note.text}") for note in notes]
