"""The estimates: which power of a core, and the memory of the command's processes."""

import csv
import json
import os
import subprocess
import sys

import pytest

from sv.energy.config import EnergyConfig
from sv.energy.journal import read_journal
from sv.energy.processes import find_descendants, search_all
from sv.energy.sensors.estimate import TABLE, choose_core_power

HEAD = "processor\t: 0\nvendor_id\t: x\nmodel name\t: {}\nmodel name\t: other\n"


@pytest.mark.parametrize(
    ("name", "w_per_core", "words"),
    [
        ("AMD EPYC 7763 64-Core Processor", 280 / 64, "AMD product page: AMD EPYC 7763"),
        ("AMD EPYC 7763P 64-Core Processor", 6.25, "not in cpu_models.csv"),
        ("Intel(R) Xeon(R) Platinum 8480+", 350 / 56, "350 W / 56"),
        ("Intel(R) Xeon(R) Gold 6248R  CPU @ 3.00GHz", 205 / 24, "6248R"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 120 / 14, "E5-2680 v4"),
        ("AMD EPYC", 6.25, "this CPU (AMD EPYC) is not in"),
    ],
)
def test_power_of_a_core_by_model(tmp_path, name, w_per_core, words):
    (tmp_path / "cpuinfo").write_text(HEAD.format(name))
    power_w, source = choose_core_power(EnergyConfig(), tmp_path / "cpuinfo")
    assert power_w == w_per_core and words in source
    assert source.startswith("assumption") == ("not in" in source)


def test_the_config_comes_before_the_table(tmp_path):
    (tmp_path / "cpuinfo").write_text(HEAD.format("AMD EPYC 7763 64-Core Processor"))
    config = EnergyConfig(cpu_power_w_per_core=4.0, cpu_power_source="our own meter")
    assert choose_core_power(config, tmp_path / "cpuinfo") == (4.0, "our own meter")
    assert "unnamed" in choose_core_power(EnergyConfig(), tmp_path / "none")[1]


def test_the_table_is_sound():
    with open(TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["model"] for row in rows}) == len(rows) >= 30
    for row in rows:
        assert 2 < int(row["tdp_w"]) / int(row["cores"]) < 12, row
        assert row["source"].startswith(("Intel product spec", "AMD product page")), row
        assert row["model"].removeprefix("Xeon(R)").removeprefix(" CPU").strip() in row["source"]


DRAM = 'dram_power_w_per_gb = 10.0\ndram_power_source = "test"\n'
HOLD = """
import mmap, os, pathlib, sys, time
own = bytearray(100_000_000)
shared = mmap.mmap(-1, 100_000_000)  # MAP_SHARED
shared.write(bytes(100_000_000))
time.sleep(0.8)
"""


def test_memory_is_what_the_processes_hold_for_themselves(run_cli, tmp_path):
    (tmp_path / "energy.toml").write_text(f"period_s = 0.05\n{DRAM}")
    done = run_cli(
        "sv.bin.meter", "--stage", "5", "--name", "train", "--dir", tmp_path / "energy",
        "--config", tmp_path / "energy.toml", "--sysfs", tmp_path, "--",
        "sh", "-c", '"$0" -c "$1" & wait', sys.executable, HOLD,
    )  # fmt: skip
    assert done.returncode == 0
    sidecar = json.loads((tmp_path / "energy/05_train.json").read_text())
    memory = next(ch for ch in sidecar["channels"] if ch["id"] == "dram_time")
    assert (memory["boundary"], memory["kind"]) == ("dram", "estimated")
    assert "10 W per GB" in memory["source"] and memory["in_total"]
    lines = read_journal(tmp_path / "energy/05_train.journal.jsonl")
    samples = [line for line in lines if line["line"] == "sample"]
    mw = sorted(sample["raw"]["dram_time"] for sample in samples)
    # 0.1 GB at 10 W/GB and the interpreter; the shared 0.1 GB are nobody's own.
    assert 1000 <= mw[-1] < 1300 and mw[0] == 0
    assert 0.4 < memory["energy_j"] < 1.3 * sidecar["duration_s"]


def test_both_ways_of_finding_processes_agree():
    """By the lists of children, where the kernel has them, and by looking at every process."""
    shell = "sleep 30 & sh -c 'sleep 30 & sleep 30' & wait"
    with subprocess.Popen(["sh", "-c", shell], start_new_session=True) as child:
        found = []
        while len(found) < 4:  # a shell, three sleeps
            found = find_descendants(child.pid)
        assert sorted(found) == sorted(search_all(child.pid))
        assert child.pid in find_descendants(os.getpid())
        os.killpg(child.pid, 9)
    assert child.pid not in find_descendants(os.getpid())
