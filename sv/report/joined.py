"""results.json of a model: its metrics and its energy in one place, for other programs."""

import dataclasses
from pathlib import Path
from typing import Any

from sv.files import write_json
from sv.report.records import (
    EXTRACT_STAGE,
    TRAIN_STAGE,
    Results,
    StageEnergy,
    System,
    compute_average,
    extract_name,
    family_of,
    find_stage,
    is_of_trained,
)
from sv.score.record import ScoredList

_METRICS = (
    "trials_name", "data_set", "backend", "precision", "untrained", "trials", "targets",
    "nontargets", "eer_percent", "eer_threshold", "min_dcf",
)  # fmt: skip


def write_model_results(results: Results) -> list[Path]:
    """Write <exp>/<model>/results.json of every system that has a folder."""
    paths = []
    for system in results.systems:
        if system.directory.is_dir():
            path = system.directory / "results.json"
            write_json(path, join_model(results, system))
            paths.append(path)
    return paths


def join_model(results: Results, system: System) -> dict[str, Any]:
    """Join what is known of one system; unknown is null. Energy in kWh, CO2 in g."""
    average = compute_average(system, results.scored)
    extractions = []
    for found in system.extractions:
        if not is_of_trained(found):
            continue
        name = f"extract_{extract_name(found.data_set, found.precision)}"
        stage = find_stage(system, EXTRACT_STAGE, name)
        extractions.append({**dataclasses.asdict(found), "energy": _energy(stage)})
    return {
        "name": system.name,
        "family": family_of(system.name),
        "network": system.network,
        "average": {
            "trial_lists": list(results.scored),
            "eer_percent": average.eer_percent,
            "min_dcf": average.min_dcf,
            "reason": average.reason or None,
        },
        "scores": [_metrics(score) for score in system.scores],
        "training": _energy(find_stage(system, TRAIN_STAGE, "train")),
        "extractions": extractions,
        "stages": [_energy(stage) for stage in system.stages],
    }


def _metrics(score: ScoredList) -> dict[str, Any]:
    """Return the metrics of a list; long lists stay in the files next to the metrics file."""
    pairs = {p: pair for p, pair in (score.min_dcf_interval or {}).items() if pair is not None}
    return {
        "path": f"scores/{score.path.name}",
        **{key: getattr(score, key) for key in _METRICS},
        "eer_interval": score.eer_percent_interval,
        "min_dcf_interval": pairs,
        "backend_parameters": score.backend_parameters,
    }


def _energy(stage: StageEnergy | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    fields = dataclasses.asdict(stage)
    return {**fields, "path": f"energy/{stage.path.name}"}
