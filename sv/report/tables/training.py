"""Table 1: size, verification performance and training energy of each system.

The columns are those of the study's Table 1, so that the two can be compared. A system has a row
for each backend that scored it; its energy stands in the first of them alone.
"""

from sv.energy.units import j_from_kwh
from sv.report.noise import (
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
    figure_cell,
    format_millions,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.tables.evidence import (
    ENERGY_COLUMNS,
    MEASURES,
    PROVENANCE_COLUMNS,
    absent_file,
    absent_stage,
    backend_column,
    describe_scores,
    energy_notes,
    metric_cells,
    provenance_cells,
    score_cells,
    stage_cells,
)

_INTENSITIES = ("j_per_crop", "kwh_per_gmac", "mean_w")


def build_training_table(results: Results) -> Table:
    """Build Table 1: a row for each system and backend, a pair of columns for each trial list."""
    columns = (
        Column("system", "System", numeric=False),
        backend_column(results),
        Column("family", "Family", numeric=False, csv_only=True),
        Column("parameters", "net", "Params (M)"),
        Column("parameters_with_head", "with head", "Params (M)"),
        *(Column(key, title, "Average", marked=True) for key, title in MEASURES.items()),
        *ENERGY_COLUMNS,
        *(
            Column(f"{key}_{name}", title, name, marked=True)
            for name in results.trial_sets
            for key, title in MEASURES.items()
        ),
        *(Column(key, "", marked=True, csv_only=True) for key in _INTENSITIES),
        *PROVENANCE_COLUMNS,
    )
    views = list_views(results)
    trained = [
        find_stage(view, TRAIN_STAGE, "train") if view.backend == results.backends[0] else None
        for view in views
    ]
    rows = [_build_row(results, *pair) for pair in zip(views, trained, strict=True)]
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
        *_list_notes(results),
        *describe_best(rows, results, "column"),
        *not_compared,
        *energy_notes(labelled),
        *_untrained_notes(results),
        *note_ties(cell for row in rows for cell in row.cells.values()),
    ]
    caption = "Size, verification performance and training energy of each system"
    return Table("table1", caption, columns, tuple(rows), tuple(notes))


def _build_row(results: Results, view: System, stage: Stage | None) -> Row:
    average = compute_average(view, results.scored)
    cells = {
        "system": text_cell(view.name),
        "backend": text_cell(view.backend),
        "family": text_cell(family_of(view.name)),
        **metric_cells(average.eer_percent, average.min_dcf, average.reason, 2),
        **provenance_cells(stage),
    }
    for key in ("parameters", "parameters_with_head"):
        count = getattr(view.network, key, None)
        cells[key] = figure_cell(count, format_millions, absent_file(view, "model.json"))
    for name in results.trial_sets:
        cells |= score_cells(view, name, 2, suffix=f"_{name}")
    if view.backend == results.backends[0]:
        cells |= stage_cells(stage, absent_stage(view, f"{TRAIN_STAGE:02d}_train"))
        cells |= _intensity_cells(view, stage, cells["energy_kwh"])
    else:
        cells |= dict.fromkeys(("energy_kwh", "co2_kg", *_INTENSITIES), BLANK)
    return Row(name_view(results, view), cells, FAMILIES[family_of(view.name)])


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
    cells = [
        figure_cell(amount / each if each else None, format_significant, reason, energy.marks)
        for amount, each, reason in figures
    ]
    return dict(zip(_INTENSITIES, cells, strict=True))


def _list_notes(results: Results) -> list[Note]:
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
        found = {score.trials_name: score.eer_percent for score in system.scores if score.untrained}
        parts = [f"EER {found[n]:.1f} % ({n})" for n in results.trial_sets if n in found]
        if parts:
            notes.append(Note(f"untrained network: {system.name} {', '.join(parts)}"))
    return notes
