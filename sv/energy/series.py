"""The energy of a stage's run over time, from its journal."""

from pathlib import Path
from typing import Any

from sv.energy.attempt import build_curve, list_points
from sv.energy.journal import read_journal
from sv.energy.samples import AttemptLines, split_attempts
from sv.energy.sidecar import _find_run, build_any_attempt, read_nodes


def read_energy_series(journal: Path) -> list[tuple[float, float]]:
    """Read how a run's energy grew.

    Args:
        journal: Of a stage; those of its other meters lie beside it.

    Returns:
        Unix time and joules so far, attempt after attempt of the run that made the result (see
        `sv.energy.sidecar.find_run`); between two attempts the energy stays. Empty where no
        energy is known. The last joules are the sidecar's ``energy_kwh``.

    Raises:
        SvError: The journal cannot be read.
    """
    groups, _ = split_attempts(read_journal(journal))
    nodes = read_nodes(journal)
    attempts = [build_any_attempt(i, lines, nodes.get(i)) for i, lines in enumerate(groups, 1)]
    series: list[tuple[float, float]] = []
    first = _find_run(attempts)
    for number, lines in enumerate(groups[first:], start=first + 1):
        before_j = series[-1][1] if series else 0.0
        points = _list_points(lines, nodes.get(number))
        series += [(unix_s, before_j + joules) for unix_s, joules in points]
    return series


def _list_points(lines: AttemptLines, nodes: Any) -> list[tuple[float, float]]:
    if nodes is None:
        _, curve_j, _, _ = build_curve(lines)
        return list_points(lines, curve_j)
    from sv.energy.fleet.attempt import build_fleet  # noqa: PLC0415 - one machine needs none

    return build_fleet(lines, nodes).list_points()
