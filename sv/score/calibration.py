"""Linear calibration and fusion: scores of one or more systems become log-likelihood ratios.

Weights and offset are trained by logistic regression on a development list, weighted so that it
looks like a list with the wanted share of targets. One system: calibration, which changes no EER;
several: fusion.
Source: Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU
submission for the NIST SRE 2006", IEEE Trans. Audio, Speech, Language Processing 15(7), 2007.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from sv.errors import SvError

# No list with errors gives scores of deviation 1 a steeper slope than this.
_STEEPEST = 1e3


@dataclass(frozen=True)
class Calibration:
    """llr = ``weights`` . scores + ``offset``, trained for the prior ``p_target``."""

    weights: tuple[float, ...]
    offset: float
    p_target: float


def train_calibration(
    scores: np.ndarray, is_target: np.ndarray, *, p_target: float = 0.01
) -> Calibration:
    """Train weights and offset on a development list.

    Args:
        scores: (trials, systems) finite floats.
        is_target: (trials,) bool.
        p_target: Prior of a target where the scores will be used; errors near its threshold
            count most.

    Raises:
        SvError: One kind of trial only, constant scores, a list without errors (no finite
            slope is best), or a single system whose scores are higher for nontargets.
    """
    targets, nontargets = np.count_nonzero(is_target), np.count_nonzero(~is_target)
    if not targets or not nontargets:
        raise SvError(f"{targets} target and {nontargets} nontarget trials: both are needed")
    mean, deviation = scores.mean(axis=0), scores.std(axis=0)
    if not deviation.all():
        raise SvError("the development scores of a system are all the same: nothing to calibrate")
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

    start = np.zeros(x.shape[1])
    found = minimize(
        cost, start, jac=True, hess=curvature, method="trust-exact",
        options={"gtol": 1e-9, "maxiter": 500},
    )  # fmt: skip
    weights = found.x[:-1] / deviation
    if len(weights) == 1 and weights[0] <= 0:
        raise SvError("the development scores are higher for nontargets than for targets")
    fused = x @ found.x
    separated = fused[is_target].min() > fused[~is_target].max()
    if separated or np.abs(found.x).max() > _STEEPEST or not found.success:
        raise SvError(
            "the development list has next to no errors, so no slope is the best: use a harder "
            f"list ({targets} targets, {nontargets} nontargets)"
        )
    return Calibration(tuple(weights.tolist()), float(found.x[-1] - weights @ mean), p_target)


def apply_calibration(calibration: Calibration, scores: np.ndarray) -> np.ndarray:
    """Turn (trials, systems) scores into (trials,) log-likelihood ratios (natural logarithm)."""
    if scores.shape[1] != len(calibration.weights):
        raise SvError(
            f"scores of {scores.shape[1]} systems, but the calibration is of "
            f"{len(calibration.weights)}"
        )
    return scores @ np.array(calibration.weights) + calibration.offset
