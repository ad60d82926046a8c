"""Measures of verification against their definitions, written out here by brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv.errors import SvError
from sv.score.metrics import (
    compute_act_dcf,
    compute_cllr,
    compute_eer,
    compute_error_curve,
    compute_metrics,
    compute_rates,
    find_min_dcf,
    thin_curve,
)
from sv.score.record import Det


def small_sets(count=60):
    """Give random small sets of scores on a coarse grid, so that ties are common."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        targets, nontargets = rng.integers(1, 12, 2)
        grid = int(rng.integers(1, 15))
        scores = np.concatenate(
            [rng.integers(0, grid + 1, nontargets), rng.integers(0, grid + 1, targets) + 1]
        )
        order = rng.permutation(len(scores))
        yield (scores / grid)[order], (np.arange(len(scores)) >= nontargets)[order]


def rates(scores, is_target, threshold):
    """Count misses and false alarms when a score >= threshold is accepted."""
    targets = [s for s, y in zip(scores, is_target, strict=True) if y]
    nontargets = [s for s, y in zip(scores, is_target, strict=True) if not y]
    miss = sum(s < threshold for s in targets) / len(targets)
    false_alarm = sum(s >= threshold for s in nontargets) / len(nontargets)
    return miss, false_alarm


def operating_points(scores, is_target):
    return [rates(scores, is_target, t) for t in [*sorted(set(scores)), float("inf")]]


def define_eer(scores, is_target):
    """Give the rate at which the broken line through the operating points crosses miss = fa."""
    points = operating_points(scores, is_target)
    for (miss0, fa0), (miss1, fa1) in zip(points, points[1:], strict=False):
        if miss0 < fa0 and miss1 >= fa1:
            # The point of the line from one to the other where both coordinates are equal.
            return (fa0 * miss1 - miss0 * fa1) / ((fa0 - miss0) + (miss1 - fa1))
    raise AssertionError("the line never crosses")


def define_min_dcf(scores, is_target, p):
    points = operating_points(scores, is_target)
    return min(p * miss + (1 - p) * fa for miss, fa in points) / min(p, 1 - p)


def measure(scores, labels):
    metrics = compute_metrics(np.asarray(scores, float), np.asarray(labels, bool))
    return metrics.eer_percent, metrics.min_dcf["0.01"]


# The same examples every time, as slow as the machine is, and no folder of them left behind.
repeatable = settings(derandomize=True, deadline=None, database=None)
# Few values, so that ties are common, and any others; at least one of each kind.
SCORES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
CLASSES = st.tuples(st.lists(SCORES, min_size=1, max_size=30), st.lists(SCORES, min_size=1))


def join(classes):
    targets, nontargets = classes
    return np.array(targets + nontargets), np.arange(len(targets + nontargets)) < len(targets)


@repeatable
@given(CLASSES)
def test_eer_and_min_dcf_are_what_their_definitions_say(classes):
    scores, labels = join(classes)
    metrics = compute_metrics(scores, labels)
    assert metrics.eer_percent == pytest.approx(100 * define_eer(scores, labels), abs=1e-9)
    for p in ("0.01", "0.05", "0.001"):
        expected = define_min_dcf(scores, labels, float(p))
        assert metrics.min_dcf[p] == pytest.approx(expected, abs=1e-12)
        miss, false_alarm = rates(scores, labels, metrics.min_dcf_threshold[p])
        cost = float(p) * miss + (1 - float(p)) * false_alarm
        assert cost / float(p) == pytest.approx(expected, abs=1e-12)


@repeatable
@given(CLASSES, st.randoms(use_true_random=False))
def test_only_the_order_of_the_scores_matters(classes, random):
    scores, labels = join(classes)
    expected = measure(scores, labels)
    order = list(range(len(scores)))
    random.shuffle(order)
    assert measure(scores[order], labels[order]) == expected
    rank = np.unique(scores, return_inverse=True)[1]
    assert measure(rank, labels) == expected
    assert measure(np.exp(rank / len(rank)) - 100, labels) == expected
    assert measure(np.tile(scores, 3), np.tile(labels, 3)) == pytest.approx(expected, abs=1e-9)


@repeatable
@given(CLASSES)
def test_negated_scores_turn_the_eer_round(classes):
    scores, labels = join(classes)
    turned = 100 - measure(scores, labels)[0]
    assert measure(-scores, labels)[0] == pytest.approx(turned, abs=1e-9)
    assert measure(scores, ~labels)[0] == pytest.approx(turned, abs=1e-9)


@repeatable
@given(st.floats(-1e300, 1e300), st.integers(1, 20), st.integers(1, 20))
def test_constant_scores_tell_nothing(score, targets, nontargets):
    labels = np.arange(targets + nontargets) < targets
    metrics = compute_metrics(np.full(len(labels), score), labels)
    assert metrics.eer_percent == 50
    assert metrics.min_dcf == {"0.01": 1, "0.05": 1, "0.001": 1}
    assert all(at > score for at in metrics.min_dcf_threshold.values())  # reject all


@pytest.mark.parametrize("share", [0.005, 0.5, 0.97])
def test_long_lists_have_the_measures_of_their_whole_curve(share):
    rng = np.random.default_rng(11)
    labels = rng.random(300_000) < share
    for decimals in (2, 17):
        scores = np.round(rng.normal(size=len(labels)) + 2.5 * labels, decimals)
        metrics = compute_metrics(scores, labels)
        order = np.argsort(scores)
        last = np.append(np.diff(scores[order]) > 0, True)  # of each tie
        missed = np.append(0, np.cumsum(labels[order])[last])
        rejected = np.append(0, np.cumsum(~labels[order])[last])
        miss, fa = missed / missed[-1], (rejected[-1] - rejected) / rejected[-1]
        after = np.argmax(miss >= fa)
        crossing = [fa[after - 1], miss[after], miss[after - 1], fa[after]]
        gap = (crossing[0] - crossing[2]) + (crossing[1] - crossing[3])
        eer = (crossing[0] * crossing[1] - crossing[2] * crossing[3]) / gap
        assert metrics.eer_percent == pytest.approx(100 * eer, abs=1e-9)
        for p, cost in metrics.min_dcf.items():
            expected = (float(p) * miss + (1 - float(p)) * fa).min() / float(p)
            assert cost == pytest.approx(expected, abs=1e-12)


@repeatable
@given(CLASSES, st.sampled_from([0.01, 0.05, 0.001, 0.5]))
def test_actual_cost_and_cllr_are_what_their_definitions_say(classes, p):
    llrs, labels = join([[score % 40 - 20 for score in side] for side in classes])
    miss, false_alarm = rates(llrs, labels, math.log((1 - p) / p))
    cost = (p * miss + (1 - p) * false_alarm) / min(p, 1 - p)
    assert compute_act_dcf(llrs, labels, p) == pytest.approx(cost, abs=1e-12)
    assert compute_act_dcf(llrs, labels, p) >= find_min_dcf(
        compute_error_curve(llrs, labels), p
    )[0] - 1e-12  # fmt: skip
    bits = [math.log2(1 + math.exp(-s if y else s)) for s, y in zip(llrs, labels, strict=True)]
    sides = [[b for b, y in zip(bits, labels, strict=True) if y == side] for side in (True, False)]
    cllr = sum(sum(side) / len(side) for side in sides) / 2
    assert compute_cllr(llrs, labels) == pytest.approx(cllr, abs=1e-12)


@pytest.mark.parametrize("p", [0.01, 0.05, 0.001, 0.5, 0.9])
def test_actual_cost_decides_at_bayes_threshold(p):
    threshold = math.log((1 - p) / p)
    llrs = threshold + np.array([1e-9, -1e-9, -5, 1e-9, -1e-9])
    labels = np.array([True, True, True, False, False])
    expected = (p * 2 / 3 + (1 - p) / 2) / min(p, 1 - p)
    assert compute_act_dcf(llrs, labels, p) == pytest.approx(expected)


def test_calibrated_measures_are_there_for_calibrated_scores_only():
    scores, labels = np.array([800.0, -900.0, 0.0, 0.0]), np.array([True, False, True, False])
    assert compute_metrics(scores, labels).cllr is None
    metrics = compute_metrics(scores, labels, calibrated=True)
    assert metrics.cllr == pytest.approx(0.5)  # half of the trials cost nothing, half a bit
    assert metrics.act_dcf == {"0.01": 0.5, "0.05": 0.5, "0.001": 0.5}


def test_the_threshold_is_where_the_rates_are_equal():
    rng = np.random.default_rng(5)
    separable = [(np.array([low, high]), np.array([False, True])) for low, high in
                 np.sort(rng.normal(size=(50, 2)))]  # fmt: skip
    crossed = 0
    for scores, labels in [*small_sets(), *separable]:
        eer, threshold = compute_eer(compute_error_curve(scores, labels))
        if any(miss == fa for miss, fa in operating_points(scores, labels)):
            miss, false_alarm = rates(scores, labels, threshold)
            assert miss == false_alarm == pytest.approx(eer)
            crossed += 1
        else:  # the rates jump over each other at one score
            miss, false_alarm = rates(scores, labels, max(s for s in scores if s <= threshold))
            assert miss < false_alarm
            miss, false_alarm = rates(scores, labels, np.nextafter(threshold, np.inf))
            assert miss > false_alarm
    assert crossed > 55


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.3] * 7, [1, 1, 0, 0, 0, 1, 0], (50, 1)),  # constant
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], (0, 0)),  # separable
        ([0.8, 0.9, 0.1, 0.2], [0, 0, 1, 1], (100, 1)),  # the wrong way round
        ([0.1, 0.5, 0.6, 0.7], [0, 1, 1, 1], (0, 0)),  # one nontarget below three targets
        ([0.6, 0.5, 0.6, 0.7], [0, 1, 1, 1], (50, 2 / 3)),  # tied with the second
        ([0.9, 0.1], [1, 0], (0, 0)),
        ([0.1, 0.9], [1, 0], (100, 1)),
    ],
)
def test_sets_whose_measures_are_known(scores, labels, expected):
    assert measure(scores, labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [1, 1], "2 target and 0 nontarget trials: both are needed"),
        ([0.1, 0.2], [0, 0], "0 target and 2 nontarget trials: both are needed"),
        ([], [], "0 target and 0 nontarget"),
        ([0.1, np.nan, 0.3], [1, 0, 1], "1 of 3 scores are NaN or infinite"),
        ([np.inf, -np.inf, 0.3], [1, 0, 1], "2 of 3 scores are NaN or infinite"),
    ],
)
def test_what_cannot_be_measured_is_refused(scores, labels, message):
    with pytest.raises(SvError, match=message):
        measure(scores, labels)


@pytest.mark.parametrize("points", [3, 50, 500])
def test_thinned_curve_keeps_its_ends_and_stays_on_the_curve(points):
    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.1
    scores = rng.normal(size=20_000) + 2.5 * labels
    curve = compute_error_curve(scores, labels)
    det = thin_curve(curve, points)
    p_fa, p_miss = det.p_fa, det.p_miss
    assert len(p_fa) == len(p_miss) and points // 3 <= len(p_fa) <= points
    assert (p_fa[0], p_miss[0], p_fa[-1], p_miss[-1]) == (1, 0, 0, 1)
    assert np.all(np.diff(p_fa) <= 0) and np.all(np.diff(p_miss) >= 0)
    p_miss_at, p_fa_at = compute_rates(curve, np.append(scores, np.inf))
    on_curve = set(zip(p_fa_at.tolist(), p_miss_at.tolist(), strict=True))
    assert set(zip(p_fa, p_miss, strict=True)) <= on_curve
    if points == 500:  # its corner is as good as the whole curve's
        eer, _ = compute_eer(curve)
        assert min(abs(fa - eer) + abs(m - eer) for fa, m in zip(p_fa, p_miss, strict=True)) < 0.01


def test_short_curve_is_kept_whole():
    curve = compute_error_curve(np.array([0.0, 1.0, 0.5]), np.array([False, True, True]))
    assert thin_curve(curve, 500) == Det((1, 0, 0, 0), (0, 0, 0.5, 1))
