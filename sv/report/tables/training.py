"""Table 1: size, verification performance and training energy of each system.

The columns are those of the study's Table 1, so that the two can be laid side by side.
"""

from sv.energy.units import j_from_kwh
from sv.report.noise import find_measured
from sv.report.results import (
    FAMILIES,
    P_TARGET,
    TRAIN_STAGE,
    Results,
    Stage,
    System,
    compute_average,
    family_of,
    find_score,
    find_stage,
)
from sv.report.tables.best import BEST_NOTE, TIE_NOTE, mark_energies, mark_measures
from sv.report.tables.cells import (
    Cell,
    Column,
    Note,
    Row,
    Table,
    format_millions,
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
    energy_cell,
    energy_notes,
    metric_cells,
    provenance_cells,
)

_METRICS = (("eer_percent", "EER (%)"), ("min_dcf", "minDCF"))
_INTENSITIES = ("j_per_crop", "kwh_per_gmac", "mean_w")


def build_training_table(results: Results) -> Table:
    """Build Table 1: a row for each system, a pair of columns for each trial list."""
    lists = results.trial_sets
    columns = (
        Column("system", "System", numeric=False),
        Column("family", "Family", numeric=False, csv_only=True),
        Column("parameters", "net", "Params (M)"),
        Column("parameters_with_head", "with head", "Params (M)"),
        *(Column(key, title, "Average", marked=True) for key, title in _METRICS),
        *ENERGY_COLUMNS,
        *(
            Column(f"{key}_{name}", title, name, marked=True)
            for name in lists
            for key, title in _METRICS
        ),
        *(Column(key, "", marked=True, csv_only=True) for key in _INTENSITIES),
        *PROVENANCE_COLUMNS,
    )
    rows = [_build_row(results, system) for system in results.systems]
    trained = [find_stage(system, TRAIN_STAGE, "train") for system in results.systems]
    not_compared = _mark_best(results, rows, trained)
    cells = [cell for row in rows for cell in row.cells.values()]
    names = [system.name for system in results.systems]
    notes = [
        Note("Energy and CO2 are of training: the run that made the network."),
        Note(f"EER and minDCF (P_target {P_TARGET}) of cosine scores, fp32."),
        *_average_notes(results),
        *([BEST_NOTE] if any(cell.best for cell in cells) else []),
        *not_compared,
        *energy_notes([(n, stage) for n, stage in zip(names, trained, strict=True) if stage]),
        *_untrained_notes(results),
        *([TIE_NOTE] if any("within_noise" in cell.marks for cell in cells) else []),
    ]
    caption = "Size, verification performance and training energy of each system"
    return Table("table1", caption, columns, tuple(rows), tuple(notes))


def _mark_best(results: Results, rows: list[Row], trained: list[Stage | None]) -> list[Note]:
    """Mark the best of each column, and measures within noise of it; say what is not compared."""
    columns = {f"_{name}": (name,) for name in results.scored} | {"": results.scored}
    for suffix, lists in columns.items():
        for key, _ in _METRICS:
            found = [find_measured(system, lists, key) for system in results.systems]
            measured = {place: item for place, item in enumerate(found) if item is not None}
            mark_measures(rows, f"{key}{suffix}", measured)
    return mark_energies(rows, trained)


def _build_row(results: Results, system: System) -> Row:
    stage = find_stage(system, TRAIN_STAGE, "train")
    absent = absent_stage(system, f"{TRAIN_STAGE:02d}_train")
    average = compute_average(system, results.scored)
    cells = {
        "system": text_cell(system.name),
        "family": text_cell(family_of(system.name)),
        **metric_cells(average.eer_percent, average.min_dcf, average.reason, decimals=2),
        "energy_kwh": energy_cell(stage, absent),
        "co2_kg": co2_cell(stage, absent),
        **_intensity_cells(system, stage, absent),
        **provenance_cells(stage),
    }
    for key in ("parameters", "parameters_with_head"):
        if system.network is None:
            cells[key] = unknown_cell(absent_file(system, "model.json"))
        else:
            count = getattr(system.network, key)
            cells[key] = Cell(format_millions(count), count)
    for name in results.trial_sets:
        score = find_score(system, name)
        eer_percent, min_dcf = None, None
        reason = absent_file(system, f"scores/{name}_cosine.json")
        if score is not None:
            eer_percent, min_dcf = score.eer_percent, score.min_dcf.get(P_TARGET)
            reason = f"no minDCF at P {P_TARGET} in {score.path.name}"
        cells |= metric_cells(eer_percent, min_dcf, reason, decimals=2, suffix=f"_{name}")
    return Row(system.name, cells, FAMILIES[family_of(system.name)])


def _intensity_cells(system: System, stage: Stage | None, absent: str) -> dict[str, Cell]:
    """Return J per crop trained, kWh per GMAC of one crop, and the mean power in W.

    GMAC is of a crop as trained; the power is of all machines and GPUs together.
    """
    energy = energy_cell(stage, absent)
    if stage is None or not stage.energy_kwh:
        unknown = unknown_cell(energy.reason or "the energy is 0")
        return dict.fromkeys(_INTENSITIES, unknown)
    lacks = "is not in model.json" if system.network else absent_file(system, "model.json")
    network = system.network
    energy_j = j_from_kwh(stage.energy_kwh)
    figures = (
        (energy_j, network and network.crops_trained, f"crops_trained {lacks}"),
        (stage.energy_kwh, network and network.gmac, f"gmac {lacks}"),
        (
            j_from_kwh(stage.energy_kwh),
            stage.sidecar.duration_s,
            f"no duration in {stage.path.name}",
        ),
    )
    cells = {}
    for key, (amount, divisor, reason) in zip(_INTENSITIES, figures, strict=True):
        value = amount / divisor if divisor else None
        cells[key] = (
            unknown_cell(reason)
            if value is None
            else Cell(format_significant(value), value, energy.marks)
        )
    return cells


def _average_notes(results: Results) -> list[Note]:
    notes = []
    if len(results.scored) > 1:
        notes.append(Note(f"Averages are over {', '.join(results.scored)}."))
    left_out = [name for name in results.trial_sets if name not in results.scored]
    if left_out:
        notes.append(Note(f"No system has been scored on {', '.join(left_out)}."))
    return notes


def _untrained_notes(results: Results) -> list[Note]:
    """Give the chance level of each network, where the recipe asked for it."""
    notes = []
    for system in results.systems:
        found = [find_score(system, name, untrained=True) for name in results.trial_sets]
        parts = [f"EER {score.eer_percent:.1f} % ({score.trials_name})" for score in found if score]
        if parts:
            notes.append(Note(f"untrained network: {system.name} {', '.join(parts)}"))
    return notes
