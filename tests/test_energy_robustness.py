"""What may happen to a meter: signals, kills, full disks, clocks, reboots, floods, reruns."""

import ctypes
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, environment
from metered import (
    BOARD,
    MAX_RANGE_UJ,
    PACKAGE,
    FakeRapl,
    Runner,
    end,
    head,
    is_alive,
    mark,
    sample,
    wait_for,
    write_journal,
)

from sv.energy.journal import read_journal
from sv.energy.record import read_record
from sv.energy.sidecar import rebuild

J_PER_KWH = 3.6e6
TRIALS, AT_ONCE = 50, 8
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


def find_processes(marker):
    """List the processes that have a word on their command line."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and marker in Path(f"/proc/{name}/cmdline").read_text():
                found.append(int(name))
        except OSError:
            continue
    return [pid for pid in found if is_alive(pid)]


def try_once(folder, number):
    """Give what is wrong after one trial, and leave nothing running whatever happens."""
    marker = f"trial-{number}-{os.getpid()}"
    try:
        return kill_at_random(folder, number, marker)
    finally:
        for pid in find_processes(marker):  # a trial that failed
            os.kill(pid, signal.SIGKILL)


def kill_at_random(folder, number, marker):
    """Run a stage, kill its meter or its command at a random moment; say what is wrong after."""
    chance = random.Random(number)
    of_meter, sent = bool(number % 2), SIGNALS[number // 2 % 3]
    folder.mkdir()
    runner, pid_file = Runner(folder), folder / "pid"
    shell = 'echo $$ >"$1.tmp"; mv "$1.tmp" "$1"; while :; do sleep 0.05; done'
    process = subprocess.Popen(
        runner.words("sh", "-c", shell, marker, pid_file), cwd=ROOT, env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if of_meter:
        time.sleep(chance.uniform(0.0, 2.0))  # also while it starts
    else:
        wait_for(pid_file.exists, timeout_s=60)
        time.sleep(chance.uniform(0.0, 0.8))
    seen = len(runner.samples()) if runner.journal.exists() else 0
    os.kill(process.pid if of_meter else int(pid_file.read_text()), sent)
    _, err = process.communicate(timeout=240)
    wait_for(lambda: not find_processes(marker), timeout_s=60)
    # Ctrl-C while Python itself starts shows where; from the first line of main on it does not.
    quiet = "Traceback" not in err or (of_meter and sent == signal.SIGINT and seen == 0)
    wrong = [] if quiet else [err]
    if runner.journal.exists() and any(x["line"] == "head" for x in read_journal(runner.journal)):
        runner.rebuild()
        sidecar = runner.sidecar()
        last = sidecar.attempts[-1]
        status = {True: "interrupted", False: "failed"}[of_meter]
        code = None if (of_meter and sent == signal.SIGKILL) else 128 + sent
        if last.exit_code is None and of_meter and not pid_file.exists():
            code = None  # it had not started the command
        if (sidecar.status, sidecar.exit_code) != (status, code):
            wrong.append(f"{sidecar['status']} {sidecar['exit_code']}, expected {status} {code}")
        kept = next(ch for ch in last.channels if ch.id == "cpu_time").samples.n
        if kept < seen:
            wrong.append(f"{seen} samples were written, {kept} are left")
    elif pid_file.exists():
        wrong.append("the command ran and there is no journal")
    return [f"trial {number}, {'meter' if of_meter else 'command'} {sent.name}: {w}" for w in wrong]


def test_fifty_kills_at_random_moments(tmp_path):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = pool.map(lambda i: try_once(tmp_path / str(i), i), range(TRIALS))
    wrong = [line for lines in results for line in lines]
    assert not wrong, "\n".join(wrong)


def test_a_disk_that_was_full_for_a_while_leaves_a_gap(tmp_path):
    runner = Runner(tmp_path)
    with FakeRapl(tmp_path, 100.0):
        process = runner.start("sleep", "3")
        wait_for(lambda: runner.journal.exists() and len(runner.samples()) > 5)
        full = runner.journal.stat().st_size + 10
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
        time.sleep(1.0)
        both = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, both)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0 and err.count("the command goes on") == 1
    sidecar = runner.sidecar()
    package = next(ch for ch in sidecar.channels if ch.id == "rapl.package.0")
    assert sidecar.status == "complete" and sidecar.torn_lines == 1
    assert package.samples.max_gap_s > 0.8  # and the counter went on
    assert package.energy_j == pytest.approx(100 * sidecar.duration_s, rel=0.05)
    assert runner.tool("--check", runner.folder / "05_train.json").returncode == 0


def test_a_clock_that_is_set_back_changes_no_figure():
    lines = [head(PACKAGE), *(sample(float(t), rapl__package__0=t * 10**8) for t in range(11))]
    right = {**end(10.0), "ended_utc": "2026-01-01T00:00:10.000Z"}
    set_back = {**right, "ended_utc": "2025-12-31T23:00:10.000Z"}
    one, other = rebuild([*lines, right]), rebuild([*lines, set_back])
    assert one.attempts[0].clock_step_s == 0.0 and one.duration_s == 10.0
    assert other.attempts[0].clock_step_s == -3600.0
    same = replace(other.attempts[0], clock_step_s=0.0)
    assert one == replace(other, attempts=(same,))


def test_marks_of_a_wrong_clock_lie_between_two_samples(tmp_path):
    runner = Runner(tmp_path)
    say = 'echo \'{"mark": "epoch", "time_unix": %s}\' >>"$SV_METER_MARKS"; sleep 0.4; '
    assert runner.run("sh", "-c", "sleep 0.3; " + say % 9e9 + say % 1 + say % '"noon"')[0] == 0
    attempt = runner.sidecar().attempts[0]
    times = [said.t_s for said in attempt.marks]
    assert all(0.2 < t_s <= attempt.duration_s for t_s in times)
    assert times[1] - times[0] > 0.25 and times[2] - times[1] > 0.25


def test_a_minute_of_suspension_is_a_gap_without_power():
    """The machine sleeps from 10 to 70 s; its counter stands still, one has lost its memory."""
    lost = {**PACKAGE, "id": "rapl.package.1"}
    lines = [head(PACKAGE, BOARD, lost)]
    for i in range(21):
        t_s, joules = i + (60.0 if i > 10 else 0.0), 100 * i
        again = joules if i <= 10 else joules - 1000
        lines.append(
            sample(t_s, float(i), rapl__package__0=joules * 10**6, nvml__board__a=50_000,
                   rapl__package__1=again * 10**6)
        )  # fmt: skip
    sidecar = rebuild([*lines, end(80.0)])
    joules = {channel.id: channel.energy_j for channel in sidecar.channels}
    assert joules == {"rapl.package.0": 2000, "nvml.board.a": 1000, "rapl.package.1": 2000}
    attempt = sidecar.attempts[0]
    assert attempt.duration_s == 80.0 and attempt.suspended_s == 60.0
    assert attempt.max_gap_s == 61.0
    assert attempt.channels[0].power_w.mean == pytest.approx(100)
    assert attempt.channels[2].doubt and attempt.channels[2].raw.resets == 1


def test_a_meter_that_stood_still_catches_up(tmp_path):
    runner = Runner(tmp_path)
    with FakeRapl(tmp_path, 100.0):
        process = runner.start("sleep", "3")
        wait_for(lambda: runner.journal.exists() and len(runner.samples()) > 3)
        for stopped_s in (0.01, 0.1, 0.2, 1.2):  # Ctrl-Z and fg, before and after a sample is due
            process.send_signal(signal.SIGSTOP)
            time.sleep(stopped_s)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    sidecar = runner.sidecar()
    assert sidecar.attempts[0].max_gap_s > 1.0
    package = next(ch for ch in sidecar.channels if ch.id == "rapl.package.0")
    assert package.energy_j == pytest.approx(100 * sidecar.duration_s, rel=0.05)


def test_a_reboot_begins_a_new_segment(tmp_path):
    """After the boot the clocks and the counter begin anew; nothing is subtracted across it."""
    first = [sample(5000.0 + t, rapl__package__0=9 * 10**9 + t * 10**8) for t in range(11)]
    second = [sample(20.0 + t, rapl__package__0=t * 10**8) for t in range(6)]
    runner = Runner(tmp_path)
    write_journal(
        runner.journal,
        head(PACKAGE, t_s=5000.0), *first, mark(5009.0, "checkpoint", step=3),
        head(PACKAGE, boot_id="later", t_s=20.0), *second, mark(20.0, "resumed", step=3), end(25.0),
    )  # fmt: skip
    assert "rebuilt, complete" in runner.rebuild().stderr
    sidecar = runner.sidecar()
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(1500)
    assert sidecar.duration_s == 15.0
    assert [attempt.boot_id for attempt in sidecar.attempts] == ["b", "later"]
    assert sidecar.channels[0].raw is None  # of each attempt, not of both
    assert runner.tool("--check", runner.folder / "05_train.json").returncode == 0


def test_two_meters_on_one_machine(tmp_path):
    """Each has its own journal; that both counted the same package is found by --check."""
    with FakeRapl(tmp_path, 100.0):
        outer = Runner(tmp_path)
        other = tmp_path / "other"
        other.mkdir()
        inner = Runner(other)
        inner.options[-1] = str(tmp_path)  # the same sysfs
        words = inner.words("sleep", "0.6")
        # So that it does not know the outer one.
        hidden = ["env", "-u", "SV_METER_ACTIVE", "-u", "SV_METER_NODES", *words]
        assert outer.run(*hidden)[0] == 0
    paths = [runner.folder / "05_train.json" for runner in (outer, inner)]
    assert all(path.exists() for path in paths)
    assert [outer.tool("--check", path).returncode for path in paths] == [0, 0]
    done = outer.tool("--check", *paths)
    assert done.returncode == 1 and "1 violations" in done.stderr
    assert re.search(rf"^{paths[1]}: .*rapl.package.0 of [\d.]+ s are also in {paths[0]}",
                     done.stdout)  # fmt: skip


def test_a_command_that_floods_its_output(tmp_path):
    size = 300_000_000
    runner = Runner(tmp_path)
    process = subprocess.Popen(
        runner.words("sh", "-c", f"head -c {size} /dev/zero; sleep 0.3"), cwd=ROOT,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    count = 0
    while block := process.stdout.read(1 << 20):
        count += len(block)
    assert process.wait(timeout=240) == 0 and count == size
    assert len(process.stderr.read().splitlines()) == 1
    sidecar = runner.sidecar()
    assert sidecar.status == "complete" and len(runner.samples()) >= 5
    process.stdout.close()
    process.stderr.close()


def test_a_stage_that_is_resumed_three_times(tmp_path):
    runner = Runner(tmp_path)
    save = 'echo \'{"mark": "%s"}\' >>"$SV_METER_MARKS"; sleep 0.2; '
    with FakeRapl(tmp_path, 100.0, start_uj=MAX_RANGE_UJ - 70_000_000):  # it wraps on the way
        assert runner.run("sh", "-c", save % "checkpoint" + "exit 1")[0] == 1
        assert runner.run("sh", "-c", save % "resumed" + "kill -TERM $$")[0] == 143
        assert runner.run("sh", "-c", save % "resumed" + "kill -KILL $PPID")[0] == -9
        assert runner.run("sh", "-c", save % "resumed")[0] == 0
    sidecar = runner.sidecar()
    attempts = sidecar.attempts
    statuses = ["failed", "failed", "interrupted", "complete"]
    assert [attempt.status for attempt in attempts] == statuses
    assert [attempt.resumed for attempt in attempts] == [False, True, True, True]
    each = [attempt.energy_kwh for attempt in attempts]
    assert sidecar.energy_kwh == pytest.approx(sum(each))
    for attempt in attempts:
        package = next(ch for ch in attempt.channels if ch.id == "rapl.package.0")
        power_w = package.energy_j / attempt.duration_s
        assert power_w == pytest.approx(100, rel=0.1)
    assert runner.tool("--check", runner.folder / "05_train.json").returncode == 0


def drop_rights():
    """Take from root what lets it read any file (linux/capability.h; prctl PR_CAPBSET_DROP)."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def test_a_counter_that_only_root_may_read_is_told_once(tmp_path):
    runner = Runner(tmp_path, "period_s = 0.1\n")
    FakeRapl(tmp_path, 100.0)
    (tmp_path / "class" / "powercap" / "intel-rapl:0" / "energy_uj").chmod(0)

    def run(stage):
        words = runner.words("true")
        words[words.index("--stage") + 1] = stage
        return subprocess.run(
            words, cwd=ROOT, env=environment(), check=False, capture_output=True, text=True,
            timeout=60, preexec_fn=drop_rights,  # noqa: PLW1509 - one thread
        )  # fmt: skip

    first, second = run("5"), run("6")
    remedy = f"run: sudo chmod a+r {tmp_path}/class/powercap/intel-rapl:*/energy_uj"
    assert first.returncode == 0 and first.stderr.count(remedy) == 1, first.stderr
    assert second.returncode == 0 and remedy not in second.stderr
    for name in ("05_train.json", "06_train.json"):
        package = read_record(runner.folder / name).channels[0]
        assert (package.kind, package.energy_j) == ("unavailable", None)
        assert remedy in package.reason


def test_no_sample_lets_a_counter_wrap_unseen(tmp_path):
    """At 30 s between two samples a small counter would go round; the meter looks more often."""
    runner = Runner(tmp_path, "period_s = 30.0\n")
    with FakeRapl(tmp_path, 1000.0) as fake:
        (fake._file.parent / "max_energy_range_uj").write_text("3000000000\n")  # 3 s at 1000 W
        fake._start_uj = 0
        assert runner.run(sys.executable, "-c", "import time; time.sleep(1.7)")[0] == 0
    assert len(runner.samples()) >= 5


@pytest.mark.parametrize("module", ["tracker", "sidecar"])
def test_without_what_computes_figures_the_command_keeps_its_status(tmp_path, module):
    """Both are loaded once the command runs: by then nothing may lose what it returns."""
    runner = Runner(tmp_path)
    program = (
        f"import sys; sys.modules['sv.energy.{module}'] = None\n"
        "from sv.bin.meter import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, *runner.options, "--", "sh", "-c", "exit 3"]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and "no live figures" in done.stderr
    assert runner.samples()
    assert (runner.folder / "05_train.json").exists() == (module == "tracker")
