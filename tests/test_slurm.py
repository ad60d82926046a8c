"""utils/slurm.py on a real Slurm: Kaldi's contract, requeues, losses, kills, several nodes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, call, environment
from slurm_site import slurm  # noqa: F401 - the fixture

CONFIG = "poll_s = 0.5\ngrace_s = 2\n"
# Saves at SIGTERM and ends with 143, as training does; started again, it goes on from there.
TRAINING = """\
if [ -e {0}/saved.$SLURM_NODEID ]; then echo went on; exit 0; fi
trap 'sleep 0.5; echo saved >{0}/saved.$SLURM_NODEID; exit 143' TERM
echo started; touch {0}/began.$SLURM_NODEID; while :; do sleep 0.1; done
"""


class Cluster:
    """Calls utils/slurm.py in a folder of its own."""

    def __init__(self, site, folder: Path) -> None:
        self.site, self.folder = site, folder
        self.config = folder / "slurm.conf"
        self.config.write_text(CONFIG)

    def run(self, *words, status=0, program="utils/slurm.py", **extra):
        """Run it to its end."""
        argv = [program, *(["--config", self.config] if "slurm" in program else []), *words]
        done = call(argv, timeout=90, **{**self.site.env, **extra})
        assert done.returncode == status, done.stdout + done.stderr
        assert done.stdout == ""
        return done

    def start(self, *words, **extra):
        """Start it."""
        argv = ["utils/slurm.py", "--config", str(self.config), *(str(word) for word in words)]
        return subprocess.Popen(
            argv, cwd=ROOT, env=environment(**{**self.site.env, **extra}), text=True,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def wait_for(self, name: str) -> None:
        """Wait until a file is there."""
        until = time.monotonic() + 30
        while not (self.folder / name).exists():
            assert time.monotonic() < until, f"no {name}; {self.site.queue()}"
            time.sleep(0.05)

    def find_job(self) -> str:
        """Give the number of the only job or array in the queue."""
        return self.site.run("squeue", "-h", "-o", "%F").stdout.split()[0]


@pytest.fixture
def cluster(slurm, tmp_path):  # noqa: F811
    yield Cluster(slurm, tmp_path)
    slurm.run("scancel", "--user=root")
    assert not list(tmp_path.glob(".*.slurm"))  # no traces


def test_failed_jobs_are_counted_and_the_first_log_is_named(cluster, tmp_path):
    script = 'echo "$0|$1|$SV_ODD"; case JOB in 2|4) echo boom JOB >&2; exit 4JOB; esac'
    odd = "a 'b' \"c\" $HOME `x` \\ * é"
    done = cluster.run(
        "--num-threads", 2, "JOB=1:4", tmp_path / "new" / "x.JOB.log", "sh", "-c", script, odd,
        "%A JOB", SV_ODD="it's 50 %, é", status=42,
    )  # fmt: skip
    assert done.stderr == (
        f"utils/slurm.py: 2 of 4 jobs failed, first log is {tmp_path}/new/x.2.log: boom 2\n"
    )
    lines = (tmp_path / "new" / "x.3.log").read_text().splitlines()
    assert lines[0].startswith("# sh -c 'echo ") and lines[1].startswith("# Running on ")
    assert lines[2].startswith("# Started at ") and lines[3] == "#"
    assert lines[4] == f"{odd}|%A 3|it's 50 %, é"
    assert lines[5].startswith("# Accounting: time=") and lines[5].endswith(" threads=2")
    assert lines[6].startswith("# Ended (code 0) at ")
    assert "Ended (code 44)" in (tmp_path / "new" / "x.4.log").read_text()


@pytest.mark.parametrize("first", ["utils/slurm.py", "utils/run.py"])
def test_one_program_skips_what_the_other_has_finished(cluster, tmp_path, first):
    second = "utils/run.py" if first == "utils/slurm.py" else "utils/slurm.py"
    for number in (1, 2, 3):
        (tmp_path / f"in.{number}").write_text(f"{number}\n")
    script = f'cat "$1" >"$2" && echo JOB >>{tmp_path}/ran && [ JOB != 2 -o -e {tmp_path}/ok ]'
    words = ["JOB=1:3", tmp_path / "x.JOB.log", "sh", "-c", script, "copy"]
    words += [tmp_path / "in.JOB", tmp_path / "out.JOB"]
    marks = tmp_path / "marks"
    cluster.run(*words, program=first, status=1, SV_METER_MARKS=str(marks))
    (tmp_path / "ok").touch()
    (tmp_path / "ran").unlink()
    done = cluster.run(*words, program=second, SV_METER_MARKS=str(marks))
    assert done.stderr == f"  2 of 3 jobs finished before, log is {tmp_path}/x.1.log\n"
    assert (tmp_path / "ran").read_text() == "2\n"
    done = cluster.run(*words, program=first)
    assert "3 of 3 jobs finished before" in done.stderr
    found = [json.loads(line) for line in marks.read_text().splitlines()]
    logs = [f"{tmp_path}/x.{number}.log" for number in (1, 3, 2)]
    assert sorted(m["log"] for m in found if m["mark"] == "job") == sorted(logs)
    assert [m["skipped"] for m in found if m["mark"] == "resumed"] == ["2 of 3 jobs"]


def test_single_jobs_are_no_array(cluster, tmp_path):
    script = 'echo "$SLURM_ARRAY_TASK_ID|$SLURM_CPUS_PER_TASK|JOB$CUDA_VISIBLE_DEVICES"'
    # As within a job of Slurm, whose settings and GPUs are not for this one.
    outer = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_CPUS_PER_TASK": "9", "CUDA_VISIBLE_DEVICES": "3"}
    for words, shown in (([], "JOB"), (["JOB=1:1"], "1")):
        log = tmp_path / "x y.log"
        cluster.run("--num-threads", 3, *words, log, "sh", "-c", script, **outer)
        assert f"\n|3|{shown}\n" in log.read_text()
    done = cluster.run(log, "nosuch-command", status=127)
    assert f"status 127, log is {log}: " in done.stderr and "nosuch-command" in done.stderr


def test_ctrl_c_cancels_the_array(cluster, tmp_path):
    process = cluster.start(
        "--max-jobs-run",
        1,
        "JOB=1:3",
        tmp_path / "x.JOB.log",
        "sh",
        "-c",
        TRAINING.format(tmp_path),
    )
    cluster.wait_for("began.0")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "utils/slurm.py: stopped by signal 2"
    assert cluster.site.queue() == []
    assert (tmp_path / "saved.0").exists() and not (tmp_path / "x.2.log").exists()
    assert not list(tmp_path.glob(".x.*.done"))


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [("scancel", 143, "cancelled"), ("kill -9", 1, "failed for Slurm without a status in ")],
)
def test_a_job_that_somebody_ends_has_failed_and_says_why(cluster, tmp_path, how, status, message):
    script = f"[ JOB != 2 ] || {{ echo working; echo $PPID >{tmp_path}/began; exec sleep 60; }}"
    process = cluster.start("JOB=1:3", tmp_path / "x.JOB.log", "sh", "-c", script)
    cluster.wait_for("began")
    number = cluster.find_job()
    if how == "scancel":
        cluster.site.run("scancel", f"{number}_2")
    else:  # what stands between Slurm and the command
        os.kill(int((tmp_path / "began").read_text()), signal.SIGKILL)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == status
    log = tmp_path / "x.2.log"
    assert f"1 of 3 jobs failed, first log is {log}: job {number}_2: {message}" in stderr
    assert "\nworking\n" in log.read_text()
    assert log.read_text().splitlines()[-1].startswith(f"# Ended (code {status})")


@pytest.mark.parametrize(
    ("how", "nodes"),
    [("requeue", 1), ("time limit", 2), ("preemption", 2)],
)
def test_a_requeued_job_is_still_running(cluster, tmp_path, how, nodes):
    """SIGTERM reaches the command, which saves; its 143 is no result while Slurm has the job."""
    if how == "preemption":  # with five seconds of grace
        with open(cluster.config, "a") as file:
            file.write('partition = "graceful"\n')
    log = tmp_path / "x.log"
    process = cluster.start("--nodes", nodes, log, "sh", "-c", TRAINING.format(tmp_path))
    for node in range(nodes):
        cluster.wait_for(f"began.{node}")
    number = cluster.find_job()
    if how == "requeue":
        cluster.site.run("scontrol", "requeue", number)
    elif how == "time limit":  # what --signal=B:USR1@180 does before the limit
        cluster.site.run("scancel", "--batch", "--signal=USR1", number)
    else:
        urgent = ["--partition=high", "--exclusive", "--nodes=2", f"--output={tmp_path}/urgent"]
        cluster.site.run("sbatch", *urgent, "--wrap", "true")
    assert process.wait(60) == 0
    assert "utils/slurm.py" not in process.stderr.read()
    text = log.read_text()
    assert "Ended (code 143)" in text and ", restart 1\n" in text and "\n# Ended (code 0)" in text
    assert text.count("started\n") == text.count("went on\n") == nodes


def test_a_start_near_the_limit_that_leaves_no_checkpoint_is_the_last(cluster, tmp_path):
    """Its command says when it saves; one that did not is not started again for ever."""
    with open(cluster.config, "a") as file:
        file.write("max_restarts = 0\n")
    script = f"""
    start=2; [ -e {tmp_path}/began.1 ] || start=1
    trap '[ $start = 2 ] || echo {{}} >"$SV_JOB_CHECKPOINT"; exit 143' TERM
    touch {tmp_path}/began.$start; while :; do sleep 0.1; done
    """
    process = cluster.start(tmp_path / "x.log", "sh", "-c", script)
    for start in (1, 2):
        cluster.wait_for(f"began.{start}")
        # What --signal=B:USR1@180 does before the limit.
        cluster.site.run("scancel", "--batch", "--signal=USR1", cluster.find_job())
    assert process.wait(60) == 143
    text = (tmp_path / "x.log").read_text()
    assert ", restart 1\n" in text and ", restart 2\n" not in text
    assert "status 143" in process.stderr.read()


def test_squeue_may_be_lost(cluster, tmp_path):
    """The controller is away at the submission and again when the jobs end."""
    cluster.site.stop_controller()
    script = f"touch {tmp_path}/began; sleep 2"
    process = cluster.start("JOB=1:2", tmp_path / "x.JOB.log", "sh", "-c", script)
    try:
        assert process.stderr.readline().startswith("utils/slurm.py: cannot submit yet (")
        cluster.site.start_controller()
        cluster.wait_for("began")
        cluster.site.stop_controller()
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 0
        assert stderr.count("squeue does not answer") == 1
    finally:
        cluster.site.stop_controller()
        cluster.site.start_controller()


def write_array(folder):
    """Return the words of two jobs that read ``in``; the second ends when ``go`` is there."""
    (folder / "in").write_text("")
    script = f"echo JOB >>{folder}/ran; until [ JOB = 1 -o -e {folder}/go ]; do sleep 0.1; done"
    return ["JOB=1:2", folder / "x.JOB.log", "sh", "-c", script, "x", folder / "in"]


def test_jobs_whose_call_has_ended_are_waited_for_by_the_same_command(cluster, tmp_path):
    """Killed, or sent SIGTERM as by the end of a job around it; then called for other work."""
    words = write_array(tmp_path)
    process = cluster.start(*words)
    cluster.wait_for(".x.1.log.done")
    cluster.wait_for("ran")
    second = cluster.run(*words, status=1)
    assert f"another utils/slurm.py waits for these jobs (it has locked {tmp_path}" in second.stderr
    process.kill()
    process.communicate()
    process = cluster.start(*words)
    assert "waiting for its jobs, x-" in process.stderr.readline()
    process.terminate()
    assert " goes on" in process.communicate(timeout=60)[1] and process.returncode == 143
    assert cluster.site.queue() == ["RUNNING"]
    process = cluster.start(*words, SV_METER_MARKS=str(tmp_path / "marks"))
    assert "waiting for its jobs, x-" in process.stderr.readline()
    (tmp_path / "go").touch()
    assert process.wait(60) == 0 and process.stderr.read() == ""
    assert sorted((tmp_path / "ran").read_text().split()) == ["1", "2"]
    marks = [json.loads(line)["mark"] for line in (tmp_path / "marks").read_text().splitlines()]
    assert marks == ["resumed", "job", "job"]  # this attempt has their results
    (tmp_path / "go").unlink()
    (tmp_path / "ran").unlink()
    (tmp_path / "in").write_text("other")
    process = cluster.start(*words)
    cluster.wait_for("ran")
    process.kill()
    process.communicate()
    (tmp_path / "go").touch()
    done = cluster.run(*words[:-1], "y")
    assert "cancelling x-" in done.stderr.splitlines()[0]


def test_jobs_of_an_array_that_are_taken_over_count_by_what_they_read(cluster, tmp_path):
    """One had ended, one was running when their input changed: both are done again."""
    words = write_array(tmp_path)
    process = cluster.start(*words)
    cluster.wait_for(".x.1.log.done")
    while len((tmp_path / "ran").read_text().split()) < 2:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    (tmp_path / "in").write_text("other")
    (tmp_path / "go").touch()
    done = cluster.run(*words)
    assert "waiting for its jobs" in done.stderr and "2 of 2 jobs are done again" in done.stderr
    assert sorted((tmp_path / "ran").read_text().split()) == ["1", "1", "2", "2"]
    assert "2 of 2 jobs finished before" in cluster.run(*words).stderr


def test_a_single_job_is_taken_over_only_with_its_inputs(cluster, tmp_path):
    """It ended well meanwhile: its result counts, unless what it read has changed since."""
    (tmp_path / "egs").mkdir()
    (tmp_path / "egs" / "a").write_text("1")
    script = f"touch {tmp_path}/exp/began; sleep 1; echo ran >>{tmp_path}/exp/ran"
    words = [tmp_path / "exp/log/x.log", "sh", "-c", script, tmp_path / "egs", tmp_path / "exp"]
    for changes in (False, True):
        (tmp_path / "exp/began").unlink(missing_ok=True)
        process = cluster.start(*words)
        cluster.wait_for("exp/began")
        process.kill()
        process.communicate()
        while cluster.site.queue():
            time.sleep(0.1)
        if changes:
            (tmp_path / "egs" / "b").write_text("2")
        done = cluster.run(*words)
        assert ("cancelling" if changes else "waiting for its jobs") in done.stderr
    assert (tmp_path / "exp/ran").read_text().split() == ["ran"] * 3


def test_the_command_runs_once_on_each_node(cluster, tmp_path):
    script = 'echo "$SLURM_NODEID of $SLURM_JOB_NUM_NODES, $SLURM_CPUS_PER_TASK, $1"'
    cluster.run(
        "--nodes", 2, "--num-threads", 2, tmp_path / "x.log", "sh", "-c", script, "x", "a b"
    )
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert sorted(lines[4:6]) == ["0 of 2, 2, a b", "1 of 2, 2, a b"]


def test_a_node_that_fails_ends_the_others(cluster, tmp_path):
    script = "[ $SLURM_NODEID = 0 ] || { sleep 1; echo boom; exit 3; }; exec sleep 60"
    done = cluster.run("--nodes", 2, tmp_path / "x.log", "sh", "-c", script, status=3)
    assert done.stderr == f"utils/slurm.py: status 3, log is {tmp_path}/x.log: boom\n"
    assert "# Ended (code 3)" in (tmp_path / "x.log").read_text()


def test_the_recipe_runs_through_slurm(cluster, tiny, tmp_path):
    """All stages, from the corpus that is there: the results are those of utils/run.py."""
    data, exp = tmp_path / "data", tmp_path / "exp"
    argv = ["./run.sh", "--egs", "tests/egs/tiny", "--nj", 2, "--data", data, "--exp", exp]
    argv += ["--corpora", tiny.corpora, "--ngpu", 0]
    argv += ["--cmd", f"utils/slurm.py --config {cluster.config}"]
    done = call(argv, timeout=300, HOME=str(tmp_path), **cluster.site.env)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("mini_test/utt2num_frames", "egs/utterances"):
        assert (data / name).read_bytes() == (tiny.data / name).read_bytes()
    model = exp / tiny.model
    for name in ("mini_cosine.txt", "mini_as_norm.txt"):
        ours, theirs = (
            [line.split() for line in (folder / "scores" / name).read_text().splitlines()]
            for folder in (model, tiny.exp / tiny.model)
        )
        assert [words[:2] for words in ours] == [words[:2] for words in theirs]
        scores = [float(words[2]) for words in theirs]
        assert [float(words[2]) for words in ours] == pytest.approx(scores, abs=1e-4)
    log = (model / "log" / "train.log").read_text()
    assert " of Slurm\n" in log and "# Ended (code 0)" in log
    labels = {"03_fbank": {"mini_test.fbank.1", "mini_test.fbank.2"},
              "05_train": {f"{tiny.model}.train.1"}}  # fmt: skip
    for name, expected in labels.items():
        folder = data if name == "03_fbank" else model
        found = json.loads((folder / "energy" / f"{name}.json").read_text())
        assert found["status"] == "complete"
        assert expected <= {meter["label"] for meter in found["attempts"][-1]["meters"]}
    assert tiny.model in (exp / "results" / "table1.md").read_text()
