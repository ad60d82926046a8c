"""Table 2: what the extraction of a test set's embeddings costs, at each precision.

The columns are those of the study's Table 2, and two that do not depend on the size of the test
set: energy per utterance and the real-time factor.
"""

from sv.energy.units import j_from_kwh
from sv.report.noise import MEASURES, find_measured
from sv.report.records import (
    EXTRACT_STAGE,
    P_TARGET,
    Extraction,
    Results,
    StageEnergy,
    compute_average,
    extract_name,
    find_extraction,
    find_stage,
)
from sv.report.tables.best import SECTION_NOTE, TIE_NOTE, mark_energies, mark_measures
from sv.report.tables.cells import (
    Cell,
    Column,
    Note,
    Row,
    Table,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.tables.evidence import co2_cell, energy_cell, energy_notes
from sv.report.tables.inference_rows import Inference, choose_sets, list_inferences, lists_of
from sv.report.tables.provenance import (
    ENERGY_COLUMNS,
    PROVENANCE_COLUMNS,
    absent_file,
    absent_stage,
    duration_cell,
    fact_cell,
    metric_cells,
    provenance_cells,
)

_FACTS = ("utterances", "audio_s", "frames", "device")


def build_inference_table(results: Results, sets: tuple[str, ...] | None = None) -> Table:
    """Build Table 2: a section for each test set, fp32 rows first, each in the order of Table 1.

    Args:
        results: What stage 8 found.
        sets: The test sets to show; None: all.
    """
    columns = (
        Column("system", "System", numeric=False),
        Column("test_set", "Test set", numeric=False, csv_only=True),
        Column("eer_percent", "EER (%)", marked=True),
        Column("min_dcf", "minDCF", marked=True),
        *ENERGY_COLUMNS,
        Column("duration_s", "Wall time"),
        Column("j_per_utterance", "J per utterance", marked=True),
        Column("real_time_factor", "Real-time factor"),
        Column("precision", "Precision", numeric=False),
        *(Column(key, key, csv_only=True) for key in (*_FACTS, "trial_lists")),
        *PROVENANCE_COLUMNS,
    )
    rows: list[Row] = []
    labelled, means, not_compared = [], [], {}
    for data_set in choose_sets(results, sets):
        lists = lists_of(results, data_set)
        inferences = list_inferences(results, data_set)
        stages = [_find_stage(item) for item in inferences]
        section = [_build_row(item, lists) for item in inferences]
        for key in MEASURES:
            found = [find_measured(i.system, lists, key, i.precision) for i in inferences]
            mark_measures(section, key, {p: m for p, m in enumerate(found) if m is not None})
        not_compared |= {note.text: note for note in mark_energies(section, stages)}
        labelled += [(r.label, s) for r, s in zip(section, stages, strict=True) if s is not None]
        if len(lists) > 1:
            means.append(Note(f"EER and minDCF of {data_set}: means of {', '.join(lists)}."))
        rows += section
    cells = [cell for row in rows for cell in row.cells.values()]
    notes = [
        Note(
            "Energy, CO2 and wall time (hh:mm:ss) are of the whole extraction stage: starting the "
            "jobs, loading the network, reading features, embedding every utterance, writing."
        ),
        Note("Real-time factor: that wall time / duration of the speech; below 1 is faster."),
        Note(f"EER and minDCF (P_target {P_TARGET}) of cosine scores."),
        *means,
        *([SECTION_NOTE] if any(cell.best for cell in cells) else []),
        *not_compared.values(),
        *energy_notes(labelled),
        *([TIE_NOTE] if any("within_noise" in cell.marks for cell in cells) else []),
    ]
    caption = "Inference: extraction of the embeddings of a test set"
    return Table("table2", caption, columns, tuple(rows), tuple(notes))


def _find_stage(item: Inference) -> StageEnergy | None:
    return find_stage(item.system, EXTRACT_STAGE, _stage_name(item))


def _stage_name(item: Inference) -> str:
    return f"extract_{extract_name(item.data_set, item.precision)}"


def _build_row(item: Inference, lists: tuple[str, ...]) -> Row:
    system, precision = item.system, item.precision
    stage = _find_stage(item)
    absent = absent_stage(system, f"{EXTRACT_STAGE:02d}_{_stage_name(item)}")
    done = find_extraction(system, item.data_set, precision)
    average = compute_average(system, lists, precision)
    energy = energy_cell(stage, absent)
    wall_time = duration_cell(stage, absent)
    cells = {
        "system": text_cell(system.name),
        "test_set": text_cell(item.data_set),
        **metric_cells(average.eer_percent, average.min_dcf, average.reason, decimals=3),
        "energy_kwh": energy,
        "co2_kg": co2_cell(stage, absent),
        "duration_s": wall_time,
        "j_per_utterance": _per_utterance(item, stage, energy, done),
        "real_time_factor": _real_time_factor(item, stage, wall_time, done),
        "precision": Cell(precision.upper(), precision),
        **{key: fact_cell(getattr(done, key, None)) for key in _FACTS},
        "trial_lists": text_cell(" ".join(lists)),
        **provenance_cells(stage),
    }
    return Row(f"{system.name} {item.data_set} {precision}", cells, item.data_set)


def _per_utterance(
    item: Inference, stage: StageEnergy | None, energy: Cell, done: Extraction | None
) -> Cell:
    if stage is None or stage.energy_kwh is None:
        return unknown_cell(energy.reason)
    reason = _why_undivided(item, stage, done)
    if reason or done is None:
        return unknown_cell(reason)
    if done.utterances == 0:
        return unknown_cell("0 utterances were extracted")
    per_utterance_j = j_from_kwh(stage.energy_kwh) / done.utterances
    return Cell(format_significant(per_utterance_j), per_utterance_j, energy.marks)


def _real_time_factor(
    item: Inference, stage: StageEnergy | None, wall_time: Cell, done: Extraction | None
) -> Cell:
    if stage is None or stage.duration_s is None:
        return unknown_cell(wall_time.reason)
    reason = _why_undivided(item, stage, done)
    if reason or done is None:
        return unknown_cell(reason)
    if not done.audio_s:
        return unknown_cell(f"no duration of the speech in {done.folder}/info.json")
    factor = stage.duration_s / done.audio_s
    return Cell(format_significant(factor), factor)


def _why_undivided(item: Inference, stage: StageEnergy, done: Extraction | None) -> str:
    """Say why a figure is not divided by what was done: a stage that failed did not do all."""
    if stage.status != "complete":
        return f"{stage.path.name} is {stage.status}: utterances done are not known"
    if done is None:
        folder = f"xvectors_{extract_name(item.data_set, item.precision)}"
        return absent_file(item.system, f"{folder}/info.json")
    return ""
