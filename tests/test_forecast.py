"""Forecasts of a training from the marks of a metered stretch, and what came of them."""

import json

import pytest
from small_egs import SmallEgs

from sv.energy.stretch import Part, merge_parts

PLAN = {"mark": "plan", "total_steps": 10_000, "steps_per_epoch": 1_000, "crops_per_step": 64}
START_S, START_KWH = 20.0, 0.001  # until the first step; the validation is 8 s of it, 0.4 Wh
SAVE_S, SAVE_KWH = 2.0, 0.0001
EPOCH_S, EPOCH_KWH = 8.0 + SAVE_S, 0.0004 + SAVE_KWH


def build_sidecar(costs, *, steps=10, step_s=1.5, plan=None, **attempt):
    """A stretch whose parts of ``steps`` steps cost ``costs`` kWh each."""
    marks = [
        {**PLAN, **(plan or {}), "t_s": 12.0, "energy_kwh": 0.0006},
        {"mark": "validation", "seconds": 8.0, "t_s": START_S, "energy_kwh": START_KWH},
    ]
    at_s, kwh = START_S, START_KWH
    for cost in costs:
        at_s, kwh = at_s + steps * step_s, kwh + cost
        more = {"steps": steps, "crops": 64 * steps, "seconds": steps * step_s}
        marks.append({"mark": "stretch", **more, "t_s": at_s, "energy_kwh": kwh})
    at_s, kwh = at_s + SAVE_S, kwh + SAVE_KWH
    marks.append({"mark": "checkpoint", "step": 80, "t_s": at_s, "energy_kwh": kwh})
    whole = {
        "status": "complete", "reason": None, "energy_kwh": kwh, "duration_s": at_s,
        "measured_fraction": 1.0, "marks": marks, **attempt,
        "channels": [{"boundary": "gpu_board", "in_total": True}],
    }  # fmt: skip
    return {
        "schema": "energy-sidecar/1", "model": "resnet18_d", "attempts": [whole],
        "carbon": {"provider": "owid", "g_per_kwh": 50.0, "zone": "FRA"},
        "pue": {"value": 1.2, "source": "site"},
    }  # fmt: skip


@pytest.fixture
def forecast(run_cli, tmp_path):
    def run(sidecar, check=True):
        (tmp_path / "energy").mkdir(exist_ok=True)
        path = tmp_path / "energy" / "05_forecast.json"
        path.write_text(json.dumps(sidecar))
        done = run_cli("sv.bin.forecast", path, tmp_path / "forecast.json", check=check)
        out = tmp_path / "forecast.json"
        return json.loads(out.read_text()) if out.exists() else None, done

    return run


def test_steps_epochs_and_what_is_needed_once_are_carried_over(forecast):
    record, done = forecast(build_sidecar([0.01] * 8))
    expected = record["expected"]
    # 10,000 steps of 1 Wh, the start and one checkpoint, the end of 10 epochs.
    kwh = 10.0 + START_KWH + SAVE_KWH + 10 * EPOCH_KWH
    assert expected["energy_kwh"] == pytest.approx(kwh)
    assert expected["hours"] == pytest.approx((15_000 + START_S + SAVE_S + 10 * EPOCH_S) / 3600)
    assert expected["co2_g"] == pytest.approx(kwh * 1.2 * 50)
    assert expected["energy_kwh_low"] == pytest.approx(kwh)
    assert record["stretch"]["steps"] == 80 and record["stretch"]["crops"] == 5120
    assert record["extrapolation"] == "125 times the steps that were metered"
    assert "an extrapolation: 125 times" in done.stdout and "kWh: 10 expected" in done.stdout


def test_steps_of_fine_tuning_are_longer(forecast):
    plan = {"fine_tuning_steps": 2_000, "crop_frames": 300, "fine_tuning_crop_frames": 600}
    record, done = forecast(build_sidecar([0.01] * 8, plan=plan))
    assert record["stretch"]["energy_kwh"]["each_step"] == pytest.approx(0.001)
    assert record["expected"]["energy_kwh"] == pytest.approx(12.0, rel=1e-3)
    assert "counted 2 times" in done.stdout
    del plan["crop_frames"]
    record, done = forecast(build_sidecar([0.01] * 8, plan=plan))
    assert record["expected"]["energy_kwh"] == pytest.approx(10.0, rel=1e-3)
    assert "2000 steps of fine-tuning are taken for ordinary ones" in done.stdout


def test_an_epoch_that_ends_in_the_stretch_is_not_taken_for_steps(forecast):
    sidecar = build_sidecar([0.01] * 8)
    marks = sidecar["attempts"][0]["marks"]
    at_s, kwh = marks[5]["t_s"], marks[5]["energy_kwh"]
    for mark in marks[6:]:
        mark["t_s"] += 30.0
        mark["energy_kwh"] += 0.02
    more = [
        {"mark": "validation", "t_s": at_s + 8.0, "energy_kwh": kwh + 0.0004},
        {"mark": "epoch", "t_s": at_s + 30.0, "energy_kwh": kwh + 0.02},
    ]
    marks[6:6] = more
    sidecar["attempts"][0]["energy_kwh"] += 0.02
    record, _ = forecast(sidecar)
    found = record["stretch"]["energy_kwh"]
    assert found["each_step"] == pytest.approx(0.001)
    assert found["once"] == pytest.approx(START_KWH + SAVE_KWH + 0.02 - 0.0004)
    assert found["each_epoch"] == pytest.approx(EPOCH_KWH)
    assert record["expected"]["energy_kwh_high"] == pytest.approx(record["expected"]["energy_kwh"])


def test_the_interval_is_of_the_spread_of_the_parts(forecast):
    costs = [0.5, 0.009, 0.011, 0.009, 0.011]
    record, _ = forecast(build_sidecar(costs))
    # The first stretch is warming up. Then steps of 0.9 and 1.1 Wh: s 0.1155 Wh, t(3) 3.18.
    half = 10_000 * 3.18 * 0.000115470 * (1 + 1 / 4) ** 0.5
    expected = record["expected"]
    assert len(record["stretch"]["parts"]) == 4
    assert expected["energy_kwh_high"] - expected["energy_kwh"] == pytest.approx(half, rel=1e-3)
    once = 0.49 + START_KWH + SAVE_KWH + 10 * EPOCH_KWH
    assert expected["energy_kwh"] == pytest.approx(10.0 + once)
    assert expected["energy_kwh_low"] == pytest.approx(10.0 + once - half)
    assert expected["hours_high"] == pytest.approx(expected["hours"])


def test_parts_of_a_second_are_joined():
    parts = [Part(1, (100.0, 1.0))] * 43
    merged = merge_parts(parts)
    assert [part.amounts[1] for part in merged] == [9.0, 9.0, 9.0, 16.0]
    assert sum(part.steps for part in merged) == 43
    assert sum(part.amounts[0] for part in merged) == pytest.approx(4300.0)
    assert len(merge_parts(parts[:4])) == 4


def test_a_stretch_that_tells_nothing_is_an_error(forecast):
    for sidecar, message in (
        (build_sidecar([0.01] * 3), "3 marks with an energy and needs 4"),
        (build_sidecar([0.01] * 8, status="failed"), "status failed"),
        (build_sidecar([0.01] * 8, energy_kwh=None, reason="no sensor"), "no sensor"),
    ):
        record, done = forecast(sidecar, check=False)
        assert record is None and done.returncode == 1 and message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_without_a_factor_the_co2_is_unknown(forecast):
    sidecar = build_sidecar([0.01] * 8)
    sidecar["carbon"] = {"g_per_kwh": None, "reason": "no country given"}
    record, done = forecast(sidecar)
    assert record["expected"]["co2_g"] is None and "unknown (no country given)" in done.stdout


def training(**more):
    return {
        "schema": "energy-sidecar/1", "model": "resnet18_d", "status": "complete",
        "energy_kwh": 9.0, "duration_s": 15_000.0, "co2_g": 540.0, "measured_fraction": 1.0,
        "channels": [{"boundary": "gpu_board", "in_total": True}], "attempts": [{}], **more,
    }  # fmt: skip


def test_the_outcome_is_recorded_beside_the_forecast(forecast, run_cli, tmp_path):
    before, _ = forecast(build_sidecar([0.01] * 8))
    path = tmp_path / "energy" / "05_train.json"
    path.write_text(json.dumps(training()))
    done = run_cli("sv.bin.forecast", "--outcome", tmp_path)
    record = json.loads((tmp_path / "forecast.json").read_text())
    assert record["expected"] == before["expected"]
    outcome = record["outcome"]
    assert outcome["energy_kwh"] == 9.0 and outcome["inside"]["energy_kwh"] is False
    assert outcome["ratio"]["energy_kwh"] == pytest.approx(9.0 / 10.0061)
    assert outcome["notes"] == [] and "9 came (0.90 times)" in done.stdout
    boards = [{"boundary": "cpu_package", "in_total": True}]
    path.write_text(json.dumps(training(channels=boards, attempts=[{}, {}])))
    run_cli("sv.bin.forecast", "--outcome", tmp_path)
    notes = json.loads((tmp_path / "forecast.json").read_text())["outcome"]["notes"]
    assert "cpu_package" in notes[0] and "2 attempts" in notes[1]
    for more, message in (({"status": "failed"}, "not ended"), ({"model": "m"}, "not of m")):
        path.write_text(json.dumps(training(**more)))
        done = run_cli("sv.bin.forecast", "--outcome", tmp_path, check=False)
        assert done.returncode == 1 and message in done.stderr


def test_wrong_command_lines(run_cli, tmp_path):
    assert run_cli("sv.bin.forecast", check=False).returncode == 2
    assert run_cli("sv.bin.forecast", "--outcome", tmp_path, "a", "b", check=False).returncode == 2
    assert run_cli("sv.bin.forecast", "--outcome", tmp_path, check=False).returncode == 1


def test_a_stretch_of_a_real_training(tmp_path, run_cli):
    """steps/forecast.sh, the trainer and the meter together; then the training itself."""
    egs = SmallEgs(tmp_path)
    config = egs.write_config(tmp_path / "train.toml", num_epochs=2)
    (tmp_path / "energy.toml").write_text('country = "FRA"\nperiod_s = 0.1\n')
    exp = tmp_path / "exp"
    words = ["--model", "resnet18_w0.0625", "--config", config, "--num-threads", 1]
    more = ["--energy-config", tmp_path / "energy.toml", "--num-steps", 8]
    done = run_cli("steps/forecast.sh", *words, *more, egs.egs, exp)
    record = json.loads((exp / "forecast.json").read_text())
    assert record["plan"]["total_steps"] == 2 * record["plan"]["steps_per_epoch"]
    assert record["stretch"]["steps"] == 8 and record["expected"]["energy_kwh"] > 0
    assert record["stretch"]["energy_kwh"]["each_epoch"] > 0
    assert record["expected"]["energy_kwh_low"] < record["expected"]["energy_kwh"]
    assert "hours: " in done.stdout and not (exp / "forecast/checkpoints").exists()
    assert not (exp / "final.pt").exists()
