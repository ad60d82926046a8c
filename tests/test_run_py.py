"""utils/run.py: Kaldi's run.pl contract, finished jobs, and no process left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, environment


@pytest.fixture
def jobs(run_cli, tmp_path):
    """Run ``JOB=1:2`` of a copy from in.JOB to out.JOB; ``ran()`` says which jobs ran last."""
    (tmp_path / "in.1").write_text("one\n")
    (tmp_path / "in.2").write_text("two\n")
    ran = tmp_path / "ran"

    def run(*options, script='cat "$1" >"$2"', array=("JOB=1:2",), env=None, check=True):
        ran.unlink(missing_ok=True)
        done = run_cli(
            "utils/run.py", *options, *array, tmp_path / "log" / "copy.JOB.log",
            "sh", "-c", f"echo JOB >>{ran}; {script}", "copy",
            tmp_path / "in.JOB", tmp_path / "out.JOB", env=env, check=check,
        )  # fmt: skip
        return done, sorted(ran.read_text().split()) if ran.exists() else []

    return run


def test_an_input_that_changes_while_jobs_run_is_not_what_they_read(run_cli, tmp_path):
    """A file that all jobs name is no output of theirs, whatever its time."""
    config = tmp_path / "config"
    change = f"grep -q new {config} || {{ sleep 0.1; echo new >{config}; }}"
    script = f'cat "$1" >"$2"; {change}'
    words = ["--max-jobs-run", 1, "JOB=1:2", tmp_path / "x.JOB.log"]
    line = [script.replace('"$1"', str(config)).replace('"$2"', f"{tmp_path}/line.JOB")]
    for command in (["sh", "-c", script, "x", config, tmp_path / "out.JOB"], line):
        config.write_text("old")
        for finished in (None, "1 of 2", "2 of 2"):
            done = run_cli("utils/run.py", *words, *command)
            found = re.search(r"(\d of \d) jobs finished before", done.stderr)
            assert (found and found[1]) == finished
        assert {path.read_text() for path in tmp_path.glob("[ol]*.[12]")} == {"new\n"}


def test_jobs_that_slurm_may_still_run_are_not_begun_here(run_cli, tmp_path):
    left = tmp_path / ".x.slurm" / "0123abcd"
    left.mkdir(parents=True)
    (left / "jobs.json").write_text("{}")
    words = ["utils/run.py", "JOB=1:2", tmp_path / "x.JOB.log", "touch", tmp_path / "ran.JOB"]
    done = run_cli(*words, check=False)
    assert done.returncode == 1 and f"({left.parent})" in done.stderr
    assert not list(tmp_path.glob("ran.*")) and len(done.stderr.splitlines()) == 1


def test_each_job_has_its_number_and_its_log(run_cli, tmp_path):
    run_cli(
        "utils/run.py", "JOB=3:5", tmp_path / "new" / "JOB" / "x.JOB.log",
        "sh", "-c", 'echo "job JOB: $1"; echo error >&2; cat', "x", "dataJOB.JOB",
    )  # fmt: skip
    for number in (3, 4, 5):
        lines = (tmp_path / f"new/{number}/x.{number}.log").read_text().splitlines()
        assert lines[4:6] == [f"job {number}: data{number}.{number}", "error"]
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_log_begins_with_the_command_and_ends_with_the_status(run_cli, tmp_path):
    log = tmp_path / "x.log"
    done = run_cli("utils/run.py", "--num-threads", "3", log, "echo", "two words", "JOB")
    assert (done.stdout, done.stderr) == ("", "")
    when = r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d \S+ \d{4}"
    assert re.fullmatch(
        rf"# echo 'two words' JOB\n# Running on {re.escape(socket.gethostname())}\n"
        rf"# Started at {when}\n#\ntwo words JOB\n# Accounting: time=\d threads=3\n"
        rf"# Ended \(code 0\) at {when}, elapsed time \d seconds\n",
        log.read_text(),
    )


def test_failed_job_gives_its_status_and_the_others_still_run(run_cli, tmp_path):
    log = tmp_path / "x.JOB.log"
    script = "case JOB in 2|4) echo boom JOB; exit 4JOB; esac; echo fine"
    done = run_cli("utils/run.py", "JOB=1:5", log, "sh", "-c", script, check=False)
    assert done.returncode == 42
    message = f"2 of 5 jobs failed, first log is {tmp_path}/x.2.log: boom 2"
    assert done.stderr == f"utils/run.py: {message}\n"
    assert "Ended (code 44)" in (tmp_path / "x.4.log").read_text()
    assert "fine" in (tmp_path / "x.5.log").read_text()


def test_job_ended_by_a_signal_has_the_shell_s_status(run_cli, tmp_path):
    done = run_cli("utils/run.py", tmp_path / "x.log", "sh", "-c", "kill -9 $$", check=False)
    assert done.returncode == 137
    assert done.stderr == f"utils/run.py: status 137, log is {tmp_path}/x.log\n"


def test_command_not_found_is_127(run_cli, tmp_path):
    done = run_cli("utils/run.py", tmp_path / "x.log", "nosuch-command", "x", check=False)
    assert done.returncode == 127
    assert done.stderr == (
        f"utils/run.py: status 127, log is {tmp_path}/x.log: "
        "nosuch-command: No such file or directory\n"
    )


def test_one_argument_is_a_line_of_shell_and_its_files_are_recorded(run_cli, tmp_path):
    (tmp_path / "in.1").write_text("b\na\n")
    (tmp_path / "in 2").write_text("c\n")
    line = f"sort {tmp_path}/in.JOB '{tmp_path}/in 2'|tr a-z A-Z >{tmp_path}/out.JOB"
    argv = ("utils/run.py", "JOB=1:1", tmp_path / "x.JOB.log")
    run_cli(*argv, line)
    assert (tmp_path / "out.1").read_text() == "A\nB\nC\n"
    assert "1 of 1 jobs finished before" in run_cli(*argv, line).stderr
    for name in ("in.1", "in 2", "out.1"):
        (tmp_path / name).write_text("d\n")
        assert "1 of 1 jobs are done again" in run_cli(*argv, line).stderr
    assert (tmp_path / "out.1").read_text() == "D\nD\n"
    assert run_cli(*argv, "exit 3 | cat", check=False).returncode == 3  # pipefail
    assert run_cli(*argv, "echo 'open", check=False).returncode == 2


def test_finished_jobs_are_not_done_again(jobs, tmp_path):
    assert jobs()[1] == ["1", "2"]
    done, ran = jobs()
    assert ran == []
    assert done.stderr == f"  2 of 2 jobs finished before, log is {tmp_path}/log/copy.1.log\n"
    assert "two" in (tmp_path / "out.2").read_text()


CHANGES = {
    "input changed": lambda d: (d / "in.2").write_text("another\n"),
    "input as long, newer": lambda d: os.utime(d / "in.2", ns=(1, 2)),
    "output changed": lambda d: (d / "out.2").write_text("half"),
    "output gone": lambda d: (d / "out.2").unlink(),
    "record gone": lambda d: (d / "log/.copy.2.log.done").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_job_whose_files_changed_is_done_again_and_then_is_finished(jobs, tmp_path, change):
    jobs()
    CHANGES[change](tmp_path)
    assert jobs()[1] == ["2"]
    assert (tmp_path / "out.2").read_text() == (tmp_path / "in.2").read_text()
    assert jobs()[1] == []


def test_other_commands_and_failed_jobs_are_done_again(jobs):
    jobs()
    assert jobs(script='cat <"$1" >"$2"')[1] == ["1", "2"]
    fails = 'cat "$1" >"$2"; [ JOB = 1 ]'
    for ran in (["1", "2"], ["2"], ["2"]):
        done, last = jobs(script=fails, check=False)
        assert (done.returncode, last) == (1, ran)


def test_an_output_that_was_there_before_counts_as_made(jobs, tmp_path):
    for number in (1, 2):
        (tmp_path / f"out.{number}").write_text("of an earlier command\n")
    assert jobs()[1] == ["1", "2"]
    assert jobs()[1] == []


def test_resume_false_and_single_commands_are_always_done(jobs, run_cli, tmp_path):
    jobs()
    assert jobs("--resume", "false")[1] == ["1", "2"]
    assert jobs("--resume", "true")[1] == []
    (tmp_path / "in.JOB").write_text("three\n")
    for _ in range(2):
        done, ran = jobs(array=())
        assert (done.stderr, ran) == ("", ["JOB"])


def test_jobs_that_name_no_file_have_no_proof_that_they_are_done(run_cli, tmp_path):
    for _ in range(2):
        done = run_cli("utils/run.py", "JOB=1:2", tmp_path / "x.JOB.log", "echo", "JOB")
        assert done.stderr == ""


def test_marks_tell_the_meter_what_was_skipped_and_done(jobs, tmp_path):
    def marks(*options):
        path = tmp_path / "marks"
        path.unlink(missing_ok=True)
        jobs(*options, env={"SV_METER_MARKS": str(path)})
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    first = marks()
    assert sorted((m["mark"], m["log"]) for m in first) == [
        ("job", f"{tmp_path}/log/copy.{number}.log") for number in (1, 2)
    ]
    assert all(abs(m["time_unix"] - time.time()) < 60 for m in first)
    again = [(m["mark"], m.get("skipped") or m["what"]) for m in marks()]
    assert again == [("resumed", "2 of 2 jobs"), ("unchanged", "2 of 2 jobs finished before")]
    (tmp_path / "out.1").unlink()
    assert [m["mark"] for m in marks()] == ["resumed", "job"]
    assert [m["mark"] for m in marks("--resume", "false")] == ["job", "job"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "a log and a command are needed (see --help)"),
        (["x.log"], "a log and a command are needed (see --help)"),
        (["JOB=1:2", "x.JOB.log"], "a log and a command are needed (see --help)"),
        (["JOB=2:1", "x.JOB.log", "true"], "JOB=2:1: the last job comes before the first"),
        (["JOB=1:2", "x.log", "true"], "the log x.log must hold JOB, or all jobs write the same"),
        (["--nosuch", "1", "x.log", "true"], "unknown option --nosuch (see --help)"),
        (["--resume", "no", "x.log", "true"], "argument --resume: invalid choice: 'no'"),
        (["--num-threads", "x", "x.log", "true"], "argument --num-threads: invalid int value"),
        (["--num-threads", "0", "x.log", "true"], "must be at least 1"),
        (["--max-jobs-run", "-1", "x.log", "true"], "must be at least 1"),
        (["--max-jobs-run", "0", "x.log", "true"], "must be at least 1"),
        (["--nodes", "2", "x.log", "true"], "--nodes 2: this is one machine; take utils/slurm.py"),
        (["--mem", "4 GB", "x.log", "true"], "--mem must be a number and K, M, G or T"),
    ],
)
def test_wrong_command_line_is_one_line_with_status_2(run_cli, tmp_path, argv, message):
    done = run_cli(ROOT / "utils/run.py", *argv, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("utils/run.py: ") and message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", ["run.py", "slurm.py"])
def test_outside_the_environment_it_says_so(run_cli, tmp_path, program):
    argv = [ROOT / "utils" / program, tmp_path / "x.log", "true"]
    done = run_cli(*argv, env={"PYTHONPATH": ""}, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"utils/{program}: ") and "path.sh" in done.stderr
    assert not list(tmp_path.iterdir())


def test_log_that_cannot_be_written_is_one_line(run_cli, tmp_path):
    (tmp_path / "file").write_text("")
    done = run_cli("utils/run.py", tmp_path / "file" / "x.log", "true", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{tmp_path}/file" in done.stderr


def test_options_after_the_command_are_its_own(run_cli, tmp_path):
    argv = ["--max-jobs-run", "1", "JOB=1", tmp_path / "x.log", "echo", "--resume", "no", "--help"]
    run_cli("utils/run.py", *argv)
    assert "\n--resume no --help\n" in (tmp_path / "x.log").read_text()
    assert "JOB=1:nj" in run_cli("utils/run.py", "--help").stdout


@pytest.mark.parametrize(("max_jobs", "looks", "status"), [(2, 100, 0), (1, 5, 3)])
def test_jobs_run_at_the_same_time_up_to_the_maximum(run_cli, tmp_path, max_jobs, looks, status):
    began = tmp_path / "began"  # by the second job, for which the first one waits
    wait = f"for i in $(seq {looks}); do [ -e {began} ] && exit 0; sleep 0.1; done; exit 3"
    done = run_cli(
        "utils/run.py", "--max-jobs-run", max_jobs, "JOB=1:2", tmp_path / "x.JOB.log",
        "sh", "-c", f"case JOB in 1) {wait} ;; 2) touch {began} ;; esac", check=False,
    )  # fmt: skip
    assert (done.returncode, began.exists()) == (status, True)


@pytest.mark.parametrize(("gpus", "shares"), [(1, {"GPU-a", "1", "5"}), (2, {"GPU-a,1"})])
def test_each_running_job_has_gpus_of_its_own(run_cli, tmp_path, gpus, shares):
    taken = f"{tmp_path}/taken.$CUDA_VISIBLE_DEVICES"
    script = f'mkdir "{taken}" && sleep 0.3 && rmdir "{taken}" && echo $CUDA_VISIBLE_DEVICES'
    run_cli(
        "utils/run.py", "--gpu", gpus, "--max-jobs-run", 4, "JOB=1:6", tmp_path / "x.JOB.log",
        "sh", "-c", script, env={"CUDA_VISIBLE_DEVICES": "GPU-a, 1,5"},
    )  # fmt: skip
    logs = [path.read_text().splitlines() for path in tmp_path.glob("x.*.log")]
    assert len(logs) == 6 and {lines[4] for lines in logs} == shares


def test_a_job_without_gpus_sees_what_the_caller_sees(run_cli, tmp_path):
    argv = [tmp_path / "x.log", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    run_cli("utils/run.py", *argv, env={"CUDA_VISIBLE_DEVICES": "3,4"})
    assert "\n3,4\n" in (tmp_path / "x.log").read_text()


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("", "no GPUs are"), ("-1", "no GPUs are"), ("NoDevFiles", "no GPUs are"),
        ("0", "1 GPU is"), ("0,-1,1", "1 GPU is"),
    ],
)  # fmt: skip
def test_gpus_that_are_not_there_are_refused(run_cli, tmp_path, visible, seen):
    env = {"CUDA_VISIBLE_DEVICES": visible}
    argv = ["--gpu", "2", tmp_path / "x.log", "true"]
    done = run_cli("utils/run.py", *argv, env=env, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"--gpu 2: {seen} visible here (CUDA_VISIBLE_DEVICES={visible}); " in done.stderr
    assert not (tmp_path / "x.log").exists()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def start(tmp_path, script, *wrapper):
    """Start run.py on four jobs, two at a time, and wait for the pids that the first two write."""
    argv = [*wrapper, "utils/run.py", "--max-jobs-run", "2", "JOB=1:4", str(tmp_path / "x.JOB.log")]
    process = subprocess.Popen(
        [*argv, "sh", "-c", script.format(pid=tmp_path / "pid.JOB")],
        cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    paths = [tmp_path / "pid.1", tmp_path / "pid.2"]
    wait_for(lambda: all(path.exists() and path.read_text().endswith("\n") for path in paths))
    return process, [int(path.read_text()) for path in paths]


def test_what_a_stopped_job_saved_is_on_the_screen(tmp_path):
    says = "echo 'x: stopped by SIGTERM; checkpoint: last.pt'; exit 143"
    process, _ = start(tmp_path, f'trap "{says}" TERM; sleep 60 & echo $! >{{pid}}; wait')
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 130
    saved = "x: stopped by SIGTERM; checkpoint: last.pt"
    assert stderr == f"utils/run.py: stopped by signal 2: {saved}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_jobs_with_their_children(tmp_path, number):
    process, pids = start(tmp_path, "sleep 60 & echo $! >{pid}; wait")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 128 + number
    assert stderr == f"utils/run.py: stopped by signal {int(number)}\n"
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    # What waited for its turn was not begun, what was ended is not taken for done.
    assert sorted(os.listdir(tmp_path)) == ["pid.1", "pid.2", "x.1.log", "x.2.log"]


def test_jobs_end_with_a_killed_run_py(tmp_path):
    process, pids = start(tmp_path, "echo $$ >{pid}; exec sleep 60")
    assert all(is_alive(pid) for pid in pids)
    process.kill()
    process.communicate(timeout=40)
    wait_for(lambda: not any(is_alive(pid) for pid in pids))


def test_nohup_is_respected(tmp_path):
    process, pids = start(tmp_path, "echo $$ >{pid}; exec sleep 60", "nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None and all(is_alive(pid) for pid in pids)
    process.terminate()
    process.communicate(timeout=40)
    assert process.returncode == 128 + signal.SIGTERM
