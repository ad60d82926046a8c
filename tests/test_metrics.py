"""Measures of verification against their definitions, and score_trials from archive to JSON."""

import json

import numpy as np
import pytest

from sv.errors import SvError
from sv.kaldi.archive import write_archive
from sv.score.metrics import compute_eer, compute_error_curve, compute_metrics, thin_curve


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
    return metrics["eer_percent"], metrics["min_dcf"]["0.01"]


def test_eer_and_min_dcf_are_what_their_definitions_say():
    for scores, labels in small_sets():
        metrics = compute_metrics(scores, labels)
        assert metrics["eer_percent"] == pytest.approx(100 * define_eer(scores, labels), abs=1e-9)
        for p in (0.01, 0.05, 0.001):
            expected = define_min_dcf(scores, labels, p)
            assert metrics["min_dcf"][f"{p:g}"] == pytest.approx(expected, abs=1e-9)


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


def test_negated_scores_turn_the_eer_round():
    for scores, labels in small_sets(20):
        assert measure(-scores, labels)[0] == pytest.approx(100 - measure(scores, labels)[0])


def test_only_the_order_of_the_scores_matters():
    rng = np.random.default_rng(1)
    for scores, labels in small_sets(20):
        expected = pytest.approx(measure(scores, labels))
        order = rng.permutation(len(scores))
        assert measure(scores[order], labels[order]) == expected
        assert measure(np.exp(3 * scores) - 100, labels) == expected
        assert measure(np.tile(scores, 3), np.tile(labels, 3)) == expected
        assert measure(1e-9 * scores, labels) == expected


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
    curve = compute_error_curve(rng.normal(size=20_000) + 2.5 * labels, labels)
    p_fa, p_miss = thin_curve(curve, points)
    assert len(p_fa) == len(p_miss) and points // 3 <= len(p_fa) <= points
    assert (p_fa[0], p_miss[0], p_fa[-1], p_miss[-1]) == (1, 0, 0, 1)
    assert np.all(np.diff(p_fa) <= 0) and np.all(np.diff(p_miss) >= 0)
    on_curve = set(zip(curve.p_fa.tolist(), curve.p_miss.tolist(), strict=True))
    assert set(zip(p_fa, p_miss, strict=True)) <= on_curve
    if points == 500:  # its corner is as good as the whole curve's
        eer, _ = compute_eer(curve)
        assert min(abs(fa - eer) + abs(m - eer) for fa, m in zip(p_fa, p_miss, strict=True)) < 0.01


def test_short_curve_is_kept_whole():
    curve = compute_error_curve(np.array([0.0, 1.0, 0.5]), np.array([False, True, True]))
    assert thin_curve(curve, 500) == ([1, 0, 0, 0], [0, 0, 0.5, 1])


@pytest.fixture
def scored(tmp_path):
    """Embeddings of 30 utterances of 6 speakers, and a list of 200 trials."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(6, 32))
    vectors = {
        f"s{s}-{u}": (centres[s] + rng.normal(size=32)).astype(np.float32)
        for s in range(6) for u in range(5)
    }  # fmt: skip
    folder = tmp_path / "xvectors_mini_test"
    write_archive(folder / "x.ark", folder / "xvector.scp", iter(vectors.items()), method="none")
    (folder / "info.json").write_text('{"data_set": "mini_test", "precision": "bf16"}')
    keys = list(vectors)
    pairs = [(a, b) for a in keys for b in keys if a < b]
    rows = [pairs[i] for i in rng.permutation(len(pairs))[:200]]
    (tmp_path / "mini").write_text(
        "".join(f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n" for a, b in rows)
    )
    return tmp_path, vectors, rows


def score(run_cli, root, check=True):
    return run_cli(
        "sv.bin.score_trials", root / "xvectors_mini_test", root / "mini",
        root / "scores" / "mini_cosine", check=check,
    )  # fmt: skip


def test_score_trials_writes_cosines_metrics_and_curve(run_cli, scored):
    root, vectors, rows = scored
    assert "mini: EER " in score(run_cli, root).stderr
    lines = [line.split(" ") for line in (root / "scores/mini_cosine.txt").read_text().splitlines()]
    assert [(a, b) for a, b, _ in lines] == rows
    cosines = [
        np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
        for a, b in ((vectors[e].astype(float), vectors[t].astype(float)) for e, t in rows)
    ]
    assert [float(text) for _, _, text in lines] == pytest.approx(cosines, abs=2e-6)
    metrics = json.loads((root / "scores/mini_cosine.json").read_text())
    labels = [e[:2] == t[:2] for e, t in rows]
    assert metrics == {
        "trials_name": "mini", "data_set": "mini_test", "backend": "cosine", "precision": "bf16",
        "untrained": False, "trials": 200, "targets": sum(labels),
        "nontargets": 200 - sum(labels), "eer_percent": metrics["eer_percent"],
        "eer_threshold": metrics["eer_threshold"], "min_dcf": metrics["min_dcf"],
    }  # fmt: skip
    assert metrics["eer_percent"] == pytest.approx(100 * define_eer(cosines, labels), abs=1e-6)
    assert list(metrics["min_dcf"]) == ["0.01", "0.05", "0.001"]
    det = json.loads((root / "scores/mini_cosine.det.json").read_text())
    assert (det["p_fa"][0], det["p_miss"][0], det["p_fa"][-1], det["p_miss"][-1]) == (1, 0, 0, 1)
    assert len(det["p_fa"]) == len(det["p_miss"]) <= 500


def test_utterances_without_an_embedding_are_counted(run_cli, scored):
    root = scored[0]
    with open(root / "mini", "a") as file:
        file.write("s0-0 x-1 target\nx-2 s0-0 nontarget\n")
    done = score(run_cli, root, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "sv.bin.score_trials: 2 of 32 utterances of the trial list have no embedding "
        "(x-2, x-1); make stages 3 and 6 again\n"
    )
    assert not (root / "scores").exists()


def test_one_sided_list_is_one_line(run_cli, scored):
    root = scored[0]
    (root / "mini").write_text("s0-0 s0-1 target\ns1-0 s1-1 target\n")
    done = score(run_cli, root, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "sv.bin.score_trials: 2 target and 0 nontarget trials: both are needed\n"
    )
