"""Stages 6 and 7 from archives to scored lists: backends, cohort, score_trials, its records."""

import json
import os
import re
from dataclasses import replace

import kaldiio
import numpy as np
import pytest

from sv.errors import SvError
from sv.files import hash_file
from sv.kaldi.archive import read_vectors, write_archive
from sv.kaldi.data_dir import read_table, write_data_dir, write_table
from sv.kaldi.trials import Trials
from sv.score.backends import Cohort, Scorer, read_cohort, read_info
from sv.score.record import read_scored_list, read_scores, write_scored_list
from sv.score.trials import match_embeddings


def make_list(utterances, trials, seed=0):
    """Give a random list of distinct trials."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(utterances**2)[:trials]
    names = [f"u{i}" for i in range(utterances)]
    enrol, test = (part.astype(np.int32) for part in np.divmod(pairs, utterances))
    return Trials(names, enrol, test, enrol % 3 == test % 3)


def make_vectors(rows, dim=256, seed=1):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, dim)) * 10 + 3).astype(np.float32)


def define_cosines(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def test_scores_are_cosines_to_the_accuracy_of_float32():
    trials, vectors = make_list(300, 20_000), make_vectors(300)
    vectors[5] *= 1e-30
    vectors[6] *= 1e15
    scores, _ = Scorer(trials, vectors).score("cosine")
    expected = define_cosines(vectors[trials.enrol], vectors[trials.test])
    assert np.abs(scores - expected).max() < 5e-7
    assert np.array_equal(scores, Scorer(trials, vectors, num_threads=3).score("cosine")[0])
    # The order of rows, of trials and of the two sides do not matter, to the last bit.
    order = np.random.default_rng(2).permutation(300)
    keys = [trials.utterances[i] for i in order]
    again = Scorer(trials, match_embeddings(trials, keys, vectors[order]))
    assert np.array_equal(scores, again.score("cosine")[0])
    turned = Trials(trials.utterances, trials.test[::-1], trials.enrol[::-1], trials.is_target)
    assert np.array_equal(scores[::-1], Scorer(turned, vectors).score("cosine")[0])


def make_cohort(vectors):
    means = vectors.reshape(-1, 4, vectors.shape[1]).mean(axis=1)
    return Cohort(means, vectors.mean(axis=0, dtype=np.float64), len(vectors))


def test_cosine_mean_subtracts_the_mean_of_the_cohort():
    trials, vectors, others = make_list(40, 500), make_vectors(40), make_vectors(80, seed=5)
    scores, parameters = Scorer(trials, vectors, make_cohort(others)).score("cosine_mean")
    centred = vectors - others.mean(axis=0, dtype=np.float64)
    expected = define_cosines(centred[trials.enrol], centred[trials.test])
    assert np.abs(scores - expected).max() < 1e-6
    assert parameters == {"cohort_utterances": 80}


@pytest.mark.parametrize(("speakers", "top_n"), [(20, 7), (20, 20), (6, 300)])
def test_as_norm_is_what_its_definition_says(speakers, top_n):
    trials, vectors = make_list(1100, 3000), make_vectors(1100, dim=16)
    others = make_vectors(4 * speakers, dim=16, seed=5)
    cohort = make_cohort(others)
    scores, parameters = Scorer(trials, vectors, cohort, top_n).score("as_norm")
    used = min(top_n, speakers)
    assert parameters == {
        "top_n": used, "cohort_speakers": speakers, "cohort_utterances": 4 * speakers
    }  # fmt: skip
    for i in range(0, 3000, 7):
        pair = vectors[[trials.enrol[i], trials.test[i]]]
        cosine = define_cosines(pair[:1], pair[1:])[0]
        sides = []
        for vector in pair:
            against = [define_cosines(vector[None], mean[None])[0] for mean in cohort.means]
            top = sorted(against, reverse=True)[:used]
            mean = sum(top) / used
            deviation = (sum((s - mean) ** 2 for s in top) / used) ** 0.5
            sides.append((cosine - mean) / deviation)
        assert scores[i] == pytest.approx(sum(sides) / 2, rel=1e-4, abs=1e-4)
    again, _ = Scorer(trials, vectors, cohort, top_n, num_threads=3).score("as_norm")
    assert np.array_equal(scores, again)


def test_as_norm_refuses_a_cohort_that_measures_nothing():
    trials, vectors = make_list(5, 9), make_vectors(5, dim=8)
    one = np.ones((1, 8), dtype=np.float32)
    with pytest.raises(SvError, match="the cohort has 1 speaker: AS-norm needs at least 2"):
        Scorer(trials, vectors, Cohort(one, one[0], 1)).score("as_norm")
    with pytest.raises(SvError, match="5 of 5 utterances have the same score against all"):
        Scorer(trials, vectors, Cohort(np.repeat(one, 4, axis=0), one[0], 4), 3).score("as_norm")
    with pytest.raises(SvError, match="of different networks; make stage 6 again"):
        Scorer(trials, vectors, make_cohort(make_vectors(8, dim=9))).score("cosine_mean")


def test_the_cohort_is_a_data_directory_of_clean_trained_utterances(run_cli, tmp_path):
    speakers = {f"s{s}-{u}": f"s{s}" for s in range(3) for u in (0, 1, 10, 2, 3)}
    write_data_dir(
        tmp_path / "train", speakers, feats_scp={u: f"x.ark:{i}" for i, u in enumerate(speakers)},
        utt2num_frames=dict.fromkeys(speakers, 300), utt2dur=dict.fromkeys(speakers, 3.0),
    )  # fmt: skip
    # s1-0 is held out, s2 has one utterance.
    trained = {u: s for u, s in speakers.items() if u != "s1-0" and (s, u) <= ("s2", "s2-0")}
    write_table(tmp_path / "utterances", trained)
    (tmp_path / "score.toml").write_text("cohort_utterances_per_speaker = 2\n")
    argv = ("sv.bin.make_cohort", tmp_path / "score.toml", tmp_path / "train",
            tmp_path / "utterances", tmp_path / "cohort")  # fmt: skip
    run_cli(*argv)
    chosen = ["s0-0", "s0-1", "s1-1", "s1-10", "s2-0"]
    for name in ("utt2spk", "feats.scp", "utt2num_frames", "utt2dur"):
        assert list(read_table(tmp_path / "cohort" / name)) == chosen
    assert read_table(tmp_path / "cohort" / "feats.scp")["s1-1"] == "x.ark:6"
    write_table(tmp_path / "utterances", {**trained, "s0-00": "s0"})
    done = run_cli(*argv, check=False)
    assert done.returncode == 1
    assert "1 of the 5 utterances chosen from" in done.stderr
    assert "are missing (first: s0-00); make stages 3 and 4 again" in done.stderr


@pytest.mark.parametrize("form", ["float64", "text", "two archives", "tab"])
def test_vectors_of_all_of_kaldis_forms_are_read(tmp_path, form):
    vectors = {f"u{i}": row for i, row in enumerate(make_vectors(5, dim=7))}
    ark, scp = str(tmp_path / "x.ark"), tmp_path / "xvector.scp"
    if form == "float64":
        items = {key: row.astype(np.float64) for key, row in vectors.items()}
        kaldiio.save_ark(ark, items, scp=str(scp))
    elif form == "text":
        kaldiio.save_ark(ark, vectors, scp=str(scp), text=True)
    else:
        names = list(vectors)
        for part, own in (("1", names[:2]), ("2", names[2:])):
            items = ((key, vectors[key]) for key in own)
            write_archive(tmp_path / f"{part}.ark", tmp_path / part, items, method="none")
        text = "".join((tmp_path / part).read_text() for part in ("2", "1"))
        scp.write_text(text.replace(" ", "\t") if form == "tab" else text)
        vectors = {key: vectors[key] for key in names[2:] + names[:2]}
    keys, rows = read_vectors(scp)
    assert keys == list(vectors) and rows.dtype == np.float32
    np.testing.assert_allclose(rows, list(vectors.values()), rtol=1e-5)


def write_xvectors(folder, vectors, **info):
    write_archive(folder / "x.ark", folder / "xvector.scp", iter(vectors.items()), method="none")
    info = {"data_set": "mini_test", "precision": "bf16", "model": "exp/M/final.pt", **info}
    (folder / "info.json").write_text(json.dumps(info))


@pytest.fixture
def scored(tmp_path):
    """Embeddings of 30 utterances of 6 speakers, a list of 200 trials, a cohort of 4 speakers."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(10, 32))
    vectors = {
        f"s{s}-{u}": (centres[s] + rng.normal(size=32)).astype(np.float32)
        for s in range(10) for u in range(5)
    }  # fmt: skip
    cohort = {key: vectors.pop(key) for key in list(vectors) if key[1] in "6789"}
    write_xvectors(tmp_path / "xvectors_mini_test", vectors)
    write_xvectors(tmp_path / "cohort", cohort, data_set="cohort")
    (tmp_path / "cohort" / "utt2spk").write_text("".join(f"{u} {u[:2]}\n" for u in cohort))
    keys = list(vectors)
    pairs = [(a, b) for a in keys for b in keys if a < b]
    rows = [pairs[i] for i in rng.permutation(len(pairs))[:200]]
    (tmp_path / "mini").write_text(
        "".join(f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n" for a, b in rows)
    )
    return tmp_path, vectors, rows


def score(run_cli, root, *options, check=True):
    return run_cli(
        "sv.bin.score_trials", *options, root / "xvectors_mini_test", root / "mini",
        root / "scores", check=check,
    )  # fmt: skip


def read_lines(root):
    text = (root / "scores/mini_cosine.txt").read_text()
    return [line.split(" ") for line in text.splitlines()]


def test_score_trials_writes_cosines_metrics_and_curve(run_cli, scored):
    root, vectors, rows = scored
    assert "mini: EER " in score(run_cli, root).stderr
    lines = read_lines(root)
    assert [(a, b) for a, b, _ in lines] == rows
    sides = [np.array([vectors[row[side]] for row in rows]) for side in (0, 1)]
    cosines = define_cosines(*sides)
    assert [float(text) for _, _, text in lines] == pytest.approx(cosines, abs=5e-7)
    metrics = json.loads((root / "scores/mini_cosine.json").read_text())
    targets = sum(e[:2] == t[:2] for e, t in rows)
    assert {key: metrics[key] for key in list(metrics)[:9]} == {
        "trials_name": "mini", "data_set": "mini_test", "backend": "cosine",
        "backend_parameters": {}, "precision": "bf16", "untrained": False,
        "trials": 200, "targets": targets, "nontargets": 200 - targets,
    }  # fmt: skip
    assert list(metrics["min_dcf"]) == list(metrics["min_dcf_threshold"])
    assert list(metrics["min_dcf"]) == ["0.01", "0.05", "0.001"]
    det = json.loads((root / "scores/mini_cosine.det.json").read_text())
    assert (det["p_fa"][0], det["p_miss"][0], det["p_fa"][-1], det["p_miss"][-1]) == (1, 0, 0, 1)
    assert len(det["p_fa"]) == len(det["p_miss"]) <= 500


def test_every_backend_from_the_step_to_the_record(run_cli, scored):
    root, vectors, rows = scored
    (root / "score.toml").write_text("top_n = 3\nbootstrap_replicates = 20\n")
    (root / "utt2spk").write_text("".join(f"{u} {u[:2]}\n" for u in vectors))
    marks = root / "marks.jsonl"
    argv = (
        "steps/score_trials.sh", "--backends", "cosine as_norm cosine_mean", "--suffix", "_bf16",
        "--cohort", root / "cohort", "--config", root / "score.toml", "--utt2spk",
        root / "utt2spk", root / "xvectors_mini_test", root / "mini", root / "scores",
    )  # fmt: skip
    done = run_cli(*argv, env={"SV_METER_MARKS": str(marks)})
    found = {record.backend: record for record in read_scores(root / "scores")}
    assert set(found) == {"cosine", "cosine_mean", "as_norm"}
    for backend, record in found.items():
        line = f"mini: EER {record.eer_percent:.2f} %, minDCF(0.01) {record.min_dcf['0.01']:.3f}"
        assert (
            f"steps/score_trials.sh: {line}, 200 trials, {backend}, 95 % interval " in done.stderr
        )
        assert record.path == root / "scores" / f"mini_{backend}_bf16.json"
        low, high = record.eer_percent_interval
        assert low <= record.eer_percent <= high
        assert record.bootstrap.of_eer_percent == record.eer_percent
        assert sum(record.histogram.targets) == record.targets
        assert sum(record.histogram.nontargets) == record.nontargets
        band = record.bootstrap.det
        assert all(a <= b for a, b in zip(band.p_miss_low, band.p_miss_high, strict=True))
    phases = [line for line in map(json.loads, marks.read_text().splitlines()) if "name" in line]
    assert [(line["mark"], line["name"]) for line in phases] == [
        ("phase", "cosine"), ("phase", "as_norm"), ("phase", "cosine_mean"),
    ]  # fmt: skip
    assert found["as_norm"].backend_parameters == {
        "top_n": 3, "cohort_speakers": 4, "cohort_utterances": 20
    }  # fmt: skip
    cohort = read_cohort(root / "cohort", {"model": "exp/M/final.pt", "precision": "bf16"})
    place = {u: i for i, u in enumerate(vectors)}
    trials = Trials(
        list(vectors), *np.array([[place[u] for u in row] for row in rows]).T, np.zeros(len(rows))
    )
    expected, _ = Scorer(trials, np.array(list(vectors.values())), cohort, 3).score("as_norm")
    lines = (root / "scores/mini_as_norm_bf16.txt").read_text().splitlines()
    assert [np.float32(line.split(" ")[2]) for line in lines] == pytest.approx(expected, rel=1e-5)
    # The same again gives the same bytes; without replicates the intervals go.
    files = {path: path.read_bytes() for path in (root / "scores").glob("mini*")}
    assert len(files) == 15
    run_cli(*argv)
    assert {path: path.read_bytes() for path in files} == files
    (root / "score.toml").write_text("bootstrap_replicates = 0\n")
    run_cli(*argv)
    for record in read_scores(root / "scores"):
        assert (record.eer_percent_interval, record.resampling, record.bootstrap) == (None,) * 3
        assert record.histogram is not None and not list(root.glob("scores/*.boot.json"))


def test_speakers_that_the_labels_contradict_leave_the_measures_alone(run_cli, scored):
    """Of some corpora the speakers are not known well; the EER is, its interval is not."""
    root, vectors, _ = scored
    score(run_cli, root)
    before = json.loads((root / "scores/mini_cosine.json").read_text())
    speakers = {u: u[:2] for u in vectors} | {next(iter(vectors)): "somebody-else"}
    write_table(root / "utt2spk", speakers)
    done = score(run_cli, root, "--utt2spk", root / "utt2spk")
    assert "no interval: " in done.stderr and "contradict utt2spk" in done.stderr
    metrics = json.loads((root / "scores/mini_cosine.json").read_text())
    assert {key: metrics[key] for key in before} == before
    assert metrics["eer_percent_interval"] is metrics["min_dcf_interval"] is None
    assert "contradict utt2spk" in metrics["bootstrap"]["reason"]
    assert (root / "scores/mini_cosine.hist.json").exists()
    assert not (root / "scores/mini_cosine.boot.json").exists()


def test_a_record_is_written_as_it_was_read(run_cli, scored):
    root, vectors, _ = scored
    write_table(root / "utt2spk", {u: u[:2] for u in vectors})
    score(run_cli, root, "--utt2spk", root / "utt2spk")
    record = read_scored_list(root / "scores/mini_cosine.json")
    write_scored_list(replace(record, path=root / "copy" / "mini_cosine.json"))
    for path in (root / "scores").glob("*.json"):
        assert (root / "copy" / path.name).read_bytes() == path.read_bytes()
    # Replicates of other scores say nothing of these.
    edit = json.loads((root / "scores/mini_cosine.json").read_text())
    edit["eer_percent"] += 0.01
    record.path.write_text(json.dumps(edit))
    assert read_scored_list(record.path).bootstrap is None
    for value, what in ((None, "eer_percent must be"), (-1, "eer_percent must be at least 0")):
        record.path.write_text(json.dumps({**edit, "eer_percent": value}))
        with pytest.raises(SvError, match=f"^{record.path}: {what}"):
            read_scored_list(record.path)
    record.path.write_text(json.dumps({**edit, "eer_percent_interval": [2, 1]}))
    with pytest.raises(SvError, match="eer_percent_interval is .*, expected .low, high."):
        read_scored_list(record.path)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--backends", "plda"], 2, "--backends: no backend 'plda' (known: cosine, cosine_mean, "
         "as_norm)"),
        (["--backends", "cosine as_norm"], 2, "backend as_norm needs --cohort"),
        (["--backends", "as_norm", "--cohort", "{}/nosuch"], 1, "no such file "
         "{}/nosuch/xvector.scp; run stage 6 first"),
    ],
)  # fmt: skip
def test_a_wrong_backend_is_one_line(run_cli, scored, options, status, message):
    root = scored[0]
    done = score(run_cli, root, *(word.format(root) for word in options), check=False)
    assert done.returncode == status
    assert done.stderr == f"sv.bin.score_trials: {message.format(root)}\n"


def test_a_cohort_of_another_network_or_precision_is_refused(scored):
    root = scored[0]
    with pytest.raises(SvError, match=r"its precision is bf16, that of the .* is fp32; make"):
        read_cohort(root / "cohort", {"model": "exp/M/final.pt", "precision": "fp32"})
    info, final = root / "cohort" / "info.json", root / "final.pt"
    final.write_text("a network")
    made_by = {"model": str(final), "model_sha256": hash_file(final, "sha256")}
    earlier = json.loads(info.read_text())
    info.write_text(json.dumps(earlier | made_by))
    with pytest.raises(SvError, match="its model_sha256 is"):
        read_cohort(root / "cohort", {**made_by, "precision": "bf16", "model_sha256": "0"})
    final.write_text("trained again")
    with pytest.raises(SvError, match=f"embeddings of another network than {final} is; run stage"):
        read_info(root / "cohort")
    info.write_text(json.dumps(earlier))
    (root / "cohort" / "utt2spk").write_text("s6-0 s6\n")
    with pytest.raises(SvError, match=r"19 utterances of xvector.scp missing \(first: s6-1\)"):
        read_cohort(root / "cohort", {"model": "exp/M/final.pt", "precision": "bf16"})


def test_enrolment_models_are_the_mean_of_their_utterances(run_cli, scored):
    root, vectors, _ = scored
    models = {"m0": ["s0-0", "s0-3", "s0-4"], "m1": ["s1-2"]}
    (root / "mini.models").write_text("".join(f"{m} {' '.join(u)}\n" for m, u in models.items()))
    (root / "mini").write_text("m0 s0-1 target\nm0 s1-1 nontarget\nm1 s1-3 target\n")
    score(run_cli, root)
    for model, test, text in read_lines(root):
        mean = sum(vectors[u].astype(float) for u in models[model]) / len(models[model])
        expected = define_cosines(mean[None], vectors[test][None])[0]
        assert float(text) == pytest.approx(expected, abs=5e-7)
    (root / "mini.models").write_text("m0 s0-0 x-1\ns1-2 s1-2\n")
    done = score(run_cli, root, check=False)
    assert done.returncode == 1
    assert "1 enrolment models are named like utterances (first: s1-2)" in done.stderr
    (root / "mini.models").write_text("m0 s0-0 x-1\n")
    done = score(run_cli, root, check=False)
    assert "1 of 2 utterances of the enrolment models have no embedding (x-1)" in done.stderr


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
    (root / "mini").write_text("x-1 x-2 target\nx-2 x-3 nontarget\n")
    done = score(run_cli, root, check=False)
    assert "3 of 3 utterances" in done.stderr and "the ids there are like 's0-0'" in done.stderr


def test_a_cut_off_archive_is_named_with_its_utterance_and_stage(run_cli, scored):
    root = scored[0]
    ark = root / "xvectors_mini_test/x.ark"
    os.truncate(ark, 2000)
    done = score(run_cli, root, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.search(rf": s\d-\d: {ark}:\d+: truncated", done.stderr)
    assert done.stderr.endswith("run stage 6 again\n")


def test_one_sided_list_is_one_line(run_cli, scored):
    root = scored[0]
    (root / "mini").write_text("s0-0 s0-1 target\ns1-0 s1-1 target\n")
    done = score(run_cli, root, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "sv.bin.score_trials: 2 target and 0 nontarget trials: both are needed\n"
    )


def test_config_says_what_stages_6_and_7_do(run_cli, tmp_path):
    words = ("sv.bin.recipe", "settings", tmp_path, "resnet18_d")
    config = tmp_path / "score.toml"
    config.write_text("")
    (tmp_path / "train.toml").write_text("")
    assert run_cli(*words).stdout == "resnet18_d\ncosine\nfalse\nfalse\n1\n0\n"
    config.write_text('untrained = true\nbackends = ["cosine", "as_norm"]\n')
    assert run_cli(*words).stdout == "resnet18_d\ncosine as_norm\ntrue\ntrue\n1\n0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('backends = ["asnorm"]', "no backend 'asnorm' (known: cosine, cosine_mean, as_norm)"),
        ('backends = ["cosine", "cosine"]', "backends must name at least one, each once"),
        ("backends = []", "backends must name at least one, each once"),
        ("top_n = 1", "top_n must be at least 2, not 1"),
        ("cohort_utterances_per_speaker = 0", "must be at least 1, not 0"),
    ],
)
def test_a_wrong_scoring_config_is_refused_before_any_work(run_cli, tmp_path, text, message):
    (tmp_path / "score.toml").write_text(text + "\n")
    (tmp_path / "train.toml").write_text("")
    done = run_cli("sv.bin.recipe", "settings", tmp_path, "resnet18_d", check=False)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
