"""Forecasts of a training from the marks of a metered stretch, and what came of them."""

import json
from dataclasses import replace

import pytest
from sidecars import CARBON, make_attempt, make_mark, make_sidecar
from small_egs import SmallEgs
from small_training import MODEL, train

from sv.energy.forecast import Segment, merge_segments
from sv.energy.record import Pue, write_record

PLAN = {"total_steps": 10_000, "steps_per_epoch": 1_000, "crops_per_step": 64}
START_S, START_KWH = 20.0, 0.001  # until the first step; the validation is 8 s of it, 0.4 Wh
SAVE_S, SAVE_KWH = 2.0, 0.0001
EPOCH_S, EPOCH_KWH = 8.0 + SAVE_S, 0.0004 + SAVE_KWH


def build_sidecar(costs, *, steps=10, step_s=1.5, plan=None, **attempt):
    """A stretch whose parts of ``steps`` steps cost ``costs`` kWh each."""
    marks = [
        make_mark("plan", 12.0, 0.0006, **{**PLAN, **(plan or {})}),
        make_mark("validation", START_S, START_KWH, seconds=8.0),
    ]
    at_s, kwh = START_S, START_KWH
    for cost in costs:
        at_s, kwh = at_s + steps * step_s, kwh + cost
        more = {"steps": steps, "crops": 64 * steps, "seconds": steps * step_s}
        marks.append(make_mark("stretch", at_s, kwh, **more))
    at_s, kwh = at_s + SAVE_S, kwh + SAVE_KWH
    marks.append(make_mark("checkpoint", at_s, kwh, step=80))
    whole = {
        "energy_kwh": kwh, "duration_s": at_s, "marks": tuple(marks), "boundary": ("gpu_board",),
        "pue": Pue(1.2, "site"), **attempt,
    }  # fmt: skip
    return make_sidecar(make_attempt(**whole), model="resnet18_d")


@pytest.fixture
def forecast(run_cli, tmp_path):
    def run(sidecar, check=True):
        (tmp_path / "energy").mkdir(exist_ok=True)
        path = tmp_path / "energy" / "05_forecast.json"
        write_record(path, sidecar)
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


def test_the_plan_that_a_training_marks_has_the_lengths_of_its_crops(small_egs, tmp_path, forecast):
    fine = {"num_epochs": 1, "crop_frames": 90}  # 1.5 times the 60 of the training
    exp = tmp_path / "small" / MODEL
    run = train(small_egs, exp, max_steps=1, num_epochs=1, fine_tuning=fine)
    (plan,) = run.get_marks("plan")
    del plan["mark"]
    record, done = forecast(build_sidecar([0.01] * 8, plan=plan))
    found = record["stretch"]["energy_kwh"]
    steps_kwh = (10 + 1.5 * 10) * found["each_step"]
    expected = record["expected"]["energy_kwh"]
    assert expected == pytest.approx(steps_kwh + found["once"] + 2 * found["each_epoch"])
    assert "10 steps of fine-tuning are counted 1.5 times: longer crops" in done.stdout


def test_an_epoch_that_ends_in_the_stretch_is_not_taken_for_steps(forecast):
    attempt = build_sidecar([0.01] * 8).attempts[0]
    before, after = attempt.marks[:6], attempt.marks[6:]
    at_s, kwh = before[-1].t_s, before[-1].energy_kwh
    marks = (
        *before,
        make_mark("validation", at_s + 8.0, kwh + 0.0004),
        make_mark("epoch", at_s + 30.0, kwh + 0.02),
        *(replace(m, t_s=m.t_s + 30.0, energy_kwh=m.energy_kwh + 0.02) for m in after),
    )
    longer = replace(attempt, marks=marks, energy_kwh=attempt.energy_kwh + 0.02)
    sidecar = make_sidecar(longer, model="resnet18_d")
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
    parts = [Segment(1, 100.0, 1.0)] * 43
    merged = merge_segments(parts)
    assert [part.seconds for part in merged] == [9.0, 9.0, 9.0, 16.0]
    assert sum(part.steps for part in merged) == 43
    assert sum(part.energy_j for part in merged) == pytest.approx(4300.0)
    assert len(merge_segments(parts[:4])) == 4


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
    unknown = replace(CARBON, g_per_kwh=None, reason="no country given")
    record, done = forecast(build_sidecar([0.01] * 8, carbon=unknown))
    assert record["expected"]["co2_g"] is None and "unknown (no country given)" in done.stdout


def training(attempts=1, **more):
    done = make_attempt(1, 9.0, duration_s=15_000.0, co2_g=540.0, boundary=("gpu_board",))
    return make_sidecar(*[done] * attempts, **{"model": "resnet18_d", **more})


def test_the_outcome_is_recorded_beside_the_forecast(forecast, run_cli, tmp_path):
    before, _ = forecast(build_sidecar([0.01] * 8))
    path = tmp_path / "energy" / "05_train.json"
    write_record(path, training())
    done = run_cli("sv.bin.forecast", "--outcome", tmp_path)
    record = json.loads((tmp_path / "forecast.json").read_text())
    assert record["expected"] == before["expected"]
    outcome = record["outcome"]
    assert outcome["energy_kwh"] == 9.0 and outcome["inside"]["energy_kwh"] is False
    assert outcome["ratio"]["energy_kwh"] == pytest.approx(9.0 / 10.0061)
    assert outcome["notes"] == [] and "9 came (0.90 times)" in done.stdout
    write_record(path, training(2, boundary=("cpu_package",)))
    run_cli("sv.bin.forecast", "--outcome", tmp_path)
    notes = json.loads((tmp_path / "forecast.json").read_text())["outcome"]["notes"]
    assert "cpu_package" in notes[0] and "2 attempts" in notes[1]
    for more, message in (({"status": "failed"}, "not ended"), ({"model": "m"}, "not of m")):
        write_record(path, training(**more))
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
    words = ["--model", "resnet18_d", "--config", config, "--num-threads", 1]
    more = ["--energy-config", tmp_path / "energy.toml", "--num-steps", 8]
    done = run_cli("steps/forecast.sh", *words, *more, egs.egs, exp)
    record = json.loads((exp / "forecast.json").read_text())
    assert record["plan"]["total_steps"] == 2 * record["plan"]["steps_per_epoch"]
    assert record["stretch"]["steps"] == 8 and record["expected"]["energy_kwh"] > 0
    assert record["stretch"]["energy_kwh"]["each_epoch"] > 0
    assert record["expected"]["energy_kwh_low"] < record["expected"]["energy_kwh"]
    assert "hours: " in done.stdout and not (exp / "forecast/checkpoints").exists()
    assert not (exp / "final.pt").exists()
