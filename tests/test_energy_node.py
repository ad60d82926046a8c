"""The machine's power: Cray, IPMI, hwmon, Redfish, what a slow sensor returns, what contains what.

IPMI's tools and the management controller are fakes; Cray's and hwmon's files lie in another sysfs.
"""

import http.server
import itertools
import json
import math
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode

import pytest
from metered import wait_for
from metered_node import (
    FREEIPMI,
    IPMITOOL,
    SYSTEM,
    build_meter,
    fill,
    print_report,
    write_tool,
)

from sv.energy.config import EnergyConfig
from sv.energy.sensors import node
from sv.energy.sensors.node import (
    Measurement,
    PolledReader,
    SensorError,
    build_hwmon,
    choose_powers,
    parse_report,
)
from sv.energy.sensors.readers import ChannelSpec, Reader, contain


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
    (reader,) = node.open_node(EnergyConfig(), tmp_path / "sys", {})
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
    with pytest.raises(SensorError, match="hwmon1/energy1_input"):
        measure()
    with pytest.raises(SensorError, match="more than one"):
        build_hwmon(("ina3221/power1_input",), hwmon)


def test_what_contains_what():
    def build(*channels):
        return [Reader([ChannelSpec(name, kind, "measured", None, "t")]) for name, kind in channels]

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
            "without a user",
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


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ipmi-dcmi", FREEIPMI, "--get-system-power-statistics"),
        ("ipmitool", IPMITOOL, "dcmi power reading"),
    ],
)
def test_the_machines_power_is_integrated_and_contains_the_rest(meter, tmp_path, name, text, words):
    write_tool(tmp_path, name, print_report(text).format(""))
    settings = f'node_power = "{name}"\nnode_period_s = 0.4\n'
    channels, sidecar, samples, _ = meter(settings, "sleep", "1.5")
    node = channels[f"node.{name}"]
    assert (node["boundary"], node["kind"], node["method"]) == ("node", "derived", "power_integral")
    assert node["energy_j"] == pytest.approx(200 * sidecar["duration_s"], rel=0.02)
    assert node["in_total"] and node["raw"]["unit"] == "W"
    assert sidecar["energy_kwh"] == pytest.approx(node["energy_j"] / 3.6e6)
    assert not channels["cpu_time"]["in_total"] and not channels["dram_time"]["in_total"]
    calls = (tmp_path / "bin/calls").read_text().splitlines()
    given = [value for sample in samples if (value := sample["raw"][f"node.{name}"]) is not None]
    assert set(calls) == {words} and set(given) == {200}
    assert len(calls) - 1 <= len(given) <= len(calls) < len(samples), "each reading once"


def test_a_failed_reading_is_a_gap_and_a_slow_tool_delays_no_sample(meter, tmp_path):
    fails = 'sleep 0.3; case $n in 2|3) s="not active";; esac'
    write_tool(tmp_path, "ipmitool", print_report(IPMITOOL).format(fails))
    settings = 'node_power = "ipmitool"\nnode_period_s = 0.1\n'
    _, _, samples, _ = meter(settings, "sleep", "2")
    given = [sample["t_s"] for sample in samples if sample["raw"]["node.ipmitool"] is not None]
    assert len(given) >= 3
    assert given[1] - given[0] > 0.8, "the second and third question failed"
    gaps = [now["t_s"] - before["t_s"] for before, now in zip(samples, samples[1:], strict=False)]
    assert sorted(gaps)[len(gaps) // 2] < 0.1


@pytest.mark.skipif(shutil.which("ipmi-dcmi", path=SYSTEM) is not None, reason="it is there")
def test_a_tool_that_is_not_there(meter):
    channels, _, _, _ = meter('node_power = "ipmi-dcmi"\n', "true", env={"PATH": SYSTEM})
    node = channels["node.ipmi-dcmi"]
    assert node["kind"] == "unavailable" and "not on the PATH" in node["reason"]
    assert channels["cpu_time"]["in_total"]


# It has no line break after the time.
IPMITOOL_1_8_19 = re.sub(r"Mon Oct.*\n", "10/20/2025 10:00:$t UTC", IPMITOOL)


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        (IPMITOOL_1_8_19, "10/20/2025 10:00:00 UTC"),
        (IPMITOOL, "Mon Oct 20 10:00:00 2025"),
        (FREEIPMI, "10/20/2025 - 10:00:00"),
    ],
)
def test_the_controllers_time_is_that_alone(text, stamp):
    assert parse_report(fill(text)).stamp == stamp


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fill(FREEIPMI, 164, state="Active"), 164),
        (fill(IPMITOOL, 262), 262),
        (fill(IPMITOOL_1_8_19, 188), 188),
        (fill(FREEIPMI, 164, state="Not Available"), "'Not Available'"),
        (fill(IPMITOOL, 164, state="deactivated"), "'deactivated'"),
        ("Could not open device at /dev/ipmi0\n", "Could not open device"),
        ("", "nothing"),
        (fill(FREEIPMI).replace("Power Measurement", "Something"), "no power reading"),
    ],
)
def test_reports_of_the_tools(text, expected):
    if isinstance(expected, int):
        assert parse_report(text).value == expected
    else:
        with pytest.raises(SensorError, match=expected):
            parse_report(text)


def read_until_idle(answers):
    """Give what a polled reader hands over for a list of answers."""
    left, done = list(answers), threading.Event()

    def measure():
        if not left:
            done.set()
            raise SensorError("no more")
        answer = left.pop(0)
        if isinstance(answer, str):
            raise SensorError(answer)
        taken.append(reader.read()["node.x"])
        return answer

    taken = []
    channel = ChannelSpec("node.x", "node", "derived", "power_integral", "test", "W")
    reader = PolledReader(channel, measure, 0.001)
    reader.start()
    assert done.wait(5)
    reader.close()
    return [*taken[1:], reader.read()["node.x"]], reader


def test_a_stale_answer_is_no_reading():
    moving = [Measurement(1, "a"), Measurement(2, "b"), Measurement(9, "b"), Measurement(3, "c")]
    values, reader = read_until_idle(moving)
    assert values == [1, 2, None, 3]
    assert reader.read() == {"node.x": None}
    facts = reader.read_metadata()["node.x"]
    assert (facts["readings"], facts["stale"], facts["last_error"]) == (3, 1, "no more")
    without_clock = [Measurement(value, "1970") for value in (4, 5, 6)]
    assert read_until_idle(without_clock)[0] == [4, 5, 6]


def test_a_tool_that_hangs_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(node, "IPMI_TIMEOUT_S", 0.2)
    (tmp_path / "bin").mkdir()
    write_tool(tmp_path, "ipmitool", "sleep 20\n")
    with pytest.raises(SensorError, match="took over"):
        environ = {"PATH": f"{tmp_path}/bin:{SYSTEM}"}
        node.build_ipmi("ipmitool", environ)[0]()


@pytest.mark.parametrize(
    "value",
    [0, -5, 65535, 10**30, 2**63, 10**400, True, 1.5, math.nan, math.inf, "200", None],
)
def test_what_is_no_power_of_a_machine(value):
    values, reader = read_until_idle([Measurement(200), Measurement(value), Measurement(210)])
    assert values == [200, None, 210]
    assert reader.read_metadata()["node.x"]["failed"] >= 2  # this one, and "no more"


def test_whatever_a_sensor_throws_is_a_failure_with_its_text(capfd):
    left = [RuntimeError("no such bus"), SystemExit(3), ZeroDivisionError()]

    def measure():
        if left:
            raise left.pop(0)
        return Measurement(300)

    reader = PolledReader(ChannelSpec("node.x", "node", "derived", None, "test"), measure, 0.01)
    reader.start()
    wait_for(lambda: reader.read_metadata()["node.x"]["readings"])
    reader.close()
    facts = reader.read_metadata()["node.x"]
    assert (facts["failed"], facts["last_error"]) == (3, "ZeroDivisionError")
    assert capfd.readouterr().err == ""


def test_an_ipmi_that_comes_late_is_asked_again(meter, tmp_path):
    (tmp_path / "sys/class/ipmi/ipmi0").mkdir(parents=True)
    fails = '[ "$n" -le 6 ] && { echo "driver timeout" >&2; exit 1; }'
    write_tool(tmp_path, "ipmitool", print_report(IPMITOOL).format(fails))
    env = {"PATH": f"{tmp_path}/bin:{SYSTEM}"}
    channels, _, _, _ = meter("node_period_s = 0.1\n", "sleep", "2", env=env)
    assert channels["node.ipmi"]["samples"]["n"] >= 4


def test_an_ipmi_that_never_answers_is_asked_less_and_less(monkeypatch):
    monkeypatch.setattr(node, "PATIENT_S", 0.05)
    monkeypatch.setattr(node, "RARELY_S", 0.4)
    asked_s = []

    def measure():
        asked_s.append(time.monotonic())
        raise SensorError("no")

    channel = ChannelSpec("node.x", "node", "derived", None, "test")
    reader = PolledReader(channel, measure, 0.02, named=False)
    reader.start()
    wait_for(lambda: len(asked_s) >= 9)
    reader.close()
    waits_s = [b - a for a, b in itertools.pairwise(asked_s)]
    assert waits_s[0] < 0.1 and waits_s[-1] > 0.3


class Controller(http.server.BaseHTTPRequestHandler):
    """A management controller with two chassis, one with a part listed beside the whole."""

    power = {
        "Self": [{"MemberId": "0", "Name": "Server Power Control", "PowerConsumedWatts": 210.5}],
        "Left": [
            {"MemberId": "0", "Name": "All", "PowerConsumedWatts": 100},
            {"MemberId": "1", "Name": "CPU", "PowerConsumedWatts": 60},
        ],
        "Off": [{"MemberId": "0", "PowerConsumedWatts": None}],
        "Nan": [{"MemberId": "0", "PowerConsumedWatts": math.nan}],
        "Endless": [{"MemberId": "0", "PowerConsumedWatts": math.inf}],
        "Huge": [{"MemberId": "0", "PowerConsumedWatts": 1e30}],
        "True": [{"MemberId": "0", "PowerConsumedWatts": True}],
    }

    def do_GET(self):  # noqa: N802
        chassis = self.path.split("/")[4]
        if chassis == "Elsewhere":
            self.send_response(302)
            self.send_header("Location", "/redfish/v1/Chassis/Self/Power")
            self.end_headers()
            return
        allowed = self.headers["Authorization"] == f"Basic {b64encode(b'root:calvin').decode()}"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        if allowed:
            self.wfile.write(json.dumps({"PowerControl": self.power[chassis]}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def redfish(run_cli, tmp_path):
    meter = build_meter(run_cli, tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Controller)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(chassis, more="", password="calvin", seconds="0.6"):
        settings = (
            f'node_power = "redfish"\nredfish_url = "http://127.0.0.1:{server.server_port}/"\n'
            f'redfish_chassis = {chassis}\nnode_period_s = 0.3\nredfish_user_variable = "BMC_U"\n'
            f'redfish_password_variable = "BMC_P"\n{more}'
        )
        env = {"BMC_U": "root", "BMC_P": password, "http_proxy": "http://127.0.0.1:1"}
        return meter(settings, "sleep", seconds, env=env)

    yield run
    server.shutdown()
    server.server_close()


def test_redfish_sums_the_chosen_chassis(redfish, tmp_path):
    more = 'redfish_power_control = ["0"]\n'
    channels, sidecar, samples, _ = redfish('["Self", "Left"]', more, seconds="1")
    machine = channels["node.redfish"]
    assert machine["energy_j"] == pytest.approx(310.5 * sidecar["duration_s"], rel=0.02)
    assert {sample["raw"]["node.redfish"] for sample in samples} == {None, 310_500}
    written = b"".join(path.read_bytes() for path in (tmp_path / "energy").iterdir())
    assert b"calvin" not in written and b64encode(b"root:calvin") not in written


@pytest.mark.parametrize(
    ("chassis", "password", "reason"),
    [
        ('["Self"]', "wrong", "HTTP 401"),
        ('["Elsewhere"]', "calvin", "HTTP 302"),
        ('["Off"]', "calvin", "no PowerConsumedWatts"),
        ('["Nan"]', "calvin", "no PowerConsumedWatts"),
        ('["Endless"]', "calvin", "no PowerConsumedWatts"),
        ('["True"]', "calvin", "no PowerConsumedWatts"),
        ('["Huge"]', "calvin", "1e+30 W"),
        ('["Self"]', "", "BMC_P is not set"),
    ],
)
def test_redfish_that_gives_nothing(redfish, chassis, password, reason, tmp_path):
    channels, sidecar, _, _ = redfish(chassis, password=password, seconds="0.3")
    assert channels["node.redfish"]["kind"] == "unavailable" and channels["cpu_time"]["in_total"]
    said = json.dumps(sidecar) + (tmp_path / "energy/05_train.journal.jsonl").read_text()
    assert reason in said


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl for a certificate")
def test_an_unknown_certificate_is_refused_unless_the_config_says_so(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(words, check=True, capture_output=True)
    server = http.server.HTTPServer(("127.0.0.1", 0), Controller)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "redfish_url": f"https://127.0.0.1:{server.server_port}",
        "redfish_chassis": ("Self",),
        "redfish_user_variable": "U",
        "redfish_password_variable": "P",
    }
    environ = {"U": "root", "P": "calvin"}
    with pytest.raises(SensorError, match="CERTIFICATE_VERIFY_FAILED"):
        node.build_redfish(EnergyConfig(**settings), environ)()
    config = EnergyConfig(**settings, redfish_verify_tls=False)
    assert node.build_redfish(config, environ)().value == 210_500
    server.shutdown()
    server.server_close()


def test_a_controller_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(node, "REDFISH_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = EnergyConfig(redfish_url=url, redfish_chassis=("Self",))
        with pytest.raises(SensorError, match="no answer in time"):
            node.build_redfish(config, {})()


def test_members_of_a_chassis_that_do_not_add_up():
    both = {"PowerControl": Controller.power["Left"]}
    assert choose_powers(both, ()) == [("0 All", 100.0), ("1 CPU", 60.0)]
    assert choose_powers(both, ("1",)) == [("1 CPU", 60.0)]
    for answer, wanted in [(both, ("2",)), ({}, ()), ([], ()), ({"PowerControl": [1]}, ())]:
        with pytest.raises(SensorError):
            choose_powers(answer, wanted)
