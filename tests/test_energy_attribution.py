"""What is summed, how far it may be off, whose it is: totals, uncertainty, shares."""

import subprocess
import sys

import pytest
from conftest import ROOT
from metered import (
    BOARD,
    DRAM,
    ESTIMATE,
    NODE,
    PACKAGE,
    FakeRapl,
    Runner,
    end,
    head,
    mark,
    sample,
)

from sv.energy.attribution import claim_parts, share
from sv.energy.sidecar import rebuild
from sv.energy.tracker import Tracker

J_PER_KWH = 3.6e6


def total_ids(sidecar):
    return {channel.id for channel in sidecar.channels if channel.in_total}


def steady(seconds, usage=None, **powers):
    """Give samples, one a second, of channels of steady power (W): counters in uJ, W, mW."""
    lines = []
    for t_s in range(seconds + 1):
        raw = {}
        for name, power_w in powers.items():
            if name == "ipmi__node":
                raw[name] = power_w
            elif name == "nvml__board__a":
                raw[name] = power_w * 1000
            else:
                raw[name] = t_s * power_w * 10**6
        lines.append(sample(float(t_s), usage=usage and usage(t_s), **raw))
    return lines


def test_the_machine_is_the_total_and_its_parts_stay_a_breakdown():
    powers = {"rapl__package__0": 100, "nvml__board__a": 200, "ipmi__node": 400, "cpu_time": 1}
    sidecar = rebuild([head(PACKAGE, BOARD, NODE, ESTIMATE), *steady(100, **powers), end(100.0)])
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(40_000)
    assert total_ids(sidecar) == {"ipmi.node"} and list(sidecar.boundary) == ["node"]
    assert sidecar.measured_fraction == 1.0
    package = next(ch for ch in sidecar.channels if ch.id == "rapl.package.0")
    assert package.energy_j == 10_000 and "contained in ipmi.node" in package.reason
    parts = next(check for check in sidecar.crosschecks if check.b == "ipmi.node")
    assert parts.ratio == pytest.approx(0.75)
    assert parts.rest_kwh * J_PER_KWH == pytest.approx(10_000)


def test_a_module_has_the_processor_in_it_and_a_counter_its_cross_check():
    module = {**BOARD, "id": "nvml.module.a", "boundary": "gpu_module"}
    inside = {**PACKAGE, "contained_in": ["nvml.module.a"]}
    check = {**BOARD, "id": "nvml.power.a", "in_total": False, "boundary": "gpu_module"}
    counter = {**module, "method": "counter_delta", "unit": "mJ", "kind": "measured"}
    lines = [head(inside, counter, check, ESTIMATE)]
    for t_s in (0.0, 1.0, 2.0):
        raw = {"rapl__package__0": int(t_s * 50e6), "nvml__module__a": int(t_s * 300e3)}
        lines.append(sample(t_s, **raw, nvml__power__a=290_000, cpu_time=int(t_s * 1e6)))
    sidecar = rebuild([*lines, end(2.0)])
    assert total_ids(sidecar) == {"nvml.module.a"} and list(sidecar.boundary) == ["gpu_module"]
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(600)
    ratios = {(check.a, check.b): check.ratio for check in sidecar.crosschecks}
    assert ratios["nvml.module.a", "nvml.power.a"] == pytest.approx(300 / 290)


def test_a_cross_check_is_no_part_of_the_machine():
    counter = {**BOARD, "method": "counter_delta", "unit": "mJ", "kind": "measured"}
    check = {**BOARD, "id": "nvml.power.a", "in_total": False}
    lines = [
        sample(float(t), nvml__board__a=t * 200_000, nvml__power__a=210_000, ipmi__node=400)
        for t in range(101)
    ]
    sidecar = rebuild([head(counter, check, NODE), *lines, end(100.0)])
    parts = next(check for check in sidecar.crosschecks if check.b == "ipmi.node")
    assert (parts.a, parts.ratio) == ("nvml.board.a", pytest.approx(0.5))


def test_a_machine_that_stopped_answering_is_not_the_total():
    lines = [head(PACKAGE, NODE)]
    for t_s in range(101):
        node_w = 400 if t_s < 50 else None
        lines.append(sample(float(t_s), rapl__package__0=t_s * 100 * 10**6, ipmi__node=node_w))
    sidecar = rebuild([*lines, end(100.0)])
    assert total_ids(sidecar) == {"rapl.package.0"}
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(10_000)
    node = next(ch for ch in sidecar.channels if ch.id == "ipmi.node")
    assert "too much of the attempt" in node.reason and "the last 51 s" in node.reason


def test_a_machine_that_was_silent_for_40_minutes_is_bridged_and_told():
    lines = [head(NODE)]
    for t_s in range(0, 3601, 5):
        lines.append(sample(float(t_s), ipmi__node=None if 600 < t_s < 3000 else 200))
    attempt = rebuild([*lines, end(3600.0)]).attempts[0]
    assert attempt.energy_kwh == pytest.approx(0.2)
    bridged_s = 2400 - 5  # a reading was due 5 s after the one before the gap
    assert attempt.channels[0].samples.covered == pytest.approx(1 - bridged_s / 3600)
    assert attempt.measured_fraction == pytest.approx(1 - bridged_s / 3600)
    told = "no reading for 2395 s in between, bridged by a straight line"
    assert attempt.reason == f"ipmi.node: {told}"


def test_silence_at_the_ends_and_in_between_adds_up():
    lines = [head(NODE)]
    for t_s in range(0, 1001, 5):
        known = t_s >= 15 and not 500 < t_s < 530
        lines.append(sample(float(t_s), ipmi__node=200 if known else None))
    node = rebuild([*lines, end(1000.0)]).channels[0]
    assert node.samples.covered == pytest.approx(1 - (15 + 25) / 1000)
    assert node.doubt == "no reading for 25 s in between, bridged by a straight line"


def test_a_slow_sensor_holds_to_the_ends_of_the_stage():
    lines = [head(NODE)]
    for t_s in range(61):
        lines.append(sample(float(t_s), ipmi__node=400 if t_s % 5 == 2 else None))
    sidecar = rebuild([*lines, end(60.0)])
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(400 * 60)
    node = sidecar.channels[0]
    assert node.samples.failed <= 1 and node.raw.first == 400
    # 5 s x 400 W at either end, and half a watt all the time.
    assert node.u_energy_j.edge == pytest.approx(2 * 5 * 400)
    assert sidecar.uncertainty_kwh * J_PER_KWH == pytest.approx(4000, rel=0.01)


def test_uncertainty_has_its_parts():
    board = {**BOARD, "method": "counter_delta", "kind": "measured", "unit": "mJ",
             "update_period_s": 0.1, "sensor_rel": 0.05, "sensor_rel_basis": "assumed"}  # fmt: skip
    lines = [sample(float(t), nvml__board__a=t * 700_000) for t in range(101)]
    channel = rebuild([head(board), *lines, end(100.0)]).channels[0]
    u = channel.u_energy_j
    assert u.edge == pytest.approx(140.0)  # 2 x 0.1 s x 700 W
    assert u.sensor == pytest.approx(0.05 * 70_000)
    assert u.resolution == pytest.approx(2 * 0.001 / 6**0.5)
    assert u.total == pytest.approx((140**2 + 3500**2) ** 0.5)
    assert u.k == 2 and u.sensor_basis == "assumed"


def test_unknown_uncertainty_is_null_with_a_reason():
    sidecar = rebuild([head(ESTIMATE), *steady(2, cpu_time=1), end(2.0)])
    assert sidecar.uncertainty_kwh is None
    assert "the error of an estimate is not known" in sidecar.uncertainty_reason
    stated = {**ESTIMATE, "sensor_rel": 0.5}
    sidecar = rebuild([head(stated), *steady(2, cpu_time=1), end(2.0)])
    assert sidecar.uncertainty_kwh == pytest.approx(sidecar.energy_kwh / 2)
    vague = {**PACKAGE, "update_period_s": None}
    sidecar = rebuild([head(vague), *steady(2, rapl__package__0=9), end(2.0)])
    assert sidecar.uncertainty_reason == "rapl.package.0: not known: edge"


def test_a_gap_of_a_power_widens_its_uncertainty():
    def build(missing):
        lines = [head(BOARD)]
        for t_s in range(101):
            milliwatts = None if t_s in missing else 100_000 + 100_000 * (t_s // 20 % 2)
            lines.append(sample(float(t_s), nvml__board__a=milliwatts))
        return rebuild([*lines, end(100.0)]).channels[0]

    whole, gappy = build(()), build(range(35, 55))
    assert whole.u_energy_j.gap_fill == 0.0 and whole.samples.failed == 0
    assert gappy.samples.failed == 20 and gappy.samples.max_gap_s == 21.0
    assert gappy.u_energy_j.gap_fill > 0
    off_j = abs(gappy.energy_j - whole.energy_j)
    assert 0 < off_j <= gappy.u_energy_j.total


def usage(job_s, node_s, job_bytes=0, node_bytes=0):
    """Give what grows by so many CPU seconds a second."""

    def at(t_s):
        assert job_s <= node_s
        return {"node_cpu_us": int(t_s * node_s * 10**6), "job_bytes": job_bytes,
                "node_bytes": node_bytes}  # fmt: skip

    return at


def shared(rule, *channels, looks, seconds=100, jobs=1, **powers):
    config = {"attribution": rule, "jobs_on_node": jobs}
    lines = [head(*channels, ESTIMATE, config=config)]
    return rebuild([*lines, *steady(seconds, usage=looks, **powers), end(float(seconds))])


def test_cpu_share_leaves_the_boards_whole():
    powers = {"rapl__package__0": 100, "nvml__board__a": 300, "cpu_time": 2}
    sidecar = shared("cpu_share", PACKAGE, BOARD, looks=usage(2, 8), **powers)
    assert sidecar.energy_node_kwh * J_PER_KWH == pytest.approx(40_000)
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(100 * 100 * 2 / 8 + 30_000)
    found = sidecar.attribution
    assert found.rule == "cpu_share"
    assert found.inputs.cpu_s_job == 200 and found.inputs.cpu_s_node == 800
    assert sidecar.co2_g == pytest.approx(sidecar.energy_kwh * 1.5 * 50)


COUNTER = {**BOARD, "kind": "measured", "method": "counter_delta", "unit": "mJ"}
POWER = {
    **BOARD, "id": "nvml.power.a", "in_total": False, "contained_in": ["nvml.board.a"],
}  # fmt: skip
MODULE = {**POWER, "id": "nvml.module.a", "boundary": "gpu_module", "contained_in": []}


@pytest.mark.parametrize(
    ("board_w", "module"), [(700, False), (0, False), (2000, False), (700, True)]
)
def test_a_board_inside_the_machine_is_the_jobs_whatever_its_counter_says(board_w, module):
    """1000 W with a board of 700 W in it, and a tenth of the processor time: 700 W + 30 W.

    The counter may be dead, or not believed: then the integral of the board's power counts.
    """
    inside = {**COUNTER, "contained_in": ["nvml.module.a"] * module}
    first = head(
        PACKAGE, inside, POWER, *[MODULE] * module, NODE, ESTIMATE,
        config={"attribution": "cpu_share", "jobs_on_node": 1},
    )  # fmt: skip
    lines, tracker = [first], Tracker(first)
    for t_s in range(101):
        raw = {"rapl__package__0": t_s * 10**8, "nvml__board__a": t_s * board_w * 1000}
        raw |= {"nvml__power__a": 700_000, "nvml__module__a": 800_000, "ipmi__node": 1000}
        lines.append(sample(float(t_s), usage=usage(1, 10)(t_s), cpu_time=t_s * 10**6, **raw))
        tracker.take(lines[-1])
    attempt = rebuild([*lines, end(100.0)]).attempts[0]
    assert attempt.boundary == ("node",)
    assert attempt.energy_kwh * J_PER_KWH == pytest.approx(73_000)
    if board_w <= 700:  # of 2000 W the live figures believe the first 30 samples
        assert tracker.summarise()["energy_kwh"] * J_PER_KWH == pytest.approx(73_000)


def test_cpu_share_follows_a_changing_load():
    lines = [head(PACKAGE, ESTIMATE, config={"attribution": "cpu_share"})]
    for t_s in range(101):  # alone for 50 s at 100 W, then one of four at 200 W
        node_s = t_s if t_s <= 50 else 50 + 4 * (t_s - 50)
        joules = 100 * t_s if t_s <= 50 else 5000 + 200 * (t_s - 50)
        use = {"node_cpu_us": node_s * 10**6} if t_s % 10 == 0 else None
        raw = {"rapl__package__0": joules * 10**6, "cpu_time": t_s * 10**6}
        lines.append(sample(float(t_s), usage=use, **raw))
    sidecar = rebuild([*lines, mark(50.0, "epoch", epoch=1), end(100.0)])
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(5000 + 10_000 / 4)
    said = sidecar.attempts[0].marks[0]
    assert said.energy_kwh * J_PER_KWH == pytest.approx(5000)


def test_the_ceems_rule_by_hand():
    """0.9 P x (R_pkg c/C + R_dram m/M) / (R_pkg + R_dram) + 0.1 P / N, P without the GPUs."""
    powers = {"rapl__package__0": 150, "rapl__dram__0": 50, "nvml__board__a": 300}
    powers |= {"ipmi__node": 700, "cpu_time": 1}
    looks = usage(1, 4, job_bytes=2 * 10**9, node_bytes=10 * 10**9)
    sidecar = shared("ceems", PACKAGE, DRAM, BOARD, NODE, looks=looks, jobs=5, **powers)
    host_w = 700 - 300
    by_hand_w = 0.9 * host_w * 0.75 * 0.25 + 0.9 * host_w * 0.25 * 0.2 + 0.1 * host_w / 5
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(100 * (by_hand_w + 300))
    assert sidecar.energy_node_kwh * J_PER_KWH == pytest.approx(70_000)
    inputs = sidecar.attribution.inputs
    assert inputs.mean_job_bytes == 2 * 10**9 and inputs.jobs_on_node == 5

    del powers["rapl__dram__0"]
    sidecar = shared("ceems", PACKAGE, BOARD, NODE, looks=looks, jobs=5, **powers)
    by_hand_w = 0.9 * host_w * 0.25 + 0.1 * host_w / 5
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(100 * (by_hand_w + 300))

    powers = {"rapl__package__0": 150, "rapl__dram__0": 50, "cpu_time": 1}
    sidecar = shared("ceems", PACKAGE, DRAM, looks=looks, jobs=5, **powers)
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(100 * (150 * 0.25 + 50 * 0.2))


def test_an_estimate_of_the_jobs_own_processes_is_not_shared():
    sidecar = shared("cpu_share", looks=usage(1, 8), cpu_time=1)
    assert sidecar.energy_kwh == sidecar.energy_node_kwh > 0
    parts = dict.fromkeys(("node", "gpu", "gpu_inside", "cpu", "dram"), 0.0)
    claim = claim_parts("ceems", {"cpu": 0.1, "memory": 0.1}, 0.0, 0.0, 3)
    assert sum(share({**parts, "own": 7.0}, claim).values()) == 7.0


MEMORY = {**BOARD, "id": "dram_time", "boundary": "dram", "kind": "estimated", "sensor_rel": 0.5}


def share_with_memory(seconds, looks):
    """Give an attempt of a package of 500 W (10 %) and 74.5 W of memory, an estimate (50 %)."""
    config = {"attribution": "cpu_share"}
    made = [head({**PACKAGE, "sensor_rel": 0.1}, MEMORY, ESTIMATE, config=config)]
    for t_s in range(seconds + 1):
        raw = {"rapl__package__0": t_s * 500 * 10**6, "dram_time": 74_500, "cpu_time": 4 * t_s}
        raw["cpu_time"] *= 10**6
        made.append(sample(float(t_s), usage=looks(t_s), **raw))
    return [*made, end(float(seconds))]


def test_a_share_of_a_machine_has_its_estimates_as_a_whole():
    sidecar = rebuild(share_with_memory(100, usage(4, 256)))
    measured_j, own_j = 50_000 * 4 / 256, 7450
    assert sidecar.energy_node_kwh * J_PER_KWH == pytest.approx(57_450)
    assert sidecar.energy_kwh * J_PER_KWH == pytest.approx(measured_j + own_j)
    assert sidecar.measured_fraction == pytest.approx(measured_j / (measured_j + own_j))
    u_j = 0.5 * own_j + 0.1 * measured_j
    assert sidecar.uncertainty_kwh * J_PER_KWH == pytest.approx(u_j, rel=1e-4)


def test_a_share_of_a_machine_has_its_boards_as_a_whole():
    package, board = ({**ch, "sensor_rel": rel} for ch, rel in ((PACKAGE, 0.1), (BOARD, 0.05)))
    powers = {"rapl__package__0": 100, "nvml__board__a": 300, "cpu_time": 2}
    sidecar = shared("cpu_share", package, board, looks=usage(2, 8), **powers)
    assert sidecar.measured_fraction == 1.0
    u_j = 0.1 * 10_000 / 4 + 0.05 * 30_000
    assert sidecar.uncertainty_kwh * J_PER_KWH == pytest.approx(u_j, rel=1e-3)


def test_attempts_weigh_by_the_energy_of_the_job():
    """Not by the machine's: 100 s of 1/64 of it, then 10 s of all of it."""
    lines = share_with_memory(100, usage(4, 256))
    again = [*share_with_memory(10, usage(4, 4)), mark(5.0, "resumed")]
    sidecar = rebuild([*lines, *again])
    assert sidecar.run_attempts == (1, 2)
    measured_j = 50_000 / 64 + 5000
    assert sidecar.measured_fraction == pytest.approx(measured_j / (measured_j + 110 * 74.5))


def test_a_share_without_a_look_at_the_machine_is_unknown():
    config = {"attribution": "cpu_share"}
    sidecar = rebuild([head(PACKAGE, config=config), *steady(9, rapl__package__0=5), end(9.0)])
    assert sidecar.energy_kwh is None and sidecar.energy_node_kwh > 0
    assert "two looks" in sidecar.reason and sidecar.co2_g is None
    assert sidecar.measured_fraction is sidecar.uncertainty_kwh is None
    assert sidecar.uncertainty_reason == "its energy is not known"


def test_a_real_process_gets_its_share_of_a_package(tmp_path):
    """Another process burns a core outside of the meter, so the share is less than the whole."""
    runner = Runner(tmp_path, 'attribution = "cpu_share"\nperiod_s = 0.1\n')
    burn = "import time\nwhile time.process_time() < {}: pass"
    other = subprocess.Popen([sys.executable, "-c", burn.format(2)], cwd=ROOT)
    with FakeRapl(tmp_path, 100.0):
        status, _, err = runner.run(sys.executable, "-c", burn.format(0.7))
    other.kill()
    other.wait()
    assert status == 0, err
    sidecar = runner.sidecar()
    inputs = sidecar.attribution.inputs
    part = sidecar.energy_kwh / sidecar.energy_node_kwh
    assert 0.7 <= inputs.cpu_s_job < 1.5 and inputs.cpu_s_node > inputs.cpu_s_job + 0.2
    assert part == pytest.approx(inputs.cpu_s_job / inputs.cpu_s_node, rel=0.01)
    assert list(sidecar.boundary) == ["cpu_package", "dram"]  # RAPL, and memory estimated


def test_settings_that_are_refused_before_any_work(tmp_path):
    for settings, message in (
        ('attribution = "half"\n', "attribution must be one of exclusive"),
        ('idle_baseline = "baseline.json"\n', "idle_baseline is no longer read: remove it"),
        ('node_power = "ipmi-device"\n', "use ipmi-dcmi or ipmitool"),
    ):
        status, _, err = Runner(tmp_path, settings).run("touch", tmp_path / "ran")
        assert status == 2 and message in err and "energy.toml" in err
        assert len(err.splitlines()) == 1 and not (tmp_path / "ran").exists()


def test_marks_and_phases_have_energy():
    lines = [head(PACKAGE), mark(0.0, "phase", name="data"), mark(2.5, "phase", name="train")]
    lines += [mark(5.0, "epoch", epoch=1), mark(None, "epoch", epoch=2)]
    lines += [mark(8.0, "phase", name="data"), *steady(10, rapl__package__0=100), end(10.0)]
    sidecar = rebuild(lines)
    marks = [said for said in sidecar.attempts[0].marks if said.mark == "epoch"]
    assert marks[0].energy_kwh * J_PER_KWH == pytest.approx(500) and marks[0].payload == {
        "time_unix": 0,
        "epoch": 1,
    }
    assert marks[1].energy_kwh is None and "killed meter" in marks[1].energy_reason
    phases = {phase.name: phase for phase in sidecar.phases}
    assert phases["train"].energy_kwh * J_PER_KWH == pytest.approx(550)
    assert phases["data"].energy_kwh * J_PER_KWH == pytest.approx(450)
    assert phases["data"].times == 2 and phases["data"].duration_s == pytest.approx(4.5)
