"""The points of the figures of training: work against energy, and EER while energy is spent."""

from dataclasses import dataclass

from sv.report.figures.points import get_mark
from sv.report.results import TRAIN_STAGE, Results, Stage, System, family_of, find_stage
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
    stage: Stage


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
    """Return the forward GMAC of a training; why it is not known, or what it leaves out."""
    network = system.network
    if network is None:
        return None, "no model.json"
    if not network.gmac or not network.crops_trained:
        return None, "no gmac or crops_trained in model.json"
    phases = network.crops_by_phase or {}
    longer = [name for name, count in list(phases.items())[1:] if count]
    note = f"the crops of {', '.join(longer)} are longer and are counted as the first phase's"
    return network.gmac * network.crops_trained, note if longer else ""


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
                LearningCurve(
                    system.name, *zip(*rows, strict=True), stage.sidecar.measured_fraction
                )
            )
        elif not lacking:
            left_out.append(f"{system.name} is not shown: no epochs in {stage.path.name}")
    return curves, left_out


def read_epochs(
    stage: Stage,
) -> tuple[dict[int, tuple[float, float]], dict[str, list[int]]]:
    """Read the epochs of a training from the marks in its sidecar.

    Returns:
        Epoch -> kWh of the run up to its end (resumed attempts included) and validation EER in
        percent; and reason -> the epochs that lack one of them.
    """
    points: dict[int, tuple[float, float]] = {}
    lacking: dict[str, list[int]] = {}
    before_kwh: float | None = 0.0
    for attempt in stage.sidecar.run:
        for mark in attempt.marks:
            if mark.mark != "epoch":
                continue
            epoch = int(mark.payload.get("epoch", 0))
            eer_percent = mark.payload.get("valid_eer_percent")
            if before_kwh is None:
                reason = "the energy of an attempt before it is not known"
            elif mark.energy_kwh is None:
                reason = mark.energy_reason or "its energy is not known"
            elif eer_percent is None:
                reason = "no validation EER"
            else:
                points[epoch] = (before_kwh + mark.energy_kwh, float(eer_percent))
                continue
            lacking.setdefault(reason, []).append(epoch)
        known = before_kwh is not None and attempt.energy_kwh is not None
        before_kwh = before_kwh + attempt.energy_kwh if known else None
    missing = {reason: [n for n in epochs if n not in points] for reason, epochs in lacking.items()}
    return points, {reason: epochs for reason, epochs in missing.items() if epochs}
