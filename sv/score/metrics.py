"""EER, minDCF and DET curve from one sort of the scores (docs/design.md, section 8).

Float64 throughout. Equal scores are one threshold: a curve that steps inside a tie depends on
the order of the list. Both end points (accept all, reject all) belong to the curve.
"""

from dataclasses import dataclass

import numpy as np

from sv.errors import SvError

P_TARGETS = (0.01, 0.05, 0.001)  # 0.01 is the study's; the others stand beside it in Kaldi and NIST


@dataclass(frozen=True)
class ErrorCurve:
    """Error rates over thresholds: accept a score >= ``thresholds[i]``.

    ``p_miss`` rises from 0 to 1 and ``p_fa`` falls from 1 to 0; the last threshold is infinite.
    """

    thresholds: np.ndarray
    p_miss: np.ndarray
    p_fa: np.ndarray


def compute_error_curve(scores: np.ndarray, is_target: np.ndarray) -> ErrorCurve:
    """Compute miss and false-alarm rates at every threshold that matters.

    Args:
        scores: (trials,) finite floats; higher means more likely a target.
        is_target: (trials,) bool.

    Raises:
        SvError: No target or no nontarget trial, or a score that is NaN or infinite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    is_target = np.asarray(is_target, dtype=bool)
    bad = np.count_nonzero(~np.isfinite(scores))
    if bad:
        raise SvError(f"{bad} of {len(scores)} scores are NaN or infinite")
    targets = np.count_nonzero(is_target)
    nontargets = len(scores) - targets
    if not targets or not nontargets:
        raise SvError(f"{targets} target and {nontargets} nontarget trials: both are needed")
    order = np.argsort(scores)
    ordered = scores[order]
    # The first index of each run of equal scores, then the end: reject all.
    firsts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    targets_below = np.concatenate(([0], np.cumsum(is_target[order])))
    edges = np.append(firsts, len(ordered))
    missed = targets_below[edges]
    return ErrorCurve(
        thresholds=np.append(ordered[firsts], np.inf),
        p_miss=missed / targets,
        p_fa=(nontargets - (edges - missed)) / nontargets,
    )


def compute_eer(curve: ErrorCurve) -> tuple[float, float]:
    """Give the equal error rate (0 to 1) and its threshold.

    Where the two rates cross between two points, both are interpolated linearly.
    """
    difference = curve.p_miss - curve.p_fa  # rises from -1 to 1
    after = int(np.argmax(difference >= 0))
    before = after - 1  # never -1: the first difference is -1
    gap = difference[after] - difference[before]
    weight = -difference[before] / gap
    eer = curve.p_miss[before] + weight * (curve.p_miss[after] - curve.p_miss[before])
    low, high = curve.thresholds[before], curve.thresholds[after]
    # Exactly high where the rates are equal there: low + (high - low) may round above it.
    threshold = (1 - weight) * low + weight * high if np.isfinite(high) else low
    return float(eer), float(threshold)


def compute_min_dcf(curve: ErrorCurve, p_target: float) -> float:
    """Give the minimum detection cost, normalised by that of the better trivial decision.

    Costs of a miss and of a false alarm are 1.
    """
    costs = p_target * curve.p_miss + (1 - p_target) * curve.p_fa
    return float(costs.min() / min(p_target, 1 - p_target))


def compute_metrics(scores: np.ndarray, is_target: np.ndarray) -> dict[str, object]:
    """Compute what a metrics file holds; arguments and errors as `compute_error_curve`."""
    curve = compute_error_curve(scores, is_target)
    eer, threshold = compute_eer(curve)
    targets = int(np.count_nonzero(is_target))
    return {
        "trials": len(scores),
        "targets": targets,
        "nontargets": len(scores) - targets,
        "eer_percent": 100 * eer,
        "eer_threshold": threshold,
        "min_dcf": {f"{p:g}": compute_min_dcf(curve, p) for p in P_TARGETS},
    }


def thin_curve(curve: ErrorCurve, points: int) -> tuple[list[float], list[float]]:
    """Give at most ``points`` of the curve's (p_fa, p_miss), evenly along its path, ends included.

    Even steps in the probit plane would need the ends; even steps of the two rates lose the
    corners, where DET curves are read. So points are taken evenly in the rates' logarithms.
    """
    if len(curve.p_fa) <= points:
        return curve.p_fa.tolist(), curve.p_miss.tolist()
    floor = 1e-6  # below any rate a list of the study can show
    path = np.log(np.maximum(curve.p_miss, floor)) - np.log(np.maximum(curve.p_fa, floor))
    wanted = np.linspace(path[0], path[-1], points)
    chosen = np.unique(np.searchsorted(path, wanted).clip(0, len(path) - 1))
    chosen = np.union1d(chosen, [0, len(path) - 1])[: points - 1]
    chosen = np.union1d(chosen, [len(path) - 1])
    return curve.p_fa[chosen].tolist(), curve.p_miss[chosen].tolist()
