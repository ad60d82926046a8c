"""RAPL: a fake powercap tree through the real meter, and the pyRAPL adapter."""

import builtins
import json
import os
import types
from pathlib import Path

import pytest

from sv.energy.sensors.powercap import build_unavailable, find_zones
from sv.energy.sensors.rapl import PyraplReader

MAX_RANGE_UJ = 100_000_000  # 100 J, so that a second at 200 W wraps twice


def make_zone(parent, name, *, number, energy_uj=0):
    zone = parent / number
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text(f"{MAX_RANGE_UJ}\n")
    if energy_uj is not None:
        (zone / "energy_uj").write_text(f"{energy_uj}\n")
    return zone


@pytest.fixture
def sysfs(tmp_path):
    powercap = tmp_path / "sys" / "class" / "powercap"
    package = make_zone(powercap, "package-0", number="intel-rapl:0", energy_uj=60_000_000)
    make_zone(package, "core", number="intel-rapl:0:0", energy_uj=10)
    make_zone(package, "dram", number="intel-rapl:0:1", energy_uj=90_000_000)
    make_zone(powercap, "psys", number="intel-rapl:1", energy_uj=0)
    make_zone(powercap, "package-0", number="intel-rapl-mmio:0", energy_uj=0)
    return tmp_path / "sys"


def run_meter(run_cli, tmp_path, sysfs, *command, check=True):
    (tmp_path / "energy.toml").write_text('country = "DEU"\nperiod_s = 0.05\n')
    done = run_cli(
        "sv.bin.meter", "--stage", "5", "--name", "train", "--dir", tmp_path / "energy",
        "--config", tmp_path / "energy.toml", "--sysfs", sysfs, "--", *command, check=check,
    )  # fmt: skip
    sidecar = json.loads((tmp_path / "energy" / "05_train.json").read_text())
    return done, sidecar, {channel["id"]: channel for channel in sidecar["channels"]}


# Advances package, dram and psys by 10, 2 and 15 J every 50 ms: 200, 40 and 300 W; renamed into
# place, as a counter is never seen half-written.
WRITER = """
root=$1/class/powercap; p=60000000; d=90000000; s=0
for i in $(seq 30); do
  p=$(( (p + 10000000) % 100000000 )); d=$(( (d + 2000000) % 100000000 )); s=$(( s + 15000000 ))
  for pair in intel-rapl:0=$p intel-rapl:0/intel-rapl:0:1=$d intel-rapl:1=$(( s % 100000000 )); do
    echo ${pair#*=} >$root/${pair%%=*}/new; mv $root/${pair%%=*}/new $root/${pair%%=*}/energy_uj
  done
  sleep 0.05
done
"""


def test_packages_and_memory_are_summed_through_wraps(run_cli, tmp_path, sysfs):
    done, sidecar, channels = run_meter(
        run_cli, tmp_path, sysfs, "bash", "-c", WRITER, "writer", sysfs
    )
    assert set(channels) == {"rapl.package.0", "rapl.dram.0", "rapl.psys", "nvml", "cpu_time"}
    package, dram = channels["rapl.package.0"], channels["rapl.dram.0"]
    assert package["energy_j"] == pytest.approx(300) and package["raw"]["wraps"] == 3
    assert dram["energy_j"] == pytest.approx(60) and dram["raw"]["wraps"] == 1
    assert channels["rapl.psys"]["energy_j"] == pytest.approx(450)
    assert not channels["rapl.psys"]["in_total"] and "contains" in channels["rapl.psys"]["reason"]
    assert channels["cpu_time"]["energy_j"] > 0 and not channels["cpu_time"]["in_total"]
    assert sidecar["energy_kwh"] == pytest.approx(360 / 3.6e6)
    assert sidecar["measured_fraction"] == 1.0
    assert sidecar["co2_g"] == pytest.approx(360 / 3.6e6 * 344.140)
    assert "0.0001 kWh (measured)" in done.stderr


def test_an_unreadable_package_is_unavailable_and_the_estimate_stands_in(run_cli, tmp_path, sysfs):
    energy_file = sysfs / "class/powercap/intel-rapl:0/energy_uj"
    energy_file.unlink()
    energy_file.mkdir()  # cannot be read by root either
    _, sidecar, channels = run_meter(run_cli, tmp_path, sysfs, "sleep", "0.1")
    package = channels["rapl.package.0"]
    assert package["kind"] == "unavailable" and package["energy_j"] is None
    assert str(energy_file) in package["reason"]
    assert channels["rapl.dram.0"]["kind"] == "measured"
    assert channels["cpu_time"]["in_total"]
    assert sidecar["measured_fraction"] == 0.0


def test_the_reason_names_the_command_that_mends_it(sysfs):
    zone = find_zones(sysfs)[0]
    channel = build_unavailable(zone, PermissionError(13, "Permission denied"), Path("/sys"))
    assert channel.reason.endswith(
        "Permission denied; run: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    )


def test_two_packages_of_two_dies(tmp_path):
    powercap = tmp_path / "class" / "powercap"
    for i, name in enumerate(("package-0-die-0", "package-0-die-1", "package-1")):
        make_zone(powercap, name, number=f"intel-rapl:{i}")
    make_zone(powercap, "dram", number="intel-rapl:1:0")  # a flat link, as /sys has it
    ids = [zone.id for zone in find_zones(tmp_path)]
    assert ids == [
        "rapl.package.0.die.0", "rapl.package.0.die.1", "rapl.dram.0.die.1", "rapl.package.1",
    ]  # fmt: skip


@pytest.fixture
def pyrapl_on(monkeypatch):
    """pyRAPL has /sys as a literal: send its two ways to the file system to another root."""
    device_api = pytest.importorskip("pyRAPL.device_api")

    def redirect(root):
        def move(path):
            return f"{root}{path[4:]}" if str(path).startswith("/sys/") else path

        path = types.SimpleNamespace(exists=lambda p: os.path.exists(move(p)))
        monkeypatch.setattr(device_api, "os", types.SimpleNamespace(path=path))

        def open_moved(name, mode="r"):
            return builtins.open(move(name), mode)

        monkeypatch.setattr(device_api, "open", open_moved, raising=False)

    return redirect


def test_pyrapl_reads_packages_and_memory(tmp_path, pyrapl_on):
    control = tmp_path / "class" / "powercap" / "intel-rapl"
    packages = [make_zone(control, f"package-{i}", number=f"intel-rapl:{i}") for i in (0, 1)]
    drams = [make_zone(p, "dram", number=f"{p.name}:0", energy_uj=5) for p in packages]
    cpu = tmp_path / "devices" / "system" / "cpu"
    for i in (0, 1):
        topology = cpu / f"cpu{i}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{i}\n")
    (cpu / "present").write_text("0-1\n")
    pyrapl_on(tmp_path)
    zones = find_zones(tmp_path)
    reader = PyraplReader([zone for zone in zones if zone.boundary == "cpu_package"])
    memory = PyraplReader([zone for zone in zones if zone.boundary == "dram"])
    (packages[0] / "energy_uj").write_text("123\n")
    (packages[1] / "energy_uj").write_text("456\n")
    assert reader.read() == {"rapl.package.0": 123, "rapl.package.1": 456}
    assert memory.read() == {"rapl.dram.0": 5, "rapl.dram.1": 5}
    assert reader.channels[0].source.startswith("pyRAPL ")
    assert reader.channels[0].max_range == MAX_RANGE_UJ
    (drams[0] / "energy_uj").write_text("\n")
    assert memory.read() == {"rapl.dram.0": None, "rapl.dram.1": None}
