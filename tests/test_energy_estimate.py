"""The estimates: which power of a logical CPU, and the memory of the command's processes."""

import csv
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from sv.energy.config import EnergyConfig
from sv.energy.journal import read_journal
from sv.energy.processes import find_descendants, read_pss_anon, read_stat, search_all
from sv.energy.sensors import estimate
from sv.energy.sensors.estimate import (
    GENERATIONS,
    MODELS,
    SOURCES,
    OwnMemory,
    choose_cpu_power,
)

SPECS = ROOT.parent / "shared/data/cpu/cpu_specs.csv"
AMD, INTEL, ARM = "AuthenticAMD", "GenuineIntel", "0x41"
# As /proc/cpuinfo of machines for computing, of clouds and of laboratories say it: TDP, threads.
NAMED = {
    "AMD EPYC 7402P 24-Core Processor": (180, 48),
    "AMD EPYC 7443 24-Core Processor": (200, 48),
    "AMD EPYC 7551 32-Core Processor": (180, 64),
    "AMD EPYC 7742 64-Core Processor": (225, 128),
    "AMD EPYC 7763 64-Core Processor": (280, 128),
    "AMD EPYC 7B12": (240, 128),
    "AMD EPYC 7F52 16-Core Processor": (240, 32),
    "AMD EPYC 7H12 64-Core Processor": (280, 128),
    "AMD EPYC 7R13 Processor": (225, 96),
    "AMD EPYC 9334 32-Core Processor": (210, 64),
    "AMD EPYC 9474F 48-Core Processor": (360, 96),
    "AMD EPYC 9654 96-Core Processor": (360, 192),
    "AMD EPYC 9755 128-Core Processor": (500, 256),
    "AMD EPYC 9R14": (280, 96),
    "AMD Ryzen 7 PRO 5850U with Radeon Graphics": (15, 16),
    "AMD Ryzen 9 5950X 16-Core Processor": (105, 32),
    "AMD Ryzen Threadripper PRO 3995WX 64-Cores": (280, 128),
    "13th Gen Intel(R) Core(TM) i9-13900K": (125, 32),
    "Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz": (95, 12),
    "Intel(R) N100": (6, 4),
    "Intel(R) Xeon(R) 6980P": (500, 256),
    "Intel(R) Xeon(R) CPU E5-2620 v4 @ 2.10GHz": (85, 16),
    "Intel(R) Xeon(R) CPU E5-2650 0 @ 2.00GHz": (95, 16),
    "Intel(R) Xeon(R) CPU E5-2650 v3 @ 2.30GHz": (105, 20),
    "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz": (120, 28),
    "Intel(R) Xeon(R) CPU Max 9480": (350, 112),
    "Intel(R) Xeon(R) Gold 6140 CPU @ 2.30GHz": (140, 36),
    "Intel(R) Xeon(R) Gold 6240 CPU @ 2.60GHz": (150, 36),
    "Intel(R) Xeon(R) Gold 6248R  CPU @ 3.00GHz": (205, 48),
    "Intel(R) Xeon(R) Gold 6342 CPU @ 2.80GHz": (230, 48),
    "Intel(R) Xeon(R) Gold 6442Y": (225, 48),
    "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz": (210, 48),
    "Intel(R) Xeon(R) Platinum 8360Y CPU @ 2.40GHz": (250, 72),
    "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz": (300, 64),
    "Intel(R) Xeon(R) Platinum 8480+": (350, 112),
    "Intel(R) Xeon(R) Platinum 8480C": (350, 112),
    "INTEL(R) XEON(R) PLATINUM 8570": (350, 112),
    "Intel(R) Xeon(R) Silver 4114 CPU @ 2.20GHz": (85, 20),
    "Intel(R) Xeon(R) Silver 4314 CPU @ 2.40GHz": (135, 32),
    "Intel(R) Xeon(R) w9-3495X": (350, 112),
}
# Names that say no model, and models that are in no table: vendor, family, model, stepping.
UNNAMED = [
    ("AMD EPYC", (AMD, 25, 17, 1), "Genoa"),
    ("AMD EPYC 7763P 64-Core Processor", (AMD, 25, 1, 1), "Milan"),
    ("AMD EPYC 9V74 80-Core Processor", (AMD, 25, 17, 1), "Genoa"),
    ("AMD EPYC-Rome Processor", (AMD, 23, 49, 0), "Rome"),
    ("Hygon C86 7285 32-core Processor", ("HygonGenuine", 24, 1, 1), "Naples"),
    ("Intel(R) Xeon(R) CPU @ 2.20GHz", (INTEL, 6, 79, 0), "Broadwell"),
    ("Intel(R) Xeon(R) CPU @ 2.00GHz", (INTEL, 6, 85, 3), "Skylake"),
    ("Intel Xeon Processor (Cascadelake)", (INTEL, 6, 85, 6), "Cascade Lake"),
    ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", (INTEL, 6, 143, 8), "Sapphire Rapids"),
    ("", (ARM, 8, 0xD0C, None), "Neoverse N1"),
]


@pytest.fixture
def choose(tmp_path):
    """Choose the power by a cpuinfo of equal CPUs."""

    def run(name="", ids=(), cpus=1, sockets=1, config=None, **facts):
        arm = ids and ids[0] == ARM
        keys = ("CPU implementer", "CPU architecture", "CPU part", "CPU revision")
        keys = keys if arm else ("vendor_id", "cpu family", "model", "stepping")
        said = dict(zip(keys, ids, strict=False)) | {"model name": name}
        said |= {key.replace("_", " "): value for key, value in facts.items()}
        lines = [f"{key}\t: {value}\n" for key, value in said.items() if value not in ("", None)]
        one = "".join(lines)
        blocks = [
            f"processor\t: {i}\n{one}physical id\t: {i * sockets // cpus}\n" for i in range(cpus)
        ]
        (tmp_path / "cpuinfo").write_text("\n".join(blocks))
        return choose_cpu_power(config or EnergyConfig(), tmp_path / "cpuinfo")

    return run


@pytest.mark.parametrize("name", NAMED)
def test_a_logical_cpu_has_its_part_of_the_tdp(choose, name):
    tdp_w, threads = NAMED[name]
    power = choose(name)
    assert power.w == pytest.approx(tdp_w / threads)
    assert "this CPU" in power.source and "not in" not in power.source
    assert 0.5 < power.sensor_rel <= 1.0 and power.sensor_rel_basis.startswith("assumed: from")


@pytest.mark.parametrize(("name", "ids", "generation"), UNNAMED)
def test_else_its_generation_has_a_typical_one(choose, name, ids, generation):
    power = choose(name, ids)
    assert power.source.startswith(f"typical of {generation}: ") and "is not in" in power.source
    with open(MODELS, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["generation"] == generation]
    each_w = [int(row["tdp_w"]) / int(row["threads"]) for row in rows]
    assert min(each_w) < power.w < max(each_w)


def test_the_less_is_known_the_wider_it_is(choose):
    """EPYC 7763: 2.1875 W between 0.5 W, idle, and 2.0 W, full load, of a thread in SPECpower."""
    known = choose("AMD EPYC 7763 64-Core Processor", (AMD, 25, 1, 1))
    assert known.sensor_rel == pytest.approx((280 / 128 - 0.5) / (280 / 128))
    assert "0.5 W" in known.sensor_rel_basis and "2 W" in known.sensor_rel_basis
    typical, assumed = choose("AMD EPYC", (AMD, 25, 1, 1)), choose("QEMU Virtual CPU version 2.5+")
    assert known.sensor_rel < typical.sensor_rel < assumed.sensor_rel < 2
    assert 2 < typical.w < assumed.w < 5
    assert assumed.source.startswith("assumption") and "QEMU Virtual CPU" in assumed.source
    assert "unnamed" in choose(cpus=0).source
    wide = choose("AMD Ryzen 9 5950X 16-Core Processor")
    assert wide.sensor_rel == 1.0 and "twice the figure" in wide.sensor_rel_basis


@pytest.mark.parametrize(
    ("cpus", "sockets", "facts", "each_w"),
    [
        (128, 1, {"siblings": 128, "cpu_cores": 64}, 280 / 128),
        (256, 2, {"siblings": 128, "cpu_cores": 64}, 280 / 128),
        (64, 1, {"siblings": 64, "cpu_cores": 64}, 280 / 64),  # without hyperthreads
        (2, 1, {"siblings": 2, "cpu_cores": 2, "flags": "fpu hypervisor"}, 280 / 128),
        (2, 1, {"siblings": 2, "cpu_cores": 1, "flags": "fpu hypervisor"}, 280 / 128),
        (200, 1, {"siblings": 200, "cpu_cores": 200, "flags": "hypervisor"}, 280 / 200),
    ],
)
def test_a_machine_never_has_more_than_its_tdp(choose, cpus, sockets, facts, each_w):
    power = choose("AMD EPYC 7763 64-Core Processor", (AMD, 25, 1, 1), cpus, sockets, **facts)
    assert power.w == pytest.approx(each_w)
    assert cpus * power.w <= 280 * sockets * (1 + 1e-9)
    assert ("at most 280 W a socket" in power.source) == (cpus == 200)
    assert choose("AMD EPYC", (AMD, 25, 1, 1), 1000).w * 1000 <= 280 * (1 + 1e-9)


def test_the_config_comes_before_the_table(choose):
    config = EnergyConfig(cpu_power_w_per_core=4.0, cpu_power_source="our own meter")
    power = choose("AMD EPYC 7763 64-Core Processor", config=config)
    assert (power.w, power.source, power.sensor_rel) == (4.0, "our own meter", 0.5)


def test_the_tables_are_sound():
    with open(MODELS, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["name"].lower() for row in rows]
    assert names == sorted(set(names)) and len(names) >= 1014
    for row in rows:
        tdp_w, cores, threads = (int(row[key]) for key in ("tdp_w", "cores", "threads"))
        assert cores <= threads <= 4 * cores and 0.5 < tdp_w / threads < 35, row
        assert row["source"] in SOURCES and row["generation"], row
    with open(GENERATIONS, newline="") as file:
        generations = list(csv.DictReader(file))
    assert {row["generation"] for row in generations} <= {row["generation"] for row in rows}
    for row in generations:
        assert not row["full_w"] or 0 < float(row["idle_w"]) < float(row["full_w"]) < 9, row


@pytest.mark.skipif(not SPECS.is_file(), reason=f"no {SPECS}")
def test_the_table_has_all_processors_of_the_list():
    """But for four whose figures are wrong there: two sockets, threads or a TDP of another."""
    with open(MODELS, newline="") as file:
        ours = {row["name"]: row for row in csv.DictReader(file)}
    with open(SPECS, newline="") as file:
        theirs = list(csv.DictReader(file))
    keys = ("tdp_w", "cores", "threads")
    other = [row["name"] for row in theirs if any(ours[row["name"]][k] != row[k] for k in keys)]
    assert len(theirs) == 1014 and other == [
        "AMD EPYC 7F52",
        "Ampere Altra Max M128-30",
        "Intel Xeon Gold 5411N",
        "Intel Xeon Platinum 8272CL",
    ]


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
    cpu, power = next(ch for ch in sidecar["channels"] if ch["id"] == "cpu_time"), choose_cpu_power
    power = power(EnergyConfig())
    assert cpu["power_w_per_core"] == power.w and power.source in cpu["source"]
    assert cpu["u_energy_j"]["sensor"] == pytest.approx(power.sensor_rel * cpu["energy_j"])


FORK = """
import mmap, os, sys, time
held = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.write(bytes(100_000_000))
children = []
for _ in range(4):
    children.append(os.fork())
    if children[-1] == 0:
        if sys.argv[1] == "write":
            held.seek(0)
            held.write(bytes(100_000_000))
        print(flush=True)
        time.sleep(60)
time.sleep(60)
"""


@pytest.fixture
def hold():
    """Start processes, wait until the four forked ones are ready; give the fields of all five."""
    started = []

    def run(*words):
        process = subprocess.Popen(
            [sys.executable, "-c", FORK, *words], stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        for _ in range(4):
            process.stdout.readline()
        return {pid: read_stat(pid) for pid in (process.pid, *find_descendants(process.pid))}

    yield run
    for process in started:
        os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


no_rollup = pytest.mark.skipif(read_pss_anon(os.getpid()) is None, reason="no Pss_Anon: Linux 5.3")


@no_rollup
@pytest.mark.parametrize(("word", "own_mb"), [("read", 100), ("write", 500)])
def test_what_a_fork_shares_counts_once_and_what_it_wrote_is_its_own(hold, word, own_mb):
    stats = hold(word)
    assert len(stats) == 5
    mb = OwnMemory().sum_bytes(stats) / 1e6
    assert own_mb < mb < own_mb + 60  # the interpreters


@no_rollup
def test_a_process_is_looked_at_once_in_ten_seconds(hold, monkeypatch):
    looked = []

    def look(pid):
        looked.append(pid)
        return read_pss_anon(pid)

    monkeypatch.setattr(estimate, "read_pss_anon", look)
    stats, memory = hold("read"), OwnMemory()
    found = [memory.sum_bytes(stats) for _ in range(3)]
    assert sorted(looked) == sorted(stats) and max(found) - min(found) < 1e6
    # A look that took a whole second: no more of them for 50 s, and no forked one counts till then.
    looked.clear()
    monkeypatch.setattr(estimate, "time", SlowClock())
    held = OwnMemory().sum_bytes(stats)
    assert len(looked) == 1 and 120e6 < held < 160e6  # the parent's 100 MB and a fifth of them


class SlowClock:
    """A clock by which everything takes a second of processor time."""

    def __init__(self):
        self._s = 0.0

    def monotonic(self):
        return 1000.0

    def thread_time(self):
        self._s += 1.0
        return self._s


def test_without_the_kernels_word_a_fork_counts_for_both(hold, monkeypatch):
    monkeypatch.setattr(estimate, "read_pss_anon", lambda pid: None)
    assert 500 < OwnMemory().sum_bytes(hold("read")) / 1e6 < 600


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
