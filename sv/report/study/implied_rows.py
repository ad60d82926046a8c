"""The rows of table ``implied`` before anything is divided: the study's figures, and ours."""

from dataclasses import dataclass
from typing import Any

from sv.report.records import (
    EXTRACT_STAGE,
    TRAIN_STAGE,
    Results,
    System,
    extract_name,
    find_stage,
)
from sv.report.stage_energy import StageEnergy
from sv.report.study.disagreements import inference_key
from sv.report.study.published import Printed, Study
from sv.report.tables.cells import Cell, unknown_cell
from sv.report.tables.evidence import energy_cell
from sv.report.tables.provenance import absent_file, absent_stage

G_PER_KG = 1000
STUDY = "Study"  # how the sections of published rows begin


@dataclass(frozen=True)
class Known:
    """What one row divides; ``key`` is unique in its section.

    ``why`` says why a part is None; ``stage`` is None for what others published.
    """

    key: str
    section: str
    system: str
    energy: Cell
    co2_kg: float | None
    gmac: float | None
    crops: float | None
    duration_s: float | None
    why: dict[str, str]
    trained: bool
    stage: StageEnergy | None = None


def list_known(results: Results, study: Study) -> list[Known]:
    """List the study's trainings, ours, then extractions of the study's test sets."""
    known = [*_published_trainings(study), *_our_trainings(results)]
    return known + [*_published_inferences(study), *_our_inferences(results, study)]


def _published_trainings(study: Study) -> list[Known]:
    assumed, stated = study.about.assumed, study.about.stated
    crops = stated.epochs * assumed.utterances * assumed.crops_per_utterance
    why = {
        "co2": "not in the study's Table 1",
        "gmac": "not in table1.csv",
        "duration": "the study gives no training time",
    }
    return [
        Known(
            key=row.model,
            section=f"{STUDY}, training (Table 1)",
            system=row.study_name,
            energy=_printed_energy(row.energy_kwh, "Table 1"),
            co2_kg=row.co2_kg.value if row.co2_kg else None,
            gmac=row.gmac.value if row.gmac else None,
            crops=float(crops),
            duration_s=None,
            why=why,
            trained=True,
        )
        for row in study.trainings
    ]


def _published_inferences(study: Study) -> list[Known]:
    gmacs = {row.model: row.gmac for row in study.trainings}
    found = []
    for row in study.inferences:
        gmac = gmacs.get(row.model)
        if row.energy_kwh is None:
            continue  # a row without a figure implies nothing
        why = {key: "not in the study's Table 2" for key in ("co2", "duration")}
        found.append(
            Known(
                key=inference_key(row),
                section=_inference_section(STUDY, row.trials, row.precision),
                system=row.study_name,
                energy=_printed_energy(row.energy_kwh, "Table 2"),
                co2_kg=row.co2_kg.value if row.co2_kg else None,
                gmac=gmac.value if gmac else None,
                crops=None,
                duration_s=row.duration_s.value if row.duration_s else None,
                why={**why, "gmac": "not in table1.csv"},
                trained=False,
            )
        )
    return found


def _our_trainings(results: Results) -> list[Known]:
    found = []
    for system in results.systems:
        stage = find_stage(system, TRAIN_STAGE, "train")
        if stage is not None:
            network = system.network or {}
            crops = network.get("crops_trained")
            known = _our_row(system, stage, system.name, "Ours, training", trained=True)
            found.append(Known(**{**known, "crops": crops}))
    return found


def _our_inferences(results: Results, study: Study) -> list[Known]:
    found = []
    for trials, precision in dict.fromkeys((row.trials, row.precision) for row in study.inferences):
        data_set = results.trial_sets.get(trials)
        for system in results.systems if data_set else ():
            name = f"extract_{extract_name(str(data_set), precision)}"
            stage = find_stage(system, EXTRACT_STAGE, name)
            if stage is not None:
                key = f"{system.name} {trials} {precision}"
                section = _inference_section("Ours", trials, precision)
                found.append(Known(**_our_row(system, stage, key, section, trained=False)))
    return found


def _our_row(
    system: System, stage: StageEnergy, key: str, section: str, *, trained: bool
) -> dict[str, Any]:
    network = system.network or {}
    lacks = "is not in model.json" if system.network else absent_file(system, "model.json")
    co2_kg = None if stage.co2_g is None else stage.co2_g / G_PER_KG
    return {
        "key": key,
        "section": section,
        "system": system.name,
        "energy": energy_cell(stage, absent_stage(system, f"{stage.stage:02d}_{stage.name}")),
        "co2_kg": co2_kg,
        "gmac": network.get("gmac"),
        "crops": None,
        "duration_s": stage.duration_s,
        "why": {
            "co2": f"no CO2 in {stage.path.name}",
            "gmac": f"gmac {lacks}",
            "crops": f"crops_trained {lacks}",
            "duration": f"no duration in {stage.path.name}",
        },
        "trained": trained,
        "stage": stage,
    }


def _inference_section(whose: str, trials: str, precision: str) -> str:
    table = " (Table 2)" if whose == STUDY else ""
    return f"{whose}, extraction for {trials} in {precision}{table}"


def _printed_energy(printed: Printed | None, table: str) -> Cell:
    if printed is None:
        return unknown_cell(f"not in the study's {table}")
    return Cell(printed.text, printed.value)
