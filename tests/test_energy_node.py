"""The machine's power: what is chosen, Cray and hwmon files, what contains what, settings."""

import pytest
from metered_node import IPMITOOL, build_meter, print_report, write_tool

from sv.energy.sensors.node import CrayReader, SensorError, build_hwmon
from sv.energy.sensors.readers import ChannelSpec, SilentReader, contain


@pytest.fixture
def meter(run_cli, tmp_path):
    """Meter a command with settings; give channels by id, sidecar, samples and the process."""
    return build_meter(run_cli, tmp_path)


def test_auto_takes_what_answers(meter, tmp_path):
    channels, _, _, _ = meter("", "true")
    assert not [channel for channel in channels if channel.startswith("node")]
    (tmp_path / "sys/class/ipmi/ipmi0").mkdir(parents=True)
    write_tool(tmp_path, "ipmi-dcmi", "echo 'ipmi_cmd_dcmi: driver timeout' >&2; exit 1\n")
    write_tool(tmp_path, "ipmitool", print_report(IPMITOOL).format(""))
    channels, _, _, _ = meter("node_period_s = 0.1\n", "sleep", "0.5")
    assert channels["node.ipmi"]["energy_j"] > 0
    assert "ipmi-dcmi" in channels["node.ipmi"]["source"]
    make_counters(tmp_path, 100, 1)
    channels, _, _, _ = meter("", "true")
    assert "node.cray" in channels and "node.ipmi" not in channels
    channels, _, _, _ = meter('node_power = "none"\n', "true")
    assert not [channel for channel in channels if channel.startswith("node")]


def make_counters(tmp_path, energy_j, stamp_us):
    folder = tmp_path / "sys/cray/pm_counters"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy").write_text(f"{energy_j} J {stamp_us} us\n")


def test_cray_counts_the_machine(meter, tmp_path):
    make_counters(tmp_path, 5_000, 1_734_094_386_462_336)
    file = tmp_path / "sys/cray/pm_counters/energy"
    channels, sidecar, _, _ = meter("", "sh", "-c", f"echo 5600 J 1734094387462336 us >{file}")
    node = channels["node.cray"]
    assert (node["kind"], node["energy_j"], node["raw"]["unit"]) == ("measured", 600, "J")
    assert sidecar["energy_kwh"] == pytest.approx(600 / 3.6e6)
    assert sidecar["measured_fraction"] == 1.0


def test_a_cray_counter_that_stands_still_is_stale(tmp_path):
    make_counters(tmp_path, 10, 1)
    reader = CrayReader(tmp_path / "sys/cray/pm_counters/energy")
    assert [reader.read()["node.cray"] for _ in range(2)] == [10, None]
    make_counters(tmp_path, 10, 2)
    assert reader.read() == {"node.cray": 10}
    (tmp_path / "sys/cray/pm_counters/energy").write_text("")
    assert reader.read() == {"node.cray": None}


@pytest.fixture
def hwmon(tmp_path):
    for number, name, files in (
        (0, "power_meter", {"power1_average": 120_000_000}),
        (1, "ina3221", {"power1_input": 5_000_000, "energy1_input": 7}),
        (2, "ina3221", {"power1_input": 6_000_000}),
    ):
        folder = tmp_path / f"sys/class/hwmon/hwmon{number}"
        folder.mkdir(parents=True)
        for file, value in {"name": name, **files}.items():
            (folder / file).write_text(f"{value}\n")
    return tmp_path / "sys"


def test_hwmon_sums_the_named_sensors(meter, tmp_path, hwmon):
    settings = (
        'node_power = "hwmon"\nnode_period_s = 0.3\n'
        'hwmon_sensors = ["power_meter/power1_average", "hwmon2/power1_input"]\n'
    )
    channels, sidecar, _, _ = meter(settings, "sleep", "1")
    expected_j = 126 * sidecar["duration_s"]
    assert channels["node.hwmon"]["energy_j"] == pytest.approx(expected_j, rel=0.02)
    missing = settings.replace("power_meter", "nothing")
    channels, _, _, _ = meter(missing, "true")
    assert "hwmon0 is power_meter" in channels["node.hwmon"]["reason"]


def test_hwmon_names_are_one_sensors(hwmon):
    assert build_hwmon(("hwmon1/energy1_input",), hwmon)().value == 7
    measure = build_hwmon(("ina3221/energy1_input",), hwmon)
    (hwmon / "class/hwmon/hwmon1/energy1_input").write_text("\n")
    with pytest.raises(SensorError, match="not a number"):
        measure()
    with pytest.raises(SensorError, match="more than one"):
        build_hwmon(("ina3221/power1_input",), hwmon)


def test_what_contains_what():
    def build(*channels):
        return [
            SilentReader([ChannelSpec(name, kind, "measured", None, "t")])
            for name, kind in channels
        ]

    everything = [
        ("rapl.package.0", "cpu_package"), ("rapl.dram.0", "dram"), ("rapl.psys", "psys"),
        ("nvml.board.a", "gpu_board"), ("node.cray", "node"),
    ]  # fmt: skip

    def find(readers):
        return {reader.channels[0].id: reader.channels[0].contained_in for reader in readers}

    readers = build(*everything)
    contain(readers, node_includes_gpu=True)
    assert find(readers) == {
        "rapl.package.0": ("rapl.psys", "node.cray"),
        "rapl.dram.0": ("rapl.psys", "node.cray"),
        "rapl.psys": ("node.cray",),
        "nvml.board.a": ("node.cray",),
        "node.cray": (),
    }
    readers = build(*everything)
    contain(readers, node_includes_gpu=False)
    assert find(readers)["nvml.board.a"] == ()
    assert "GPUs are assumed to be not inside" in readers[-1].channels[0].reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('node_power = "magic"', "node_power must be one of"),
        ("node_period_s = 0", "node_period_s must be"),
        ('node_power = "redfish"', "needs redfish_url"),
        ('node_power = "redfish"\nredfish_url = "https://bmc"', "needs redfish_chassis"),
        (
            'node_power = "redfish"\nredfish_url = "https://u:p@bmc"\nredfish_chassis = ["1"]',
            "must hold no user",
        ),
        ('node_power = "hwmon"', "needs hwmon_sensors"),
        (
            'node_power = "hwmon"\nhwmon_sensors = ["a/power1_input", "a/energy1_input"]',
            "all power or all energy",
        ),
        ('node_power = "hwmon"\nhwmon_sensors = ["a/../../secret"]', "needs hwmon_sensors"),
        ("cpu_power_w_per_core = 5.0", "set both or none"),
        ("dram_power_w_per_gb = 0.0", "dram_power_w_per_gb must be over 0"),
        ("dram_power_w_per_gb = 0.4", "dram_power_source: set both or none"),
    ],
)
def test_wrong_settings(meter, tmp_path, settings, message):
    _, _, _, done = meter(settings, "touch", tmp_path / "ran", check=False)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()
