"""The points of EER against training energy, their Pareto front and its knee."""

from collections.abc import Sequence
from dataclasses import dataclass

from sv.report.advice import find_knee, pareto_front
from sv.report.noise import find_measured
from sv.report.results import TRAIN_STAGE, Results, Stage, compute_average, family_of, find_stage
from sv.report.tables.cells import MARKS
from sv.report.tables.evidence import explain_energies, explain_incomplete

_LEAST_POINTS = 2  # of a front


@dataclass(frozen=True)
class Point:
    """A system in the figure; ``stage`` is its training.

    ``eer_interval`` is the 95 % interval over speakers, None where it is not known.
    """

    label: str
    family: str
    energy_kwh: float
    eer_percent: float
    eer_interval: tuple[float, float] | None
    stage: Stage


def collect_points(results: Results, lists: tuple[str, ...]) -> tuple[list[Point], list[str]]:
    """Give the systems to show, and a line for each of the others."""
    points, left_out = [], []
    for system in results.systems:
        average = compute_average(system, lists)
        stage = find_stage(system, TRAIN_STAGE, "train")
        energy_kwh = stage.energy_kwh if stage else None
        if average.eer_percent is None or stage is None or not energy_kwh:
            lacks = "no training energy" if average.eer_percent is not None else average.reason
            left_out.append(f"{system.name} is not shown: {lacks}")
            continue
        measured = find_measured(system, lists, "eer_percent")
        points.append(
            Point(
                label=system.name + get_mark(stage),
                family=family_of(system.name),
                energy_kwh=energy_kwh,
                eer_percent=average.eer_percent,
                eer_interval=measured.interval if measured else None,
                stage=stage,
            )
        )
    return points, left_out


def choose_front(points: Sequence[Point]) -> tuple[list[int], int | None, str]:
    """Give the front and the knee, as indices of ``points``, and why there is no front.

    Only whole trainings can be on it, and only where their energies may be compared.
    """
    whole = [i for i, point in enumerate(points) if not explain_incomplete(point.stage)]
    obstacles = explain_energies([points[i].stage for i in whole])
    if obstacles:
        return [], None, f"no Pareto front: {'; '.join(obstacles)}"
    if len(whole) < _LEAST_POINTS:
        return [], None, ""
    places = [(points[i].energy_kwh, points[i].eer_percent) for i in whole]
    knee = find_knee(places)
    return [whole[i] for i in pareto_front(places)], None if knee is None else whole[knee.index], ""


def get_mark(stage: Stage) -> str:
    """Give the mark behind a system whose training is incomplete."""
    return MARKS["incomplete"] if explain_incomplete(stage) else ""
