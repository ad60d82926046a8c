"""Several systems in one run.sh: failures, what is skipped, precisions, signals, the summary."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ROOT, TinyRecipe, call, environment, read_sidecar, wait_for_end_of

SMALL, BROKEN, OTHER = "resnet18_d", "resnet34_d", "resnet18_d_1111"


class StudyRecipe(TinyRecipe):
    """The tiny recipe with its data, no models, one backend, and three systems in models.txt."""

    def __init__(self, tiny, root):
        super().__init__(root)
        self.egs = root / "egs" / "tiny"
        shutil.copytree(tiny.data, self.data, symlinks=True)
        shutil.copytree(ROOT / "tests/egs/tiny/conf", self.egs / "conf")
        (self.egs / "conf" / "score.toml").write_text('backends = ["cosine"]\n')
        (self.egs / "conf" / "models.txt").write_text(f"{SMALL}\n{BROKEN}\n{OTHER}\n")

    def set_training(self, old, new):
        config = self.egs / "conf" / "train.toml"
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    def run(self, *options, **more):
        return super().run("--egs", self.egs, "--nj", 1, *options, **more)

    def start(self, *options):
        """Start run.sh; its output goes to <root>/output."""
        argv = ["./run.sh", "--egs", self.egs, "--nj", 1, "--data", self.data, "--exp", self.exp]
        with open(self.root / "output", "w") as output:
            return subprocess.Popen(
                [str(word) for word in [*argv, *options]], cwd=ROOT, env=environment(),
                start_new_session=True, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def count_attempts(self):
        """Give the number of attempts of every stage of every model."""
        return {
            path.relative_to(self.exp).as_posix(): len(json.loads(path.read_text())["attempts"])
            for path in self.exp.glob("*/energy/0[567]*.json")
        }


def read_table(output):
    """Give the summary's status of each system: the last word or words of its line."""
    lines = f"\n{output}".partition("\nsystem ")[2].splitlines()
    at = lines[0].index("status") + len("system ")
    return {line.split()[0]: line[at:] for line in lines[1:] if line.startswith("resnet")}


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory):
    """Three systems, walked once; the second has a checkpoint that cannot be read."""
    recipe = StudyRecipe(tiny, tmp_path_factory.mktemp("study"))
    recipe.set_training("num_epochs = 2", "num_epochs = 1")
    broken = recipe.exp / BROKEN / "checkpoints" / "epoch_001.pt"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"broken")
    recipe.first = recipe.run("--stage", 5, "--model", "study", check=False)
    return recipe


def test_a_failed_system_costs_no_other(study):
    done = study.first
    log = f"log is {study.exp / BROKEN / 'log' / 'train.log'}"
    at_once, at_the_end = done.stderr, done.stdout[done.stdout.index("\nsystem ") :]
    assert done.returncode == 1
    assert read_table(done.stdout) == {SMALL: "done", BROKEN: "failed", OTHER: "done"}
    assert f"{BROKEN} failed in stage 5 train" in at_once and at_once.count(log) >= 2
    assert log in at_the_end and "2 done, 1 failed" in at_the_end
    assert "system 3 of 3" in at_once.split(f"{BROKEN} failed")[1]
    row = next(line for line in at_the_end.splitlines() if line.startswith(SMALL))
    metrics = json.loads((study.exp / SMALL / "scores" / "mini_cosine.json").read_text())
    assert f" {metrics['eer_percent']:.2f} " in row and "7 score" in row
    found = read_sidecar(study.exp / SMALL, "05_train")
    assert ("†" in row) == (found["measured_fraction"] != 1)
    table = (study.exp / "results" / "table1.csv").read_text()
    assert SMALL in table and OTHER in table


def test_the_same_command_does_only_what_is_left(study):
    (study.exp / BROKEN / "checkpoints" / "epoch_001.pt").unlink()
    (study.exp / OTHER / "scores" / "mini_cosine.txt").unlink()
    before = study.count_attempts()
    done = study.run("--stage", 5, "--stop-stage", 7, "--model", "study")
    after = study.count_attempts()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {
        f"{BROKEN}/energy/05_train.json", f"{BROKEN}/energy/06_extract_mini_test.json",
        f"{BROKEN}/energy/07_score_mini.json", f"{OTHER}/energy/07_score_mini.json",
    }  # fmt: skip
    table = read_table(done.stdout)
    assert table == {SMALL: "finished before", BROKEN: "done", OTHER: "done"}
    # One system alone is run as it is asked for, and stays finished.
    study.run("--stage", 7, "--stop-stage", 7, "--model", SMALL)
    assert study.count_attempts()[f"{SMALL}/energy/07_score_mini.json"] == 2
    done = study.run("--stage", 5, "--stop-stage", 7, "--model", f"{SMALL} {OTHER}")
    assert set(read_table(done.stdout).values()) == {"finished before"}


def test_another_config_is_refused_and_not_skipped(study, tmp_path):
    config = study.egs / "conf" / "train.toml"
    kept = tmp_path / "train.toml"
    shutil.copy2(config, kept)
    study.set_training("peak_lr = 0.05", "peak_lr = 0.04")
    options = ["--model", SMALL, "--precision", "fp32 bf16"]
    done = study.run("--stage", 5, "--stop-stage", 5, *options, check=False)
    shutil.copy2(kept, config)
    assert done.returncode == 1
    assert read_table(done.stdout) == {SMALL: "failed"}
    assert "peak_lr" in done.stdout and "--resume false" in done.stdout


def test_a_precision_that_fails_costs_no_other(study, tmp_path):
    """A stand-in for a device without fp16; the jobs of the others run as ever."""
    cmd = tmp_path / "no_fp16"
    words = '#!/bin/sh\ncase "$*" in *"precision fp16"*) echo no fp16 >&2; exit 1;; esac\n'
    cmd.write_text(f'{words}exec utils/run.py "$@"\n')
    cmd.chmod(0o755)
    options = ["--stage", 6, "--stop-stage", 7, "--model", OTHER, "--cmd", f"{cmd} --mem 2G"]
    done = study.run(*options, "--precision", "fp32 fp16 bf16", check=False)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(OTHER)]
    assert done.returncode == 1
    assert [row[1] for row in rows] == ["fp32", "fp16", "bf16"]
    assert [row[-1] for row in rows] == ["before", "failed", "done"]
    assert "no fp16" in done.stdout
    assert (study.exp / OTHER / "scores" / "mini_cosine_bf16.json").exists()
    assert not (study.exp / OTHER / "xvectors_mini_test_fp16").exists()


def test_machines_and_gpus_are_asked_of_the_training(study):
    """utils/run.py has one machine only; what matters is that it was asked."""
    model = "resnet18_w2"
    # Of another program than our two nothing is known, and nothing refused before the stage.
    program = study.root / "jobs"
    program.write_text(f'#!/bin/sh\nexec {ROOT}/utils/run.py "$@"\n')
    program.chmod(0o755)
    options = ["--nnodes", 2, "--ngpu", 2, "--model", model, "--cmd", program]
    done = study.run("--stage", 5, "--stop-stage", 5, *options, check=False)
    argv = read_sidecar(study.exp / model, "05_train")["attempts"][-1]["argv"]
    assert done.returncode != 0 and argv[argv.index("--nnodes") + 1] == "2"
    assert argv[argv.index("--ngpu") + 1] == "2"


def test_what_became_of_a_system_is_in_its_sidecar(tmp_path, run_cli):
    """Whatever run.sh prints: one stopped at its budget, one failed, of one nothing was begun."""
    mark = '{"mark":"stopped","budget_kwh":1}'
    (tmp_path / "a.sh").write_text(f"echo '{mark}' >>\"$SV_METER_MARKS\"; exit 1\n")
    (tmp_path / "b.sh").write_text("echo 'x: boom' >&2; exit 3\n")
    fake = tmp_path / "run.sh"
    fake.write_text(f"""#!/bin/sh
    echo "stage 5 train: 1 kWh, 2 s, stopped at the budget of 1 kWh -> 05.json" >&2
    [ "$2" != c ] || exit 0
    cd {ROOT} && exec utils/meter.sh --stage 5 --name train --dir {tmp_path}/$2/energy -- \
      sh {tmp_path}/$2.sh
    """)
    fake.chmod(0o755)
    words = ["--stop-stage", 7, "--models", "a b c", "--parallel", 3]
    words += [tmp_path, tmp_path, "--", fake]
    done = run_cli("sv.bin.recipe", "walk", *words, check=False)
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = {words[0]: words for words in lines if words[0] in "abc"}
    assert rows["a"][-1] == "stopped" and rows["a"][1:3] == ["5", "train"]
    assert rows["b"][-1] == "failed" and rows["c"][-2:] == ["finished", "before"]
    assert "1 finished before, 1 failed, 1 stopped" in done.stdout and "left: a" in done.stdout
    assert "failed: b in stage 5 train: " in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_walk_and_the_same_command_goes_on(tiny, tmp_path, number):
    recipe = StudyRecipe(tiny, tmp_path)
    recipe.set_training("num_epochs = 2", "num_epochs = 4")  # still at it when the signal comes
    options = ["--stage", 5, "--stop-stage", 5, "--model", f"{SMALL} {OTHER}"]
    process = recipe.start(*options)
    folder = recipe.exp / SMALL
    deadline = time.monotonic() + 60
    while not (folder / "checkpoints" / "epoch_001.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, number)  # run.sh alone, which the walk has taken the place of
    process.wait(timeout=120)
    wait_for_end_of(str(tmp_path))
    output = (recipe.root / "output").read_text()
    assert not (folder / "final.pt").exists() and not (recipe.exp / OTHER).exists()
    if number == signal.SIGINT:
        assert process.returncode == 128 + number
        assert read_table(output) == {SMALL: "stopped", OTHER: "left"}
        assert f"left: {SMALL} {OTHER}" in output and "failed in stage" not in output
        assert read_sidecar(folder, "05_train")["status"] == "interrupted"
    else:
        done = recipe.run(*options)
        assert read_table(done.stdout) == {SMALL: "done", OTHER: "done"}
        assert "resumed at step" in (folder / "log" / "train.log").read_text()


def test_a_forecast_of_several_systems_has_a_sum(tmp_path):
    """A stand-in for run.sh: one forecast is there, one has no CO2, one fails."""
    expected = {"energy_kwh": 2.0, "energy_kwh_low": 1.5, "energy_kwh_high": 3, "hours": 10}
    for name, co2_g in ((SMALL, 80.0), (OTHER, None)):
        (tmp_path / name / "energy").mkdir(parents=True)
        text = json.dumps({"expected": {**expected, "co2_g": co2_g}})
        (tmp_path / name / "forecast.json").write_text(text)
    argv = ["python3", "-m", "sv.bin.recipe", "walk", "--stop-stage", 5, "--forecast", "true"]
    argv += ["--models", f"{SMALL} {BROKEN} {OTHER}", tmp_path, tmp_path, "--", "sh", "-c"]
    stub = f'case "$*" in *{BROKEN}*) echo "x: no forecast, log is y.log" >&2; exit 1;; esac'
    stub += f"; echo >>{tmp_path}/$1/energy/05_forecast.journal.jsonl"  # as a meter does
    done = call([*argv, stub], timeout=20)
    assert done.returncode == 1 and "no forecast, log is y.log" in done.stdout
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows[SMALL] == ["2", "1.5", "3", "80", "10", "done"]
    assert rows["sum"] == ["4", "3", "6", "-", "20", "2", "of", "3"]
