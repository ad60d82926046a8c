"""The meters of a stage's other processes, run: what a daemon starts, here or elsewhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, environment
from metered import FakeRapl, Runner, is_alive, run_words, wait_for

from sv.energy.journal import read_journal
from sv.energy.live import read_live, read_live_file

J_PER_KWH = 3.6e6
SPOOL = str(ROOT / "tests" / "spool.py")
CONFIG = 'country = "FRA"\nperiod_s = 0.1\n'
BURN = f"exec {sys.executable} -c 'import time\nwhile time.process_time() < 1: pass'"
SAY = 'echo "{\\"mark\\": \\"%s\\", \\"time_unix\\": $(date +%%s.%%N)}" >>"$SV_METER_MARKS"; '


@pytest.fixture
def spool(tmp_path):
    """Start the daemon, before any meter; gives its folder."""
    folder = tmp_path / "spool"
    folder.mkdir()
    server = subprocess.Popen(
        [sys.executable, SPOOL, "serve", str(folder)], env=environment(), start_new_session=True
    )
    yield folder
    server.kill()
    server.wait()
    for pid_file in folder.glob("*.pid"):
        if is_alive(int(pid_file.read_text())):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def submit(spool, label, *command):
    """Give the words that hand a command to the daemon."""
    return [sys.executable, SPOOL, "submit", str(spool), label, *command]


def find(sidecar, channel_id):
    return next(ch for ch in sidecar.channels if ch.id == channel_id)


def check(runner):
    done = runner.tool("--check", runner.folder / "05_train.json")
    assert done.returncode == 0, done.stdout


def test_a_job_of_a_daemon_on_the_stages_machine(tmp_path, spool):
    """The package counts once; the processor time, which the stage's meter cannot see, is added."""
    runner = Runner(tmp_path, CONFIG + 'submit_attribution = "exclusive"\n')
    with FakeRapl(tmp_path, 100.0):
        status, _, err = runner.run(*submit(spool, "f.1", "sh", "-c", SAY % "epoch" + BURN))
    assert status == 0, err
    sidecar = runner.sidecar()
    check(runner)
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(100 * sidecar.duration_s, rel=0.1)
    assert sidecar.measured_fraction == pytest.approx(1.0, rel=1e-3)  # memory is an estimate
    estimate = find(sidecar, "cpu_time")
    assert estimate.energy_j > 0.9 * estimate.power_w_per_core and not estimate.in_total
    inner = list(read_journal(runner.folder / "05_train.nodes/1/f.1.journal.jsonl"))
    assert inner[0]["label"] == "f.1" and inner[-1]["line"] == "end"
    own = [line for line in runner.samples() if line["raw"].get("cpu_time", 0) > 0.9e6]
    assert not own, "the stage's meter saw the job itself"
    assert [mark.mark for mark in sidecar.attempts[0].marks] == ["epoch"]
    assert sidecar.reason is None and len(sidecar.meters) == 2
    # In the job's log, after its own last line and not to be taken for it.
    assert "# utils/meter.sh: node f.1: " in (spool / "f.1.log").read_text()
    left = {path.name for path in (runner.folder / "05_train.nodes/1").iterdir()}
    assert left == {"stage.json", "expected.jsonl", "f.1.journal.jsonl"}


def test_below_the_meter_a_second_one_only_runs_its_command(tmp_path):
    runner = Runner(tmp_path, CONFIG)
    node = [sys.executable, "-m", "sv.bin.meter", "--node", "f.1", "--", "sh", "-c", "echo $$"]
    status, out, err = runner.run("sh", "-c", 'echo $$; exec "$@"', "sh", *node)
    assert status == 0 and len(set(out.split())) == 1, err
    # Also where nobody waits for it, in a session of its own.
    status, out, err = runner.run("setsid", "-f", "--wait", *node)
    assert status == 0 and not (runner.folder / "05_train.nodes").exists(), err
    assert len(runner.sidecar().meters) == 1
    done = run_words(node)
    assert done.returncode == 0 and not done.stderr  # and where there is no meter at all
    done = run_words([*node[:4], "a/b", "--", "true"])
    assert done.returncode == 2 and "not 'a/b'" in done.stderr


def test_a_stage_inside_a_job_is_of_the_outer_stage(tmp_path, spool):
    """What calls utils/meter.sh itself is metered where the outer meter does not see it."""
    runner = Runner(tmp_path, CONFIG)
    meter = ["utils/meter.sh", "--stage", "6", "--name", "extract", "--dir", str(tmp_path / "x")]
    words = ["env", "-u", "SV_METER_ACTIVE", *meter, "--", "sleep", "0.3"]
    assert runner.run(*words)[0] == 0
    sidecar = runner.sidecar()
    assert not (tmp_path / "x").exists()
    assert sidecar.meters[1].label.startswith(f"extract.{os.uname().nodename}.")


def test_a_killed_node_meter_loses_nothing(tmp_path, spool):
    runner = Runner(tmp_path, CONFIG)
    journal = runner.folder / "05_train.nodes/1/t.1.journal.jsonl"
    shell = SAY % "checkpoint" + "exec sleep 60"
    stage = runner.start(*submit(spool, "t.1", "sh", "-c", shell))
    wait_for(lambda: journal.exists() and b'"checkpoint"' in journal.read_bytes())
    meter = int((spool / "t.1.pid").read_text())
    live = runner.folder / "05_train.nodes/1/.t.1.live.json"
    wait_for(lambda: read_live_file(live) is not None)
    seen = sum(line["line"] == "sample" for line in read_journal(journal))
    watched = runner.tool("--watch", tmp_path).stdout
    assert "stage 5 train, node t.1: " in watched and "stage 5 train: " in watched
    marks = next((runner.folder / "05_train.nodes/1").glob(".t.1.marks.1.jsonl"))
    os.kill(meter, signal.SIGSTOP)
    with open(marks, "a") as file:  # said when the meter could not hear it any more
        file.write('{"mark": "last words"}\n')
    os.kill(meter, signal.SIGKILL)
    _, err = stage.communicate(timeout=120)
    assert stage.returncode == 128 + signal.SIGKILL, err
    wait_for(lambda: "sleep" not in list_commands(meter))
    sidecar = runner.sidecar()
    node = sidecar.meters[1]
    assert (node.label, node.status, sidecar.status) == ("t.1", "interrupted", "failed")
    assert node.duration_s > 0 and node.energy_kwh is not None
    assert [m.mark for m in sidecar.attempts[0].marks] == ["checkpoint", "last words"]
    assert "killed before" not in runner.tool("--watch", tmp_path).stdout
    # The next attempt of the stage goes on; the job's folder is another one.
    again = SAY % "resumed" + "sleep 0.2"
    assert runner.run(*submit(spool, "t.1", "sh", "-c", again))[0] == 0
    sidecar = runner.sidecar()
    check(runner)
    assert [a.resumed for a in sidecar.attempts] == [False, True]
    assert sidecar.attempts[0].meters[1].duration_s >= (seen - 1) * 0.1 * 0.5
    assert sidecar.energy_kwh == pytest.approx(sidecar.energy_all_kwh)


def list_commands(group):
    done = run_words(["ps", "-o", "args=", "-g", str(group)])
    return done.stdout


def test_a_stage_whose_meter_dies_while_its_job_goes_on(tmp_path, spool):
    """As after a crash of the login node: --rebuild knows that a job is still metered."""
    runner = Runner(tmp_path, CONFIG)
    stage = runner.start(*submit(spool, "t.1", "sleep", "60"))
    live = runner.folder / "05_train.nodes/1/.t.1.live.json"
    wait_for(lambda: (read_live_file(live) or {}).get("energy_kwh") is not None)
    stage.kill()
    stage.communicate(timeout=120)
    said = runner.rebuild().stderr
    assert "rebuilt, interrupted; still metering: t.1 on " in said
    energy_kwh = runner.sidecar().energy_kwh
    os.kill(int((spool / "t.1.pid").read_text()), signal.SIGTERM)
    wait_for((spool / "t.1.done").exists)
    assert (spool / "t.1.done").read_text() == str(128 + signal.SIGTERM)
    said = runner.rebuild().stderr
    assert "rebuilt, interrupted" in said and "still" not in said
    sidecar = runner.sidecar()
    assert sidecar.energy_kwh >= energy_kwh
    assert sidecar.meters[1].exit_code == 128 + signal.SIGTERM
    check(runner)


def test_a_requeued_job_goes_on_in_its_journal(tmp_path, spool):
    runner = Runner(tmp_path, CONFIG)
    twice = submit(spool, "t.1", "sh", "-c", SAY % "epoch" + "sleep 0.2; exit 143")
    then = submit(spool, "t.1", "sh", "-c", SAY % "resumed" + BURN)
    script = f"{shell_join(twice)}; {shell_join(then)}"
    assert runner.run("sh", "-c", script)[0] == 0
    sidecar = runner.sidecar()
    check(runner)
    assert [(n.label, n.start, n.status) for n in sidecar.meters] == [
        (None, 1, "complete"), ("t.1", 1, "failed"), ("t.1", 2, "complete"),
    ]  # fmt: skip
    assert sidecar.attempts[0].resumed is False and sidecar.reason is None


def shell_join(words):
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def can_unshare():
    words = ["unshare", "--uts", "--mount", "hostname", "nodeb"]
    return shutil.which("unshare") and run_words(words).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="unshare is not permitted: no second host name")
def test_below_the_meter_under_another_host_name_too(tmp_path):
    runner = Runner(tmp_path, CONFIG)
    node = [sys.executable, "-m", "sv.bin.meter", "--node", "f.1", "--", "true"]
    rename = ["unshare", "--uts", "sh", "-c", 'hostname other; exec "$@"', "sh"]
    status, _, err = runner.run(*rename, *node)
    assert status == 0 and not (runner.folder / "05_train.nodes").exists(), err


@pytest.mark.skipif(not can_unshare(), reason="unshare is not permitted: no second host name")
def test_two_machines(tmp_path, spool):
    """Machines with a name and a boot of their own, as far as a program can see."""
    sysfs = {name: tmp_path / name for name in ("a", "b")}
    for name in sysfs:
        (tmp_path / f"{name}.boot").write_text(f"{name * 8}-2222-4333-8444-555555555555\n")
    (tmp_path / "become.sh").write_text(
        'name=$1; shift; hostname "$name"; cd "$ROOT"; mount --bind "$name/class" class\n'
        'mount --bind "$name.boot" /proc/sys/kernel/random/boot_id; cd "$HERE"; exec "$@"\n'
    )
    runner = Runner(tmp_path, CONFIG)
    (tmp_path / "class").mkdir()  # what the meters see there is that of their machine
    read = (
        "import os, sys, time\nfrom sv.energy.live import read_live\nlive = {}\n"
        "while live.get('energy_kwh') is None or live['elapsed_s'] < 0.5:\n"
        "    time.sleep(0.05)\n    live = read_live(os.environ['SV_METER_LIVE']) or {}\n"
        "open(sys.argv[1], 'w').write(f\"{live['energy_kwh']} {len(live['nodes'])}\")\n"
        "while not (os.path.exists(sys.argv[1]) and os.path.exists(sys.argv[2])):\n"
        "    time.sleep(0.05)\n"
    )
    jobs = []
    for number, (name, other) in enumerate(("ab", "ba")):
        wrap = f"unshare --uts --mount sh {tmp_path}/become.sh {name}"
        files = [str(tmp_path / f"{each}.live") for each in (name, other)]
        job = submit(spool, f"t.1.node{number}", sys.executable, "-c", read, *files)
        jobs.append(f"HERE={ROOT} ROOT={tmp_path} SPOOL_WRAP='{wrap}' {shell_join(job)}")
    with FakeRapl(sysfs["a"], 100.0), FakeRapl(sysfs["b"], 200.0):
        status, _, err = runner.run("sh", "-c", f"{jobs[0]} & {jobs[1]}; wait")
    assert status == 0, err + "".join(log.read_text() for log in spool.glob("*.log"))
    sidecar = runner.sidecar()
    check(runner)
    by_host = {node.host: node for node in sidecar.meters}
    assert set(by_host) == {os.uname().nodename, "a", "b"}
    for name, power_w in (("a", 100), ("b", 200)):
        node = by_host[name]
        joules = node.energy_kwh * J_PER_KWH
        assert joules == pytest.approx(power_w * node.duration_s, rel=0.1)
        assert node.boot_id.startswith(name * 8) and list(node.channels) == ["rapl.package.0"]
    each = [node.energy_kwh for node in sidecar.meters]
    assert sidecar.energy_kwh == pytest.approx(sum(each))
    for name, power_w in (("a", 100), ("b", 200)):  # both saw both: a budget asks for that
        energy_kwh, count = (tmp_path / f"{name}.live").read_text().split()
        assert count == "2" and float(energy_kwh) * J_PER_KWH > power_w * 0.5 * 0.9


LIVE = {
    "schema": "energy-live/1", "stage": 5, "name": "train", "model": "m", "label": None,
    "started_utc": "2026-01-01T00:00:00Z", "attempt": 1, "host": "a", "boot_id": "x",
    "meter_pid": 1, "meter_start_ticks": 1, "elapsed_s": 5.0, "power_w": None, "energy_kwh": None,
    "measured_fraction": 1.0, "co2_g": None, "run_energy_kwh": None, "before_kwh": 0.0,
}  # fmt: skip


def test_the_live_sum_says_when_a_machine_is_missing(tmp_path):
    def write(label, host, energy_kwh, fraction=1.0, **more):
        live = {**LIVE, "label": label, "host": host, "boot_id": host, "energy_kwh": energy_kwh,
                "measured_fraction": fraction, **more}  # fmt: skip
        path = tmp_path / f".{label}.live.json"
        path.write_text(json.dumps(live))
        return path

    (tmp_path / "expected.jsonl").write_text('{"labels": ["t.1.node0", "t.1.node1", "u.1"]}\n')
    path = write("t.1.node0", "a", 1.0, before_kwh=0.5)
    live = read_live(path)
    assert live["energy_kwh"] is None and live["energy_reason"] == "not known of t.1.node1"
    other = write("t.1.node1", "b", 2.0)
    assert read_live(path)["energy_kwh"] == 3.5 and read_live(path)["elapsed_s"] == 5.0
    write("t.1.node1", "a", 0.8)  # on one machine: what is measured counts once
    assert read_live(path)["energy_kwh"] == 1.5
    write("t.1.node1", "a container there", 0.8, boot_id="a")
    assert read_live(path)["energy_kwh"] == 1.5
    write("t.1.node1", "a", 0.8, fraction=0.0)
    live = read_live(path)
    assert live["energy_kwh"] == pytest.approx(2.3)
    assert live["measured_fraction"] == pytest.approx(1.0 / 1.8)
    before_s = time.time() - 100
    os.utime(other, (before_s, before_s))
    assert read_live(path)["energy_reason"] == "not known of t.1.node1 on a"


def test_machine_0_below_the_stages_meter_counts_the_others_too(tmp_path):
    live = {**LIVE, "energy_kwh": 1.0}
    path = tmp_path / ".05_train.live.json"
    path.write_text(json.dumps(live))
    assert read_live(path)["energy_kwh"] == 1.0
    folder = tmp_path / "05_train.nodes" / "1"
    folder.mkdir(parents=True)
    (folder / "expected.jsonl").write_text('{"labels": ["train.node1"]}\n')
    assert read_live(path)["energy_reason"] == "not known of train.node1"
    other = {**live, "label": "train.node1", "host": "b", "boot_id": "b", "energy_kwh": 2.0}
    (folder / ".train.node1.live.json").write_text(json.dumps(other))
    assert read_live(path)["energy_kwh"] == read_live(folder / ".train.node1.live.json")[
        "energy_kwh"] + 1.0  # fmt: skip
    (folder / "expected.jsonl").write_text('{"labels": ["f.1"]}\n')  # nothing that goes with it
    assert read_live(path)["energy_kwh"] == 1.0
