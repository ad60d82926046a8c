"""Table 2: what the extraction of a test set's embeddings costs, at each precision.

The columns are those of the study's Table 2, two that do not depend on the size of the test set
(energy per utterance, real-time factor) and, where a lower precision was used, what it changes
against fp32: the ratio of the energies and the difference of the EERs.
"""

import math
from dataclasses import replace

from sv.energy.units import j_from_kwh
from sv.report.noise import MEASURES, find_measured, subtract
from sv.report.results import (
    EXTRACT_STAGE,
    P_TARGET,
    Extraction,
    Results,
    Stage,
    compute_average,
    extract_name,
    find_extraction,
    find_score,
    find_stage,
)
from sv.report.tables.best import SECTION_NOTE, TIE_NOTE, mark_energies, mark_measures
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
    ENERGY_COLUMNS,
    PROVENANCE_COLUMNS,
    absent_file,
    absent_stage,
    co2_cell,
    duration_cell,
    energy_cell,
    energy_notes,
    explain_energies,
    explain_incomplete,
    fact_cell,
    metric_cells,
    provenance_cells,
)
from sv.report.tables.inference_rows import Inference, choose_sets, list_inferences, lists_of

_FACTS = ("utterances", "audio_s", "frames", "device")
_FULL = "fp32"
_NO_CHANGE = Cell("", "")  # of fp32 against itself
_CHANGES = (
    Column("energy_ratio", "kWh / fp32", marked=True),
    Column("eer_difference", "EER - fp32", marked=True),
)
_CHANGE_FACTS = ("energy_ratio_uncertainty", "eer_difference_low", "eer_difference_high")


_CHANGE_NOTE = Note(
    "kWh / fp32 and EER - fp32: against the same system's extraction in fp32; a difference marked "
    "≈ is within noise (its 95 % interval contains 0)."
)


def build_inference_table(results: Results, sets: tuple[str, ...] | None = None) -> Table:
    """Build Table 2: a section for each test set, fp32 rows first, each in the order of Table 1.

    Args:
        results: What stage 8 found.
        sets: The test sets to show; None: all.
    """
    sections = {name: list_inferences(results, name) for name in choose_sets(results, sets)}
    precisions = {item.precision for members in sections.values() for item in members}
    has_lower = precisions - {_FULL}
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
        *(_CHANGES if has_lower else ()),
        *(Column(key, key, csv_only=True) for key in (*_FACTS, "trial_lists")),
        *(Column(key, key, csv_only=True) for key in (_CHANGE_FACTS if has_lower else ())),
        *PROVENANCE_COLUMNS,
    )
    rows: list[Row] = []
    labelled, means, not_compared = [], [], {}
    for data_set, inferences in sections.items():
        lists = lists_of(results, data_set)
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
    measures = [row.cells[key] for row in rows for key in MEASURES]
    notes = [
        Note(
            "Energy, CO2 and wall time (hh:mm:ss) are of the whole extraction stage: starting the "
            "jobs, loading the network, reading features, embedding every utterance, writing."
        ),
        Note("Real-time factor: that wall time / duration of the speech; below 1 is faster."),
        Note(f"EER and minDCF (P_target {P_TARGET}) of cosine scores."),
        *([_CHANGE_NOTE] if has_lower else []),
        *means,
        *([SECTION_NOTE] if any(cell.best for cell in cells) else []),
        *not_compared.values(),
        *energy_notes(labelled),
        *([TIE_NOTE] if any("within_noise" in cell.marks for cell in measures) else []),
    ]
    caption = "Inference: extraction of the embeddings of a test set"
    return Table("table2", caption, columns, tuple(rows), tuple(notes))


def _find_stage(item: Inference) -> Stage | None:
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
        **_energy_change(item, stage, absent),
        **_eer_change(item, lists),
        **provenance_cells(stage),
    }
    return Row(f"{system.name} {item.data_set} {precision}", cells, item.data_set)


def _per_utterance(
    item: Inference, stage: Stage | None, energy: Cell, done: Extraction | None
) -> Cell:
    if stage is None or stage.energy_kwh is None:
        return unknown_cell(energy.reason)
    reason = _why_undivided(item, stage, done)
    if reason or done is None:
        return unknown_cell(reason)
    if done.utterances == 0:
        return unknown_cell("0 utterances were extracted")
    per_utterance_j = j_from_kwh(stage.energy_kwh) / done.utterances
    return replace(energy, text=format_significant(per_utterance_j), value=per_utterance_j)


def _real_time_factor(
    item: Inference, stage: Stage | None, wall_time: Cell, done: Extraction | None
) -> Cell:
    if stage is None:
        return unknown_cell(wall_time.reason)
    reason = _why_undivided(item, stage, done)
    if reason or done is None:
        return unknown_cell(reason)
    if not done.audio_s:
        return unknown_cell(f"no duration of the speech in {done.folder}/info.json")
    factor = stage.sidecar.duration_s / done.audio_s
    return Cell(format_significant(factor), factor)


def _energy_change(item: Inference, stage: Stage | None, absent: str) -> dict[str, Cell]:
    """Return the ratio of the energy to that in fp32, and its uncertainty (k = 2)."""
    cells = {"energy_ratio": _NO_CHANGE, "energy_ratio_uncertainty": fact_cell(None)}
    if item.precision == _FULL:
        return cells
    of_full = replace(item, precision=_FULL)
    full = _find_stage(of_full)
    if stage is None or full is None:
        absent_full = absent_stage(item.system, f"{EXTRACT_STAGE:02d}_{_stage_name(of_full)}")
        return cells | {"energy_ratio": unknown_cell(absent if stage is None else absent_full)}
    reasons = [explain_incomplete(full), explain_incomplete(stage)]
    reason = next(filter(None, [*reasons, *explain_energies([full, stage])]), "")
    if reason:
        return cells | {"energy_ratio": unknown_cell(reason)}
    assert stage.energy_kwh and full.energy_kwh  # or it was incomplete
    ratio = stage.energy_kwh / full.energy_kwh
    marks = energy_cell(stage, absent).marks
    cells["energy_ratio"] = Cell(format_significant(ratio), ratio, marks)
    if full.sidecar.uncertainty_kwh is not None and stage.sidecar.uncertainty_kwh is not None:
        parts = (s.sidecar.uncertainty_kwh / s.energy_kwh for s in (full, stage))
        cells["energy_ratio_uncertainty"] = fact_cell(ratio * math.hypot(*parts))
    return cells


def _eer_change(item: Inference, lists: tuple[str, ...]) -> dict[str, Cell]:
    """Return the difference of the EER to that in fp32, over the lists scored in both."""
    cells = {key: fact_cell(None) for key in ("eer_difference_low", "eer_difference_high")}
    if item.precision == _FULL:
        return {**cells, "eer_difference": _NO_CHANGE}
    system, precision = item.system, item.precision
    both = tuple(n for n in lists if find_score(system, n) and find_score(system, n, precision))
    if not both:
        reason = "no list is scored in both precisions"
        return {**cells, "eer_difference": unknown_cell(reason)}
    lower, full = (compute_average(system, both, name) for name in (precision, _FULL))
    assert lower.eer_percent is not None and full.eer_percent is not None  # both are scored
    value = lower.eer_percent - full.eer_percent
    measured = [find_measured(system, both, "eer_percent", name) for name in (precision, _FULL)]
    difference = subtract(measured[0], measured[1]) if measured[0] and measured[1] else None
    interval = difference.interval if difference else None
    marks: tuple[str, ...] = ()
    if interval is not None:
        low, high = interval
        cells |= {"eer_difference_low": fact_cell(low), "eer_difference_high": fact_cell(high)}
        marks = ("within_noise",) if low <= 0 <= high else ()
    return {**cells, "eer_difference": Cell(format_difference(value, 3), value, marks)}


def _why_undivided(item: Inference, stage: Stage, done: Extraction | None) -> str:
    """Say why a figure is not divided by what was done: a stage that failed did not do all."""
    if stage.sidecar.status != "complete":
        return f"{stage.path.name} is {stage.sidecar.status}: utterances done are not known"
    if done is None:
        folder = f"xvectors_{extract_name(item.data_set, item.precision)}"
        return absent_file(item.system, f"{folder}/info.json")
    return ""
