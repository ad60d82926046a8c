"""The live view, the series and the trace: what a stage uses while it runs, and over time."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, environment
from metered import (
    BOARD,
    DRAM,
    ESTIMATE,
    NODE,
    PACKAGE,
    FakeRapl,
    Runner,
    head,
    sample,
    wait_for,
)
from nodes_tree import at

from sv.energy.factors import CarbonFactor
from sv.energy.live import read_live
from sv.energy.sidecar import read_energy_series, rebuild
from sv.energy.tracker import Tracker

J_PER_KWH = 3.6e6
FACTORS = {10: 50.0, 30: 400.0}  # since when, g/kWh
CONFIG = 'country = "FRA"\nperiod_s = 0.1\ndram_power_w_per_gb = 1e-9\ndram_power_source = "none"\n'


def test_the_live_file_follows_the_stage(tmp_path):
    runner = Runner(tmp_path, CONFIG)
    assert read_live(runner.live) is None and read_live(None) is None and read_live("") is None
    with FakeRapl(tmp_path, 100.0):
        process = runner.start("sh", "-c", f"until [ -e {tmp_path}/seen ]; do sleep 0.1; done")
        wait_for(lambda: (read_live(runner.live) or {}).get("energy_kwh"))
        first = read_live(runner.live)
        time.sleep(0.5)
        second = read_live(runner.live)
        watched = runner.tool("--watch", tmp_path)
        (tmp_path / "seen").touch()
        assert process.wait(timeout=240) == 0
    assert (first["stage"], first["name"], first["attempt"]) == (5, "train", 1)
    assert second["energy_kwh"] > first["energy_kwh"] and second["elapsed_s"] > first["elapsed_s"]
    assert second["power_w"] == pytest.approx(100, rel=0.2)
    assert second["energy_kwh"] * J_PER_KWH == pytest.approx(100 * second["elapsed_s"], rel=0.1)
    assert second["co2_g"] == pytest.approx(second["energy_kwh"] * 44.179, rel=1e-6)
    assert second["run_energy_kwh"] == second["energy_kwh"]
    assert second["measured_fraction"] == pytest.approx(1.0)
    line = r"stage 5 train: \d+(\.\d+)? W, \S+ kWh \(.*measured\), \S+ gCO2e, 0:00:0\d"
    assert re.fullmatch(line, watched.stdout.strip())
    assert not runner.live.exists() and not list(runner.folder.glob(".*"))
    assert "no stage is running" in runner.tool("--watch", tmp_path).stdout


@pytest.mark.parametrize("rule", ["exclusive", "cpu_share", "ceems"])
@pytest.mark.parametrize("node", [True, False])
def test_the_live_figures_are_those_of_the_sidecar(rule, node):
    """At several prefixes of a journal, as after a kill: the same rules, the same figures."""
    channels = (PACKAGE, DRAM, BOARD, *[NODE] * node, ESTIMATE)
    first = head(*channels, config={"attribution": rule, "jobs_on_node": 3})
    del first["carbon"]
    lines, tracker = [first], Tracker(first)
    for t_s in range(61):
        busy = 1 + t_s // 25  # the others' load grows
        raw = {"rapl.package.0": t_s * busy * 10**8, "rapl.dram.0": t_s * 10**7}
        raw |= {"nvml.board.a": 200_000 + 900 * t_s, "cpu_time": t_s * 10**6}
        raw |= {"ipmi.node": 500 + 9 * busy} if node else {}
        usage = None
        if t_s % 10 == 0:
            usage = {"node_cpu_us": (t_s * busy + t_s) * 10**6, "job_bytes": 10**9}
            usage["node_bytes"] = 4 * 10**9 + t_s * 10**7
        line = {**sample(float(t_s), usage=usage), "raw": raw}
        lines.append(line)
        tracker.take(line)
        if t_s in FACTORS:
            factor = CarbonFactor("fixed", g_per_kwh=FACTORS[t_s], valid_from_utc=at(t_s))
            lines.append({"line": "factor", "t_s": float(t_s), "factor": vars(factor)})
            tracker.take(lines[-1])
        if t_s in (5, 15, 20, 33, 60):
            attempt, live = rebuild(lines).attempts[0], tracker.summarise()
            assert live["elapsed_s"] == attempt.duration_s == t_s
            if t_s < 10 and rule != "exclusive":  # one look at the use of the machine
                assert live["energy_kwh"] is attempt.energy_kwh is None
                assert live["measured_fraction"] is attempt.measured_fraction is None
                continue
            assert live["measured_fraction"] == attempt.measured_fraction == 1.0
            assert live["energy_kwh"] == pytest.approx(attempt.energy_kwh, rel=1e-12)
            if t_s < 10:
                assert live["co2_g"] is attempt.co2_g is None
            else:
                assert live["co2_g"] == pytest.approx(attempt.co2_g, rel=1e-9)


def test_the_live_fraction_is_of_the_jobs_part():
    """A quarter of a package of 100 W, and 20 W of memory that are an estimate of the job's own."""
    memory = {**BOARD, "id": "dram_time", "boundary": "dram", "kind": "estimated"}
    config = {"attribution": "cpu_share", "jobs_on_node": 1}
    tracker = Tracker(head(PACKAGE, memory, ESTIMATE, config=config))
    for t_s in range(0, 61, 10):
        raw = {"rapl.package.0": t_s * 10**8, "dram_time": 20_000, "cpu_time": t_s * 10**6}
        tracker.take({**sample(float(t_s), usage={"node_cpu_us": 4 * t_s * 10**6}), "raw": raw})
    live = tracker.summarise()
    assert live["energy_kwh"] * J_PER_KWH == pytest.approx(60 * 45)
    assert live["measured_fraction"] == pytest.approx(25 / 45)


def test_a_command_reads_its_own_energy(tmp_path):
    runner = Runner(tmp_path, CONFIG)
    program = (
        "import os, time\n"
        "from sv.energy.live import read_live\n"
        "time.sleep(0.6)\n"
        "print(read_live(os.environ['SV_METER_LIVE'])['run_energy_kwh'])\n"
    )
    resumed = 'echo \'{"mark": "resumed"}\' >>"$SV_METER_MARKS"; '
    with FakeRapl(tmp_path, 100.0):
        assert runner.run("sh", "-c", "sleep 0.7; echo '{\"mark\": \"checkpoint\"}' "
                          '>>"$SV_METER_MARKS"; exit 1')[0] == 1  # fmt: skip
        before_kwh = runner.sidecar().energy_kwh
        status, out, err = runner.run("sh", "-c", f'{resumed} exec {sys.executable} -c "$0"',
                                      program)  # fmt: skip
    assert status == 0, err
    assert before_kwh + 0.3 * 100 / J_PER_KWH < float(out) <= runner.sidecar().energy_kwh


def test_watch_forgets_a_killed_meter(tmp_path):
    runner = Runner(tmp_path, CONFIG)
    process = runner.start("sleep", "60")
    wait_for(lambda: read_live(runner.live) is not None)
    assert "stage 5 train" in runner.tool("--watch", tmp_path).stdout
    process.kill()
    process.wait(timeout=60)
    out = runner.tool("--watch", tmp_path).stdout
    assert "stage 5 train" not in out and "no stage is running" in out
    assert "1 killed before their end" in out
    live = json.loads(runner.live.read_text())
    runner.live.write_text(json.dumps({**live, "host": "node7"}))
    assert "on node7, which cannot be asked" in runner.tool("--watch", tmp_path).stdout
    assert runner.run("true")[0] == 0
    assert "killed before" not in runner.tool("--watch", tmp_path).stdout


def test_watch_refreshes_on_a_terminal_until_ctrl_c(tmp_path):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        words = [sys.executable, "-m", "sv.bin.meter", "--watch", str(tmp_path)]
        os.execvpe(words[0], words, environment())
    shown, deadline_s = b"", time.monotonic() + 30
    while shown.count(b"no stage is running") < 2:
        assert time.monotonic() < deadline_s, shown
        shown += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0 and b"Traceback" not in shown


def test_a_full_folder_has_no_old_live_file(tmp_path):
    """A budget that reads an old figure would never stop the training: better none."""
    runner = Runner(tmp_path, CONFIG)
    process = runner.start("sleep", "60")
    wait_for(lambda: read_live(runner.live) is not None)
    blocked = runner.live.with_suffix(".tmp")
    subprocess.run(["mkdir", "-p", f"{blocked}/x"], check=False)
    wait_for(lambda: blocked.is_dir() and read_live(runner.live) is None)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM


def test_series_and_trace_give_the_energy_again(tmp_path):
    runner = Runner(tmp_path, CONFIG)
    resumed = 'echo \'{"mark": "resumed"}\' >>"$SV_METER_MARKS"; '
    with FakeRapl(tmp_path, 100.0):
        assert runner.run("sh", "-c", resumed + "sleep 0.5; exit 1")[0] == 1
        assert runner.run("sh", "-c", resumed + "sleep 0.5")[0] == 0
    sidecar = runner.sidecar()
    series = read_energy_series(runner.journal)
    assert series[0][1] == 0.0
    assert series[-1][1] / J_PER_KWH == pytest.approx(sidecar.energy_kwh, rel=1e-9)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in zip(series, series[1:], strict=False))
    done = runner.tool("--trace", runner.folder / "05_train.json")
    assert done.returncode == 0 and "05_train.trace.csv" in done.stderr
    with open(runner.folder / "05_train.trace.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(runner.samples()) - 2 and {row["attempt"] for row in rows} == {"1", "2"}
    joules = 0.0
    for attempt in ("1", "2"):
        before_s = 0.0
        for row in (row for row in rows if row["attempt"] == attempt):
            joules += float(row["total_w"]) * (float(row["elapsed_s"]) - before_s)
            before_s = float(row["elapsed_s"])
            assert row["utc"].endswith("Z") and float(row["rapl.package.0_w"]) >= 0
    assert joules / J_PER_KWH == pytest.approx(sidecar.energy_kwh, rel=1e-4)
    done = runner.tool("--trace", tmp_path / "nothing.json")
    assert done.returncode == 1 and "computed from the journal" in done.stderr
