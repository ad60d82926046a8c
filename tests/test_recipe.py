"""The tiny recipe through the real run.sh: every stage, reruns, kills and wrong options."""

import csv
import glob
import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kaldiio
import pytest
from conftest import ROOT, TinyRecipe, call, environment, read_sidecar, wait_for_end_of

from sv.kaldi.data_dir import read_table, write_data_dir

SHARED_STAGES = ("00_corpora", "01_manifests", "02_augment", "03_fbank", "04_egs")
MODEL_STAGES = (
    "05_train", "06_extract_mini_test", "06_extract_cohort", "07_score_mini", "07_untrained_mini",
)  # fmt: skip


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny recipe that a test may change."""
    shutil.copytree(tiny.root, tmp_path / "recipe", symlinks=True)
    recipe = TinyRecipe(tmp_path / "recipe")
    # The copied tables name the arks of the original; those are only read.
    return recipe


def test_every_stage_leaves_its_artefacts_and_sidecar(tiny):
    model = tiny.exp / tiny.model
    for name in SHARED_STAGES:
        assert read_sidecar(tiny.data, name)["status"] == "complete"
    for name in MODEL_STAGES:
        found = read_sidecar(model, name)
        assert (found["status"], found["model"]) == ("complete", tiny.model)
        assert found["energy_kwh"] is None or found["energy_kwh"] > 0
    phases = [phase["name"] for phase in read_sidecar(model, "07_score_mini")["phases"]]
    assert phases == ["cosine", "as_norm"]
    for name in ("model.json", "config.toml", "final.pt", "results.json", "log/train.log"):
        assert (model / name).stat().st_size > 0
    scores = (model / "scores" / "mini_cosine.txt").read_text().splitlines()
    trials = (tiny.data / "trials" / "mini").read_text().splitlines()
    assert [s.split()[:2] for s in scores] == [t.split()[:2] for t in trials]
    metrics = json.loads((model / "scores" / "mini_cosine.json").read_text())
    assert (metrics["trials"], metrics["targets"]) == (120, 24)
    results = {p.name for p in (tiny.exp / "results").iterdir()}
    for table in ("table1", "table2"):
        assert {f"{table}.md", f"{table}.tex", f"{table}.csv"} <= results
    for figure in ("energy_accuracy", "det_mini"):
        assert {f"{figure}.pdf", f"{figure}.png"} <= results


def test_kaldis_own_readers_accept_the_folders(tiny, run_cli):
    for name in ("mini_train", "mini_train_noise", "mini_test"):
        run_cli("utils/validate_data_dir.sh", "--require", "feats.scp utt2dur", tiny.data / name)
    vectors = dict(
        kaldiio.load_scp(str(tiny.exp / tiny.model / "xvectors_mini_test" / "xvector.scp"))
    )
    assert len(vectors) == 16 and {v.shape for v in vectors.values()} == {(16,)}


def test_the_run_ends_with_tables_and_where_they_are(tiny):
    if not tiny.output:
        pytest.skip("the recipe was run before this session")
    assert "| " + tiny.model in tiny.output
    for word in ("estimated from CPU time", "untrained networks", "listed in contents.txt"):
        if (
            word.startswith("estimated")
            and read_sidecar(tiny.exp / tiny.model, "05_train")["measured_fraction"]
        ):
            continue
        assert word in tiny.output


def test_nothing_is_written_elsewhere(tiny):
    assert {p.name for p in tiny.root.iterdir()} <= {"corpora", "data", "exp", "home"}
    # lhotse makes an empty folder for tools in the home folder when it is imported.
    left = {p.relative_to(tiny.home).as_posix() for p in tiny.home.rglob("*")}
    assert left <= {".lhotse", ".lhotse/tools"}


def count_cpu_s():
    """CPU time of the processes that have ended: other work of the machine does not count."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_results_alone_are_remade_in_seconds(copy):
    before = (copy.exp / "results" / "table1.md").read_bytes()
    shutil.rmtree(copy.exp / "results")
    before_s = count_cpu_s()
    copy.run("--stage", 8)
    assert count_cpu_s() - before_s < 20
    assert (copy.exp / "results" / "table1.md").read_bytes() == before


def test_a_second_system_joins_the_tables(copy):
    name = "resnet34_d_1111"
    done = copy.run("--stage", 5, "--model", name)
    assert name in done.stdout and copy.model in done.stdout
    csv = (copy.exp / "results" / "table1.csv").read_text()
    assert name in csv and copy.model in csv


def test_finished_jobs_are_not_done_again_unless_an_input_changed(copy):
    done = copy.run("--stage", 6, "--stop_stage", 6)
    # The copy's paths are new to the records: everything is done once more, then not again.
    done = copy.run("--stage", 6, "--stop-stage", 6)
    assert "2 of 2 jobs finished before" in done.stderr
    attempts = read_sidecar(copy.exp / copy.model, "06_extract_mini_test")["attempts"]
    assert [a["resumed"] for a in attempts][-1] is True
    os.utime(copy.data / "mini_test" / "feats.scp")
    done = copy.run("--stage", 6, "--stop-stage", 6)
    again = [line for line in done.stderr.splitlines() if "finished before" in line]
    assert not [line for line in again if "xvectors_mini_test" in line]
    attempts = read_sidecar(copy.exp / copy.model, "06_extract_mini_test")["attempts"]
    assert not attempts[-1]["resumed"]


def test_a_killed_training_goes_on_and_its_energy_counts(copy, tmp_path):
    """kill -9 of the whole run in stage 5: the same command again completes, nothing is lost."""
    model = "resnet18_w2"
    argv = ["./run.sh", "--egs", "tests/egs/tiny", "--data", copy.data, "--exp", copy.exp]
    argv += ["--stage", 5, "--stop-stage", 5, "--model", model]
    process = subprocess.Popen(
        [str(a) for a in argv], cwd=ROOT, env=environment(), start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    folder = copy.exp / model
    deadline = time.monotonic() + 60
    while not (folder / "checkpoints" / "epoch_001.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "final.pt").exists()
    wait_for_end_of(str(folder))
    copy.run("--stage", 5, "--stop-stage", 5, "--model", model)
    assert "resumed at step" in (folder / "log" / "train.log").read_text()
    found = read_sidecar(folder, "05_train")
    assert [a["status"] for a in found["attempts"]] == ["interrupted", "complete"]
    assert found["attempts"][1]["resumed"] and found["status"] == "complete"
    each = [a["energy_kwh"] for a in found["attempts"]]
    assert None in each or found["energy_kwh"] == pytest.approx(sum(each))


def read_tables(recipe, tmp_path):
    """Make the tables without what draws figures; return Tables 1 and 3 but for all tried."""
    stub = tmp_path / "stub" / "matplotlib.py"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text("raise ModuleNotFoundError('not needed here', name='matplotlib')\n")
    argv = [sys.executable, "-m", "sv.bin.make_results", recipe.data, recipe.exp]
    done = call(argv, timeout=60, PYTHONPATH=f"{stub.parent}:{ROOT}")
    assert "but no figures: not needed here" in done.stderr
    rows = []
    for table in ("table1", "table3"):
        with open(recipe.exp / "results" / f"{table}.csv") as file:
            rows += csv.DictReader(file)
    tried = ("energy_all_kwh", "co2_all_kg", "attempts")
    return [{k: value for k, value in row.items() if not k.startswith(tried)} for row in rows]


def test_a_refused_rerun_changes_no_figure_of_the_tables(copy, tmp_path):
    before = read_tables(copy, tmp_path)
    assert len(before) > 12
    attempts = {path: path.stat().st_size for path in copy.root.glob("**/*.journal.jsonl")}
    egs = tmp_path / "egs"
    shutil.copytree(ROOT / "tests/egs/tiny/conf", egs / "conf")
    config = egs / "conf" / "train.toml"
    good = config.read_text()
    config.write_text(good.replace("momentum", "momentun"))
    for options in (
        ["--ngpu", 1], ["--max-kwh", 0], ["--nnodes", 2], ["--cmd", "utils/slurm.py"],
        ["--stage", 3, "--cmd", "utils/slurm.py"], ["--egs", egs],
        ["--resume", "false", "--ngpu", 1],
    ):  # fmt: skip
        if options[-2:] == ["--ngpu", 1] and glob.glob("/dev/nvidia[0-9]*"):
            continue
        done = copy.run("--stage", 5, "--stop-stage", 5, *options, check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, options
    # No attempt, no energy; what only the stage itself can find is an attempt that did nothing.
    assert attempts == {path: path.stat().st_size for path in attempts}
    config.write_text(good.replace("num_epochs = 2", "num_epochs = 3"))
    done = copy.run("--egs", egs, "--stage", 5, "--stop-stage", 5, check=False)
    assert done.returncode == 1 and "num_epochs: 2 -> 3" in done.stderr
    assert "failed with status 1; unchanged: " in done.stderr
    feats = copy.data / "mini_test" / "feats.scp"
    feats.rename(tmp_path / "feats.scp")
    assert copy.run("--stage", 6, "--stop-stage", 6, check=False).returncode == 1
    (tmp_path / "feats.scp").rename(feats)
    # So is one that finds all work finished.
    done = copy.run("--stage", 5, "--stop-stage", 5)
    assert f"nothing to do: training of {copy.model} is finished, step 8 of 8; " in done.stderr
    for stage, word in ((0, "the corpus is there already"), (4, "every file is as it was")):
        done = copy.run("--corpora", copy.corpora, "--stage", stage, "--stop-stage", stage)
        assert f"nothing to do: {word}; unchanged: " in done.stderr
    assert read_tables(copy, tmp_path) == before
    train = read_sidecar(copy.exp / copy.model, "05_train")
    assert [a["status"] for a in train["attempts"]] == ["complete", "failed", "complete"]
    assert train["energy_all_kwh"] is None or train["energy_all_kwh"] > train["energy_kwh"]


def test_training_anew_keeps_the_old_run(copy):
    old = (copy.exp / copy.model / "final.pt").read_bytes()
    done = copy.run("--stage", 5, "--stop-stage", 5, "--resume", "false")
    assert "this brings it back: mv --backup=numbered -t " in done.stderr
    backups = list((copy.exp / copy.model / ".backup").glob("*/final.pt"))
    assert len(backups) == 1 and backups[0].read_bytes() == old
    found = read_sidecar(copy.exp / copy.model, "05_train")
    assert [a["resumed"] for a in found["attempts"]] == [False, False]
    if found["energy_kwh"] is not None:
        assert found["energy_all_kwh"] > found["energy_kwh"]


def test_every_core_is_used_whatever_openmp_is_told(tmp_path):
    """Nproc, which run.sh asks for the cores, obeys OMP_NUM_THREADS; run.sh must not."""
    cores = len(os.sched_getaffinity(0))
    argv = ["bash", "-x", "./run.sh", "--egs", "tests/egs/tiny", "--stage", "8", "--data", tmp_path,
            "--exp", tmp_path]  # fmt: skip
    done = subprocess.run(
        [str(a) for a in argv], cwd=ROOT, env=environment(OMP_NUM_THREADS="7"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"+ nj={cores}\n" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stagee", "5"], "unknown option --stagee"),
        (["--stage", "abc"], "--stage must be a whole number, not 'abc'"),
        (["--stage"], "option --stage needs a value"),
        (["--model", "ResNet-50-D[2,8,2,2]"], "did you mean 'resnet50_d_2822'?"),
        (["--model", "resnet50"], "the name is 'resnet50_d'"),
        (["--stage", "9"], "the stages are 0 to 8"),
        (["--stage", "6", "--stop-stage", "5"], "--stage 6 comes after --stop-stage 5"),
        (["--precision", "fp61"], "--precision is fp32, fp16 or bf16"),
        (["--precision", "fp32,bf16"], "--precision is fp32, fp16 or bf16"),
        (["--ngpu", "one"], "--ngpu must be a whole number"),
        (["--nnodes", "0"], "--nnodes must be at least 1"),
        (["--cmd", "utils/walk.py"], "no such program 'utils/walk.py'"),
        (["--data", "/scratch/JOB_7/data"], "JOB stands for the number of a job"),
        (["--nj", "0"], "--nj must be a whole number of at least 1"),
        (["--resume", "yes"], "--resume must be true or false"),
        (["--egs", "egs/nothing"], "no recipe in 'egs/nothing'"),
        (["--ngpu", "1"], "--ngpu 1: no NVIDIA driver on this machine"),
        (["--ngpu", "08"], "--ngpu must be a whole number"),
        (["--nnodes", "2"], "--nodes 2: this is one machine; take utils/slurm.py"),
        (["--max-kwh", "0"], "--max-kwh: must be a number above 0, not '0'"),
        (["--cmd", "utils/slurm.py"], "is this a machine of a Slurm site?"),
        (["--cmd", "utils/run.py --foo 1"], "unknown option --foo"),
        (["--country", "FR"], "did you mean FRA"),
        (["--egs", "egs/voxceleb"], "corpora.toml has no root for its corpora; give --corpora"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_no_work(tmp_path, options, message):
    recipe = TinyRecipe(tmp_path)
    if "--ngpu" in options and glob.glob("/dev/nvidia[0-9]*"):
        pytest.skip("this machine has GPUs")
    done = recipe.run(*options, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.rglob("*")] == ["home"]


def test_run_sh_is_bash_and_knows_the_callers_folder(run_cli):
    wrong = ("--stage", 9)
    done = run_cli("sh", "run.sh", *wrong, check=False)
    assert done.returncode == 2 and "the stages are 0 to 8" in done.stderr
    for egs, folder in ((".", "egs/mini"), ("mini", "egs")):
        run_sh = Path(os.path.relpath(ROOT, ROOT / folder)) / "run.sh"
        done = run_cli(run_sh, "--egs", egs, *wrong, check=False, cwd=ROOT / folder)
        assert done.returncode == 2 and "the stages are 0 to 8" in done.stderr


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("energy", "pue = ", "puee = ", "unknown key 'puee' (did you mean 'pue'?)"),
        ("augment", "[noise]", "[noises]", "unknown key 'noises' (did you mean 'noise'?)"),
        ("features", "num_mel_bins", "num_mel_bin", "(did you mean 'num_mel_bins'?)"),
        ("train", "peak_lr", "peak_rl", "[optimizer]: unknown key 'peak_rl' (did you mean"),
        ("train", "[network]", '[network]\npooling = "max"', "must be one of asp, mean_std"),
        ("score", "as_norm", "asnorm", "no backend 'asnorm'"),
        ("corpora", "make", "mkae", "unknown key 'mkae' (did you mean 'make'?)"),
        ("corpora", "[speech.mini]", "[speech.minni]", "no local/prepare_minni.py"),
    ],
)  # fmt: skip
def test_a_config_that_a_stage_will_read_is_checked_before_the_first(
    tmp_path, name, old, new, message
):
    shutil.copytree(ROOT / "tests/egs/tiny/conf", tmp_path / "egs/conf")
    path = tmp_path / "egs/conf" / f"{name}.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    done = TinyRecipe(tmp_path).run("--egs", tmp_path / "egs", check=False)
    assert done.returncode == 2 and message in done.stderr
    assert f"{path}: " in done.stderr or "prepare_" in message
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_other_features_are_seen_by_the_stages_after(copy, tmp_path):
    """Archives made anew have the same names, sizes and offsets; the old results do not stand."""
    recipe = tmp_path / "egs with a space" / "tiny"
    shutil.copytree(ROOT / "tests/egs/tiny/conf", recipe / "conf")
    config = recipe / "conf" / "features.toml"
    config.write_text(config.read_text().replace("7600", "7000"))
    options = ["--egs", recipe, "--stop-stage", 6]
    done = copy.run(*options, "--stage", 3, check=False)
    assert done.returncode == 1 and "holds another one" in done.stderr
    # The network is of the old features: nothing is extracted, and no figure changes.
    exp = copy.exp / copy.model
    names = ("06_extract_mini_test", "06_extract_cohort")
    before = [read_sidecar(exp, name)["energy_kwh"] for name in names]
    kept = {path: path.stat().st_mtime_ns for path in exp.glob("**/xvectors*/*")}
    done = copy.run(*options, "--stage", 6, check=False)
    assert done.returncode == 1 and "high_freq_hz: 7600.0 -> 7000.0" in done.stderr
    words = ["--cmd", "utils/run.py", "--config", recipe / "conf" / "score.toml", exp]
    words += [copy.data / "mini_train", copy.data / "egs", exp / "cohort" / "xvectors"]
    done = call(["steps/extract_cohort.sh", *words], timeout=60)
    assert done.returncode == 1 and "high_freq_hz: 7600.0 -> 7000.0" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in exp.glob("**/xvectors*/*")} == kept
    assert [read_sidecar(exp, name)["energy_kwh"] for name in names] == before


def test_a_stage_ends_when_its_run_is_stopped(copy):
    """SIGTERM to run.sh alone: bash ends at once, and nothing goes on without it."""
    argv = ["./run.sh", "--egs", "tests/egs/tiny", "--data", copy.data, "--exp", copy.exp]
    argv += ["--stage", 5, "--stop-stage", 5, "--model", "resnet34_d"]
    process = subprocess.Popen(
        [str(a) for a in argv], cwd=ROOT, env=environment(), start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    folder = copy.exp / "resnet34_d"
    deadline = time.monotonic() + 60
    while not (folder / "log" / "train.log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.wait()
    wait_for_end_of(str(folder))
    assert read_sidecar(folder, "05_train")["status"] == "interrupted"


def test_an_utterance_without_features_costs_no_other(copy):
    """A rerun of stage 3 after a dropped utterance drops the same one, not the next."""
    test = copy.data / "mini_test"
    cuts = test / "cuts.jsonl.gz"
    with gzip.open(cuts, "rt") as file:
        lines = [json.loads(line) for line in file]
    lines = [  # 1,001 copies, one of them without its audio: under one in a thousand
        {**line, "id": f"{line['id']}-{number:03d}"} for number in range(63) for line in lines
    ]
    lines.sort(key=lambda line: line["id"])
    lines[5]["recording"] = {**lines[5]["recording"], "sources": [
        {"type": "file", "channels": [0], "source": str(copy.root / "none.flac")}]}  # fmt: skip
    big = copy.root / "big"
    big.mkdir()
    with gzip.open(big / "cuts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    write_data_dir(big, {line["id"]: line["supervisions"][0]["speaker"] for line in lines})
    config = "tests/egs/tiny/conf/features.toml"
    argv = ["steps/make_fbank.sh", "--nj", "2", "--config", config]
    for resume in ("true", "false"):
        done = subprocess.run(
            [*argv, "--cmd", f"utils/run.py --resume {resume}", str(big)],
            cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        kept = read_table(big / "feats.scp")
        assert kept.keys() == {line["id"] for line in lines} - {lines[5]["id"]}
    assert f"no features for {lines[5]['id']}" in (big / "log" / "fbank.2.log").read_text()


def test_a_missing_earlier_stage_is_named(tmp_path):
    done = TinyRecipe(tmp_path).run("--stage", 5, check=False)
    assert done.returncode == 1 and "run stages 1 and 2 first" in done.stderr


def test_a_failed_stage_stops_the_run_with_its_log(copy):
    (copy.data / "egs" / "train.npz").write_bytes(b"broken")
    done = copy.run("--stage", 5, "--model", "resnet34_d", check=False)
    assert done.returncode == 1
    assert "log is " in done.stderr and "make stage 4 again" in done.stderr
    assert "stage 6" not in done.stderr
    found = read_sidecar(copy.exp / "resnet34_d", "05_train")
    assert (found["status"], found["exit_code"]) == ("failed", 1)


def test_a_missing_corpus_is_one_line_each(tmp_path):
    recipe = TinyRecipe(tmp_path)
    words = ("--egs", "egs/an4", "--corpora", tmp_path / "none")
    done = recipe.run(*words, check=False)
    assert done.returncode == 2 and not (recipe.data / "energy").exists()
    assert done.stderr.count("\n") == 1 and f"no such folder {tmp_path}/none; " in done.stderr
    (tmp_path / "none").mkdir()
    done = recipe.run(*words, check=False)
    assert done.returncode == 1
    assert "speech an4: no such folder" in done.stderr and "augment noise" in done.stderr


def test_the_recipe_runs_from_its_own_folder(copy):
    """Paths on the command line are meant from where they were typed."""
    folders = ["--data", "data", "--exp", "exp"]
    done = subprocess.run(
        [ROOT / "run.sh", "--egs", "tests/egs/tiny", *folders, "--stage", "8"],
        cwd=copy.root, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and copy.model in done.stdout, done.stderr
