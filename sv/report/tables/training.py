"""Table 1: size, verification performance and training energy of each system.

The columns are those of the study's Table 1, so that the two can be compared. A system has a row
for each backend that scored it; its energy stands in the first of them alone.
"""

from sv.energy.units import j_from_kwh
from sv.report.noise import (
    MEASURES,
    describe_best,
    find_measured,
    mark_energies,
    mark_measures,
    note_ties,
)
from sv.report.results import (
    FAMILIES,
    P_TARGET,
    TRAIN_STAGE,
    Results,
    Stage,
    System,
    compute_average,
    family_of,
    find_stage,
    list_views,
    name_view,
)
from sv.report.tables.cells import (
    BLANK,
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
    backend_column,
    co2_cell,
    describe_scores,
    energy_cell,
    energy_notes,
    metric_cells,
    provenance_cells,
    score_cells,
)

_METRICS = (("eer_percent", "EER (%)"), ("min_dcf", "minDCF"))
_INTENSITIES = ("j_per_crop", "kwh_per_gmac", "mean_w")


def build_training_table(results: Results) -> Table:
    """Build Table 1: a row for each system and backend, a pair of columns for each trial list."""
    columns = (
        Column("system", "System", numeric=False),
        backend_column(results),
        Column("family", "Family", numeric=False, csv_only=True),
        Column("parameters", "net", "Params (M)"),
        Column("parameters_with_head", "with head", "Params (M)"),
        *(Column(key, title, "Average", marked=True) for key, title in _METRICS),
        *ENERGY_COLUMNS,
        *(
            Column(f"{key}_{name}", title, name, marked=True)
            for name in results.trial_sets
            for key, title in _METRICS
        ),
        *(Column(key, "", marked=True, csv_only=True) for key in _INTENSITIES),
        *PROVENANCE_COLUMNS,
    )
    views = list_views(results)
    trained = [_find_training(results, view) for view in views]
    rows = [_build_row(results, view) for view in views]
    lists = {f"_{name}": (name,) for name in results.scored} | {"": results.scored}
    for suffix, names in lists.items():
        for key in MEASURES:
            measured = [find_measured(view, names, key) for view in views]
            mark_measures(rows, f"{key}{suffix}", measured)
    not_compared = mark_energies(rows, trained)
    labelled = [(row.label, s) for row, s in zip(rows, trained, strict=True) if s is not None]
    notes = [
        Note("Energy and CO2 are of training: the run that made the network."),
        Note(f"EER and minDCF (P_target {P_TARGET}) of {describe_scores(results)}, fp32."),
        *_average_notes(results),
        *describe_best(rows, results, "column"),
        *not_compared,
        *energy_notes(labelled),
        *_untrained_notes(results),
        *note_ties(cell for row in rows for cell in row.cells.values()),
    ]
    caption = "Size, verification performance and training energy of each system"
    return Table("table1", caption, columns, tuple(rows), tuple(notes))


def _find_training(results: Results, view: System) -> Stage | None:
    """Find the training whose energy a row shows: in the row of the first backend alone."""
    if view.backend != results.backends[0]:
        return None
    return find_stage(view, TRAIN_STAGE, "train")


def _build_row(results: Results, view: System) -> Row:
    average = compute_average(view, results.scored)
    cells = {
        "system": text_cell(view.name),
        "backend": text_cell(view.backend),
        "family": text_cell(family_of(view.name)),
        **metric_cells(average.eer_percent, average.min_dcf, average.reason, decimals=2),
    }
    for key in ("parameters", "parameters_with_head"):
        if view.network is None:
            cells[key] = unknown_cell(absent_file(view, "model.json"))
        else:
            count = getattr(view.network, key)
            cells[key] = Cell(format_millions(count), count)
    for name in results.trial_sets:
        cells |= score_cells(view, name, decimals=2, suffix=f"_{name}")
    stage = _find_training(results, view)
    cells |= provenance_cells(stage)
    label, section = name_view(results, view), FAMILIES[family_of(view.name)]
    if view.backend == results.backends[0]:
        absent = absent_stage(view, f"{TRAIN_STAGE:02d}_train")
        cells |= {"energy_kwh": energy_cell(stage, absent), "co2_kg": co2_cell(stage, absent)}
        return Row(label, cells | _intensity_cells(view, stage, cells["energy_kwh"]), section)
    cells |= dict.fromkeys(("energy_kwh", "co2_kg", *_INTENSITIES), BLANK)
    return Row(label, cells, section)


def _intensity_cells(system: System, stage: Stage | None, energy: Cell) -> dict[str, Cell]:
    """Return J per crop trained, kWh per GMAC of one crop, and the mean power in W.

    GMAC is of a crop as trained; the power is of all machines and GPUs together.
    """
    if stage is None or not stage.energy_kwh:
        return dict.fromkeys(_INTENSITIES, unknown_cell(energy.reason or "the energy is 0"))
    network = system.network
    lacks = "is not in model.json" if network else absent_file(system, "model.json")
    energy_j = j_from_kwh(stage.energy_kwh)
    figures = (
        (energy_j, network and network.crops_trained, f"crops_trained {lacks}"),
        (stage.energy_kwh, network and network.gmac, f"gmac {lacks}"),
        (energy_j, stage.sidecar.duration_s, f"no duration in {stage.path.name}"),
    )
    cells = {}
    for key, (amount, divisor, reason) in zip(_INTENSITIES, figures, strict=True):
        cells[key] = unknown_cell(reason)
        if divisor:
            value = amount / divisor
            cells[key] = Cell(format_significant(value), value, energy.marks)
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
    """Return the chance level of each network, where the recipe asked for it."""
    notes = []
    for system in results.systems:
        found = {score.trials_name: score for score in system.scores if score.untrained}
        eers = {n: found[n].eer_percent for n in results.trial_sets if n in found}
        parts = [f"EER {eer_percent:.1f} % ({name})" for name, eer_percent in eers.items()]
        if parts:
            notes.append(Note(f"untrained network: {system.name} {', '.join(parts)}"))
    return notes
