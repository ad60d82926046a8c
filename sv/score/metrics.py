"""EER, minDCF, actDCF, Cllr, DET curve and histogram of scores (docs/design.md, section 9).

Float64 throughout. Equal scores are one threshold: a curve that steps inside a tie depends on
the order of the list. Both end points (accept all, reject all) belong to the curve.

Nothing walks the whole curve: targets and nontargets are sorted apart, and the points that a
measure needs are searched for, so that ten million scores cost little more than their sort.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from sv.errors import SvError
from sv.score.record import Det, Histogram, Metrics

BINS = 100  # of a histogram
DET_POINTS = 500  # enough for a smooth curve on paper
COARSE = 256  # targets between two points of the first search for the lowest cost
THREADED = 1 << 18  # scores; of fewer the sort costs less than the start of two threads
P_TARGETS = (0.01, 0.05, 0.001)  # 0.01 is the study's; the others are usual in Kaldi and NIST


@dataclass(frozen=True)
class ErrorCurve:
    """Error rates over thresholds: accept a score >= threshold.

    ``targets`` and ``nontargets`` are their scores, sorted float64.
    """

    targets: np.ndarray
    nontargets: np.ndarray


def compute_error_curve(scores: np.ndarray, is_target: np.ndarray) -> ErrorCurve:
    """Sort the scores of targets and of nontargets.

    Args:
        scores: (trials,) finite floats; higher means more likely a target.
        is_target: (trials,) bool.

    Raises:
        SvError: No target or no nontarget trial, or a score that is NaN or infinite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    is_target = np.asarray(is_target, dtype=bool)
    if bad := np.count_nonzero(~np.isfinite(scores)):
        raise SvError(f"{bad} of {len(scores)} scores are NaN or infinite")
    with ThreadPoolExecutor(2) as pool:
        apply = pool.map if len(scores) >= THREADED else map
        # compress takes a third of the time of scores[kind].
        targets, nontargets = apply(
            lambda kind: np.sort(np.compress(kind, scores)), (is_target, ~is_target)
        )
    if not len(targets) or not len(nontargets):
        raise SvError(
            f"{len(targets)} target and {len(nontargets)} nontarget trials: both are needed"
        )
    return ErrorCurve(targets, nontargets)


def compute_rates(curve: ErrorCurve, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return miss and false-alarm rates (0 to 1) where scores >= each threshold are accepted."""
    missed = np.searchsorted(curve.targets, thresholds)
    accepted = len(curve.nontargets) - np.searchsorted(curve.nontargets, thresholds)
    return missed / len(curve.targets), accepted / len(curve.nontargets)


def compute_eer(curve: ErrorCurve) -> tuple[float, float]:
    """Return the equal error rate (0 to 1) and its threshold.

    Where the two rates cross between two points, both are interpolated linearly.
    """
    high = float(_find_first(curve, np.subtract, np.zeros(1))[0])
    # The score before it: there is one, because the rates begin at 0 - 1 < 0.
    low = max(
        float(part[index - 1])
        for part in (curve.targets, curve.nontargets)
        if (index := np.searchsorted(part, high))
    )
    miss, false_alarm = compute_rates(curve, np.array([low, high]))
    difference = miss - false_alarm
    weight = -difference[0] / (difference[1] - difference[0])
    eer = miss[0] + weight * (miss[1] - miss[0])
    # Exactly high where the rates are equal there: low + (high - low) may round above it.
    threshold = (1 - weight) * low + weight * high if np.isfinite(high) else low
    return float(eer), float(threshold)


def find_min_dcf(curve: ErrorCurve, p_target: float) -> tuple[float, float]:
    """Return the minimum detection cost and its (lowest) threshold.

    Costs of a miss and of a false alarm are 1; normalised by the better trivial decision's. The
    threshold is a target's score, or just above all scores: between two targets a higher
    threshold only saves false alarms. The search is exact: between two thresholds no cost is
    below the sum of the misses at the lower one and the false alarms at the higher one.
    """
    last = len(curve.targets) - 1

    def weigh(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p_miss, p_fa = compute_rates(curve, curve.targets[places])
        return p_target * p_miss, (1 - p_target) * p_fa

    coarse = np.arange(0, last + 2 * COARSE, COARSE).clip(max=last)
    misses, false_alarms = weigh(coarse)
    hopeful = misses[:-1] + false_alarms[1:] <= (misses + false_alarms).min()
    places = (coarse[:-1][hopeful, None] + np.arange(COARSE + 1)).clip(max=last).ravel()
    costs = np.add(*weigh(places))
    lowest = int(np.argmin(costs))
    cost, threshold = costs[lowest], curve.targets[places[lowest]]
    if p_target < cost:  # reject all, by a finite threshold: it can be applied, and written as JSON
        cost = p_target
        threshold = np.nextafter(max(curve.targets[-1], curve.nontargets[-1]), np.inf)
    return float(cost) / min(p_target, 1 - p_target), float(threshold)


def compute_act_dcf(llrs: np.ndarray, is_target: np.ndarray, p_target: float) -> float:
    """Return the detection cost at Bayes' threshold, normalised as `find_min_dcf`.

    Args:
        llrs: (trials,) calibrated scores: natural logarithms of likelihood ratios.
        is_target: (trials,) bool, both kinds present.
        p_target: Prior of a target trial.
    """
    accepted = llrs >= np.log((1 - p_target) / p_target)
    miss = 1 - np.count_nonzero(accepted & is_target) / np.count_nonzero(is_target)
    false_alarm = np.count_nonzero(accepted & ~is_target) / np.count_nonzero(~is_target)
    return float((p_target * miss + (1 - p_target) * false_alarm) / min(p_target, 1 - p_target))


def compute_cllr(llrs: np.ndarray, is_target: np.ndarray) -> float:
    """Return the cost of the log-likelihood ratios, in bits; 1 is what no information costs.

    Arguments as of `compute_act_dcf`.

    Source: Brümmer and du Preez, "Application-independent evaluation of speaker detection",
    Computer Speech and Language 20, 2006.
    """
    llrs = np.asarray(llrs, dtype=np.float64)
    # logaddexp(0, x) = ln(1 + e^x) without overflow.
    of_targets = np.logaddexp(0, -llrs[is_target]).mean()
    of_nontargets = np.logaddexp(0, llrs[~is_target]).mean()
    return float((of_targets + of_nontargets) / (2 * np.log(2)))


def compute_metrics(
    scores: np.ndarray, is_target: np.ndarray, *, calibrated: bool = False
) -> Metrics:
    """Compute the measures of a list; arguments and errors as `compute_error_curve`.

    ``calibrated`` says that the scores are log-likelihood ratios (natural logarithm); only
    then actual costs and Cllr mean anything and are there.
    """
    metrics = measure_curve(compute_error_curve(scores, is_target))
    if not calibrated:
        return metrics
    costs = {f"{p:g}": compute_act_dcf(scores, is_target, p) for p in P_TARGETS}
    return replace(metrics, act_dcf=costs, cllr=compute_cllr(scores, is_target))


def measure_curve(curve: ErrorCurve) -> Metrics:
    """Compute the measures that only the order of the scores decides."""
    eer, threshold = compute_eer(curve)
    costs = {f"{p:g}": find_min_dcf(curve, p) for p in P_TARGETS}
    return Metrics(
        trials=len(curve.targets) + len(curve.nontargets),
        targets=len(curve.targets),
        nontargets=len(curve.nontargets),
        eer_percent=100 * eer,
        eer_threshold=threshold,
        min_dcf={p: cost for p, (cost, _) in costs.items()},
        min_dcf_threshold={p: at for p, (_, at) in costs.items()},
    )


def compute_histogram(scores: np.ndarray, is_target: np.ndarray) -> Histogram:
    """Count target and nontarget trials in equal bins over the range of all scores.

    Args:
        scores: (trials,) finite floats.
        is_target: (trials,) bool.
    """
    edges = np.histogram_bin_edges(scores, BINS)
    counts = (np.histogram(scores[which], edges)[0] for which in (is_target, ~is_target))
    return Histogram(tuple(edges.tolist()), *(tuple(part.tolist()) for part in counts))


def thin_curve(curve: ErrorCurve, points: int = DET_POINTS) -> Det:
    """Return at most ``points`` of the curve, evenly along its path, both ends included.

    Even steps in the probit plane would need the ends; even steps of the two rates lose the
    corners, where DET curves are read. So points are taken evenly in the rates' logarithms.
    """
    distinct = sum(
        1 + np.count_nonzero(part[1:] > part[:-1]) for part in (curve.targets, curve.nontargets)
    )
    floor = 1e-6  # below any rate a list of the study can show

    def path(miss: np.ndarray, false_alarm: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(miss, floor)) - np.log(np.maximum(false_alarm, floor))

    if distinct < points:
        chosen = np.union1d(curve.targets, curve.nontargets)
    else:
        wanted = np.linspace(*path(np.array([0.0, 1.0]), np.array([1.0, 0.0])), points)
        lowest = min(curve.targets[0], curve.nontargets[0])
        chosen = np.union1d(_find_first(curve, path, wanted), [lowest])[: points - 1]
    p_miss, p_fa = compute_rates(curve, np.union1d(chosen, [np.inf]))
    return Det(tuple(p_fa.tolist()), tuple(p_miss.tolist()))


def _find_first(
    curve: ErrorCurve,
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    wanted: np.ndarray,
) -> np.ndarray:
    """Find the lowest score at which a rising function of (p_miss, p_fa) is each wanted value.

    Returns:
        Scores, as thresholds; infinity where only rejecting all is enough.
    """
    found = np.full(len(wanted), np.inf)
    for part in (curve.targets, curve.nontargets):
        low, high = np.zeros(len(wanted), dtype=np.int64), np.full(len(wanted), len(part))
        while (still := np.flatnonzero(low < high)).size:
            middle = (low[still] + high[still]) // 2
            below = function(*compute_rates(curve, part[middle])) < wanted[still]
            low[still] = np.where(below, middle + 1, low[still])
            high[still] = np.where(below, high[still], middle)
        inside = low < len(part)
        found[inside] = np.minimum(found[inside], part[low[inside]])
    return found
