"""``--ngpu``: boards are chosen, locked, named to the command, and these alone are counted."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

import pytest
from conftest import ROOT, call, environment
from metered import wait_for
from test_energy_nvml import BOARD_A, BOARD_B, library, pytestmark  # noqa: F401 - a fixture

from sv.bin import recipe
from sv.energy.sensors import nvml
from sv.errors import SvError, UsageError

A, B = "GPU-aaaa1111-0", "GPU-bbbb2222-0"


class Site:
    """A machine with two fake boards and a folder of locks."""

    def __init__(self, library, root):  # noqa: F811
        self.root, self.locks = root, root / "locks"
        self.env = {
            "LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(root), "SV_GPU_LOCKS": str(self.locks)
        }  # fmt: skip
        for board in (0, 1):
            (root / f"energy.{board}").write_text("1000")
            (root / f"power.{board}").write_text("50000")
        (root / "energy.toml").write_text("period_s = 0.05\n")

    def words(self, name, ngpu, *command):
        return [
            sys.executable, "-m", "sv.bin.meter", "--stage", 5, "--name", name, "--ngpu", ngpu,
            "--dir", self.root / "e", "--config", self.root / "energy.toml", "--sysfs", self.root,
            "--", *command,
        ]  # fmt: skip

    def run(self, ngpu, *command, name="x", **extra):
        return call(self.words(name, ngpu, *command), timeout=30, **{**self.env, **extra})

    def show(self, ngpu, **extra):
        """Give the boards that the command sees."""
        done = self.run(ngpu, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", **extra)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def hold(self, ngpu, name="held"):
        """Start a stage that holds boards until its stdin is closed."""
        command = ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES; exec cat"]
        words = [str(word) for word in self.words(name, ngpu, *command)]
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment(**self.env), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        process.boards = process.stdout.readline().strip()
        return process

    def sidecar(self):
        return json.loads((self.root / "e" / "05_x.json").read_text())


@pytest.fixture
def site(library, tmp_path):  # noqa: F811
    return Site(library, tmp_path)


def end(process):
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize(("ngpu", "boards"), [(1, [A]), (2, [A, B])])
def test_the_boards_of_the_stage_are_counted_and_named(site, ngpu, boards):
    command = f"echo 31000 >{site.root}/energy.0; echo 8000 >{site.root}/energy.1"
    site.run(ngpu, "sh", "-c", command)
    channels = {c["id"]: c for c in site.sidecar()["channels"] if c["id"].startswith("nvml.board")}
    used_j = {BOARD_A: 30.0, BOARD_B: 7.0}
    counted = {key: c["energy_j"] for key, c in channels.items() if c["in_total"]}
    assert counted == {f"nvml.board.{uuid}": used_j[f"nvml.board.{uuid}"] for uuid in boards}
    assert [*site.sidecar()["attempts"][0]["metadata"][0]["nvml"]["boards"]] == boards


def test_a_stage_without_gpus_sees_and_counts_none(site):
    done = site.run(0, "sh", "-c", f"echo [$CUDA_VISIBLE_DEVICES]; echo 9000 >{site.root}/energy.0")
    assert done.stdout == "[]\n" and "gpu_board" not in site.sidecar()["boundary"]
    assert not site.locks.exists()


@pytest.mark.parametrize(
    ("visible", "ngpu", "chosen"),
    [("1", 1, B), ("GPU-bbbb, 0", 2, f"{B},{A}")],
)
def test_boards_are_of_those_that_the_user_leaves(site, visible, ngpu, chosen):
    assert site.show(ngpu, CUDA_VISIBLE_DEVICES=visible) == chosen


def test_a_held_board_is_not_chosen_and_its_holder_is_named(site):
    first, second = site.hold(1), site.hold(1, "second")
    try:
        assert [first.boards, second.boards] == [A, B]
        done = site.run(1, "true")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        for uuid, process in ((A, first), (B, second)):
            assert f"{uuid} is held by pid {process.pid} of " in done.stderr
        assert not (site.root / "e" / "05_x.journal.jsonl").exists()  # no attempt
        end(first)
        done = site.run(2, "true")  # one is free, and is so afterwards
        assert done.returncode == 2 and A not in done.stderr and B in done.stderr
        assert site.show(1) == A
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_killed_meter_leaves_no_lock(site):
    process = site.hold(2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: site.run(2, "true").returncode == 0)


def test_boards_on_which_something_computes_come_last(site):
    (site.root / "pid.0").write_text("4242")
    assert site.show(1) == B and site.show(2) == f"{A},{B}"


def test_a_slice_of_a_board_is_chosen_like_a_board(site):
    (site.root / "mig.0").write_text("1")
    first = site.hold(1)
    assert first.boards == "MIG-cccc"
    assert site.show(2) == f"MIG-dddd,{B}"
    assert [*site.sidecar()["attempts"][0]["metadata"][0]["nvml"]["boards"]] == [A, B]
    assert site.run(1, "true", CUDA_VISIBLE_DEVICES="MIG-cccc").returncode == 2
    end(first)


def test_a_dead_board_is_not_chosen(site):
    (site.root / "handle.0").write_text("15")  # NVML_ERROR_GPU_IS_LOST
    assert site.show(1) == B
    assert "1 GPU is visible here" in site.run(2, "true").stderr


def test_in_a_job_of_slurm_the_boards_are_those_that_it_gave(site):
    process = site.hold(2)
    assert site.show(1, SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="1,0") == B
    assert site.run(1, "true", SLURM_JOB_ID="7").returncode == 2  # it gave none
    end(process)


def test_jobs_below_share_the_boards_and_a_meter_below_changes_nothing(site):
    job = ["utils/run.py", "--gpu", 1, "JOB=1:2", site.root / "x.JOB.log"]
    assert site.run(2, *job, "sh", "-c", "sleep 0.5; echo $CUDA_VISIBLE_DEVICES").returncode == 0
    logs = [(site.root / f"x.{number}.log").read_text() for number in (1, 2)]
    assert {re.search(r"^GPU-.*$", log, re.M)[0] for log in logs} == {A, B}
    below = site.words("below", 2, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert site.run(1, *below).stdout == f"{A}\n"


@pytest.mark.parametrize(
    ("ngpu", "extra"),
    [
        (3, {}), (1, {"CUDA_VISIBLE_DEVICES": ""}), (2, {"CUDA_VISIBLE_DEVICES": "1"}),
        (1, {"LD_LIBRARY_PATH": ""}), ("two", {}), ("-1", {}),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_before_the_meter_starts(site, ngpu, extra):
    done = site.run(ngpu, "touch", site.root / "ran", **extra)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{ngpu}" in done.stderr and not (site.root / "ran").exists()
    assert not list((site.root).glob("e/*"))


def test_the_folder_of_locks_is_for_all_users(site):
    os.umask(0o077)
    try:
        site.show(1)
    finally:
        os.umask(0o022)
    assert stat.S_IMODE(site.locks.stat().st_mode) == 0o1777
    assert stat.S_IMODE((site.locks / A).stat().st_mode) == 0o644
    (site.locks / A).chmod(0o444)
    if os.geteuid() == 0:
        os.chown(site.locks / A, 65534, 65534)
    assert site.show(1) == A


@pytest.mark.parametrize("kind", ["private", "link", "file"])
def test_a_folder_that_cannot_be_shared_is_refused(site, kind):
    if kind == "private":
        site.locks.mkdir(mode=0o755)
    elif kind == "link":
        (site.root / "elsewhere").mkdir()
        (site.root / "elsewhere").chmod(0o1777)
        site.locks.symlink_to(site.root / "elsewhere")
    else:
        site.locks.touch()
    done = site.run(1, "true")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(site.locks) in done.stderr and not (site.root / "e").exists()
    assert not (site.root / "elsewhere" / A).exists()


def test_a_link_in_the_folder_is_not_followed(site):
    site.show(1)
    (site.locks / A).unlink()
    (site.locks / A).symlink_to(site.root / "made")
    os.mkfifo(site.locks / B)  # nobody waits for its other end
    assert site.show(1) == B
    assert not (site.root / "made").exists()


def test_run_sh_refuses_boards_that_are_missing_or_held_without_an_attempt(site):
    (site.root / "data").mkdir()
    for name, text in {"train_set": "mini_train\n", "test_trials": "", "augment_kinds": ""}.items():
        (site.root / "data" / name).write_text(text)
    words = ["./run.sh", "--egs", "tests/egs/tiny", "--data", site.root / "data"]
    words += ["--exp", site.root / "exp", "--nj", 1, "--stage", 5, "--stop-stage", 5, "--ngpu"]
    process = site.hold(2)
    for ngpu, message in ((4, "2 GPUs are visible here"), (1, f"{A} is held by pid {process.pid}")):
        done = call([*words, ngpu], timeout=60, **site.env)
        assert done.returncode == 2 and f"--ngpu {ngpu}: " in done.stderr
        assert message in done.stderr.splitlines()[-1]
    end(process)
    assert not list(site.root.glob("exp/**/*.journal.jsonl"))


def test_without_ngpu_the_visible_boards_are_used(site):
    """As run.sh asks before the first meter: the last line is the GPUs."""
    conf = site.root / "conf"
    shutil.copytree(ROOT / "tests/egs/tiny/conf", conf)
    words = [sys.executable, "-m", "sv.bin.recipe", "settings", "--stage"]

    def ask(*options, stage=5, status=0, models=(), **extra):
        done = call([*words, stage, *options, conf, *models], timeout=30, **{**site.env, **extra})
        assert (done.returncode, done.stderr.count("\n")) in ((status, 0), (status, 1)), done.stderr
        return done.stdout.splitlines()[-1] if status == 0 else None, done.stderr

    assert ask() == ("2", "")
    assert ask(CUDA_VISIBLE_DEVICES="1") == ("1", "")
    assert ask("--ngpu", 1) == ("1", "")
    ngpu, said = ask(CUDA_VISIBLE_DEVICES="")
    assert ngpu == "0" and "the CPU is used" in said
    ngpu, said = ask("--ngpu", 0)
    assert ngpu == "0" and "2 GPUs are visible" in said
    assert ask("--ngpu", 0, stage=8) == ask(stage=8) == ("0", "")  # nothing to compute there
    # Of the machines of another program nothing is known.
    other = ("--cmd", "/bin/true")
    assert "give --ngpu" in ask(*other, status=2)[1]
    assert ask(*other, "--ngpu", 4, "--stop-stage", 6) == ("4", "")
    assert ask(*other, stage=8) == ("0", "")
    # Systems at a time have boards of their own, and do not each claim the whole machine.
    two = {"models": ("resnet18_d", "resnet34_d")}
    assert "cpu_share" in ask("--parallel", 2, status=2, **two)[1]
    assert ask("--parallel", 2) == ("2", "")  # there is one system
    energy = conf / "energy.toml"
    energy.write_text(energy.read_text().replace('"exclusive"', '"cpu_share"'))
    assert ask("--parallel", 3, **two) == ("1", "")
    for options in ("--parallel", 2, "--ngpu", 2), ("--parallel", 3):
        more = {"models": (*two["models"], "resnet50_d")}
        assert "2 GPUs are visible" in ask(*options, status=2, **more)[1]
    assert ask(*other, "--ngpu", 4, "--parallel", 2, "--stop-stage", 6, **two) == ("4", "")


@pytest.mark.parametrize(
    ("options", "precision", "capability", "message"),
    [
        (("--ngpu", 0), "fp16", 70, "'fp16' needs a GPU; .* --ngpu 1"),
        (("--ngpu", 0), "tf32", 80, "'tf32' needs a GPU"),
        ((), "bf16", 70, "'bf16': not on Fake [12]; set fp16"),
        ((), "bf16", 80, None),
        (("--stage", 6, "--precision", "fp32 bf16"), "fp16", 75, "'bf16': not on Fake"),
        (("--stage", 6, "--precision", "fp32 fp16"), "bf16", 70, None),
        (("--ngpu", 1), "bf16", None, None),  # a board that does not say what it is
    ],
)
def test_run_sh_refuses_a_number_format_that_the_board_lacks(
    site, options, precision, capability, message
):
    """Before the first meter starts; what is not refused ends where the features are missing."""
    shutil.copytree(ROOT / "tests/egs/tiny/conf", site.root / "egs/conf")
    config = site.root / "egs/conf/train.toml"
    config.write_text(f'precision = "{precision}"\n{config.read_text()}')
    for board in (0, 1):
        if capability is not None:
            (site.root / f"capability.{board}").write_text(str(capability))
    words = ["./run.sh", "--egs", site.root / "egs", "--nj", 1, "--stage", 5, *options]
    done = call(words, timeout=60, **site.env)
    last = done.stderr.splitlines()[-1]
    if message is None:
        assert done.returncode == 1 and "run stages 1 and 2 first" in last
    else:
        assert done.returncode == 2 and re.search(message, last) and done.stderr.count("\n") < 3


def test_run_sh_refuses_a_torch_without_kernels_for_the_board(site):
    """On what CUDA of torch's build left out; found without loading torch."""
    words = [sys.executable, "-m", "sv.bin.recipe", "settings", "--stage", 6, "tests/egs/tiny/conf"]
    torch = site.root / "lib/torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise SystemExit('loaded')\n")
    for cuda, capability, status in (
        ("'13.0'", 70, 2), ("'13.0'", 75, 0), ("'12.6'", 70, 0), ("None", 70, 0),
        ("'13.0'", None, 0),
    ):  # fmt: skip
        (torch / "version.py").write_text(f"cuda: Optional[str] = {cuda}\nhip = '13.1'\n")
        for board in (0, 1):
            known = site.root / f"capability.{board}"
            known.write_text(str(capability)) if capability else known.unlink()
        path = f"{torch.parent}:{ROOT}"
        done = call(words, timeout=30, **{**site.env, "PYTHONPATH": path})
        assert done.returncode == status, done.stderr
        assert done.stderr.count("\n") == ("capability 7.0" in done.stderr) == (status == 2)


def test_gpus_whose_driver_does_not_answer_are_not_left_for_the_cpu(tmp_path, monkeypatch, capsys):
    def refuse(visible):
        raise SvError("NVML does not answer")

    monkeypatch.setattr(nvml, "list_devices", refuse)
    monkeypatch.setattr(recipe, "DEVICES", str(tmp_path / "nvidia[0-9]*"))
    words = ["settings", "--stage", "6", str(ROOT / "tests/egs/tiny/conf")]
    assert recipe.main(words) == 0 and "the CPU is used" in capsys.readouterr().err
    (tmp_path / "nvidia0").touch()
    with pytest.raises(UsageError, match=r"nvidia0\).*NVML does not answer.*--ngpu"):
        recipe.main(words)
    assert recipe.main([*words[:3], "--ngpu", "0", words[3]]) == 0
