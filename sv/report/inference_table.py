"""Table 2: what the extraction of a test set's embeddings costs, at each precision.

The columns are those of the study's Table 2, and energy per utterance, which does not depend on
the size of the test set.
"""

from sv.energy.units import j_from_kwh
from sv.report.cells import (
    Cell,
    Column,
    Note,
    Row,
    Table,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.evidence import co2_cell, energy_cell, energy_notes
from sv.report.provenance import (
    ENERGY_COLUMNS,
    PROVENANCE_COLUMNS,
    absent_file,
    absent_stage,
    duration_cell,
    fact_cell,
    metric_cells,
    provenance_cells,
)
from sv.report.records import (
    EXTRACT_STAGE,
    P_TARGET,
    PRECISIONS,
    Results,
    StageEnergy,
    System,
    compute_average,
    extract_name,
    find_extraction,
    find_stage,
    is_of_trained,
)

_FACTS = ("utterances", "audio_s", "frames", "device")


def build_inference_table(results: Results) -> Table:
    """Build Table 2: a row for each test set, precision and system."""
    columns = (
        Column("system", "System", numeric=False),
        Column("test_set", "Test set", numeric=False),
        Column("eer_percent", "EER (%)"),
        Column("min_dcf", "minDCF"),
        *ENERGY_COLUMNS,
        Column("duration_s", "Duration"),
        Column("j_per_utterance", "J per utterance", marked=True),
        Column("precision", "Precision", numeric=False),
        *(Column(key, key, csv_only=True) for key in (*_FACTS, "trial_lists")),
        *PROVENANCE_COLUMNS,
    )
    rows, stages, means = [], [], {}
    for system, data_set, precision in _list_rows(results):
        lists = _lists_of(results, data_set)
        rows.append(_build_row(system, data_set, precision, lists))
        name = f"extract_{extract_name(data_set, precision)}"
        stages.append(find_stage(system, EXTRACT_STAGE, name))
        if len(lists) > 1:
            means[data_set] = Note(f"EER and minDCF of {data_set}: means of {', '.join(lists)}.")
    known = [(row.label, stage) for row, stage in zip(rows, stages, strict=True) if stage]
    notes = [
        Note(
            "Energy, CO2 and duration (hh:mm:ss) are of the extraction of all embeddings of a set."
        ),
        Note(f"EER and minDCF (P_target {P_TARGET}) of cosine scores."),
        *means.values(),
        *energy_notes(known),
    ]
    caption = "Inference: extraction of the embeddings of each test set"
    return Table("table2", caption, columns, tuple(rows), tuple(notes))


def _build_row(system: System, data_set: str, precision: str, lists: tuple[str, ...]) -> Row:
    name = f"extract_{extract_name(data_set, precision)}"
    stage = find_stage(system, EXTRACT_STAGE, name)
    absent = absent_stage(system, f"{EXTRACT_STAGE:02d}_{name}")
    done = find_extraction(system, data_set, precision)
    average = compute_average(system, lists, precision)
    cells = {
        "system": text_cell(system.name),
        "test_set": text_cell(data_set),
        **metric_cells(average.eer_percent, average.min_dcf, average.reason, decimals=3),
        "energy_kwh": energy_cell(stage, absent),
        "co2_kg": co2_cell(stage, absent),
        "duration_s": duration_cell(stage, absent),
        "precision": Cell(precision.upper(), precision),
        **{key: fact_cell(getattr(done, key, None)) for key in _FACTS},
        "trial_lists": text_cell(" ".join(lists)),
        **provenance_cells(stage),
    }
    cells["j_per_utterance"] = _per_utterance(
        system, stage, cells["energy_kwh"], data_set, precision
    )
    return Row(f"{system.name} {data_set} {precision}", cells)


def _per_utterance(
    system: System, stage: StageEnergy | None, energy: Cell, data_set: str, precision: str
) -> Cell:
    """Divide the energy by the utterances; a stage that did not complete did not do them all."""
    done = find_extraction(system, data_set, precision)
    if stage is None or stage.energy_kwh is None:
        return unknown_cell(energy.reason)
    if stage.status != "complete":
        return unknown_cell(f"{stage.path.name} is {stage.status}: utterances done are not known")
    if done is None:
        folder = f"xvectors_{extract_name(data_set, precision)}"
        return unknown_cell(absent_file(system, f"{folder}/info.json"))
    if done.utterances == 0:
        return unknown_cell("0 utterances were extracted")
    per_utterance_j = j_from_kwh(stage.energy_kwh) / done.utterances
    return Cell(format_significant(per_utterance_j), per_utterance_j, energy.marks)


def _list_rows(results: Results) -> list[tuple[System, str, str]]:
    """List the rows: every test set at fp32, and whatever else anyone did."""
    sets = list(dict.fromkeys(results.trial_sets.values()))
    found = {(system.name, data_set, "fp32") for system in results.systems for data_set in sets}
    for system in results.systems:
        for item in system.extractions:
            if is_of_trained(item):
                found.add((system.name, item.data_set, item.precision))
        for score in system.scores:
            if score.backend == "cosine" and not score.untrained:
                found.add((system.name, score.data_set, score.precision))
        # A stage that failed left nothing but its energy.
        names = {stage.name for stage in system.stages if stage.stage == EXTRACT_STAGE}
        for data_set in sets:
            for precision in PRECISIONS:
                if f"extract_{extract_name(data_set, precision)}" in names:
                    found.add((system.name, data_set, precision))
    sets += sorted({data_set for _, data_set, _ in found} - set(sets))
    precisions = [*PRECISIONS, *sorted({precision for *_, precision in found} - set(PRECISIONS))]
    return [
        (system, data_set, precision)
        for data_set in sets
        for precision in precisions
        for system in results.systems
        if (system.name, data_set, precision) in found
    ]


def _lists_of(results: Results, data_set: str) -> tuple[str, ...]:
    """Give the trial lists of a test set that anyone has scored, else all of them."""
    lists = [name for name, of_set in results.trial_sets.items() if of_set == data_set]
    scores = [score for system in results.systems for score in system.scores]
    scored = {s.trials_name for s in scores if s.backend == "cosine" and not s.untrained}
    return tuple([name for name in lists if name in scored] or lists)
