"""Linear calibration: the scores of a system become log-likelihood ratios.

Weight and offset are trained by logistic regression on a development list, weighted so that it
looks like a list with the wanted share of targets. No order of the scores changes, so no EER does.
Source: Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU
submission for the NIST SRE 2006", IEEE Trans. Audio, Speech, Language Processing 15(7), 2007.
"""

from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from sv.errors import SvError
from sv.kaldi.trials import Trials
from sv.score.bootstrap import compute_digest
from sv.score.record import Calibration
from sv.score.trials import count_shared_trials, read_scored

# No list with errors gives scores of deviation 1 a steeper slope than this.
_STEEPEST = 1e3
_FLAT = 1e-6  # gradient of the cost at its minimum


def train_on_list(
    dev_trials: Path,
    dev_scores: Path,
    evaluated: Trials,
    *,
    p_target: float,
    allow_shared: bool,
) -> Calibration:
    """Train on a development list that is not the evaluated one.

    Args:
        dev_trials: The development list.
        dev_scores: The system's scores on it.
        evaluated: The list to which the calibration will be applied.
        p_target: See `train_calibration`.
        allow_shared: Also if the two lists share trials; what is then measured is no longer
            what unseen speech would give.

    Raises:
        SvError: The lists share trials; also see `train_calibration`.
    """
    trials, scores = read_scored(dev_trials, dev_scores)
    shared = count_shared_trials(evaluated, trials)
    if shared and not allow_shared:
        raise SvError(
            f"{shared} of {len(evaluated.enrol)} trials to be scored are in the development list "
            f"{dev_trials}: take another list, or say --allow-shared true"
        )
    try:
        weight, offset = train_calibration(scores, trials.is_target, p_target=p_target)
    except SvError as error:
        raise SvError(f"{dev_trials}: {error}") from error
    targets = int(np.count_nonzero(trials.is_target))
    return Calibration(
        weights=(weight,),
        offset=offset,
        p_target=p_target,
        dev_trials=dev_trials.name,
        dev_trials_digest=compute_digest(trials),
        dev_targets=targets,
        dev_nontargets=len(trials.is_target) - targets,
        shared_trials=shared,
    )


def train_calibration(
    scores: np.ndarray, is_target: np.ndarray, *, p_target: float = 0.01
) -> tuple[float, float]:
    """Train the weight and offset that make llr = weight x score + offset.

    Args:
        scores: (trials,) finite floats.
        is_target: (trials,) bool.
        p_target: Prior of a target where the scores will be used; errors near its threshold
            count most.

    Raises:
        SvError: One kind of trial only, constant scores, a list without errors (no finite
            slope is best), or scores that are higher for nontargets.
    """
    targets, nontargets = np.count_nonzero(is_target), np.count_nonzero(~is_target)
    if not targets or not nontargets:
        raise SvError(f"{targets} target and {nontargets} nontarget trials: both are needed")
    mean, deviation = scores.mean(), scores.std()
    if not deviation:
        raise SvError("the development scores are all the same: nothing to calibrate")
    prior = np.log(p_target / (1 - p_target))
    x = np.column_stack([(scores - mean) / deviation, np.ones(len(scores))])
    sign = np.where(is_target, 1.0, -1.0)
    share = np.where(is_target, p_target / targets, (1 - p_target) / nontargets)

    def cost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        logit = sign * (x @ theta + prior)
        slope = -share * sign * expit(-logit)
        return float(share @ np.logaddexp(0, -logit)), slope @ x

    def curvature(theta: np.ndarray) -> np.ndarray:
        p = expit(x @ theta + prior)
        return (x * (share * p * (1 - p))[:, None]).T @ x

    found = minimize(
        cost, np.zeros(2), jac=True, hess=curvature, method="trust-exact",
        options={"gtol": 1e-9, "maxiter": 500},
    )  # fmt: skip
    if found.x[0] <= 0:
        raise SvError("the development scores are higher for nontargets than for targets")
    separated = scores[is_target].min() > scores[~is_target].max()
    # Not found.success: it is False where the last steps gain less than rounding.
    if separated or np.abs(found.x).max() > _STEEPEST or np.abs(found.jac).max() > _FLAT:
        raise SvError(
            "the development list has next to no errors, so no slope is the best: use a harder "
            f"list ({targets} targets, {nontargets} nontargets)"
        )
    weight = found.x[0] / deviation
    return float(weight), float(found.x[1] - weight * mean)
