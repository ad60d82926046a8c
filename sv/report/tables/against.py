"""Our figures compared with those of a published study, for the systems and lists that both have.

Tables ``against1`` (averages, training energy), ``against1_lists`` (each list), ``against2``
(inference) and ``against_ranks`` (whether both order the systems alike). Ours are of the first
backend.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sv.report.noise import measure_cells
from sv.report.published import Printed, Published, Study, compute_rank, read_study
from sv.report.results import (
    EXTRACT_STAGE,
    FAMILIES,
    TRAIN_STAGE,
    Results,
    System,
    absent_stage,
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
    fact_cell,
    figure_cell,
    format_difference,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.tables.evidence import (
    ENERGY_COLUMNS,
    MEASURES,
    energy_notes,
    remark_notes,
    stage_cells,
)

# Figures by the names of our columns and of the study's. Measures are compared by their difference
# (with so many decimals, as in all our tables; the study's Table 2 has three), others by ratio.
_ENERGIES = {column.key: column.title for column in ENERGY_COLUMNS}
_DECIMALS = {"eer_percent": 2, "min_dcf": 3}


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
    built = [
        _build_averages(published, pairs, lists),
        _build_lists(pairs, lists),
        _build_inference(results, published),
    ]
    tables = [table for table in built if table.rows]
    about = Note(f"Study: {published.about.title}. Its figures are as printed.")
    noted = [
        replace(table, notes=(about, *table.notes, *remark_notes(results))) for table in tables
    ]
    ranks = _build_ranks(tables)
    return [*noted, replace(ranks, notes=(about, *ranks.notes))]


def _build_averages(
    study: Study, pairs: Sequence[tuple[System, Published]], lists: tuple[str, ...]
) -> Table:
    averages = {key: f"Average {title}" for key, title in MEASURES.items()}
    columns = (
        *_list_columns({**averages, **_ENERGIES}),
        *(Column(f"{key}_printed", "", csv_only=True) for key in MEASURES),
    )
    rows = []
    for system, row in pairs:
        stage = system.training
        ours = measure_cells(system, lists)
        ours |= stage_cells(stage, absent_stage(system, TRAIN_STAGE, "train"))
        theirs = {key: _average_published(row, lists, key) for key in MEASURES}
        theirs |= {key: _published_cell(row.figures[key], "Table 1") for key in _ENERGIES}
        cells = _build_cells(row, ours, theirs)
        for key in MEASURES:
            cells[f"{key}_printed"] = _published_cell(row.figures[key], "Table 1")
        rows.append(Row(system.name, cells, FAMILIES[family_of(system.name)], stage))
    names = {system.name for system, _ in pairs}
    missing = [row.model for row in study.trainings if row.model not in names]
    absent_lists = [name for name in study.lists if name not in lists]
    notes = (
        _ABOUT_DIFFERENCES,
        Note(
            f"Averages are over {', '.join(lists) or 'no list'}, those of the study too: they are "
            "computed from its printed lists."
            + (f" It also has {', '.join(absent_lists)}, not scored here." if absent_lists else "")
        ),
        *_our_energy_notes(rows),
        Note(f"The study's energy: {study.about.energy}."),
        *([Note(f"Not here, in the study: {', '.join(missing)}.")] if missing else []),
    )
    caption = "Our training next to the study's: averages over the same lists, energy and CO2"
    return Table("against1", caption, columns, tuple(rows), notes)


def _average_published(row: Published, lists: tuple[str, ...], key: str) -> Cell:
    """Average the printed figures of some lists; every list or no average."""
    printed = {name: row.figures[f"{key}_{name}"] for name in lists}
    known = [figure.value for figure in printed.values() if figure is not None]
    if len(known) < len(printed) or not printed:
        missing = [name for name, figure in printed.items() if figure is None]
        what = f"of {', '.join(missing)} " if missing else ""
        return unknown_cell(f"no figure {what}in the study's Table 1 for the lists scored here")
    return figure_cell(sum(known) / len(known), f".{_DECIMALS[key]}f")


def _build_lists(pairs: Sequence[tuple[System, Published]], lists: tuple[str, ...]) -> Table:
    rows = []
    for name in lists:
        for system, row in pairs:
            figures = {key: row.figures[f"{key}_{name}"] for key in MEASURES}
            theirs = {key: _published_cell(figure, "Table 1") for key, figure in figures.items()}
            cells = _build_cells(row, measure_cells(system, (name,)), theirs)
            cells["trial_list"] = text_cell(name)
            rows.append(Row(f"{system.name} {name}", cells, name))
    caption = "Our measures next to the study's, for each trial list"
    columns = _list_columns(MEASURES, "trial_list")
    return Table("against1_lists", caption, columns, tuple(rows), (_ABOUT_DIFFERENCES,))


def _build_inference(results: Results, study: Study) -> Table:
    """Build table against2; without rows where nothing of the study's Table 2 was done here.

    Of each list and precision that any system did, the table has every system of both.
    """
    systems = {system.name: system for system in results.systems}
    titles = {**MEASURES, **_ENERGIES, "duration_s": "Duration"}
    rows, left_out = [], []
    for trials, precision in dict.fromkeys((row.trials, row.precision) for row in study.inferences):
        published = [
            (systems[row.model], row)
            for row in study.inferences
            if (row.trials, row.precision) == (trials, precision) and row.model in systems
        ]
        name = f"extract_{extract_name(results.trial_sets.get(trials, trials), precision)}"
        done = [find_stage(system, EXTRACT_STAGE, name) for system, _ in published]
        if not any(done) and not any(find_score(s, trials, precision) for s, _ in published):
            left_out += [f"{trials} in {precision}"] if published else []
            continue
        for (system, row), stage in zip(published, done, strict=True):
            label = f"{system.name} {trials} {precision}"
            ours = measure_cells(system, (trials,), precision=precision)
            ours |= stage_cells(stage, absent_stage(system, EXTRACT_STAGE, name))
            theirs = {key: _published_cell(row.figures[key], "Table 2") for key in titles}
            cells = _build_cells(row, ours, theirs)
            cells |= {"trial_list": text_cell(trials), "precision": text_cell(precision)}
            rows.append(Row(label, cells, f"{trials}, {precision.upper()}", stage))
    notes = (
        Note(
            "Energy, CO2 and duration (hh:mm:ss) are of the embeddings of all utterances of the "
            "list's test set. diff.: ours - study; ratio: ours / study."
        ),
        *_our_energy_notes(rows),
        Note(f"The study's energy: {study.about.energy}, on {study.about.gpu}."),
        *([Note(f"Not done here: {', '.join(left_out)}.")] if left_out else []),
    )
    columns = _list_columns(titles, "trial_list", "precision")
    caption = "Our extraction of embeddings next to the study's"
    return Table("against2", caption, columns, tuple(rows), notes)


# Three columns of a figure: ours, the study's, and the difference or ratio of both.

_ABOUT_DIFFERENCES = Note(
    "diff.: ours - study, in points of EER or of minDCF; ratio: ours / study. The study "
    "gives no intervals; how far another training moves a figure is in neither."
)


def _list_columns(titles: dict[str, str], *facts: str) -> tuple[Column, ...]:
    """Return the columns of a table: the system, ``facts`` for CSV, and three of each figure."""
    columns = [Column("system", "System", numeric=False)]
    columns.append(Column("study_name", "In the study", numeric=False))
    columns += [Column(key, "", csv_only=True) for key in facts]
    for key, title in titles.items():
        compared = ("difference", "diff.") if key in MEASURES else ("ratio", "ratio")
        marked = key in _ENERGIES
        columns += [
            Column(key, "ours", title, marked=marked),
            Column(f"{key}_published", "study", title),
            Column(f"{key}_{compared[0]}", compared[1], title, marked=marked),
        ]
    return tuple(columns)


def _build_cells(row: Published, ours: dict[str, Cell], theirs: dict[str, Cell]) -> dict[str, Cell]:
    """Return the cells of a row; a ratio is as good as our figure, and has its marks."""
    cells = {"system": text_cell(row.model), "study_name": text_cell(row.study_name)}
    for key, published in theirs.items():
        cells |= {key: ours[key], f"{key}_published": published}
        compared = f"{key}_{'difference' if key in _DECIMALS else 'ratio'}"
        a, b = ours[key].value, published.value
        if a is None or b is None:
            cells[compared] = unknown_cell(ours[key].reason or published.reason)
        elif key in _DECIMALS:
            value = float(a) - float(b)
            cells[compared] = Cell(format_difference(value, _DECIMALS[key]), value)
        else:
            marks = ours[key].marks
            cells[compared] = figure_cell(float(a) / float(b), format_significant, marks=marks)
    return cells


def _published_cell(printed: Printed | None, table: str) -> Cell:
    """Return the cell of a figure as it was printed in a ``table`` of the study."""
    if printed is None:
        return unknown_cell(f"not in the study's {table}")
    return Cell(printed.text, printed.value)


def _our_energy_notes(rows: Sequence[Row]) -> list[Note]:
    """Explain our energies: what they cover is not what the study's cover."""
    notes = energy_notes(rows)
    return [note if note.mark else Note(f"Ours: {note.text}") for note in notes]


# The order of the systems.


def _build_ranks(tables: Sequence[Table]) -> Table:
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
        Note("1: ours and the study's order the systems alike."),
        Note("95 %: Fisher's z (Bonett and Wright, 2000). p: permutations of the systems."),
    )
    caption = "Rank correlation of our figures with the study's, over systems"
    return Table("against_ranks", caption, columns, tuple(rows), notes)


def _rank(what: str, rows: Sequence[Row], key: str) -> Row:
    both = [(row.cells[key].value, row.cells[f"{key}_published"].value) for row in rows]
    known = [(float(a), float(b)) for a, b in both if a is not None and b is not None]
    rank = compute_rank([a for a, _ in known], [b for _, b in known])
    low, high = rank.interval or (None, None)
    cells = {
        "what": text_cell(what),
        "systems": figure_cell(rank.systems, ""),
        "rho": figure_cell(rank.rho, ".2f", rank.reason),
        "interval": text_cell(f"{low:.2f} to {high:.2f}")
        if rank.interval
        else unknown_cell(rank.reason),
        "p": figure_cell(rank.p_value, ".4f", rank.reason),
        "rho_low": fact_cell(low),
        "rho_high": fact_cell(high),
    }
    return Row(what, cells)
