"""A Slurm job's totals imported from a web service that answers as CEEMS's API server does."""

import base64
import json
from dataclasses import replace

import pytest
from local_server import serve
from sidecars import METER, make_attempt, make_channel, make_sidecar

from sv.energy.record import read_record, write_record

JOB = 1_795_000_000_000  # 2026-11-18T11:06:40Z, in ms
START = "2026-11-18T11:06:45.000Z"


def unit(**more):
    return {
        "uuid": "1234",
        "cluster_id": "slurm-0",
        "state": "COMPLETED",
        "started_at_ts": JOB,
        "ended_at_ts": JOB + 3_600_000,
        "total_cpu_energy_usage_kwh": {"total": 0.5},
        "total_gpu_energy_usage_kwh": {"total": 1.5},
        "total_cpu_emissions_gms": {"rte_total": 10, "owid_total": 22.0},
        "total_gpu_emissions_gms": {"rte_total": 30, "owid_total": 66.0},
        **more,
    }


def success(*units):
    return 200, {"status": "success", "data": list(units), "warnings": []}


@pytest.fixture
def energy(tmp_path):
    """A folder with the sidecar of a training: an attempt in the job, and one of the day before."""
    channels = (
        make_channel("cpu_package", 1.44e6),
        make_channel("gpu_board", 5.04e6),
        make_channel("psys", 9e9, in_total=False),
    )
    one = make_attempt(1, 0.1, started_utc="2026-11-17T10:00:00.000Z", duration_s=60.0, channels=())
    two = make_attempt(2, 1.8, started_utc=START, duration_s=3500.0, channels=channels)
    folder = tmp_path / "energy"
    folder.mkdir()
    write_record(folder / "05_train.json", make_sidecar(one, two))
    return folder


@pytest.fixture
def ceems(run_cli, energy):
    """Run the program against ``answer``; give what it wrote (None if nothing) and the rest."""

    def run(answer, *options, **environ):
        with serve(answer) as (url, asked):
            argv = ["--url", url, "--cluster", "slurm-0", "--job", "1234", "--user", "ann"]
            argv += [*options, energy / "ceems.json"]
            done = run_cli("sv.bin.ceems", *argv, check=False, env=environ)
        out = energy / "ceems.json"
        return json.loads(out.read_text()) if out.exists() else None, done, asked

    return run


def test_a_job_beside_our_own_figures(ceems):
    record, done, asked = ceems(lambda _: success(unit()))
    assert done.returncode == 0, done.stderr
    assert asked[0].path == "/api/v1/units"
    assert asked[0].query == {"cluster_id": "slurm-0", "uuid": "1234"}
    assert asked[0].headers["x-grafana-user"] == "ann"
    assert record["kind"] == "imported" and record["schema"] == "energy-imported/1"
    assert record["imported"]["energy_kwh"] == 2.0
    assert record["imported"]["co2_g"] == {"owid": 88.0, "rte": 40.0}
    assert record["ours"]["attempts"] == ["05_train.json, attempt 2"]
    assert record["ours"]["energy_kwh"] == 1.8
    assert record["ratio"] == pytest.approx(
        {"cpu_kwh": 0.8, "gpu_kwh": 1.4 / 1.5, "energy_kwh": 0.9}
    )
    assert record["ratio_reason"] is None and record["reasons"] == {}
    assert "PUE" in record["imported"]["boundary"] and "PUE" in record["ratio_meaning"]
    assert "ratio: ours / CEEMS" in done.stdout and "PUE" in done.stdout
    assert "energy_kwh: ours 1.8, CEEMS 2, ratio 0.9" in done.stdout
    assert "left out: 05_train.json, attempt 1: not in the time of the job" in done.stderr


def test_the_meters_of_jobs_are_compared_each_by_its_own_time(ceems, energy):
    """A stage waits longer than its jobs run: not its time but theirs lies in the job's."""
    path = energy / "05_train.json"
    attempt = read_record(path).attempts[1]
    meter = replace(METER, label="t.1", host="a", started_utc=START, duration_s=3500.0)
    own = replace(meter, label=None, started_utc="2026-11-18T02:00:00.000Z", duration_s=4e4)
    other = replace(meter, label="u.1", started_utc="2026-11-18T02:00:00.000Z")
    missing = replace(METER, label="t.2", host=None, started_utc=None, energy_kwh=None)
    both = ("cpu_package", "gpu_board")
    attempt = replace(attempt, boundary=both, meters=(own, meter, other, missing))
    write_record(path, make_sidecar(attempt))
    record, done, _ = ceems(lambda _: success(unit()))
    assert done.returncode == 0, done.stderr
    assert record["ours"]["attempts"] == ["05_train.json, attempt 2, t.1, start 1"]
    assert record["ratio"] == {"cpu_kwh": None, "gpu_kwh": None, "energy_kwh": 0.5}
    assert record["ratio_reason"] is None
    assert record["ours"]["left_out"] == [
        "05_train.json, attempt 2, its own meter: not in the time of the job",
        "05_train.json, attempt 2, u.1, start 1: not in the time of the job",
    ]
    assert "not divided" in record["reasons"]["ratio.cpu_kwh"]


def test_machine_0_below_the_stages_own_meter_is_ours_too(ceems, energy):
    """With run.sh inside the job, one process trains below its meter and one below a meter."""
    path = energy / "05_train.json"
    attempt = replace(read_record(path).attempts[1], boundary=("cpu_package",))
    own = replace(METER, host="a", started_utc=START, duration_s=3500.0, energy_kwh=0.2)
    other = replace(own, label="t.node1", host="b")
    channels = tuple(make_channel(energy_j=0.72e6, host=host) for host in ("a", "b"))
    attempt = replace(attempt, energy_kwh=0.4, meters=(own, other), channels=channels)
    write_record(path, make_sidecar(attempt))
    job = unit(total_cpu_energy_usage_kwh={"total": 0.5})
    del job["total_gpu_energy_usage_kwh"]  # a job without boards: its total is the processor's
    record, done, _ = ceems(lambda _: success(job))
    assert done.returncode == 0, done.stderr
    assert record["ours"]["energy_kwh"] == pytest.approx(0.4)
    assert record["ours"]["attempts"] == [
        "05_train.json, attempt 2, its own meter", "05_train.json, attempt 2, t.node1, start 1",
    ]  # fmt: skip
    assert record["ours"]["left_out"] == [] and record["ratio_reason"] is None
    assert record["ratio"]["energy_kwh"] == pytest.approx(0.8)


def test_boards_inside_a_machines_power_are_missed_in_a_total_without_them(ceems, energy):
    """Ours is the whole machine, 10 kWh, of which its boards have 6; CEEMS has its processors."""
    channels = (
        make_channel("node", 36e6),
        make_channel("gpu_board", 21.6e6, id="nvml.board.a", in_total=False),
    )
    attempt = make_attempt(2, 10.0, started_utc=START, duration_s=3500.0, channels=channels)
    write_record(energy / "05_train.json", make_sidecar(attempt))
    job = unit(total_cpu_energy_usage_kwh={"total": 2.0})
    record, _, _ = ceems(lambda _: success({**job, "total_gpu_energy_usage_kwh": {"total": 0}}))
    assert record["ratio"]["energy_kwh"] == 5.0
    assert record["ratio_reason"] == "our figure has GPUs that CEEMS lacks"
    del job["total_gpu_energy_usage_kwh"]
    record, done, _ = ceems(lambda _: success(job))
    assert done.returncode == 0 and explain_nulls(record)
    assert record["imported"]["cpu_kwh"] == 2.0
    assert record["imported"]["energy_kwh"] is None and record["ratio"]["energy_kwh"] is None
    assert record["ratio_reason"] == (
        "gpu_kwh: CEEMS gives no total_gpu_energy_usage_kwh; our figure has GPUs that CEEMS lacks"
    )


def test_user_header_and_basic_auth_from_the_environment(ceems, energy):
    def answer(asked):
        word = base64.b64decode(asked.headers.get("authorization", "")[6:]).decode()
        if word != "ann:pa55" or asked.headers.get("x-ceems-user") != "ann":
            return 401, {"status": "error", "error": "who are you, ann:pa55"}
        return success(unit())

    options = ("--user-header", "X-Ceems-User")
    _, done, _ = ceems(answer, *options)
    assert done.returncode == 1 and "HTTP 401 Unauthorized" in done.stderr
    record, done, _ = ceems(answer, *options, CEEMS_BASIC_AUTH="ann:pa55")
    assert done.returncode == 0
    assert record["imported"]["energy_kwh"] == 2.0
    assert not [path for path in energy.iterdir() if b"pa55" in path.read_bytes()]
    assert "pa55" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, {"status": "error", "errorType": "internal"}), "HTTP 500"),
        ((200, {"status": "error", "error": "no"}), "does not say success"),
        ((200, b"<html>"), "not JSON"),
        (success(), "no job 1234 of user ann in cluster slurm-0"),
        ((200, {"status": "success", "data": None}), "no job 1234"),
        ((200, {"status": "success", "data": {"a": 1}}), "no list of jobs"),
        (success(unit(uuid="999")), "no job 1234"),
    ],
)
def test_no_job_is_an_error_in_one_line(ceems, answer, message):
    record, done, _ = ceems(lambda _: answer)
    assert done.returncode == 1 and record is None
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_password_in_the_address_is_refused(run_cli, tmp_path):
    argv = ["--url", "http://a:b@127.0.0.1:1", "--cluster", "c", "--job", "1", "--user", "ann"]
    done = run_cli("sv.bin.ceems", *argv, tmp_path / "ceems.json", check=False)
    assert done.returncode == 2 and "no password" in done.stderr


def test_unknown_totals_stay_unknown_and_a_running_job_is_not_final(ceems):
    job = unit(ended_at_ts=0, state="RUNNING", total_cpu_energy_usage_kwh={})
    job["total_gpu_energy_usage_kwh"] = {"total": 0}
    record, done, _ = ceems(lambda _: success(job))
    assert record["imported"]["cpu_kwh"] is None and record["ratio"]["cpu_kwh"] is None
    assert record["imported"]["final"] is False and "ask again" in done.stderr
    assert record["ratio"]["energy_kwh"] is None
    assert record["ratio_reason"] == (
        "cpu_kwh: CEEMS gives no total_cpu_energy_usage_kwh; our figure has GPUs that CEEMS lacks"
    )
    assert explain_nulls(record) and record["reasons"]["ratio.gpu_kwh"] == "CEEMS says 0"


def explain_nulls(record):
    """Tell whether every null of the figures has a reason."""
    nulls = [
        f"{what}.{key}" for what in ("imported", "ours", "ratio")
        for key in ("cpu_kwh", "gpu_kwh", "energy_kwh") if record[what][key] is None
    ]  # fmt: skip
    return nulls and set(nulls) <= set(record["reasons"])


def test_one_metric_of_the_sites_own_is_the_total(ceems):
    job = unit(total_cpu_energy_usage_kwh={"rapl_total": 0.5})
    record, done, _ = ceems(lambda _: success(job))
    assert record["imported"]["by_metric_kwh"]["cpu"] == {"rapl_total": 0.5}
    assert record["ratio"]["energy_kwh"] == pytest.approx(0.9)
    assert "rapl_total" in record["ratio_reason"] and "rapl_total" in done.stdout


def test_of_several_metrics_none_is(ceems):
    """Two sources of one energy, as CEEMS documents it: to add them would count it twice."""
    job = unit(total_cpu_energy_usage_kwh={"rapl_total": 0.5, "ipmi_total": 0.6})
    record, done, _ = ceems(lambda _: success(job))
    assert done.returncode == 0 and explain_nulls(record)
    assert record["imported"]["by_metric_kwh"]["cpu"] == {"ipmi_total": 0.6, "rapl_total": 0.5}
    assert record["imported"]["energy_kwh"] is None and record["ratio"]["energy_kwh"] is None
    assert record["ratio"]["gpu_kwh"] == pytest.approx(1.4 / 1.5)
    assert "ipmi_total, rapl_total and no total" in record["ratio_reason"]
    with_total = {"rapl_total": 0.5, "total": 0.7}
    record, _, _ = ceems(lambda _: success(unit(total_cpu_energy_usage_kwh=with_total)))
    assert record["imported"]["cpu_kwh"] == 0.7 and record["ratio_reason"] is None


def test_maps_that_are_left_out(ceems):
    """Go's omitempty: a job without boards has no map of them, one just begun has none at all."""
    job = unit()
    del job["total_gpu_energy_usage_kwh"]
    record, _, _ = ceems(lambda _: success(job))
    assert record["imported"]["cpu_kwh"] == 0.5 and explain_nulls(record)
    assert record["imported"]["energy_kwh"] is None and record["ratio"]["energy_kwh"] is None
    assert record["ratio_reason"] == (
        "gpu_kwh: CEEMS gives no total_gpu_energy_usage_kwh; our figure has GPUs that CEEMS lacks"
    )
    del job["total_cpu_energy_usage_kwh"]
    record, _, _ = ceems(lambda _: success(job))
    assert record["imported"]["energy_kwh"] is None and explain_nulls(record)
    assert "gives no total_cpu_energy" in record["ratio_reason"]
    early = unit(started_at_ts=JOB - 90_000_000, ended_at_ts=JOB - 80_000_000)
    record, _, _ = ceems(lambda _: success(early))
    assert explain_nulls(record) and "no attempt of ours" in record["ratio_reason"]
    record, _, _ = ceems(lambda _: success(unit(total_cpu_energy_usage_kwh={}), unit()))
    assert record["imported"]["cpu_kwh"] == 0.5
    assert "without 1 of 2 runs" in record["ratio_reason"]


def test_the_file_to_write_is_named_last(ceems, energy, run_cli):
    argv = ["--url", "http://127.0.0.1:9", "--cluster", "c", "--job", "1", "--user", "ann"]
    before = (energy / "05_train.json").read_bytes()
    for first in (energy / "ceems.json", energy / "05_train.json"):
        done = run_cli("sv.bin.ceems", *argv, first, energy / "05_train.json", check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "OUT.json is named last" in done.stderr and "05_train.json is there" in done.stderr
    assert (energy / "05_train.json").read_bytes() == before
    done = run_cli("sv.bin.ceems", *argv, energy / "a.json", energy / "b.json", check=False)
    assert done.returncode == 2 and "no such sidecar" in done.stderr
    assert ceems(lambda _: success(unit()))[1].returncode == 0
    assert ceems(lambda _: success(unit()))[1].returncode == 0, "an import may be made again"
    usage = run_cli("sv.bin.ceems", "--help").stdout.splitlines()
    assert "[SIDECAR...] OUT.json" in " ".join(usage[:3]) and "[[" not in " ".join(usage[:3])


def test_the_runs_of_a_requeued_job_are_summed(ceems):
    early = unit(started_at_ts=JOB - 90_000_000, ended_at_ts=JOB - 88_000_000)
    record, _, _ = ceems(lambda _: success(early, unit()))
    assert record["imported"]["runs"] == 2 and record["imported"]["energy_kwh"] == 4.0
    assert len(record["ours"]["attempts"]) == 1
