"""RAPL: a fake powercap tree through the real meter, and the pyRAPL adapter."""

import builtins
import json
import math
import os
import types
from dataclasses import asdict
from pathlib import Path

import pytest

from sv.energy.samples import Accumulator, Reading
from sv.energy.sensors import rapl
from sv.energy.sensors.rapl import (
    RaplReader,
    build_channel,
    build_unreadable,
    find_zones,
    read_filter,
)
from sv.energy.sensors.readers import ChannelSpec, max_period_s
from sv.energy.units import kwh_from_j

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
    rapl = {"rapl.package.0", "rapl.dram.0", "rapl.psys"}
    assert set(channels) == {*rapl, "nvml", "cpu_time", "dram_time"}
    package, dram = channels["rapl.package.0"], channels["rapl.dram.0"]
    assert package["energy_j"] == pytest.approx(300) and package["raw"]["wraps"] == 3
    assert dram["energy_j"] == pytest.approx(60) and dram["raw"]["wraps"] == 1
    assert channels["rapl.psys"]["energy_j"] == pytest.approx(450)
    assert not channels["rapl.psys"]["in_total"] and "contains" in channels["rapl.psys"]["reason"]
    assert channels["cpu_time"]["energy_j"] > 0 and not channels["cpu_time"]["in_total"]
    assert not channels["dram_time"]["in_total"]
    assert package["contained_in"] == dram["contained_in"] == ["rapl.psys"]
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


def test_what_is_known_of_a_counter(tmp_path):
    package = make_zone(tmp_path / "class/powercap", "package-0", number="intel-rapl:0")
    (package / "max_energy_range_uj").write_text("262143328850\n")
    channel = build_channel(find_zones(tmp_path)[0], "test")
    assert channel.resolution == 61  # uJ, as Intel's units are on most servers
    assert (channel.update_period_s, channel.sensor_rel) == (0.001, 0.05)
    assert channel.sensor_rel_basis.startswith("assumed")


def test_samples_are_at_most_an_eighth_of_a_wrap_apart():
    intel, amd = 262_143_328_850, 65_532_610_987  # uJ, as the kernel gives them
    counters = [
        ChannelSpec("a", "cpu_package", "measured", "counter_delta", "t", "uJ", max_range=intel),
        ChannelSpec("b", "cpu_package", "measured", "counter_delta", "t", "uJ", max_range=amd),
        ChannelSpec("c", "gpu_board", "measured", "counter_delta", "t", "mJ"),
        ChannelSpec("d", "node", "derived", "power_integral", "t", "W"),
    ]
    assert max_period_s(counters, {"a": 350.0, "b": 10.0}) == pytest.approx(262_143 / 350 / 8, 1e-4)
    assert max_period_s(counters, {"a": 350.0, "b": 240.0}) == pytest.approx(65_533 / 240 / 8, 1e-4)
    assert max_period_s(counters, {"a": 350.0, "b": None}) == pytest.approx(65_533 / 2000 / 8, 1e-4)
    assert max_period_s(counters, {"a": 0.0, "b": 0.0}) == math.inf
    assert max_period_s(counters[2:], {}) == math.inf


def test_four_hours_at_200_watts_are_0_8_kwh(tmp_path):
    """Read from a fake tree, as far apart as the meter lets samples be."""
    package = make_zone(tmp_path / "class/powercap", "package-0", number="intel-rapl:0")
    (package / "max_energy_range_uj").write_text("262143328850\n")
    reader = RaplReader(tmp_path)
    period_s = max_period_s(reader.channels, {"rapl.package.0": 200.0})
    assert 160 < period_s < 164
    total = Accumulator(asdict(reader.channels[0]), period_s)
    times_s = [*(k * period_s for k in range(int(4 * 3600 / period_s) + 1)), 4 * 3600.0]
    for t_s in times_s:
        (package / "energy_uj").write_text(f"{int(2e11 + t_s * 200e6) % 262_143_328_850}\n")
        total.add(Reading(t_s, t_s, reader.read()["rapl.package.0"]))
    assert kwh_from_j(total.energy_j) == pytest.approx(0.800, rel=1e-3) and total.wraps == 11


def test_gaps_in_the_numbers_offline_zones_and_copies(tmp_path):
    powercap = tmp_path / "class" / "powercap"
    make_zone(powercap, "package-1", number="intel-rapl:2", energy_uj=7)
    make_zone(powercap, "package-0", number="intel-rapl:5", energy_uj=None)  # offline
    make_zone(powercap, "package-1", number="intel-rapl:7", energy_uj=8)  # another driver's
    make_zone(powercap, "package-1", number="intel-rapl-mmio:0", energy_uj=9)
    reader = RaplReader(tmp_path)
    kinds = {ch.id: ch.kind for ch in reader.channels if ch.boundary == "cpu_package"}
    assert kinds == {"rapl.package.1": "measured", "rapl.package.0": "unavailable"}
    assert reader.read() == {"rapl.package.1": 7}


def read_channels(sysfs):
    return {channel.id: channel for channel in RaplReader(sysfs).channels}


def test_zones_are_numbered_in_hexadecimal_and_ordered_by_number(tmp_path):
    powercap = tmp_path / "class" / "powercap"
    for i in range(18):
        package = make_zone(powercap, f"package-{i}", number=f"intel-rapl:{i:x}", energy_uj=100 + i)
        make_zone(package, "dram", number=f"{package.name}:a", energy_uj=i)
    readings = RaplReader(tmp_path).read()
    assert list(readings) == [f"rapl.{kind}.{i}" for kind in ("package", "dram") for i in range(18)]
    assert list(readings.values()) == [*range(100, 118), *range(18)]


def make_dies(root, vendor, count, sockets=1):
    """Make zones of dies of which all of a socket show one counter; give their counters' files."""
    cpu = root / "devices" / "system" / "cpu"
    cpu.mkdir(parents=True)
    (cpu / "modalias").write_text(f"cpu:type:x86,ven{vendor}fam0019mod0011:feature:,0000,0001\n")
    for i in range(count):
        socket, die = divmod(i, count // sockets)
        make_zone(
            root / "class" / "powercap", f"package-{socket}-die-{die}",
            number=f"intel-rapl:{i:x}", energy_uj=50_000_000 * socket,
        )  # fmt: skip


def test_amd_has_one_counter_a_package(run_cli, tmp_path):
    sysfs = tmp_path / "sys"
    make_dies(sysfs, "0002", 16, sockets=2)
    files = [sysfs / f"class/powercap/intel-rapl:{i:x}/energy_uj" for i in range(16)]
    files[8].unlink()  # the second package's first zone: another of its own stands for it
    add = "for file in {}; do echo {} >$file; done".format
    first, second = (" ".join(map(str, half)) for half in (files[:8], files[9:]))
    command = f"{add(first, 40_000_000)}; {add(second, 89_000_000)}; sleep 0.1"
    _, sidecar, channels = run_meter(run_cli, tmp_path, sysfs, "sh", "-c", command)
    packages = {name: ch for name, ch in channels.items() if ch["boundary"] == "cpu_package"}
    assert list(packages) == ["rapl.package.0", "rapl.package.1", "cpu_time"]
    assert packages["rapl.package.0"]["energy_j"] == pytest.approx(40)
    assert packages["rapl.package.1"]["energy_j"] == pytest.approx(39)
    assert "package-0-die-7" in packages["rapl.package.0"]["reason"]
    assert "intel-rapl:9/" in packages["rapl.package.1"]["source"]
    assert sidecar["measured_fraction"] > 0.99 and sidecar["reason"] is None


@pytest.mark.parametrize(("vendor", "count"), [("0002", 1), ("0009", 1), ("0000", 4)])
def test_whose_dies_have_counters_of_their_own(tmp_path, vendor, count):
    make_dies(tmp_path, vendor, 4)
    readable = [name for name in RaplReader(tmp_path).read() if name.startswith("rapl.package")]
    assert len(readable) == count


def test_a_package_without_a_zone_is_unavailable(tmp_path):
    make_zone(tmp_path / "class" / "powercap", "package-0", number="intel-rapl:0")
    for i in (0, 1, 2):
        topology = tmp_path / f"devices/system/cpu/cpu{i}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{i // 2}\n")
    channels = read_channels(tmp_path)
    assert channels["rapl.package.0"].kind == "measured"
    assert channels["rapl.package.1"].kind == "unavailable" and channels["rapl.package.1"].reason


@pytest.mark.parametrize(
    ("enabled", "limits_w", "expected"),
    [
        (1, {"0_power_limit": 200, "0_max_power": 205, "1_power_limit": 240}, 480.0),
        (1, {"0_power_limit": 4095, "0_max_power": 205}, 2000.0),  # no limit: the boundary's
        (1, {"0_power_limit": 60, "0_max_power": 0}, None),  # root may raise it
        (0, {"0_power_limit": 200, "0_max_power": 205}, None),  # not enforced
        (1, {"0_power_limit": 0, "0_max_power": "?"}, None),
        (1, {}, None),
    ],
)
def test_the_most_that_a_package_can_draw(tmp_path, enabled, limits_w, expected):
    zone = make_zone(tmp_path / "class" / "powercap", "package-0", number="intel-rapl:0")
    (zone / "enabled").write_text(f"{enabled}\n")
    (zone / "constraint_0_time_window_us").write_text("999424\n")
    for name, limit_w in limits_w.items():
        text = limit_w if isinstance(limit_w, str) else limit_w * 10**6
        (zone / f"constraint_{name}_uw").write_text(f"{text}\n")
    assert read_channels(tmp_path)["rapl.package.0"].max_power_w == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("262143328850", 262_143_328_850), ("4294967295", 2**32 - 1), ("6", None), ("0", None),
     ("-1", None), ("²", None), ("18446744073709551615", None)],
)  # fmt: skip
def test_where_a_counter_wraps(tmp_path, text, expected):
    zone = make_zone(tmp_path / "class/powercap", "package-0", number="intel-rapl:0", energy_uj=7)
    (zone / "max_energy_range_uj").write_text(text)
    channel = read_channels(tmp_path)["rapl.package.0"]
    assert channel.max_range == expected and (channel.reason is None) == (expected is not None)


@pytest.mark.parametrize(
    "text", ["-5", "", "nan", "1e9", "9223372036854775808", "18446744073709551615", "4294967295"]
)
def test_what_is_no_reading_of_a_counter(tmp_path, text):
    powercap = tmp_path / "class" / "powercap"
    good = make_zone(powercap, "package-0", number="intel-rapl:0", energy_uj=7)
    make_zone(powercap, "package-1", number="intel-rapl:1", energy_uj=text)
    channels = read_channels(tmp_path)
    assert (channels["rapl.package.0"].kind, channels["rapl.package.1"].kind) == (
        "measured", "unavailable",
    )  # fmt: skip
    reader = RaplReader(tmp_path)
    (good / "energy_uj").write_text(f"{text}\n")
    assert reader.read() == {"rapl.package.0": None}
    assert reader.read_metadata()["rapl.package.0"]["last_error"]


def test_a_blurred_counter_is_told(tmp_path):
    cpuinfo, msr = tmp_path / "cpuinfo", tmp_path / "msr"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sgx_lc sgx vme\nbugs\t\t: x\n")
    msr.write_bytes(bytes(0xBC) + b"\x01" + bytes(7))
    assert read_filter(cpuinfo, msr) == {"sgx": True, "energy_filter": True}
    cpuinfo.write_text("processor\t: 0\nvmx flags\t: sgx\nflags\t\t: fpu sgx_lc vme\n")
    msr.write_bytes(bytes(0xBC + 8))
    assert read_filter(cpuinfo, msr) == {"sgx": False, "energy_filter": False}
    missing = tmp_path / "none"
    assert read_filter(missing, missing) == {"sgx": None, "energy_filter": None}


def test_the_reason_names_the_command_that_mends_it(sysfs):
    zone = find_zones(sysfs)[0]
    channel = build_unreadable(zone, PermissionError(13, "Permission denied"), Path("/sys"))
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


def test_pyrapl_reads_a_socket_at_a_time(tmp_path, pyrapl_on, monkeypatch):
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
    monkeypatch.setattr(rapl, "SYSFS_OF_PYRAPL", tmp_path)
    reader = RaplReader(tmp_path)
    (packages[0] / "energy_uj").write_text("123\n")
    (packages[1] / "energy_uj").write_text("456\n")
    known = {"rapl.package.0": 123, "rapl.package.1": 456, "rapl.dram.0": 5, "rapl.dram.1": 5}
    assert reader.read() == known
    assert all(channel.source.startswith("pyRAPL ") for channel in reader.channels)
    assert reader.channels[0].max_range == MAX_RANGE_UJ
    for text in ("\n", "-7\n", "nan\n", "inf\n", "18446744073709551615\n"):
        (drams[0] / "energy_uj").write_text(text)
        assert reader.read() == {**known, "rapl.dram.0": None}, "a socket costs no other"
    assert reader.read_metadata()["rapl.dram.0"]["failed"] == 5
    (packages[1] / "energy_uj").unlink()
    (packages[1] / "energy_uj").mkdir()
    channels = {channel.id: channel for channel in RaplReader(tmp_path).channels}
    assert channels["rapl.package.1"].kind == "unavailable"
    assert channels["rapl.package.0"].source.startswith("pyRAPL ")
