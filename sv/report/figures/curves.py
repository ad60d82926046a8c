"""The points of the figures of training: work against energy, and EER while energy is spent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sv.errors import SvError
from sv.report.fields import find_first, read_sidecar, take_number, take_part, take_text
from sv.report.figures.points import get_mark
from sv.report.records import TRAIN_STAGE, Results, System, family_of, find_stage
from sv.report.stage_energy import StageEnergy
from sv.report.tables.evidence import explain_incomplete, list_some


@dataclass(frozen=True)
class Work:
    """What a training computed and used.

    ``gmac`` are the multiply-accumulates (10^9) of the forward passes of its crops; backward
    passes, validation and the head are in the energy and not in them. ``stage`` is the training.
    """

    label: str
    family: str
    gmac: float
    energy_kwh: float
    stage: StageEnergy


@dataclass(frozen=True)
class LearningCurve:
    """Validation EER at the end of epochs, against the energy of the run up to then."""

    system: str
    epochs: tuple[int, ...]
    energy_kwh: tuple[float, ...]
    eer_percent: tuple[float, ...]
    share: float | None


def collect_work(results: Results) -> tuple[list[Work], list[str]]:
    """Give work and energy of every training, and a line for each system left out."""
    found, left_out = [], []
    for system in results.systems:
        stage = find_stage(system, TRAIN_STAGE, "train")
        gmac, lacks = _find_gmac(system)
        if gmac is None:
            left_out.append(f"{system.name} is not shown: {lacks}")
        elif stage is None or not stage.energy_kwh:
            left_out.append(f"{system.name} is not shown: no training energy")
        else:
            found.append(
                Work(
                    label=system.name + get_mark(stage),
                    family=family_of(system.name),
                    gmac=gmac,
                    energy_kwh=stage.energy_kwh,
                    stage=stage,
                )
            )
            left_out += [f"{system.name}: {lacks}"] if lacks else []
    return found, left_out


def _find_gmac(system: System) -> tuple[float | None, str]:
    """Give the forward GMAC of a training; why it is not known, or what it does not tell."""
    path = system.directory / "model.json"
    network = system.network
    if network is None:
        return None, "no model.json"
    gmac, crops = (take_number(network, key, path) for key in ("gmac", "crops_trained"))
    if not gmac or not crops:
        return None, f"no gmac or crops_trained in {path.name}"
    phases = take_part(network, "crops_by_phase", dict, path)
    longer = [name for name, count in list(phases.items())[1:] if count]
    note = f"the crops of {', '.join(longer)} are longer and are counted as the first phase's"
    return gmac * crops, note if longer else ""


def find_cheapest(found: list[Work]) -> Work | None:
    """Give the training of least energy per GMAC, a whole one if there is any."""
    whole = [work for work in found if not explain_incomplete(work.stage)] or found
    return min(whole, key=lambda work: work.energy_kwh / work.gmac, default=None)


def collect_learning(results: Results) -> tuple[list[LearningCurve], list[str]]:
    """Give the learning curve of every system, and a line for what is left out of it."""
    curves, left_out = [], []
    for system in results.systems:
        stage = find_stage(system, TRAIN_STAGE, "train")
        if stage is None:
            left_out.append(f"{system.name} is not shown: no training energy")
            continue
        points, lacking = read_epochs(stage)
        for reason, numbers in lacking.items():
            epochs = [str(number) for number in numbers]
            left_out.append(f"{system.name} without epoch {list_some(epochs)}: {reason}")
        if points:
            # An epoch that a later attempt did again is there as it was in the end.
            rows = [(epoch, *points[epoch]) for epoch in sorted(points)]
            curves.append(
                LearningCurve(system.name, *zip(*rows, strict=True), stage.measured_fraction)
            )
        elif not lacking:
            left_out.append(f"{system.name} is not shown: no epochs in {stage.path.name}")
    return curves, left_out


def read_epochs(
    stage: StageEnergy,
) -> tuple[dict[int, tuple[float, float]], dict[str, list[int]]]:
    """Read the epochs of a training from the marks in its sidecar.

    Returns:
        Epoch -> kWh of the run up to its end (attempts that were gone on from included) and
        validation EER in percent; and reason -> the epochs that lack one of them.
    """
    points: dict[int, tuple[float, float]] = {}
    lacking: dict[str, list[int]] = {}
    before_kwh: float | None = 0.0
    for attempt in read_run(stage):
        for mark in _list_epochs(attempt, stage):
            epoch = int(take_number(mark, "epoch", stage.path) or 0)
            eer_percent = take_number(mark, "valid_eer_percent", stage.path)
            spent_kwh = take_number(mark, "energy_kwh", stage.path)
            reason = ""
            if before_kwh is None:
                reason = "the energy of an attempt before it is not known"
            elif spent_kwh is None:
                reason = take_text(mark, "energy_reason") or "its energy is not known"
            elif eer_percent is None:
                reason = "no validation EER"
            if reason:
                lacking.setdefault(reason, []).append(epoch)
                continue
            assert before_kwh is not None and spent_kwh is not None and eer_percent is not None
            points[epoch] = (before_kwh + spent_kwh, eer_percent)
        energy_kwh = take_number(attempt, "energy_kwh", stage.path)
        known = before_kwh is not None and energy_kwh is not None
        before_kwh = before_kwh + energy_kwh if known else None
    missing = {reason: [n for n in epochs if n not in points] for reason, epochs in lacking.items()}
    return points, {reason: epochs for reason, epochs in missing.items() if epochs}


def read_run(stage: StageEnergy) -> list[dict[str, Any]]:
    """Read the attempts of the run that made a stage's result from its sidecar.

    Raises:
        SvError: An attempt is not an object.
    """
    attempts = take_part(read_sidecar(stage.path), "attempts", list, stage.path)
    if not all(isinstance(attempt, dict) for attempt in attempts):
        raise SvError(f"{stage.path}: an attempt is not an object")
    # What a hand-made sidecar may lack.
    attempts = [{"marks": [], "status": "", "resumed": False, **attempt} for attempt in attempts]
    return attempts[find_first(attempts) :] if attempts else []


def _list_epochs(attempt: dict[str, Any], stage: StageEnergy) -> Iterator[dict[str, Any]]:
    for mark in take_part(attempt, "marks", list, stage.path):
        if isinstance(mark, dict) and mark.get("mark") == "epoch":
            yield mark
