"""Calibrated and fused scores: from score files of one or more systems to files of their own."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sv.errors import SvError
from sv.files import read_json, write_json
from sv.kaldi.trials import Trials, pair_keys, write_scores
from sv.score.calibration import Calibration, train_calibration
from sv.score.interval import compute_digest
from sv.score.metrics import compute_metrics
from sv.score.scored import read_scored

FACTS = ("trials_name", "data_set", "precision", "untrained")  # of a metrics file, kept


def read_systems(trials_path: Path, paths: Sequence[Path]) -> tuple[Trials, np.ndarray]:
    """Read a list and the scores of several systems on it: (trials, systems) float64."""
    read = [read_scored(trials_path, path) for path in paths]
    return read[0][0], np.column_stack([scores for _, scores in read])


def count_shared_trials(a: Trials, b: Trials) -> int:
    """Count the trials of ``a`` that are in ``b`` too, whichever side is enrolled."""
    place = {utterance: i for i, utterance in enumerate(a.utterances)}
    rows = np.array([place.get(utterance, -1) for utterance in b.utterances])
    enrol, test = rows[b.enrol], rows[b.test]
    known = (enrol >= 0) & (test >= 0)
    keys = [
        pair_keys(np.minimum(*sides), np.maximum(*sides), len(place))
        for sides in ((a.enrol, a.test), (enrol[known], test[known]))
    ]
    return int(np.count_nonzero(np.isin(*keys)))


def train_on_list(
    dev_trials: Path,
    dev_scores: Sequence[Path],
    evaluated: Trials,
    *,
    p_target: float,
    allow_shared: bool,
) -> tuple[Calibration, dict[str, object]]:
    """Train on a development list that is not the evaluated one.

    Args:
        dev_trials: The development list.
        dev_scores: Scores of each system on it.
        evaluated: The list to which the calibration will be applied.
        p_target: See `train_calibration`.
        allow_shared: Also if the two lists share trials; what is then measured is no longer
            what unseen speech would give.

    Returns:
        The calibration, and what a metrics file says about it.

    Raises:
        SvError: The lists share trials; also see `train_calibration`.
    """
    trials, scores = read_systems(dev_trials, dev_scores)
    shared = count_shared_trials(evaluated, trials)
    if shared and not allow_shared:
        raise SvError(
            f"{shared} of {len(evaluated.enrol)} trials to be scored are in the development list "
            f"{dev_trials}: take another list, or say --allow-shared true"
        )
    try:
        calibration = train_calibration(scores, trials.is_target, p_target=p_target)
    except SvError as error:
        raise SvError(f"{dev_trials}: {error}") from error
    targets = int(np.count_nonzero(trials.is_target))
    record = {
        **asdict(calibration),
        "dev_trials": dev_trials.name,
        "dev_trials_digest": compute_digest(trials),
        "dev_targets": targets,
        "dev_nontargets": len(trials.is_target) - targets,
        "shared_trials": shared,
    }
    return calibration, record


def write_results(
    out: Path,
    trials: Trials,
    scores: np.ndarray,
    *,
    backend: str,
    calibration: dict[str, object] | None,
    systems: Sequence[Path],
) -> dict[str, object]:
    """Write ``<out>.txt`` (scores) and ``<out>.json`` (metrics, with Cllr and actDCF of LLRs).

    The facts in the metrics of the first system (``<scores>.json``) are kept, if it has any, and
    ``backend`` is added to the name of its backend.

    Returns:
        The metrics.
    """
    beside = systems[0].with_suffix(".json")
    record = read_json(beside) if beside.is_file() else {}
    facts = {key: record[key] for key in FACTS if key in record}
    if "backend" in record:
        facts["backend"] = f"{record['backend']}_{backend}"
    metrics = compute_metrics(scores, trials.is_target, calibrated=calibration is not None)
    more = {"calibration": calibration, "systems": [str(path) for path in systems]}
    write_scores(Path(f"{out}.txt"), trials, scores)
    write_json(Path(f"{out}.json"), {**facts, **metrics, **more})
    return metrics
