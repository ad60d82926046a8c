"""Bootstrap over speakers: replicates against lists really drawn anew; and its programs."""

import functools
import hashlib
import json

import numpy as np
import pytest
from scored_world import build_world, write_list, write_system

from sv.errors import SvError
from sv.score.bootstrap import (
    DET_P_FA,
    Measured,
    bootstrap_metrics,
    compute_interval,
    draw_multiplicities,
    find_speakers,
    resample,
    subtract,
)
from sv.score.config import ScoreConfig
from sv.score.metrics import compute_eer, compute_error_curve, compute_metrics, compute_rates
from sv.score.record import Metrics, describe_interval
from sv.score.trials import read_scored, read_speakers


def weigh(trials, speaker_of, multiplicity):
    """Say how often each trial is in a draw of speakers."""
    first, second = (multiplicity[speaker_of[side]] for side in (trials.enrol, trials.test))
    return np.where(trials.is_target, first, first.astype(int) * second)


@pytest.mark.parametrize("digits", [None, 0])  # all different, and mostly tied
def test_a_replicate_is_the_measure_of_the_list_drawn_anew(digits):
    trials, scores, utt2spk = build_world(np.random.default_rng(1), digits=digits)
    found = bootstrap_metrics(trials, scores, utt2spk, seed=4, replicates=40)
    names, speaker_of = find_speakers(trials, utt2spk)
    drawn = draw_multiplicities(names, seed=4, replicates=40)
    for i, multiplicity in enumerate(drawn):
        times = weigh(trials, speaker_of, multiplicity)
        expanded, labels = np.repeat(scores, times), np.repeat(trials.is_target, times)
        expected = compute_metrics(expanded, labels)
        assert found.eer_percent[i] == pytest.approx(expected.eer_percent, abs=1e-9)
        for p, cost in expected.min_dcf.items():
            assert found.min_dcf[p][i] == pytest.approx(cost, abs=1e-12)
        curve = compute_error_curve(expanded, labels)
        p_miss, p_fa = compute_rates(curve, np.append(scores, np.inf))
        lowest = [p_miss[p_fa <= p].min() for p in DET_P_FA]
        assert found.p_miss[i] == pytest.approx(lowest)


def test_a_speaker_is_drawn_alike_in_every_list_and_for_ever():
    few = draw_multiplicities(["b"], seed=0, replicates=2000)
    many = draw_multiplicities(["a", "b", "c"], seed=0, replicates=2000)
    assert (many[:, 1] == few[:, 0]).all()
    assert (many[:, 0] != few[:, 0]).any()
    assert (draw_multiplicities(["b"], seed=1, replicates=2000) != few).any()
    # Written down: another numpy or machine must pair with older results.
    assert few[:16, 0].tolist() == [0, 1, 1, 2, 1, 3, 1, 0, 0, 0, 0, 1, 2, 0, 1, 1]
    assert hashlib.sha256(many.tobytes()).hexdigest()[:16] == "24c872665f3ca514"
    drawn = draw_multiplicities([f"{i}" for i in range(100)], seed=0, replicates=1000)
    assert drawn.mean() == pytest.approx(1, abs=0.02)
    assert drawn.var() == pytest.approx(1, abs=0.03)


def test_the_interval_is_as_wide_as_the_measure_varies_between_worlds():
    """Worlds with other speakers: their spread is what one world's bootstrap must tell.

    Resampling trials instead gives 0.4 of that width.
    """
    rng = np.random.default_rng(0)
    eers, widths, covered = [], [], []
    truth = np.mean([measure_eer(*build_world(rng, 25)[:2]) for _ in range(300)])
    for _ in range(100):
        trials, scores, utt2spk = build_world(rng, 25)
        eers.append(measure_eer(trials, scores))
        found = bootstrap_metrics(trials, scores, utt2spk, seed=0, replicates=200)
        low, high = compute_interval(found.eer_percent)
        widths.append(high - low)
        covered.append(low <= truth <= high)
    ratio = np.mean(widths) / (2 * 1.96 * np.std(eers))
    assert 0.85 < ratio < 1.2, ratio
    assert np.mean(covered) > 0.88, np.mean(covered)


def measure_eer(trials, scores):
    return 100 * compute_eer(compute_error_curve(scores, trials.is_target))[0]


def test_threads_change_nothing():
    trials, scores, utt2spk = build_world(np.random.default_rng(2))
    one, three = (
        bootstrap_metrics(trials, scores, utt2spk, seed=0, replicates=50, threads=n) for n in (1, 3)
    )
    assert (one.eer_percent == three.eer_percent).all()
    assert (one.p_miss == three.p_miss).all()


def test_speakers_that_do_not_fit_the_list_are_refused():
    trials, _, utt2spk = build_world(np.random.default_rng(0))
    lacking = {u: s for u, s in utt2spk.items() if u not in ("s03-1", "s05-0")}
    with pytest.raises(SvError, match=r"2 of 48 utterances .* no speaker in utt2spk \(s03-1, s05"):
        find_speakers(trials, lacking)
    with pytest.raises(SvError, match=r"contradict utt2spk \(first: 's00-0 s11-3 nontarget'\)"):
        find_speakers(trials, {**utt2spk, "s11-3": "s00"})


def difference(value, a, b):
    draws = (("list", 0, len(a)),)
    return subtract(Measured(value, draws, 9, a), Measured(0, draws, 9, b))


def test_a_difference_is_noise_where_its_interval_contains_0():
    rng = np.random.default_rng(0)
    replicates = rng.normal(5, 1, 1000)
    clear = difference(-2, replicates, replicates + 2 + rng.normal(0, 0.5, 1000))
    assert not clear.within_noise
    assert clear.interval == pytest.approx((-3, -1), abs=0.1)
    assert clear.p_value == pytest.approx(2 / 1001)  # never 0
    # The speakers differ by far more than the systems: only pairing shows it.
    small = difference(-0.2, replicates, replicates + 0.2 + rng.normal(0, 0.05, 1000))
    assert not small.within_noise
    same = difference(0, replicates, replicates)
    assert same.within_noise and same.p_value == 1
    noise = difference(-0.2, replicates, replicates + rng.normal(0.2, 0.5, 1000))
    assert noise.within_noise
    assert noise.p_value == pytest.approx(2 * 0.345, abs=0.06)
    lacking = difference(0, np.where(np.arange(1000) < 20, np.nan, replicates), replicates)
    assert lacking.interval is None and not lacking.within_noise
    assert subtract(same, Measured(0, (("other", 0, 1000),), 9, replicates)) is None


@pytest.fixture
def listed(tmp_path):
    """A list of 20 speakers, utt2spk, and scores of a good, a like and a worse system."""
    rng = np.random.default_rng(5)
    trials, scores, utt2spk = build_world(rng, 20, 3, shift=3)
    write_list(tmp_path, trials, utt2spk)
    systems = {"good": scores, "like": scores + rng.normal(size=len(scores)) * 0.1,
               "worse": scores + rng.normal(size=len(scores)) * 1.5}  # fmt: skip
    for name, values in systems.items():
        write_system(tmp_path / f"{name}.txt", trials, values)
    return tmp_path


def measure(run_cli, root, name, *options, check=True):
    """Return what compute_metrics prints with intervals."""
    options = ("--utt2spk", root / "utt2spk", "--format", "json", *options)
    done = run_cli(
        "sv.bin.compute_metrics", *options, root / "list", root / f"{name}.txt", check=check
    )
    return json.loads(done.stdout)


def test_a_file_of_any_toolkit_gets_intervals(run_cli, listed):
    paths = (listed / "list", listed / "good.txt")
    before = json.loads(run_cli("sv.bin.compute_metrics", "--format", "json", *paths).stdout)
    metrics = measure(run_cli, listed, "good", "--num-threads", 1)
    assert {key: metrics[key] for key in before} == before
    low, high = metrics["eer_percent_interval"]
    assert low < before["eer_percent"] < high
    assert set(metrics["min_dcf_interval"]) == {"0.01", "0.05", "0.001"}
    counts = {"unit": "speaker", "speakers": 20, "replicates": 1000, "undefined": 0, "seed": 0}
    assert metrics["bootstrap"] == {**counts, "confidence_percent": 95}
    table = run_cli("sv.bin.compute_metrics", "--utt2spk", listed / "utt2spk", *paths).stdout
    assert f"95 % interval of the EER {low:.2f} to {high:.2f}, 20 speakers" in table
    (listed / "score.toml").write_text("bootstrap_replicates = 0\n")
    assert measure(run_cli, listed, "good", "--config", listed / "score.toml") == before


def test_two_speakers_are_too_few_for_an_interval(run_cli, tmp_path):
    trials, scores, utt2spk = build_world(np.random.default_rng(0), 2, 4)
    write_list(tmp_path, trials, utt2spk)
    metrics = Metrics(trials=1, targets=1, nontargets=0, eer_percent=9, min_dcf={})
    metrics, record = resample(metrics, trials, scores, lambda: utt2spk, ScoreConfig())
    assert metrics.eer_percent_interval is None and metrics.min_dcf_interval["0.01"] is None
    assert describe_interval(metrics) == "95 % interval of the EER unknown, 2 speakers"
    # A speaker is left out of e^-1 of the draws; both must be there for nontargets.
    assert metrics.resampling.undefined == pytest.approx(600, abs=50)
    assert record.eer_percent.count(None) == metrics.resampling.undefined
    assert len(record.det.p_fa) == len(record.det.p_miss_low) == len(DET_P_FA)


def compare(run_cli, root, a, b, *options):
    paths = [root / "list", root / f"{a}.txt", root / f"{b}.txt"]
    return run_cli("sv.bin.compare_systems", "--utt2spk", root / "utt2spk", *options, *paths).stdout


def test_two_systems_are_compared_on_the_same_draws(run_cli, listed):
    text = compare(run_cli, listed, "good", "worse").splitlines()
    assert [line.split(":")[0] for line in text][:2] == ["EER", "minDCF(0.01)"]
    assert text[0].endswith(": more than noise")
    assert compare(run_cli, listed, "good", "like").splitlines()[0].endswith(": within noise")
    found = json.loads(compare(run_cli, listed, "good", "worse", "--format", "json"))
    # What stage 8 does with two files of replicates is the same comparison.
    records = []
    for name in ("good", "worse"):
        trials, scores = read_scored(listed / "list", listed / f"{name}.txt")
        speakers = functools.partial(read_speakers, listed / "list", listed / "utt2spk")
        metrics = compute_metrics(scores, trials.is_target)
        records.append(resample(metrics, trials, scores, speakers, ScoreConfig())[1])
    assert records[0].draws == records[1].draws
    differences = np.subtract(*(record.eer_percent for record in records))
    assert np.percentile(differences, [2.5, 97.5]) == pytest.approx(
        [found["EER"]["low"], found["EER"]["high"]]
    )
    assert not found["EER"]["within_noise"]
    assert found["speakers"] == 20


def test_two_systems_of_two_speakers_cannot_be_compared(run_cli, tmp_path):
    trials, scores, utt2spk = build_world(np.random.default_rng(0), 2, 4)
    write_list(tmp_path, trials, utt2spk)
    write_system(tmp_path / "few.txt", trials, scores)
    argv = ["--utt2spk", tmp_path / "utt2spk", tmp_path / "list", *2 * [tmp_path / "few.txt"]]
    done = run_cli("sv.bin.compare_systems", *argv, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "of 1000 replicates drew no target or no nontarget trial" in done.stderr


def test_an_enrolment_model_has_the_speaker_of_its_utterances(run_cli, listed):
    for name in ("list", "good.txt"):
        path = listed / name
        path.write_text(path.read_text().replace("s00-0 ", "model0 "))
    (listed / "list.models").write_text("model0 s00-0 s00-1\n")
    assert measure(run_cli, listed, "good")["bootstrap"]["speakers"] == 20
    (listed / "list.models").write_text("model0 s00-0 s01-1\n")
    reason = measure(run_cli, listed, "good")["bootstrap"]["reason"]
    assert reason.endswith("list.models: model 'model0' has several speakers")
