"""What utils/slurm.py asks Slurm for: conf/slurm.conf, the command line, wrong ones. No Slurm."""

import pytest
from conftest import ROOT

SITE = """\
account = "abc@cpu"
options = ["--hint=nomultithread"]
time = "4:00:00"
[cpu_jobs]
partition = "prepost"
[gpu_jobs]
account = "abc@v100"
constraint = "v100-32g"
time = "20:00:00"
options = ["--exclusive"]
"""
SBATCH = """\
#!/bin/sh
printf '%s\\n' "$@" >"$0.words"
echo "sbatch: error: Batch job submission failed: Invalid account" >&2
exit 1
"""


@pytest.fixture
def ask(run_cli, tmp_path):
    """Give the words that sbatch gets from a call, and what the call prints when it is refused."""
    stub = tmp_path / "bin" / "sbatch"
    stub.parent.mkdir()
    stub.write_text(SBATCH)
    stub.chmod(0o755)

    def call(*words, site=SITE, status=1):
        config = tmp_path / "slurm.conf"
        config.write_text(site)
        path = f"{stub.parent}:{environment_path()}"
        done = run_cli(
            ROOT / "utils/slurm.py", "--config", config, *words, cwd=tmp_path, check=False,
            env={"PATH": path},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert (done.stdout, done.stderr.count("\n")) == ("", 1), done.stderr
        found = stub.with_name("sbatch.words")
        return (found.read_text().splitlines() if found.exists() else []), done.stderr

    return call


def environment_path():
    from conftest import environment  # noqa: PLC0415

    return environment()["PATH"]


def test_a_job_array_with_what_the_site_wants(ask, tmp_path):
    words, message = ask("--num-threads", 4, "--max-jobs-run", 2, "JOB=3:7", "x.JOB.log", "true")
    assert {
        "--account=abc@cpu", "--partition=prepost", "--time=4:00:00", "--hint=nomultithread",
        "--cpus-per-task=4", "--nodes=1", "--ntasks=1", "--requeue", "--array=3,4,5,6,7%2",
        "--export=ALL", f"--chdir={tmp_path}", "--parsable",
    } < set(words)  # fmt: skip
    assert not [word for word in words if word.startswith(("--signal", "--gres", "--mem", "--qos"))]
    assert message == (
        "utils/slurm.py: sbatch: Batch job submission failed: Invalid account; "
        "see --config and the options of the job\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "slurm.conf"]


def test_gpus_and_nodes_and_the_command_line_s_limits(ask):
    words, _ = ask("--gpu", 4, "--nodes", 2, "--mem", "60G", "--time", "90", "x.log", "true")
    assert {
        "--account=abc@v100", "--constraint=v100-32g", "--time=90", "--mem=60G", "--nodes=2",
        "--ntasks=2", "--ntasks-per-node=1", "--gres=gpu:4", "--hint=nomultithread", "--exclusive",
        "--signal=B:USR1@180",
    } < set(words)  # fmt: skip
    assert not [word for word in words if word.startswith(("--partition", "--array"))]
    words, _ = ask("--gpu", 2, "x.log", "true", site='gpu = "--gpus-per-node={n} --x"')
    assert {"--gpus-per-node=2", "--x"} < set(words)


@pytest.mark.parametrize(
    ("time", "warned"),
    [("5", False), ("6", True), ("0:05:00", False), ("1-0", True), ("1:0:0", True)],
)
def test_a_short_limit_has_no_warning_that_would_come_at_once(ask, time, warned):
    words, _ = ask("--time", time, "x.log", "true", site="")
    assert ("--signal=B:USR1@180" in words) == warned


@pytest.mark.parametrize(
    ("site", "words", "message"),
    [
        ('partitoin = "x"', [], "unknown key 'partitoin' (did you mean 'partition'?)"),
        ("[gpu_jobs]\nnodes = 2", [], "[gpu_jobs]: unknown key 'nodes'"),
        ('gpu = "--gres=gpu"', [], "gpu must hold {n}, the number of GPUs"),
        ("poll_s = 0", [], "poll_s must be at least 0.1"),
        ('time = "2h"', [], "a time limit is 90, 1:30:00 or 1-12:00:00, not '2h'"),
        ("", ["--time", "2h"], "a time limit is 90, 1:30:00 or 1-12:00:00, not '2h'"),
        ("", ["--mem", "4"], "--mem must be a number and K, M, G or T, such as 4G, not '4'"),
        ("", ["--nodes", "0"], "--nodes must be at least 1"),
        ("", ["--gpu", "-1"], "--gpu at least 0"),
        ("", ["--nosuch", "1"], "unknown option --nosuch"),
    ],
)
def test_a_wrong_file_or_command_line_is_one_line_and_no_submission(ask, site, words, message):
    asked, said = ask(*words, "x.log", "true", site=site, status=2)
    assert said.startswith("utils/slurm.py: ") and message in said
    assert asked == []


def test_without_slurm_it_says_so(run_cli, tmp_path):
    env = {"PATH": environment_path().split(":")[0]}
    done = run_cli("utils/slurm.py", tmp_path / "x.log", "true", env=env, check=False)
    if done.returncode == 127:
        pytest.skip("env is not in the interpreter's folder")
    assert done.returncode == 1
    assert "sbatch: No such file or directory; is this a machine of a Slurm site?" in done.stderr
