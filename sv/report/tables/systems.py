"""Tables 1 and 2: what training each system, and embedding a test set with it, took and gave.

The columns are those of the study's tables, so that they can be compared. Table 2 has two more
that do not depend on the size of the test set (energy per utterance, real-time factor) and, where a
lower precision was used, what it changes against fp32: the ratio of the energies and the difference
of the EERs. A system has a row for each backend that scored it; its energy stands in the first of
them alone.
"""

import math
from dataclasses import dataclass, replace

from sv.energy.units import j_from_kwh
from sv.errors import UsageError
from sv.report.noise import (
    describe_best,
    find_measured,
    mark_energies,
    mark_measures,
    measure_cells,
    note_ties,
)
from sv.report.results import (
    EXTRACT_STAGE,
    FAMILIES,
    P_TARGET,
    TRAIN_STAGE,
    Extraction,
    Results,
    Stage,
    System,
    absent_file,
    absent_stage,
    compute_average,
    extract_name,
    family_of,
    find_score,
    find_stage,
)
from sv.report.tables.cells import (
    BLANK,
    Cell,
    Column,
    Note,
    Row,
    Table,
    choose_units,
    fact_cell,
    figure_cell,
    format_difference,
    format_millions,
    format_significant,
    text_cell,
    unknown_cell,
)
from sv.report.tables.evidence import (
    ENERGY_COLUMNS,
    MEASURES,
    PROVENANCE_COLUMNS,
    backend_column,
    describe_scores,
    describe_status,
    energy_notes,
    explain_energies,
    explain_incomplete,
    provenance_cells,
    remark_notes,
    stage_cells,
)
from sv.score.bootstrap import subtract
from sv.score.config import PRECISIONS
from sv.score.record import ScoredList

_FULL = "fp32"
_FACTS = ("utterances", "audio_s", "frames", "device")
_ENERGIES = ("energy_kwh", "co2_kg", "duration_s", "j_per_utterance", "real_time_factor")
_CHANGES = (
    Column("energy_ratio", "kWh / fp32", marked=True),
    Column("eer_difference", "EER - fp32", marked=True),
)
_CHANGE_FACTS = ("energy_ratio_uncertainty", "eer_difference_low", "eer_difference_high")
_CHANGE_NOTE = Note(
    "kWh / fp32 and EER - fp32: against the same system's extraction in fp32; a difference marked "
    "≈ is within noise (its 95 % interval contains 0)."
)
_INTENSITIES = ("j_per_crop", "kwh_per_gmac", "mean_w")


def build_training_table(results: Results) -> Table:
    """Build Table 1: a row for each system and backend, a pair of columns for each trial list."""
    lists = list(results.trial_sets)
    average = "Average" if len(lists) > 1 else "".join(lists)
    rows = [_build_training(results, view) for view in results.views]
    columns = (
        Column("system", "System", numeric=False),
        backend_column(results),
        Column("family", "Family", numeric=False, csv_only=True),
        Column("parameters", "net", "Params (M)"),
        Column("parameters_with_head", "with head", "Params (M)"),
        *(Column(key, title, average, marked=True) for key, title in MEASURES.items()),
        *ENERGY_COLUMNS,
        *(
            Column(f"{key}_{name}", title, name, marked=True, csv_only=len(lists) == 1)
            for name in lists
            for key, title in MEASURES.items()
        ),
        *(Column(key, "", marked=True, csv_only=True) for key in _INTENSITIES),
        *PROVENANCE_COLUMNS,
    )
    columns = choose_units(columns, rows)
    for suffix in ("", *(f"_{name}" for name in results.scored)):
        for key in MEASURES:
            mark_measures(rows, f"{key}{suffix}")
    not_compared = mark_energies(rows)
    notes = [
        Note("Energy and CO2 are of training: the run that made the network."),
        Note("Params: rounded to three figures; the study cuts its own to whole millions."),
        Note(f"EER and minDCF (P_target {P_TARGET}) of {describe_scores(results)}, fp32."),
        *_list_notes(results),
        *describe_best(rows, results, "column"),
        *not_compared,
        *energy_notes(rows),
        *_untrained_notes(results),
        *note_ties(cell for row in rows for cell in row.cells.values()),
        *remark_notes(results),
    ]
    caption = "Size, verification performance and training energy of each system"
    return Table("table1", caption, columns, tuple(rows), tuple(notes))


def _start_row(
    view: System, lists: tuple[str, ...], precision: str, stage: Stage | None
) -> dict[str, Cell]:
    """Return the cells that both tables have, but for the energy."""
    return {
        "system": text_cell(view.name),
        "backend": text_cell(view.backend),
        **measure_cells(view, lists, precision=precision),
        **provenance_cells(stage),
    }


def _build_training(results: Results, view: System) -> Row:
    stage = view.training
    cells = _start_row(view, results.scored, "fp32", stage)
    cells["family"] = text_cell(family_of(view.name))
    for key in ("parameters", "parameters_with_head"):
        count = getattr(view.network, key, None)
        cells[key] = figure_cell(count, format_millions, absent_file(view, "model.json"))
    for name in results.trial_sets:
        cells |= measure_cells(view, (name,), suffix=f"_{name}")
    if view.is_first:
        cells |= stage_cells(stage, absent_stage(view, TRAIN_STAGE, "train"))
        cells |= _intensity_cells(view, stage, cells["energy_kwh"])
    else:
        cells |= dict.fromkeys(("energy_kwh", "co2_kg", *_INTENSITIES), BLANK)
    return Row(view.label, cells, FAMILIES[family_of(view.name)], stage)


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
    """Return the EER of each untrained network, where the recipe asked for it."""
    found = []
    for system in results.systems:
        eers = {score.trials_name: score.eer_percent for score in system.scores if score.untrained}
        parts = [f"{eers[name]:.1f} % ({name})" for name in results.trial_sets if name in eers]
        if parts:
            found.append(f"{system.name} {', '.join(parts)}")
    return [Note(f"EER of the untrained networks: {'; '.join(found)}.")] if found else []


# Table 2.


@dataclass(frozen=True)
class Inference:
    """A row: the extraction of a test set by a system at a precision, done or not."""

    view: System
    data_set: str
    precision: str

    @property
    def stage_name(self) -> str:
        """Name of the stage that extracts it."""
        return f"extract_{extract_name(self.data_set, self.precision)}"

    @property
    def stage(self) -> Stage | None:
        """The sidecar whose energy the row shows."""
        return find_stage(self.view, EXTRACT_STAGE, self.stage_name)

    @property
    def absent(self) -> str:
        """Why there is no sidecar, where there is none."""
        return absent_stage(self.view, EXTRACT_STAGE, self.stage_name)


def build_inference_table(results: Results, sets: tuple[str, ...] | None = None) -> Table:
    """Build Table 2: a section for each test set, fp32 rows first, each in the order of Table 1.

    Args:
        results: What stage 8 found.
        sets: The test sets to show; None: all.

    Raises:
        UsageError: One of ``sets`` is none that the recipe has.
    """
    sections = {name: _list_inferences(results, name) for name in choose_sets(results, sets)}
    found = [item for section in sections.values() for item in section]
    has_lower = any(item.precision != _FULL for item in found)
    columns = (
        Column("system", "System", numeric=False),
        backend_column(results),
        Column("test_set", "Test set", numeric=False, csv_only=True),
        *(Column(key, title, marked=True) for key, title in MEASURES.items()),
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
    means, not_compared = [], {}
    built = {
        name: [_build_inference(item, _list_trials(results, name)) for item in section]
        for name, section in sections.items()
    }
    columns = choose_units(columns, [row for members in built.values() for row in members])
    for data_set, members in built.items():
        lists = _list_trials(results, data_set)
        for key in MEASURES:
            mark_measures(members, key)
        not_compared |= {note.text: note for note in mark_energies(members)}
        if len(lists) > 1:
            means.append(Note(f"EER and minDCF of {data_set}: means of {', '.join(lists)}."))
        rows += members
    notes = [
        Note(
            "Energy, CO2 and wall time (hh:mm:ss) are of the whole extraction stage: starting the "
            "jobs, loading the network, reading features, embedding every utterance, writing."
        ),
        Note("Real-time factor: that wall time / duration of the speech; below 1 is faster."),
        Note(f"EER and minDCF (P_target {P_TARGET}) of {describe_scores(results)}."),
        *([_CHANGE_NOTE] if has_lower else []),
        *means,
        *describe_best(rows, results, "column and test set"),
        *not_compared.values(),
        *energy_notes(rows),
        *note_ties(row.cells[key] for row in rows for key in MEASURES),
        *remark_notes(results),
    ]
    caption = "Inference: extraction of the embeddings of a test set"
    return Table("table2", caption, columns, tuple(rows), tuple(notes))


# Which rows there are.


def choose_sets(results: Results, sets: tuple[str, ...] | None) -> list[str]:
    """Return ``sets`` in the order of the trial lists, then others that a system has extracted.

    Raises:
        UsageError: One of ``sets`` is none that the recipe has.
    """
    known = list(dict.fromkeys(results.trial_sets.values()))
    known += sorted({item.data_set for item in _list_done(results)}.difference(known))
    for name in sets or ():
        if name not in known:
            raise UsageError(f"no test set '{name}' (known: {', '.join(known) or 'none'})")
    return [name for name in known if sets is None or name in sets]


def prefer_sets(results: Results, preferred: list[str]) -> tuple[str, ...] | None:
    """Return those of ``preferred`` that some system has extracted; without any, None for all."""
    found = {item.data_set for item in _list_done(results)}
    return tuple(name for name in preferred if name in found) or None


def _list_done(results: Results) -> list[Extraction]:
    return [found for system in results.systems for found in system.extractions]


def _list_inferences(results: Results, data_set: str) -> list[Inference]:
    """List the rows of a test set: by precision, then by system in the order of Table 1.

    A precision that any system has tried has a row for every system; fp32 always has. So a system
    that could not be extracted at one precision has a row that says why.
    """
    tried = {_FULL} | {item.precision for item in _list_done(results) if item.data_set == data_set}
    for system in results.systems:
        tried |= {score.precision for score in _list_scores(system, data_set)}
        # A stage that failed left nothing but its energy.
        names = {stage.name for stage in system.stages if stage.number == EXTRACT_STAGE}
        tried |= {p for p in PRECISIONS if f"extract_{extract_name(data_set, p)}" in names}
    rows = []
    for precision in (*PRECISIONS, *sorted(tried.difference(PRECISIONS))):
        for view in results.views if precision in tried else ():
            scored = {(s.precision, s.backend) for s in _list_scores(view, data_set)}
            if view.is_first or (precision, view.backend) in scored:
                rows.append(Inference(view, data_set, precision))
    return rows


def _list_scores(system: System, data_set: str) -> list[ScoredList]:
    return [s for s in system.scores if s.data_set == data_set and not s.untrained]


def _list_trials(results: Results, data_set: str) -> tuple[str, ...]:
    """List the trial lists of a test set that the first backend has scored, else all of them."""
    lists = [name for name, of_set in results.trial_sets.items() if of_set == data_set]
    scores = [score for system in results.systems for score in system.scores]
    first = {s.trials_name for s in scores if s.backend == results.backends[0] and not s.untrained}
    return tuple([name for name in lists if name in first] or lists)


# What a row says.


def _build_inference(item: Inference, lists: tuple[str, ...]) -> Row:
    view, precision, stage = item.view, item.precision, item.stage
    of = (item.data_set, precision)
    done = next((e for e in view.extractions if (e.data_set, e.precision) == of), None)
    cells = _start_row(view, lists, precision, stage) | {
        "test_set": text_cell(item.data_set),
        "precision": Cell(precision.upper(), precision),
        **{key: fact_cell(getattr(done, key, None)) for key in _FACTS},
        "trial_lists": text_cell(" ".join(lists)),
        **_compare_eer(item, lists),
    }
    if view.is_first:
        cells |= _list_energies(item, stage, done)
    else:
        cells |= dict.fromkeys((*_ENERGIES, "energy_ratio"), BLANK)
        cells["energy_ratio_uncertainty"] = fact_cell(None)
    return Row(f"{view.label} {item.data_set} {precision}", cells, item.data_set, stage)


def _list_energies(
    item: Inference, stage: Stage | None, done: Extraction | None
) -> dict[str, Cell]:
    """Return the cells of `_ENERGIES` and of the change against fp32."""
    cells = stage_cells(stage, item.absent)
    energy = cells["energy_kwh"]
    cells |= _compare_energy(item, energy.marks)
    undivided = _explain_undivided(item, stage, done)
    if stage is None or done is None or undivided:
        cells["j_per_utterance"] = unknown_cell(energy.reason or undivided)
        cells["real_time_factor"] = unknown_cell(undivided)
        return cells
    known = stage.energy_kwh is not None and done.utterances
    value = j_from_kwh(stage.energy_kwh) / done.utterances if known else None
    cells["j_per_utterance"] = figure_cell(
        value, format_significant, energy.reason or "0 utterances were extracted", energy.marks,
        stage.path if known else None,
    )  # fmt: skip
    value = stage.sidecar.duration_s / done.audio_s if done.audio_s else None
    reason = f"no duration of the speech in {done.folder}/info.json"
    cells["real_time_factor"] = figure_cell(value, format_significant, reason)
    return cells


def _explain_undivided(item: Inference, stage: Stage | None, done: Extraction | None) -> str:
    """Say why a figure is not divided by what was done: a stage that failed did not do all."""
    if stage is None:
        return item.absent
    if stage.sidecar.status != "complete":
        return f"{stage.path.name} {describe_status(stage)}: utterances done are not known"
    if done is None:
        folder = f"xvectors_{extract_name(item.data_set, item.precision)}"
        return absent_file(item.view, f"{folder}/info.json")
    return ""


def _compare_energy(item: Inference, marks: tuple[str, ...]) -> dict[str, Cell]:
    """Return the ratio of the energy to that in fp32, and its uncertainty (k = 2)."""
    ratio_cell, spread = BLANK, None
    full = replace(item, precision=_FULL)
    stages = [one.stage for one in (full, item) if one.stage]
    if item.precision != _FULL:
        absent = [one.absent for one in (item, full) if one.stage is None]
        reasons = [*absent, *map(explain_incomplete, stages), *explain_energies(stages)]
        if reason := next(filter(None, reasons), ""):
            ratio_cell = unknown_cell(reason)
        else:
            full_kwh, kwh = (stage.energy_kwh or 0.0 for stage in stages)  # above 0, or a reason
            ratio_cell = figure_cell(kwh / full_kwh, format_significant, marks=marks)
            full_off, off = (stage.sidecar.uncertainty_kwh for stage in stages)
            if full_off is not None and off is not None:
                spread = kwh / full_kwh * math.hypot(full_off / full_kwh, off / kwh)
    return {"energy_ratio": ratio_cell, "energy_ratio_uncertainty": fact_cell(spread)}


def _compare_eer(item: Inference, lists: tuple[str, ...]) -> dict[str, Cell]:
    """Return the difference of the EER to that in fp32, over the lists scored in both."""
    view, precision, cell, interval = item.view, item.precision, BLANK, None
    both = tuple(n for n in lists if find_score(view, n) and find_score(view, n, precision))
    if precision != _FULL and not both:
        cell = unknown_cell("no list is scored in both precisions")
    elif precision != _FULL:
        lower, full = (compute_average(view, both, name).eer_percent for name in (precision, _FULL))
        assert lower is not None and full is not None  # both are scored
        a, b = (find_measured(view, both, "eer_percent", name) for name in (precision, _FULL))
        difference = subtract(a, b) if a and b else None
        interval = difference.interval if difference else None
        marks = ("within_noise",) if difference and difference.within_noise else ()
        cell = Cell(format_difference(lower - full, 3), lower - full, marks)
    low, high = interval or (None, None)
    ends = {"eer_difference_low": fact_cell(low), "eer_difference_high": fact_cell(high)}
    return {"eer_difference": cell, **ends}
