"""The machine's power by IPMI: fake tools, what a slow sensor hands over."""

import shutil
import threading

import pytest
from metered_node import FREEIPMI, IPMITOOL, SYSTEM, build_meter, fill, print_report, write_tool

from sv.energy.sensors import node
from sv.energy.sensors.node import Measurement, PolledReader, SensorError, parse_report
from sv.energy.sensors.readers import ChannelSpec


@pytest.fixture
def meter(run_cli, tmp_path):
    """Meter a command with settings; give channels by id, sidecar, samples and the process."""
    return build_meter(run_cli, tmp_path)


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fill(FREEIPMI, 164, state="Active"), 164),
        (fill(IPMITOOL, 262), 262),
        (fill(FREEIPMI, 164, state="Not Available"), "'Not Available'"),
        (fill(IPMITOOL, 164, state="deactivated"), "'deactivated'"),
        (fill(IPMITOOL, 0), "0 W"),
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
    reader = PolledReader(ChannelSpec("node.x", "node", "derived", None, "test"), measure, 0.001)
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
        node.build_ipmi(node.find_ipmi_tools("ipmitool", environ), environ)()
