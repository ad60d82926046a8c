"""The energy of a stage's run over time, from its journal."""

from pathlib import Path

from sv.energy.attempt import build_attempt, build_curve, list_points
from sv.energy.journal import read_journal
from sv.energy.samples import split_attempts
from sv.energy.sidecar import find_run


def read_energy_series(journal: Path) -> list[tuple[float, float]]:
    """Read how a run's energy grew.

    Args:
        journal: Of a stage.

    Returns:
        Unix time and joules so far, attempt after attempt of the run that made the result (see
        `sv.energy.sidecar.find_run`); between two attempts the energy stays. Empty where no
        energy is known. The last joules are the sidecar's ``energy_kwh``.

    Raises:
        SvError: The journal cannot be read.
    """
    groups, _ = split_attempts(read_journal(journal))
    attempts = [build_attempt(i, lines) for i, lines in enumerate(groups, start=1)]
    series: list[tuple[float, float]] = []
    for lines in groups[find_run(attempts) :]:
        before_j = series[-1][1] if series else 0.0
        _, curve_j, _, _ = build_curve(lines)
        series += [(unix_s, before_j + joules) for unix_s, joules in list_points(lines, curve_j)]
    return series
