"""Our figures compared with those of a published study, for the systems and lists that both have.

Tables ``against1`` (averages, training energy), ``against1_lists`` (each list), ``against2``
(inference) and ``against_ranks`` (whether both order the systems alike). Ours are of the first
backend.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sv.report.published import Inference, Printed, Study, Training, compute_rank, read_study
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

# Measures with their decimals in the study's Table 1; its Table 2 prints three of both.
_MEASURES = (("eer_percent", "EER (%)", 2), ("min_dcf", "minDCF", 3))
_DECIMALS_2 = 3
_SYSTEM_COLUMNS = (
    Column("system", "System", numeric=False),
    Column("study_name", "In the study", numeric=False),
)


def build_comparison(results: Results, study: Path | None) -> list[Table]:
    """Build the tables that show our figures next to the published ones.

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
    trained = {row.model: row for row in published.trainings}
    pairs = [(s, trained[s.name]) for s in results.systems if s.name in trained]
    if not pairs:
        return []
    lists = tuple(name for name in published.lists if name in results.scored)
    tables = [_build_averages(published, pairs, lists)]
    if lists:
        tables.append(_build_lists(published, pairs, lists))
    inference = _build_inference(results, published)
    tables += [inference] if inference else []
    remarks = tuple(Note(f"{trials or 'All lists'}: {text}.") for trials, text in results.remarks)
    tables = [replace(table, notes=(*table.notes, *remarks)) for table in tables]
    return [*tables, _build_ranks(published, tables)]


def _build_averages(
    study: Study, pairs: Sequence[tuple[System, Training]], lists: tuple[str, ...]
) -> Table:
    columns = (
        *_SYSTEM_COLUMNS,
        *(c for key, title, _ in _MEASURES for c in _list_columns(key, f"Average {title}")),
        *_list_columns("energy_kwh", "Energy (kWh)", "ratio", marked=True),
        *_list_columns("co2_kg", "CO2 (kg)", "ratio", marked=True),
        *(Column(f"{key}_printed", "", csv_only=True) for key, *_ in _MEASURES),
    )
    rows, stages = [], []
    for system, row in pairs:
        stage = find_stage(system, TRAIN_STAGE, "train")
        average = compute_average(system, lists)
        ours = metric_cells(average.eer_percent, average.min_dcf, average.reason, decimals=2)
        cells = {"system": text_cell(system.name), "study_name": text_cell(row.study_name)}
        for key, _, decimals in _MEASURES:
            theirs = _average_published(row, lists, key, decimals)
            cells |= _compare(key, ours[key], theirs, decimals)
            cells[f"{key}_printed"] = _published_cell(getattr(row.average, key), "Table 1")
        absent = absent_stage(system, f"{TRAIN_STAGE:02d}_train")
        cells |= _compare_energies(stage, absent, row, "Table 1")
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
    ]
    caption = "Our training next to the study's: averages over the same lists, energy and CO2"
    return Table("against1", caption, columns, tuple(rows), tuple(notes))


def _average_published(row: Training, lists: tuple[str, ...], key: str, decimals: int) -> Cell:
    """Average the printed figures of some lists; every list or no average."""
    printed = {name: getattr(row.lists[name], key) for name in lists}
    known = [figure.value for figure in printed.values() if figure is not None]
    if len(known) < len(printed) or not printed:
        missing = [name for name, figure in printed.items() if figure is None]
        what = f"of {', '.join(missing)} " if missing else ""
        return unknown_cell(f"no figure {what}in the study's Table 1 for the lists scored here")
    mean = sum(known) / len(known)
    return Cell(f"{mean:.{decimals}f}", mean)


def _build_lists(
    study: Study, pairs: Sequence[tuple[System, Training]], lists: tuple[str, ...]
) -> Table:
    columns = (
        *_SYSTEM_COLUMNS,
        Column("trial_list", "", csv_only=True),
        *(column for key, title, _ in _MEASURES for column in _list_columns(key, title)),
    )
    rows = []
    for name in lists:
        for system, row in pairs:
            ours = score_cells(system, name, decimals=2)
            cells = {
                "system": text_cell(system.name),
                "study_name": text_cell(row.study_name),
                "trial_list": text_cell(name),
            }
            for key, _, decimals in _MEASURES:
                theirs = _published_cell(getattr(row.lists[name], key), "Table 1")
                cells |= _compare(key, ours[key], theirs, decimals)
            rows.append(Row(f"{system.name} {name}", cells, name))
    caption = "Our measures next to the study's, for each trial list"
    return Table("against1_lists", caption, columns, tuple(rows), tuple(_common_notes(study)))


def _build_inference(results: Results, study: Study) -> Table | None:
    """Build table against2; None where nothing of the study's Table 2 was done here.

    Of each list and precision that any system did, the table has every system of both.
    """
    systems = {system.name: system for system in results.systems}
    rows, stages, left_out = [], [], []
    for trials, precision in dict.fromkeys((row.trials, row.precision) for row in study.inferences):
        published = [
            (systems[row.model], row)
            for row in study.inferences
            if (row.trials, row.precision) == (trials, precision) and row.model in systems
        ]
        name = f"extract_{extract_name(results.trial_sets.get(trials, trials), precision)}"
        done = [find_stage(system, EXTRACT_STAGE, name) for system, _ in published]
        scored = [find_score(system, trials, precision) for system, _ in published]
        if not any(done) and not any(scored):
            left_out += [f"{trials} in {precision}"] if published else []
            continue
        for (system, row), stage in zip(published, done, strict=True):
            label = f"{system.name} {trials} {precision}"
            absent = absent_stage(system, f"{EXTRACT_STAGE:02d}_{name}")
            cells = _compare_inference(system, row, stage, absent)
            rows.append(Row(label, cells, f"{trials}, {precision.upper()}"))
            stages += [(label, stage)] if stage else []
    if not rows:
        return None
    columns = (
        *_SYSTEM_COLUMNS,
        Column("trial_list", "", csv_only=True),
        Column("precision", "", csv_only=True),
        *(column for key, title, _ in _MEASURES for column in _list_columns(key, title)),
        *_list_columns("energy_kwh", "Energy (kWh)", "ratio", marked=True),
        *_list_columns("co2_kg", "CO2 (kg)", "ratio", marked=True),
        *_list_columns("duration_s", "Duration", "ratio"),
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
    ]
    caption = "Our extraction of embeddings next to the study's"
    return Table("against2", caption, columns, tuple(rows), tuple(notes))


def _compare_inference(
    system: System, row: Inference, stage: Stage | None, absent: str
) -> dict[str, Cell]:
    ours = score_cells(system, row.trials, decimals=_DECIMALS_2, precision=row.precision)
    cells = {
        "system": text_cell(system.name),
        "study_name": text_cell(row.study_name),
        "trial_list": text_cell(row.trials),
        "precision": text_cell(row.precision),
        **_compare_energies(stage, absent, row, "Table 2"),
    }
    for key, *_ in _MEASURES:
        theirs = _published_cell(getattr(row.measures, key), "Table 2")
        cells |= _compare(key, ours[key], theirs, _DECIMALS_2)
    theirs = _published_cell(row.duration_s, "Table 2")
    return cells | _compare("duration_s", duration_cell(stage, absent), theirs)


# The order of the systems.


def _build_ranks(study: Study, tables: Sequence[Table]) -> Table:
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
        parts: dict[str, list[Row]] = {}
        for row in table.rows:
            parts.setdefault("average" if whole else row.section, []).append(row)
        for part, members in parts.items():
            for key, title in {"eer_percent": "EER", "energy_kwh": "energy"}.items():
                if key in members[0].cells:
                    what = "training" if whole and key == "energy_kwh" else part
                    rows.append(_rank(f"{title} ({what})", members, key))
    notes = (
        Note(f"Study: {study.about.title}. 1: ours and the study's order the systems alike."),
        Note("95 %: Fisher's z (Bonett and Wright, 2000). p: permutations of the systems."),
    )
    caption = "Rank correlation of our figures with the study's, over systems"
    return Table("against_ranks", caption, columns, tuple(rows), notes)


def _rank(what: str, rows: Sequence[Row], key: str) -> Row:
    both = [(row.cells[key].value, row.cells[f"{key}_published"].value) for row in rows]
    known = [(float(a), float(b)) for a, b in both if a is not None and b is not None]
    rank = compute_rank([a for a, _ in known], [b for _, b in known])
    unknown = unknown_cell(rank.reason or "no figure")
    low, high = rank.interval or (None, None)
    interval = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    cells = {
        "what": text_cell(what),
        "systems": Cell(f"{rank.systems}", rank.systems),
        "rho": unknown if rank.rho is None else Cell(f"{rank.rho:.2f}", rank.rho),
        "interval": text_cell(interval) if interval else unknown,
        "p": unknown if rank.p_value is None else Cell(f"{rank.p_value:.4f}", rank.p_value),
        "rho_low": fact_cell(low),
        "rho_high": fact_cell(high),
    }
    return Row(what, cells)


# Three columns of a figure: ours, the study's, and the difference or ratio of both.


def _list_columns(
    key: str, title: str, how: str = "difference", *, marked: bool = False
) -> tuple[Column, ...]:
    return (
        Column(key, "ours", title, marked=marked),
        Column(f"{key}_published", "study", title),
        Column(f"{key}_{how}", "ratio" if how == "ratio" else "diff.", title, marked=marked),
    )


def _compare(key: str, ours: Cell, theirs: Cell, decimals: int | None = None) -> dict[str, Cell]:
    """Return the cells of a figure: with its difference, or without ``decimals`` its ratio.

    A ratio is as good as our figure, and has its marks.
    """
    name = f"{key}_{'ratio' if decimals is None else 'difference'}"
    if ours.value is None or theirs.value is None:
        compared = unknown_cell(ours.reason or theirs.reason)
    elif decimals is None:
        value = float(ours.value) / float(theirs.value)
        compared = Cell(format_significant(value), value, ours.marks)
    else:
        value = float(ours.value) - float(theirs.value)
        compared = Cell(format_difference(value, decimals), value)
    return {key: ours, f"{key}_published": theirs, name: compared}


def _compare_energies(
    stage: Stage | None, absent: str, row: Training | Inference, table: str
) -> dict[str, Cell]:
    energy, co2 = energy_cell(stage, absent), co2_cell(stage, absent)
    return {
        **_compare("energy_kwh", energy, _published_cell(row.energy_kwh, table)),
        **_compare("co2_kg", co2, _published_cell(row.co2_kg, table)),
    }


def _published_cell(printed: Printed | None, table: str) -> Cell:
    """Return the cell of a figure as it was printed in a ``table`` of the study."""
    if printed is None:
        return unknown_cell(f"not in the study's {table}")
    return Cell(printed.text, printed.value)


def _common_notes(study: Study) -> list[Note]:
    return [
        Note(f"Study: {study.about.title}. Its figures are as printed."),
        Note(
            "diff.: ours - study, in points of EER or of minDCF; ratio: ours / study. The study "
            "gives no intervals; how far another training moves a figure is in neither."
        ),
    ]


def _our_energy_notes(stages: Sequence[Labelled]) -> list[Note]:
    """Explain our energies: what they cover is not what the study's cover."""
    notes = energy_notes(stages)
    return [note if note.mark else Note(f"Ours: {note.text}") for note in notes]
