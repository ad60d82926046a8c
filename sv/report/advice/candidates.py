"""The systems that advice may weigh against each other, and why others may not be.

A system takes part with an average EER that has replicates and the energy of a complete training.
All EERs are of the same draws of speakers and all energies of the same parts of the machines.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from sv.report.noise import Measured, find_measured
from sv.report.results import TRAIN_STAGE, Results, Stage, System, compute_average, find_stage
from sv.report.tables.evidence import explain_energies, explain_incomplete

LEAST_SYSTEMS = 3
LEAST_SPEAKERS = 25  # with fewer, intervals held the truth too rarely (sv.score.bootstrap)
_K = 2  # of uncertainty_kwh, as the sidecars give it
_SEED = 0
_LEAST_SHARE = 0.01  # of an energy: what a draw of a wide uncertainty is never below


@dataclass(frozen=True)
class Candidate:
    """A system with both figures; ``eer`` is the average over all lists scored, with replicates."""

    name: str
    stage: Stage
    kwh: float
    eer: Measured


@dataclass(frozen=True)
class Candidates:
    """The systems to weigh; ``left_out`` are the others with the reason.

    ``blocked`` says why nothing may be said of any; then the systems must not be compared.
    """

    systems: tuple[Candidate, ...]
    left_out: tuple[str, ...]
    blocked: tuple[str, ...]


def find_candidates(results: Results) -> Candidates:
    """Choose the systems that advice may weigh."""
    found: list[Candidate] = []
    left_out = []
    for system in results.systems:
        candidate = _find_candidate(results, system)
        if isinstance(candidate, Candidate):
            found.append(candidate)
        else:
            left_out.append(f"{system.name} is not weighed: {candidate}")
    draws = Counter(candidate.eer.draws for candidate in found)
    if len(draws) > 1:
        most = draws.most_common(1)[0][0]
        others = [candidate for candidate in found if candidate.eer.draws != most]
        found = [candidate for candidate in found if candidate.eer.draws == most]
        for candidate in others:
            reason = f"not the same trials, seed or number of replicates as {found[0].name}"
            left_out.append(f"{candidate.name} is not weighed: {reason}")
    return Candidates(tuple(found), tuple(left_out), tuple(_find_obstacles(results, found)))


def draw_energies(candidates: tuple[Candidate, ...]) -> np.ndarray:
    """Draw energies from their uncertainties, (systems, replicates) kWh.

    Normal and independent of each other; an energy whose uncertainty is not known stays as it is.
    """
    random = np.random.default_rng(_SEED)
    count = len(candidates[0].eer.replicates)
    rows = []
    for candidate in candidates:
        deviation = (candidate.stage.sidecar.uncertainty_kwh or 0.0) / _K
        drawn = candidate.kwh + deviation * random.standard_normal(count)
        rows.append(np.maximum(drawn, _LEAST_SHARE * candidate.kwh))
    return np.array(rows)


def _find_candidate(results: Results, system: System) -> Candidate | str:
    """Give the candidate, or why there is none."""
    stage = find_stage(system, TRAIN_STAGE, "train")
    if stage is None:
        return "no energy of its training"
    if reason := explain_incomplete(stage):
        return reason
    average = compute_average(system, results.scored)
    if average.eer_percent is None:
        return average.reason
    eer = find_measured(system, results.scored, "eer_percent")
    if eer is None:
        return "no replicates of its EER on every list (stage 7 writes them)"
    assert stage.energy_kwh is not None  # or it was incomplete
    return Candidate(system.name, stage, stage.energy_kwh, eer)


def _find_obstacles(results: Results, found: list[Candidate]) -> list[str]:
    reasons = []
    if len(found) < LEAST_SYSTEMS:
        reasons.append(
            f"{len(found)} of {len(results.systems)} systems have an EER with replicates and the "
            f"energy of a complete training, {LEAST_SYSTEMS} are needed"
        )
    reasons += explain_energies([candidate.stage for candidate in found])
    speakers = min((candidate.eer.speakers for candidate in found), default=None)
    if speakers is not None and speakers < LEAST_SPEAKERS:
        reasons.append(
            f"{speakers} speakers in a test list are too few, {LEAST_SPEAKERS} are needed"
        )
    elif any(candidate.eer.interval is None for candidate in found):
        reasons.append("replicates lack a kind of trials: the speakers are too few")
    return reasons
