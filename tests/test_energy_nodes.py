"""A stage on several machines: their journals make one total, and what it lacks is named."""

import json
import os

import pytest
from metered import BOARD, ESTIMATE, NODE, PACKAGE, Runner, mark, write_journal
from nodes_tree import J_PER_KWH, build, join, joules, lines, write_stage

from sv.energy.forecast import compute_forecast
from sv.energy.sidecar import read_energy_series
from sv.report.output import build_tables
from sv.report.results import collect_results
from sv.report.tables.cells import format_markdown


def test_two_machines_and_one_that_waits(tmp_path):
    french, polish = ({"provider": "fixed", "g_per_kwh": g} for g in (50.0, 800.0))
    a, b = lines("a", 10, 60), lines("b", 12, 62, rapl__package__0=200)
    a[0]["carbon"], b[0]["carbon"] = french, polish
    own = lines("login", 0, 70, ESTIMATE)
    sidecar, runner = write_stage(tmp_path, own, {"t.1.node0": a, "t.1.node1": b})
    assert joules(sidecar) == pytest.approx(50 * 100 + 50 * 200 + 70 * 6)
    assert sidecar.energy_kwh == sidecar.energy_node_kwh == sidecar.energy_all_kwh
    assert sidecar.measured_fraction == pytest.approx(15_000 / 15_420)
    assert (sidecar.host, sidecar.duration_s) == ("login", 70.0)
    grams = (50 * 100 * 50 + 50 * 200 * 800 + 70 * 6 * 50) / J_PER_KWH * 1.5
    assert sidecar.co2_g == pytest.approx(grams)
    assert {part.host for part in sidecar.carbon.intervals} == {"a", "b", "login"}
    summed = {(ch.host, ch.id) for ch in sidecar.channels if ch.in_total}
    packages = {("a", "rapl.package.0"), ("b", "rapl.package.0")}
    assert summed == {*packages, ("login", "cpu_time")}
    assert [node.label for node in sidecar.meters] == [None, "t.1.node0", "t.1.node1"]
    each = [node.energy_kwh * J_PER_KWH for node in sidecar.meters]
    assert each == pytest.approx([420, 5000, 10_000])
    assert sidecar.reason is None and list(sidecar.boundary) == ["cpu_package"]
    series = read_energy_series(runner.journal)
    assert series[-1][1] == pytest.approx(joules(sidecar)) and series[0][1] == 0.0


def test_jobs_that_overlap_on_one_machine_count_it_once(tmp_path):
    first, second = lines("a", 0, 40), lines("a", 20, 60)
    third = lines("a", 100, 110)  # after a pause in which nobody counted
    own = lines("login", 0, 120, ESTIMATE)
    nodes = {"f.1": first, "f.2": second, "f.3": third}
    sidecar, _ = write_stage(tmp_path, own, nodes)
    package = next(ch for ch in sidecar.channels if ch.id == "rapl.package.0")
    assert package.energy_j == pytest.approx(70 * 100)
    assert package.u_energy_j.sensor == 0.0 and package.samples.covered == 1.0
    # Measured, so the estimates of the jobs are no part of it; together they are of 90 seconds.
    estimate = next(c for c in sidecar.channels if c.id == "cpu_time" and c.host == "a")
    assert estimate.energy_j == pytest.approx(90 * 6) and not estimate.in_total
    assert joules(sidecar) == pytest.approx(70 * 100 + 120 * 6)
    counted = {node.label: node.counted_s for node in sidecar.meters}
    assert counted == pytest.approx({None: 120, "f.1": 30, "f.2": 30, "f.3": 10})


def test_two_containers_of_one_kernel_are_one_machine(tmp_path):
    nodes = {f"f.{i}": lines(f"c{i}", 0, 60, boot="kernel") for i in (1, 2)}
    sidecar, _ = write_stage(tmp_path, lines("login", 0, 60, ESTIMATE), nodes)
    assert joules(sidecar) == pytest.approx(60 * 100 + 60 * 6)
    shares = {node.host: (node.energy_kwh * J_PER_KWH, node.counted_s) for node in sidecar.meters}
    assert shares["c1"] == shares["c2"] == pytest.approx((3000, 30))
    for node in nodes.values():
        node[0]["boot_id"] = None  # then the host is all that is known
    assert joules(join(lines("login", 0, 60, ESTIMATE), nodes)) == pytest.approx(12_000 + 360)


def test_estimates_of_jobs_on_one_machine_add_up(tmp_path):
    nodes = {"f.1": lines("a", 0, 40, ESTIMATE), "f.2": lines("a", 20, 60, ESTIMATE)}
    sidecar, _ = write_stage(tmp_path, lines("a", 0, 60, ESTIMATE), nodes)
    assert joules(sidecar) == pytest.approx((40 + 40 + 60) * 6)
    assert sidecar.measured_fraction == 0.0 and sidecar.reason is None


def test_uncertainty_is_of_every_machine(tmp_path):
    stated = {**ESTIMATE, "sensor_rel": 0.5}
    measured = {**PACKAGE, "update_period_s": 0.0, "resolution": 0, "sensor_rel": 0.1}
    both = (measured, stated)
    nodes = {"f.1": lines("a", 0, 40, *both), "f.2": lines("a", 20, 60, *both)}
    own = lines("a", 0, 60, measured, stated, config={"submit_attribution": "exclusive"})
    sidecar, _ = write_stage(tmp_path, own, nodes)
    assert joules(sidecar) == pytest.approx(6000)
    assert joules(sidecar, "uncertainty_kwh") == pytest.approx(0.1 * 6000)
    nodes["f.2"] = lines("b", 20, 60, measured, ESTIMATE)
    sidecar, _ = write_stage(tmp_path, own, nodes)
    assert joules(sidecar, "uncertainty_kwh") == pytest.approx(0.1 * 10_000)
    nodes["f.2"] = lines("b", 20, 60, ESTIMATE)
    sidecar, _ = write_stage(tmp_path, own, nodes)
    assert sidecar.uncertainty_kwh is None and "b: cpu_time: " in sidecar.uncertainty_reason


def test_uncertainty_is_of_the_parts_of_a_shared_machine(tmp_path):
    """Half a package, and all of each job's memory."""
    package, memory = ({**PACKAGE, "update_period_s": 0.0, "resolution": 0, "sensor_rel": 0.1},
                       {**BOARD, "id": "dram_time", "boundary": "dram", "kind": "estimated",
                        "sensor_rel": 0.5})  # fmt: skip
    config, channels = {"attribution": "cpu_share"}, (package, memory, ESTIMATE)
    nodes = {
        label: lines("a", 0, 40, *channels, busy=0.25, config=config, dram_time=20)
        for label in ("f.1", "f.2")
    }
    own = lines("login", 0, 40, package, ESTIMATE)
    sidecar, _ = write_stage(tmp_path, own, nodes)
    login_j, shared_j, memory_j = 4000, 2000, 2 * 800
    assert joules(sidecar) == pytest.approx(login_j + shared_j + memory_j)
    assert sidecar.measured_fraction == pytest.approx(6000 / 7600)
    u_j = 0.1 * (login_j + shared_j) + 0.5 * memory_j
    assert joules(sidecar, "uncertainty_kwh") == pytest.approx(u_j)


def test_boards_count_once_by_their_uuid(tmp_path):
    other = {**BOARD, "id": "nvml.board.b"}
    first, second = lines("a", 0, 40, PACKAGE, BOARD), lines("a", 20, 60, PACKAGE, BOARD, other)
    nodes = {"t.1": first, "t.2": second}
    sidecar, _ = write_stage(tmp_path, lines("login", 0, 60, ESTIMATE), nodes)
    assert joules(sidecar) == pytest.approx(60 * 100 + 60 * 100 + 40 * 100 + 60 * 6)
    assert list(sidecar.boundary) == ["cpu_package", "gpu_board"] and sidecar.reason is None


@pytest.mark.parametrize("board_w", [700, 0])
def test_a_board_inside_a_shared_machine_is_of_the_job_that_reads_it(board_w):
    """Two jobs with a tenth of the processor time each, one of them with a board of 700 W."""
    counter = {**BOARD, "kind": "measured", "method": "counter_delta", "unit": "mJ"}
    power = {**BOARD, "id": "nvml.power.a", "in_total": False, "contained_in": ["nvml.board.a"]}
    rule = {"attribution": "cpu_share"}
    watts = {"ipmi__node": 1000, "nvml__power__a": 700, "busy": 0.1, "config": rule}
    gpu = lines("a", 0, 40, counter, power, NODE, ESTIMATE, **watts)
    for line in (line for line in gpu if line["line"] == "sample"):
        line["raw"]["nvml.board.a"] = int(line["t_s"]) * board_w * 1000
    cpu = lines("a", 0, 40, NODE, ESTIMATE, **watts)
    attempt = join(lines("login", 0, 40, ESTIMATE), {"gpu": gpu, "cpu": cpu})
    each = {meter.label: meter.energy_kwh * J_PER_KWH for meter in attempt.meters}
    assert each == pytest.approx({None: 240, "gpu": 40 * 730, "cpu": 40 * 30})


def test_parts_of_a_shared_machine_add_up_to_no_more_than_it(tmp_path):
    rule = {"attribution": "cpu_share"}
    nodes = {
        "f.1": lines("a", 0, 40, busy=0.25, config=rule),
        "f.2": lines("a", 0, 40, busy=0.5, config=rule),
        "f.3": lines("b", 0, 40, busy=0.75, config=rule),
        "f.4": lines("b", 20, 40, busy=0.75, config=rule),
    }
    sidecar, _ = write_stage(tmp_path, lines("login", 0, 40, ESTIMATE), nodes)
    # On a: 25 % + 50 %. On b: 75 %, then 150 %, which is all of it.
    expected_j = 4000 * 0.75 + 2000 * 0.75 + 2000 + 40 * 6
    assert joules(sidecar) == pytest.approx(expected_j)
    assert joules(sidecar, "energy_node_kwh") == pytest.approx(8000 + 240)
    each = {node.label: node.energy_kwh * J_PER_KWH for node in sidecar.meters}
    assert each["f.1"] == pytest.approx(1000) and each["f.4"] == pytest.approx(1000)
    assert sidecar.attribution.rule == "mixed"


@pytest.mark.parametrize("rule", ["cpu_share", "exclusive"])
def test_the_machine_that_waits_is_not_all_ours(tmp_path, rule):
    config = {"submit_attribution": rule}
    own = lines("login", 0, 100, PACKAGE, BOARD, ESTIMATE, busy=0.01, config=config)
    sidecar, _ = write_stage(tmp_path, own, {"t.1": lines("a", 10, 90)})
    login_j = 100 * 200 * (0.01 if rule == "cpu_share" else 1)
    assert joules(sidecar) == pytest.approx(80 * 100 + login_j)
    assert joules(sidecar, "energy_node_kwh") == pytest.approx(80 * 100 + 100 * 200)
    assert sidecar.attribution.rule == ("mixed" if rule == "cpu_share" else "exclusive")
    # Machine 0 of a job that has no meter of its own is below the stage's: that one works too.
    works = tmp_path / "works"
    works.mkdir()
    sidecar, _ = write_stage(works, own, {"t.node1": lines("a", 10, 90)})
    assert joules(sidecar) == pytest.approx(80 * 100 + 100 * 200)


def test_the_machine_of_the_stage_and_a_job_that_its_meter_does_not_see(tmp_path):
    own = lines("a", 0, 60, busy=0.5)
    sidecar, _ = write_stage(tmp_path, own, {"t.1": lines("a", 10, 50)})
    # The job's 40 seconds are all ours, of the other 20 what the waiting script used.
    assert joules(sidecar) == pytest.approx(40 * 100 + 20 * 100 * 0.5)
    assert [node.counted_s for node in sidecar.meters] == [20.0, 40.0]
    assert joules(sidecar, "energy_node_kwh") == pytest.approx(60 * 100)


UNREAD = {**PACKAGE, "kind": "unavailable", "method": None, "in_total": False, "reason": "rights"}


@pytest.mark.parametrize("name", ["rapl.package.0", "rapl.package"])
def test_a_job_that_cannot_read_what_a_later_one_can(name):
    """RAPL is made readable between them; or one sees no package at all, as in a container."""
    first = lines("a", 0, 40, {**UNREAD, "id": name}, ESTIMATE)
    attempt = join(lines("login", 0, 80, ESTIMATE), {"f.1": first, "f.2": lines("a", 40, 80)})
    assert joules(attempt) == pytest.approx(40 * 100 + 80 * 6)
    assert attempt.measured_fraction == pytest.approx(0.5 * 4000 / 4480)
    told = "not read in 50 % of its meters' time, by 1 of 2 (first: f.1): a lower bound"
    assert attempt.reason == f"a: rapl.package.0: {told}"
    package = next(ch for ch in attempt.channels if ch.id == "rapl.package.0")
    assert (package.samples.covered, package.doubt) == (0.5, told)


def test_a_job_that_cannot_read_what_others_read_meanwhile():
    blind = lines("a", 10, 30, UNREAD, ESTIMATE)
    attempt = join(lines("login", 0, 40, ESTIMATE), {"f.1": blind, "f.2": lines("a", 0, 40)})
    assert joules(attempt) == pytest.approx(40 * 100 + 40 * 6) and attempt.reason is None
    # Nor is it missing from a script that only waits there, nor a board from who has none.
    waits = lines("a", 0, 60, UNREAD, ESTIMATE)
    attempt = join(waits, {"f.1": lines("a", 10, 40), "f.2": lines("a", 20, 50, PACKAGE, BOARD)})
    assert joules(attempt) == pytest.approx(40 * 100 + 30 * 100) and attempt.reason is None


def test_a_machine_that_one_of_two_jobs_can_read_is_not_the_total():
    jobs = {"f.1": lines("a", 0, 40, PACKAGE, NODE, ipmi__node=300), "f.2": lines("a", 40, 80)}
    attempt = join(lines("login", 0, 80, ESTIMATE), jobs)
    assert joules(attempt) == pytest.approx(80 * 100 + 80 * 6)
    assert attempt.boundary == ("cpu_package",) and attempt.reason is None


def test_the_whole_machine_and_a_job_too_short_for_its_sensor(tmp_path):
    own = lines(
        "a", 0, 60, PACKAGE, NODE, ipmi__node=300, config={"submit_attribution": "exclusive"}
    )
    job = lines("a", 10, 14, PACKAGE, NODE)
    for line in job[2:-1]:
        line["raw"]["ipmi.node"] = None
    sidecar, _ = write_stage(tmp_path, own, {"t.1": job})
    assert joules(sidecar) == pytest.approx(60 * 300)
    assert list(sidecar.boundary) == ["node"]
    assert sidecar.crosschecks[0].host == "a"
    assert sidecar.crosschecks[0].ratio == pytest.approx(1 / 3)


def test_the_whole_machine_silent_in_between_for_all_its_meters():
    config = {"submit_attribution": "exclusive"}
    own, job = (
        lines("a", first, last, NODE, ipmi__node=300, config=config)
        for first, last in ((0, 100), (30, 80))
    )
    for line in (line for line in (*own, *job) if 20 < line["t_s"] < 60 and "raw" in line):
        line["raw"]["ipmi.node"] = None
    attempt = join(own, {"t.1": job})
    assert joules(attempt) == pytest.approx(100 * 300)
    assert attempt.measured_fraction == pytest.approx(0.65)  # 40 s less the 5 s of a reading
    assert "no reading for 35 s in between" in attempt.reason


def test_machines_of_different_boundaries_are_named(tmp_path):
    nodes = {"f.1": lines("a", 0, 40), "f.2": lines("b", 0, 40, PACKAGE, NODE)}
    sidecar, _ = write_stage(tmp_path, lines("login", 0, 40, ESTIMATE), nodes)
    assert "different boundaries: login, a: cpu_package; b: node" in sidecar.reason


def test_a_machine_whose_boards_nvml_cannot_name_is_told():
    """Boards of one machine are in the boundary; those of the other are not, and it says so."""
    unread = {**BOARD, "id": "nvml.board.unknown", "kind": "unavailable", "method": None,
              "in_total": False, "reason": "NVML does not answer"}  # fmt: skip
    none = {**unread, "id": "nvml"}
    own, whole = lines("login", 0, 40, ESTIMATE), lines("a", 0, 40, PACKAGE, BOARD)
    jobs = {
        name: {"t.1.node0": whole, "t.1.node1": lines("b", 0, 40, PACKAGE, channel)}
        for name, channel in (("lost", unread), ("none", none))
    }
    attempt = join(own, jobs["lost"])
    assert attempt.boundary == ("cpu_package", "gpu_board")
    assert attempt.reason == "b: nvml.board.unknown: no figure, so gpu_board is partial"
    assert join(own, jobs["none"]).reason is None


def test_marks_and_phases_have_the_energy_of_all_machines(tmp_path):
    said = [
        mark(20.0, "phase", name="train"),
        mark(30.0, "epoch", epoch=1),
        mark(50.0, "epoch", epoch=2),
    ]
    nodes = {"t.1.node0": lines("a", 10, 60, marks=said), "t.1.node1": lines("b", 10, 60)}
    own = lines("login", 0, 70, ESTIMATE, marks=[mark(5.0, "job", log="x")])
    sidecar, _ = write_stage(tmp_path, own, nodes)
    marks = sidecar.attempts[0].marks
    assert [m.mark for m in marks] == ["job", "phase", "epoch", "epoch"]
    assert [m.t_s for m in marks] == [5.0, 20.0, 30.0, 50.0]
    epochs_j = [m.energy_kwh * J_PER_KWH for m in marks[2:]]
    assert epochs_j == pytest.approx([20 * 200 + 30 * 6, 40 * 200 + 50 * 6])
    assert marks[2].meter == "t.1.node0" and marks[0].meter is None
    phase = sidecar.phases[0]
    assert (phase.name, phase.duration_s) == ("train", 50.0)
    assert phase.energy_kwh * J_PER_KWH == pytest.approx(40 * 200 + 50 * 6)


def test_a_stage_without_other_meters_has_no_word_of_them(tmp_path):
    runner = Runner(tmp_path)
    write_journal(runner.journal, *lines("a", 0, 20))
    sidecar = build(runner)
    (meter,) = sidecar.meters
    assert (meter.label, meter.counted_s, meter.energy_kwh) == (None, 20.0, sidecar.energy_kwh)
    assert all(channel.host is None for channel in sidecar.channels)


def test_two_sidecars_that_count_the_same_node(tmp_path):
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        nodes = {"t.1": lines("a", 10, 50)}
        _, runner = write_stage(tmp_path / name, lines("login", 0, 60, ESTIMATE), nodes)
        paths.append(runner.folder / "05_train.json")
    done = runner.tool("--check", *paths)
    assert done.returncode == 1
    assert "attempts[0].meters[1]: rapl.package.0 of 40.0 s are also in" in done.stdout
    sidecar = json.loads(paths[0].read_text())
    sidecar["attempts"][0]["meters"][1]["energy_kwh"] = 1.0
    paths[0].write_text(json.dumps(sidecar))
    assert "the sum over its meters is" in runner.tool("--check", paths[0]).stdout


def test_an_old_sidecar_is_made_again_when_a_node_has_written(tmp_path):
    _, runner = write_stage(tmp_path, lines("login", 0, 60, ESTIMATE), {"f.1": lines("a", 0, 60)})
    assert runner.rebuild().stderr == ""
    late = runner.folder / "05_train.nodes/1/f.2.journal.jsonl"
    write_journal(late, *lines("b", 0, 60))
    later_ns = os.stat(runner.folder / "05_train.json").st_mtime_ns + 10**9
    os.utime(late, ns=(later_ns, later_ns))
    assert "rebuilt, complete" in runner.rebuild().stderr
    assert joules(runner.sidecar()) == pytest.approx(2 * 6000 + 360)


def test_a_new_attempt_takes_no_folder_of_one_whose_journal_is_gone(tmp_path):
    nodes = {"f.1": lines("a", 0, 60)}
    sidecar, runner = write_stage(tmp_path, lines("login", 0, 60, ESTIMATE), nodes)
    later = runner.folder / "05_train.nodes/2/f.1.journal.jsonl"
    write_journal(later, *lines("a", 100, 160))
    for _ in range(2):
        runner.journal.unlink()
        (runner.folder / "05_train.json").unlink()
        status, _, err = runner.run("true")
        assert status == 0
        sidecar = runner.sidecar()
        assert [attempt.attempt for attempt in sidecar.attempts] == [1]
        assert [meter.label for meter in sidecar.meters] == [None]
        assert joules(sidecar) < 6000 and sidecar.reason is None
        (runner.folder / "05_train.nodes/1").mkdir()
    names = sorted(path.name for path in (runner.folder / "05_train.nodes").iterdir())
    assert names == ["1", "1.old1", "1.old2", "2.old1"] and "05_train.nodes/1.old2" in err
    assert (later.parent.with_name("2.old1") / later.name).is_file()


def test_a_forecast_from_a_job_has_its_energy_and_not_its_queue(tmp_path):
    said = [mark(100.0, "plan", total_steps=800, steps_per_epoch=80, crops_per_step=2)]
    said += [mark(100.0 + 10 * i, "stretch", steps=10) for i in range(1, 9)]
    job = lines("a", 100, 190, marks=said)
    sidecar, _ = write_stage(tmp_path, lines("login", 0, 200, ESTIMATE, cores=0), {"t.1": job})
    expected = compute_forecast(sidecar, 0.0)["expected"]
    assert expected["hours"] * 3600 == pytest.approx(800 + 10)  # a second a step, 10 s once
    assert expected["energy_kwh"] * J_PER_KWH == pytest.approx(81_000)


def test_no_numpy_is_loaded_before_a_command(tmp_path):
    """Nor where the sidecar of a killed meter is written first: numpy starts threads."""
    own = lines("login", 0, 60, ESTIMATE, ended=False)
    _, runner = write_stage(tmp_path, own, {"t.1": lines("a", 10, 60), "t.2": lines("a", 5, 60)})
    energy_kwh = runner.sidecar().energy_kwh
    (runner.folder / "05_train.json").unlink()
    assert runner.run("sh", "-c", f"cat /proc/$PPID/maps >{tmp_path}/maps")[0] == 0
    maps = (tmp_path / "maps").read_text()
    assert "python" in maps and "numpy" not in maps
    assert runner.sidecar().attempts[0].energy_kwh == energy_kwh


LATE = {
    "missing": ({"t.1.node0": (10, 200, True)}, "node t.1.node1: it was expected and left no"),
    "no end": ({"t.1.node0": (10, 200, True), "t.1.node1": (10, 190, False)},
               "node t.1.node1 on h1: its journal has no end"),
    "late": ({"t.1.node0": (10, 200, True), "t.1.node1": (75, 200, True)},
             "node t.1.node1 on h1: without the first 65 s of its job"),
    "early": ({"t.1.node0": (10, 200, True), "t.1.node1": (10, 130, True)},
              "node t.1.node1 on h1: without the last 70 s of its job"),
    "whole": ({"t.1.node0": (10, 200, True), "t.1.node1": (20, 195, True)}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_what_is_missing_is_named(tmp_path, case):
    spans, said = LATE[case]
    nodes = {
        label: lines(f"h{label[-1]}", first, last, ended=ended)
        for label, (first, last, ended) in spans.items()
    }
    own = lines("login", 0, 210, ESTIMATE)
    sidecar, _ = write_stage(tmp_path, own, nodes, expected=["t.1.node0", "t.1.node1"])
    seconds = sum(last - first for first, last, _ in spans.values())
    assert joules(sidecar) == pytest.approx(seconds * 100 + 210 * 6)
    assert sidecar.status == "complete"
    assert said in sidecar.reason if said else sidecar.reason is None
    if case == "missing":
        assert [node.status for node in sidecar.meters] == ["complete"] * 2 + ["missing"]


def test_a_journal_that_cannot_be_read_is_named(tmp_path):
    _, runner = write_stage(tmp_path, lines("login", 0, 40, ESTIMATE), {"f.1": lines("a", 0, 40)})
    broken = runner.folder / "05_train.nodes/1/f.2.journal.jsonl"
    broken.mkdir()
    assert "node f.2: cannot read" in build(runner).reason
    broken.rmdir()
    broken.write_text("half a li")
    write_journal(broken.with_name("expected.jsonl"), {"labels": ["f.1", "f.2"]})
    sidecar = build(runner)
    assert "node f.2: it was expected and left no journal" in sidecar.reason
    assert sidecar.torn_lines == 1


def test_a_requeued_job_is_no_resumed_stage(tmp_path):
    """The second start of a job goes on from the first; neither from an earlier attempt."""
    killed = lines("a", 10, 30, ended=False, marks=[mark(25.0, "checkpoint", step=1)])
    again = lines("b", 40, 60, marks=[mark(41.0, "resumed", step=1)])
    own = [
        *lines("login", 0, 5, ESTIMATE, ended=False, marks=[mark(3.0, "checkpoint", step=0)]),
        *lines("login", 6, 70, ESTIMATE),
    ]
    sidecar, runner = write_stage(tmp_path, own, {"t.1": [*killed, *again]}, attempt=2)
    attempt = sidecar.attempts[1]
    assert attempt.resumed is False and sidecar.reason is None
    assert joules(sidecar) == pytest.approx(40 * 100 + 64 * 6)
    assert joules(sidecar, "energy_all_kwh") == pytest.approx(40 * 100 + 64 * 6 + 5 * 6)
    starts = [(node.start, node.host, node.status) for node in sidecar.meters[1:]]
    assert starts == [(1, "a", "interrupted"), (2, "b", "complete")]
    # The first start that left anything says whether the stage goes on from an earlier attempt.
    before = lines("a", 10, 30, ended=False, marks=[mark(11.0, "resumed", step=0)])
    write_journal(runner.folder / "05_train.nodes/2/t.1.journal.jsonl", *before, *again)
    sidecar = build(runner)
    assert sidecar.attempts[1].resumed is True
    assert joules(sidecar) == joules(sidecar, "energy_all_kwh")


def test_the_tables_mark_a_total_that_lacks_a_machine(tmp_path):
    system = tmp_path / "exp" / "resnet50_d"
    system.mkdir(parents=True)
    own, job = lines("login", 0, 40, ESTIMATE), {"t.1.node0": lines("a", 0, 40)}
    write_stage(system, own, job, expected=["t.1.node0", "t.1.node1"])
    tables = build_tables(collect_results(tmp_path / "data", tmp_path / "exp"))
    stages = next(text for text in map(format_markdown, tables) if "train" in text)
    assert "incomplete" in stages and "node t.1.node1: it was expected" in stages
    write_stage(system, own, job)
    tables = build_tables(collect_results(tmp_path / "data", tmp_path / "exp"))
    assert not any("incomplete" in format_markdown(table) for table in tables)
