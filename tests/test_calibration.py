"""Calibration: log-likelihood ratios from a development list, through the programs."""

import json

import numpy as np
import pytest
from scored_world import build_world, write_list, write_system

from sv.errors import SvError
from sv.score.calibration import train_calibration
from sv.score.metrics import compute_metrics


def draw_scores(rng, count, share):
    """Draw what are log-likelihood ratios by construction: normal, means +-4, variance 8."""
    is_target = rng.random(count) < share
    return np.where(is_target, 4.0, -4.0) + rng.normal(0, np.sqrt(8), count), is_target


@pytest.mark.parametrize("p_target", [0.5, 0.01])
def test_log_likelihood_ratios_are_found_again(p_target):
    llrs, is_target = draw_scores(np.random.default_rng(0), 200_000, 0.2)
    weight, offset = train_calibration(0.05 * llrs + 0.3, is_target, p_target=p_target)
    assert (weight, offset) == pytest.approx((20, -6), rel=0.02)
    # The prior of the list itself is not learnt: a list with other shares gives the same.
    fresh, labels = draw_scores(np.random.default_rng(1), 200_000, 0.02)
    metrics = compute_metrics(weight * (0.05 * fresh + 0.3) + offset, labels, calibrated=True)
    for p in ("0.05", "0.01"):
        assert metrics.act_dcf[p] == pytest.approx(metrics.min_dcf[p], rel=0.03)
    assert metrics.cllr == pytest.approx(0.28, abs=0.02)


def test_no_other_line_costs_less():
    rng = np.random.default_rng(3)
    is_target = rng.random(2000) < 0.3
    scores = rng.normal(size=2000) + is_target * 1.5
    best = np.array(train_calibration(scores, is_target, p_target=0.1))

    def cost(theta):
        logits = scores * theta[0] + theta[1] + np.log(0.1 / 0.9)
        miss = np.logaddexp(0, -logits[is_target]).mean()
        return 0.1 * miss + 0.9 * np.logaddexp(0, logits[~is_target]).mean()

    for step in np.vstack([np.eye(2), -np.eye(2)]) * 0.01:
        assert cost(best + step) > cost(best)
    assert best[0] > 0


@pytest.mark.parametrize("p_target", [0.5, 0.2])
def test_small_lists_with_errors_are_calibrated(p_target):
    rng = np.random.default_rng(0)
    for _ in range(100):
        is_target = np.arange(600) < 200
        weight, _ = train_calibration(rng.normal(2.0 * is_target), is_target, p_target=p_target)
        assert 1 < weight < 4


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0, 0.1, 0.9, 1], [0, 0, 1, 1], r"next to no errors.*\(2 targets, 2 nontargets\)"),
        ([0, 0.6, 0.4, 1, 2], [1, 1, 0, 0, 0], "higher for nontargets than for targets"),
        ([0.5] * 4, [0, 0, 1, 1], "all the same"),
        ([0.1, 0.2], [1, 1], "2 target and 0 nontarget trials: both are needed"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(scores, labels, message):
    with pytest.raises(SvError, match=message):
        train_calibration(np.array(scores), np.array(labels, dtype=bool))


@pytest.fixture
def lists(tmp_path):
    """Two lists of other speakers, dev and list, each scored by a system."""
    rng = np.random.default_rng(8)
    for name, letter in (("dev", "t"), ("list", "s")):
        trials, scores, utt2spk = build_world(rng, 25, 4)
        renamed = [letter + u[1:] for u in trials.utterances]
        trials = type(trials)(renamed, trials.enrol, trials.test, trials.is_target)
        root = tmp_path / name
        root.mkdir()
        write_list(root, trials, {letter + u[1:]: s for u, s in utt2spk.items()})
        write_system(root / "a.txt", trials, 0.1 * (scores + rng.normal(size=len(scores))) + 5)
    what = {"trials_name": "list", "data_set": "set", "backend": "cosine", "precision": "fp32"}
    (tmp_path / "list" / "a.json").write_text(json.dumps({**what, "eer_percent": 99}))
    return tmp_path


def read_eer(run_cli, root, name):
    done = run_cli("sv.bin.compute_metrics", "--format", "json", root / "list/list", name)
    return json.loads(done.stdout)["eer_percent"]


def test_a_calibrated_list_is_measured_as_such(run_cli, lists):
    dev, test = lists / "dev", lists / "list"
    out = lists / "out" / "list_calibrated"
    args = (dev / "list", dev / "a.txt", test / "list", test / "a.txt", out)
    done = run_cli("sv.bin.calibrate_scores", *args)
    record = json.loads((lists / "out" / "list_calibrated.json").read_text())
    assert record["eer_percent"] == pytest.approx(read_eer(run_cli, lists, test / "a.txt"))
    assert record["min_dcf"]["0.01"] <= record["act_dcf"]["0.01"] < 1.2
    assert 0 < record["cllr"] < 1
    calibration = record["calibration"]
    assert (calibration["dev_trials"], calibration["shared_trials"]) == ("list", 0)
    scores, llrs = (
        np.loadtxt(path, usecols=2) for path in (test / "a.txt", f"{out}.txt")
    )  # fmt: skip
    assert llrs == pytest.approx(calibration["weights"][0] * scores + calibration["offset"])
    assert f"Cllr {record['cllr']:.4f}" in done.stderr
    # What was scored is copied, so that stage 8 can read the file.
    assert (record["data_set"], record["backend"]) == ("set", "cosine_calibrated")


def test_the_list_that_is_measured_is_no_development_list(run_cli, lists):
    test = lists / "list"
    lines = [line.split() for line in (test / "list").read_text().splitlines()]
    # The other way round and in another order it is still the same trial.
    (lists / "part").write_text("".join(f"{b} {a} {y}\n" for a, b, y in lines[1000::-1]))
    scores = [line.split() for line in (test / "a.txt").read_text().splitlines()]
    (lists / "part.txt").write_text("".join(f"{b} {a} {s}\n" for a, b, s in scores[:1001]))
    args = (lists / "part", lists / "part.txt", test / "list", test / "a.txt", lists / "out")
    done = run_cli("sv.bin.calibrate_scores", *args, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"sv.bin.calibrate_scores: 1001 of {len(lines)} trials to be scored are in the "
        f"development list {lists / 'part'}: take another list, or say --allow-shared true\n"
    )
    assert not (lists / "out.json").exists()
    run_cli("sv.bin.calibrate_scores", "--allow-shared", "true", *args)
    assert json.loads((lists / "out.json").read_text())["calibration"]["shared_trials"] == 1001
