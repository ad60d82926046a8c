"""The meter as a user runs it: status, signals, kills, reruns, inner meters, the estimate."""

import json
import os
import pty
import re
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT, environment
from metered import Runner, is_alive, run_words, wait_for

from sv.bin.meter import TOOLS
from sv.energy.check import check_files
from sv.energy.record import read_record

NUMBER = r"(\d[\d.e+-]*)"


@pytest.fixture
def meter(tmp_path):
    """Meter commands in a folder of this test."""
    return Runner(tmp_path)


def test_input_output_and_status_are_the_commands(meter):
    status, out, err = meter.run("sh", "-c", "cat; echo oops >&2; exit 3", stdin="hello")
    assert (status, out) == (3, "hello")
    lines = err.splitlines()
    assert lines[0] == "oops" and len(lines) == 2
    assert lines[1].startswith("utils/meter.sh: stage 5 train: ") and "status 3" in lines[1]
    sidecar = meter.sidecar()
    assert (sidecar.status, sidecar.exit_code) == ("failed", 3)
    assert sidecar.schema == "energy-sidecar/2"


def test_a_stage_of_50_ms(meter):
    status, _, err = meter.run("sleep", "0.05")
    assert status == 0
    sidecar = meter.sidecar()
    assert 0.05 <= sidecar.duration_s < 1.0
    assert sidecar.energy_kwh > 0 and sidecar.measured_fraction == 0.0
    assert sidecar.co2_g == pytest.approx(sidecar.energy_kwh * 44.179)
    assert sidecar.carbon.year == 2024 and sidecar.carbon.scope == "lifecycle"
    assert "kWh (estimated)" in err and err.rstrip().endswith("05_train.json")
    unavailable = [ch for ch in sidecar.channels if ch.kind == "unavailable"]
    assert unavailable and all(ch.energy_j is None and ch.reason for ch in unavailable)
    assert not list(meter.folder.glob(".*")), "the marks file is left"


def test_command_not_found(meter):
    status, _, err = meter.run("no-such-command")
    assert status == 127 and "utils/meter.sh: no-such-command: command not found" in err
    assert meter.sidecar().exit_code == 127
    assert meter.run(ROOT)[0] == 126  # a folder


def test_killed_command_is_128_and_the_signal(meter):
    assert meter.run("sh", "-c", "kill -SEGV $$")[0] == 128 + signal.SIGSEGV
    assert meter.sidecar().status == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(meter, tmp_path, number):
    name = signal.Signals(number).name[3:]
    trap = f"trap 'echo {name} >>{tmp_path}/got; exit 9' {name}; : >{tmp_path}/up; "
    process = meter.start("bash", "-c", trap + "while :; do sleep 0.05; done")
    wait_for((tmp_path / "up").exists)
    process.send_signal(number)
    assert process.wait(timeout=60) == 9
    assert (tmp_path / "got").read_text() == f"{name}\n"
    assert meter.sidecar().status == "interrupted"


def test_a_stopped_shell_leaves_nothing_running(meter, tmp_path):
    process = meter.start("bash", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait")
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_ctrl_c_of_a_terminal_reaches_the_command_once(meter, tmp_path):
    program = (
        "import signal, time, pathlib\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        "(folder / 'up').touch()\n"
        "while not got: time.sleep(0.02)\n"
        "time.sleep(0.5)\n"
        "(folder / 'got').write_text(str(len(got)))\n"
        "raise SystemExit(5)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        words = meter.words(sys.executable, "-c", program)
        os.execvpe(words[0], words, environment())
    wait_for((tmp_path / "up").exists)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    assert (tmp_path / "got").read_text() == "1"


def test_a_killed_meter_leaves_an_interrupted_sidecar(meter, tmp_path):
    process = meter.start("sh", "-c", f"echo $$ >{tmp_path}/pid; while :; do :; done")
    wait_for(lambda: meter.journal.exists() and len(meter.samples()) > 8)
    second, _, err = meter.run("true")
    assert second == 1 and "another meter is running" in err and len(err.splitlines()) == 1
    assert "still running, left alone" in meter.rebuild().stderr
    process.kill()
    process.wait(timeout=60)
    command = int((tmp_path / "pid").read_text())
    wait_for(lambda: not is_alive(command))
    with open(meter.journal, "a") as file:
        file.write('{"line": "sample", "t_s": 12')  # torn
    done = meter.rebuild()
    assert "rebuilt, interrupted" in done.stderr
    sidecar = meter.sidecar()
    assert sidecar.status == "interrupted" and sidecar.exit_code is None
    assert sidecar.energy_kwh > 0 and sidecar.torn_lines == 1
    assert meter.rebuild().stderr == ""
    assert meter.run("true")[0] == 0
    after = meter.sidecar()
    assert [attempt.status for attempt in after.attempts] == ["interrupted", "complete"]
    assert after.attempts[0].energy_kwh == sidecar.energy_kwh


def test_a_sidecar_from_the_future_hides_no_killed_attempt(meter):
    """The clock was an hour fast while attempt 1 ran; attempt 2 is killed within that hour."""
    assert meter.run("true")[0] == 0
    path, later_s = meter.folder / "05_train.json", time.time() + 3600
    first = path.read_bytes()
    os.utime(path, (later_s, later_s))
    work = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; sleep 0.2; "
    assert meter.run("sh", "-c", f"{MARK}{work}kill -9 $PPID")[0] == -signal.SIGKILL
    assert "rebuilt, interrupted" in meter.rebuild().stderr
    killed = meter.sidecar()
    assert [attempt.status for attempt in killed.attempts] == ["complete", "interrupted"]
    assert killed.energy_all_kwh > killed.attempts[0].energy_kwh
    path.write_bytes(first)  # as if nobody had rebuilt it
    os.utime(path, (later_s, later_s))
    assert meter.run("true")[0] == 0
    attempts = meter.sidecar().attempts
    assert [attempt.status for attempt in attempts] == ["complete", "interrupted", "complete"]
    assert attempts[1].energy_kwh == killed.attempts[1].energy_kwh
    path.write_text("half a si")
    os.utime(path, (later_s, later_s))
    assert "rebuilt, complete" in meter.rebuild().stderr and len(meter.sidecar().attempts) == 3


MARK = 'echo \'{"mark": "resumed", "time_unix": 1}\' >>"$SV_METER_MARKS"; '


def test_a_rerun_appends_and_a_resumed_one_is_summed(meter):
    assert meter.run("sh", "-c", "sleep 0.1; exit 1")[0] == 1
    assert meter.run("sh", "-c", MARK + "sleep 0.2; exit 1")[0] == 1
    sidecar = meter.sidecar()
    attempts = sidecar.attempts
    assert [attempt.resumed for attempt in attempts] == [False, True]
    each = [attempt.energy_kwh for attempt in attempts]
    assert sidecar.energy_kwh == pytest.approx(sum(each), rel=1e-12)
    assert sidecar.energy_all_kwh == pytest.approx(sum(each), rel=1e-12)
    assert sidecar.duration_s == sum(attempt.duration_s for attempt in attempts)
    mark = attempts[1].marks[0]
    assert mark.payload["time_unix"] == 1 and 0 <= mark.t_s < attempts[1].duration_s
    assert 0 <= mark.energy_kwh <= attempts[1].energy_kwh
    assert meter.run("true")[0] == 0
    sidecar = meter.sidecar()
    each = [attempt.energy_kwh for attempt in sidecar.attempts]
    assert sidecar.energy_kwh == pytest.approx(each[2])
    assert sidecar.energy_all_kwh == pytest.approx(sum(each))
    assert (sidecar.status, sidecar.duration_s) == (
        "complete",
        sidecar.attempts[2].duration_s,
    )


def test_an_attempt_that_left_nothing_does_not_hide_what_is_resumed(meter):
    saved = MARK.replace("resumed", "checkpoint")
    assert meter.run("sh", "-c", saved + "sleep 0.1; exit 1")[0] == 1
    assert meter.run("sh", "-c", "exit 2")[0] == 2  # a mistyped config
    assert meter.run("sh", "-c", MARK)[0] == 0
    sidecar = meter.sidecar()
    each = [attempt.duration_s for attempt in sidecar.attempts]
    assert sidecar.duration_s == pytest.approx(sum(each))
    assert meter.run("sh", "-c", saved)[0] == 0  # begins anew: its own energy alone
    assert meter.sidecar().duration_s == meter.sidecar().attempts[3].duration_s


FIGURES = (
    "status", "exit_code", "energy_kwh", "duration_s", "started_utc", "run_attempts", "channels",
    "reason", "uncertainty_kwh", "co2_g", "phases",
)  # fmt: skip


def write_marks(*marks):
    """Shell commands that report marks, as programs do."""
    lines = (json.dumps({"time_unix": 1, **mark}) for mark in marks)
    return "".join(f"echo '{line}' >>\"$SV_METER_MARKS\"; " for line in lines)


@pytest.mark.parametrize(
    ("commands", "status", "said"),
    [
        ("exit 2", 2, "failed with status 2; unchanged: "),
        (write_marks({"mark": "phase", "name": "training"}) + "kill $$", 143, "status 143; unch"),
        (
            write_marks({"mark": "resumed"}, {"mark": "unchanged", "what": "all is done"}), 0,
            "nothing to do: all is done; unchanged: ",
        ),
        (
            write_marks({"mark": "resumed"}, {"mark": "unchanged", "what": "a set"}) + "exit 1", 1,
            "failed with status 1; unchanged: ",
        ),
    ],
)  # fmt: skip
def test_an_attempt_that_did_nothing_changes_no_figure(meter, commands, status, said):
    epoch = write_marks({"mark": "epoch", "epoch": 1})
    assert meter.run("sh", "-c", epoch + "sleep 0.2; exit 1")[0] == 1
    assert meter.run("sh", "-c", write_marks({"mark": "resumed"}) + epoch)[0] == 0
    before = meter.sidecar()
    assert before.run_attempts == (1, 2)
    for _ in range(2):
        code, _, err = meter.run("sh", "-c", commands)
        assert code == status and said in err.splitlines()[-1]
    after = meter.sidecar()
    assert {k: getattr(after, k) for k in FIGURES} == {k: getattr(before, k) for k in FIGURES}
    assert len(after.attempts) == 4 and after.attempts[3].exit_code == status
    assert after.energy_all_kwh > before.energy_all_kwh
    assert check_files([meter.folder / "05_train.json"]) == []
    # The next one that does something is of the run that it resumes.
    assert meter.run("sh", "-c", write_marks({"mark": "resumed"}) + epoch)[0] == 0
    assert set(meter.sidecar().run_attempts) >= {1, 2, 5}


def test_where_no_attempt_did_anything_the_last_one_is_shown(meter):
    assert [meter.run("sh", "-c", f"exit {status}")[0] for status in (2, 1)] == [2, 1]
    assert (meter.sidecar().run_attempts, meter.sidecar().exit_code) == ((2,), 1)
    # The journal of the run that made the result is elsewhere: this one's energy is not the whole.
    marks = write_marks({"mark": "resumed"}, {"mark": "unchanged", "what": "all is done"})
    assert meter.run("sh", "-c", marks)[0] == 0
    assert meter.sidecar().status == "complete" and "resumed work" in meter.sidecar().reason


def test_a_budget_that_is_reached_is_no_failure(meter):
    epoch, stopped = {"mark": "epoch"}, {"mark": "stopped", "budget_kwh": 0.25}
    code, _, err = meter.run("sh", "-c", write_marks(epoch, stopped) + "exit 1")
    assert code == 1 and "stopped at the budget of 0.25 kWh" in err.splitlines()[-1]
    assert (meter.sidecar().status, meter.sidecar().exit_code) == ("stopped", 1)
    # What is resumed after it, and then fails, has failed.
    commands = write_marks({"mark": "resumed"}, epoch) + "exit 1"
    assert meter.run("sh", "-c", commands)[0] == 1
    assert [attempt.status for attempt in meter.sidecar().attempts] == ["stopped", "failed"]


def test_a_rebuild_counts_unreadable_lines_and_goes_on_after_a_journal_that_fails(meter):
    assert meter.run("sh", "-c", "sleep 0.3")[0] == 0
    before = meter.sidecar()
    lines = meter.journal.read_text().splitlines(keepends=True)
    lines[2] = lines[2][:10] + "\n"
    broken = meter.journal.with_name("00_broken.journal.jsonl")
    broken.write_text(lines[0] + '{"line": "sample", "raw": []}\n')
    meter.journal.write_text("".join(lines))
    done = meter.rebuild()
    assert done.returncode == 1
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == [
        f"{broken}: not rebuilt: not a journal as a meter writes it (KeyError('t_s'))",
        f"{meter.folder}/05_train.json: rebuilt, complete; 1 unreadable line",
    ]
    assert meter.sidecar().energy_kwh == pytest.approx(before.energy_kwh)
    # Without its head nothing is known of an attempt: the one before it gets none of its time.
    broken.unlink()
    assert meter.run("true")[0] == 0
    text = meter.journal.read_text()
    at = text.rindex('{"line":"head"')
    meter.journal.write_text(text[:at] + text[at + 1 :])
    assert "rebuilt, complete; 2 unreadable lines" in meter.rebuild().stderr
    after = meter.sidecar()
    assert (len(after.attempts), after.duration_s) == (1, before.duration_s)


def test_a_mark_outlives_its_killed_meter(meter):
    meter.run("sleep", "0.1")
    status, _, _ = meter.run("sh", "-c", MARK + "kill -9 $PPID")
    assert status == -signal.SIGKILL
    meter.rebuild()
    assert [attempt.resumed for attempt in meter.sidecar().attempts] == [False, True]


def test_an_inner_meter_only_runs_its_command(meter, tmp_path):
    inner = f"{sys.executable} -m sv.bin.meter --stage 6 --name inner --dir {tmp_path}/inner --"
    shell = f"echo $$; exec {inner} sh -c 'echo $$; exit 4'"
    status, out, err = meter.run("sh", "-c", shell)
    first, second = out.split()
    assert status == 4 and first == second
    assert not (tmp_path / "inner").exists() and "stage 6" not in err


def test_unknown_country_before_any_work(meter, tmp_path):
    status, _, err = meter.run("touch", tmp_path / "ran", options=["--country", "FRR"])
    assert status == 2 and "'FRR' (did you mean FRA" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "ran").exists() and not meter.folder.exists()
    assert meter.run("true", options=["--country", "nor"])[0] == 0
    assert meter.sidecar().carbon.g_per_kwh == 30.746


def test_open_files_reach_the_command(meter):
    words = " ".join(f"'{word}'" for word in meter.words("cat"))
    done = run_words(["bash", "-c", f"{words} <(echo through a pipe)"])
    assert done.stdout == "through a pipe\n"


def test_a_fixed_factor_and_pue_enter_carbon_only(meter, tmp_path):
    config = tmp_path / "energy.toml"
    config.write_text('g_per_kwh = 100.0\ng_per_kwh_source = "supplier"\npue = 1.5\n')
    assert meter.run("true")[0] == 0
    sidecar = meter.sidecar()
    assert sidecar.carbon.provider == "fixed" and sidecar.carbon.source == "supplier"
    assert sidecar.co2_g == pytest.approx(sidecar.energy_kwh * 150)
    energy_j = sum(ch.energy_j for ch in sidecar.channels if ch.in_total)
    assert sidecar.energy_kwh * 3.6e6 == pytest.approx(energy_j)
    config.write_text("pue = 0.9\n")
    status, _, err = meter.run("true")
    assert status == 2 and "pue must be at least 1, not 0.9" in err


def test_without_a_country_the_carbon_is_unknown(meter, tmp_path):
    (tmp_path / "energy.toml").write_text("")
    assert meter.run("true")[0] == 0
    sidecar = meter.sidecar()
    assert sidecar.co2_g is None and "--country" in sidecar.carbon.reason


def test_estimate_is_the_cpu_time_of_the_whole_tree(meter, tmp_path):
    burn = (
        "import time, os, sys\nwhile time.process_time() < 0.5: pass\n"
        f"open({str(tmp_path)!r} + '/cpu.' + sys.argv[1], 'w').write(str(time.process_time()))\n"
    )
    (tmp_path / "burn.py").write_text(burn)
    python = f"{sys.executable} {tmp_path}/burn.py"
    # One in the foreground, one below a shell that waits, one whose parent has gone.
    shell = (
        f"{python} 1; sh -c '{python} 2; true'; sh -c '{python} 3 &'; "
        f"while [ ! -s {tmp_path}/cpu.3 ]; do sleep 0.05; done; sleep 0.1"
    )
    assert meter.run("bash", "-c", shell)[0] == 0
    true_s = sum(float((tmp_path / f"cpu.{i}").read_text()) for i in (1, 2, 3))
    estimate = next(ch for ch in meter.sidecar().channels if ch.id == "cpu_time")
    readings = [sample["raw"]["cpu_time"] for sample in meter.samples()]
    assert all(before <= now for before, now in pairwise(readings))
    assert any(now > 200_000 for now in readings[: len(readings) // 3]), "living processes"
    # Above the three: the shells and their sleeps, and the interpreters' end.
    assert true_s <= readings[-1] / 1e6 + 0.03 and readings[-1] / 1e6 < true_s + 0.6
    assert estimate.energy_j == pytest.approx(readings[-1] / 1e6 * estimate.power_w_per_core)


def test_a_full_disk_does_not_end_the_command(meter, tmp_path):
    limited = meter.words("sh", "-c", f"sleep 2; echo done >{tmp_path}/done; exit 6")
    # 6 KiB a file: the head of the journal fits, not all the samples do.
    words = ["bash", "-c", 'ulimit -f 6; exec "$@"', "limit", *limited]
    done = run_words(words)
    assert done.returncode == 6 and (tmp_path / "done").exists()
    assert done.stderr.count("the command goes on") == 1
    assert "no sidecar" in done.stderr
    meter.rebuild()
    assert meter.sidecar().status == "interrupted"


def test_the_meter_does_not_pay_for_imports(meter):
    """Not even when the command has ended: one meter alone needs no numpy."""
    words = meter.words("true")
    words[1:1] = ["-X", "importtime"]
    done = run_words(words)
    modules = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "sv.energy.meter" in modules
    assert not modules & {"torch", "numpy", "pyRAPL", "pynvml", "scipy", "matplotlib"}


def test_a_command_of_ones_own_needs_no_option_in_any_folder(run_cli, tmp_path):
    """It has its own options, environment and status; its figures are printed, one line."""
    script = "import os, sys; print(*sys.argv[1:], os.getcwd(), os.environ.get('OMP_NUM_THREADS'))"
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the folder')")
    own = [ROOT / "utils" / "meter.sh", "--dir", "kept", sys.executable, "-P", "-c"]
    env = {"SV_ENVIRONMENT": "", "OMP_NUM_THREADS": "7"}
    done = run_cli(*own, script, "--stage", "4", "--", "x", cwd=tmp_path, env=env)
    assert done.stdout.split() == ["--stage", "4", "--", "x", str(tmp_path), "7"]
    name = Path(sys.executable).name
    sidecar = read_record(tmp_path / "kept" / f"99_{name}.json")
    power_w = sidecar.energy_kwh * 3.6e6 / sidecar.duration_s
    [line] = done.stderr.splitlines()
    figures = re.findall(rf"{NUMBER} (kWh|gCO2e|s|W)\b", line)
    assert {unit: float(value) for value, unit in figures} == pytest.approx(
        {"kWh": sidecar.energy_kwh, "gCO2e": sidecar.co2_g, "s": sidecar.duration_s, "W": power_w},
        rel=6e-3,
    )
    assert sidecar.carbon.zone == "OWID_WRL" and "(estimated)" in line

    before = set(tmp_path.iterdir())
    done = run_cli(*own[:1], "--country", "FRA", "--", "sh", "-c", "exit 3", cwd=tmp_path,
                   env={**env, "TMPDIR": str(tmp_path)}, check=False)  # fmt: skip
    assert done.returncode == 3 and re.search(rf"meter.sh: sh: {NUMBER} kWh", done.stderr)
    assert set(tmp_path.iterdir()) == before, "nothing is kept"


def test_help_has_every_mode_and_an_example_of_each(run_cli):
    usage, examples = run_cli("sv.bin.meter", "--help").stdout.split(" e.g.: ")
    assert usage.startswith("usage: python3 -m sv.bin.meter ")
    assert all(f"{tool}" in usage and f"sv.bin.meter {tool}" in examples for tool in TOOLS)
    assert run_cli("sv.bin.meter", "--check", "--help").stdout.startswith(usage)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stage", "5", "--name", "x", "--dir", "d"], "no command"),
        (["--dir"], "expected one argument"),
        (["--stage", "x", "--name", "x", "--dir", "d", "--", "true"], "--stage must be"),
        (["--stage", "5", "--name", "a/b", "--dir", "d", "--", "true"], "--name must be"),
        (["--stage", "5", "--name", "x", "--dir", "", "--", "true"], "--dir is missing"),
    ],
)
def test_wrong_command_lines(run_cli, argv, message):
    done = run_cli("sv.bin.meter", *argv, check=False)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
