"""Table against2: our extractions beside the study's, at each precision."""

from sv.report.results import (
    EXTRACT_STAGE,
    P_TARGET,
    Results,
    Stage,
    System,
    extract_name,
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
from sv.report.study.published import Inference, Study
from sv.report.tables.cells import Cell, Column, Note, Row, Table, text_cell
from sv.report.tables.evidence import (
    absent_file,
    absent_stage,
    co2_cell,
    duration_cell,
    energy_cell,
    metric_cells,
)

_TABLE = "Table 2"
_DECIMALS = 3  # as the study prints both measures there


def build_inference_comparison(
    results: Results, study: Study, remarks: tuple[Note, ...]
) -> Table | None:
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
            rows.append(Row(label, _build_cells(results, system, row, stage), section))
            stages += [(label, stage)] if stage else []
    if not rows:
        return None
    columns = (
        *SYSTEM_COLUMNS,
        Column("trial_list", "", csv_only=True),
        Column("precision", "", csv_only=True),
        *(column for key, title, _ in MEASURES for column in difference_columns(key, title)),
        *ratio_columns("energy_kwh", "Energy (kWh)"),
        *ratio_columns("co2_kg", "CO2 (kg)"),
        *ratio_columns("duration_s", "Duration", marked=False),
    )
    notes = [
        Note(f"Study: {study.about.title}. Its figures are as printed."),
        Note(
            "Energy, CO2 and duration (hh:mm:ss) are of the embeddings of all utterances of the "
            "list's test set. diff.: ours - study; ratio: ours / study."
        ),
        *our_energy_notes(stages),
        Note(f"The study's energy: {study.about.energy}, on {study.about.gpu}."),
        *([Note(f"Not done here: {', '.join(left_out)}.")] if left_out else []),
        *remarks,
    ]
    caption = "Our extraction of embeddings beside the study's"
    return Table("against2", caption, columns, tuple(rows), tuple(notes))


def _find_stage(results: Results, system: System, row: Inference) -> Stage | None:
    name = _stage_name(results, row)
    return find_stage(system, EXTRACT_STAGE, name) if name else None


def _stage_name(results: Results, row: Inference) -> str | None:
    data_set = results.trial_sets.get(row.trials)
    return None if data_set is None else f"extract_{extract_name(data_set, row.precision)}"


def _build_cells(
    results: Results, system: System, row: Inference, stage: Stage | None
) -> dict[str, Cell]:
    name = _stage_name(results, row) or f"extract_{row.trials}"
    absent = absent_stage(system, f"{EXTRACT_STAGE:02d}_{name}")
    score = find_score(system, row.trials, row.precision)
    stem = extract_name(f"{row.trials}_cosine", row.precision)
    reason = absent_file(system, f"scores/{stem}.json")
    pair: tuple[float | None, float | None] = (None, None)
    if score is not None:
        pair = (score.eer_percent, score.min_dcf.get(P_TARGET))
        reason = f"no minDCF at P {P_TARGET} in {score.path.name}"
    ours = metric_cells(*pair, reason, decimals=_DECIMALS)
    cells = {
        **system_cells(system.name, row.study_name),
        "trial_list": text_cell(row.trials),
        "precision": text_cell(row.precision),
    }
    for key, *_ in MEASURES:
        printed = published_cell(getattr(row.measures, key), _TABLE)
        cells |= difference_cells(key, ours[key], printed, _DECIMALS)
    for key, cell in (
        ("energy_kwh", energy_cell(stage, absent)),
        ("co2_kg", co2_cell(stage, absent)),
        ("duration_s", duration_cell(stage, absent)),
    ):
        cells |= ratio_cells(key, cell, published_cell(getattr(row, key), _TABLE))
    return cells
