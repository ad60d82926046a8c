"""What a training reports: log lines, epochs.tsv, TensorBoard events, energy, and what it keeps."""

import csv
import importlib.util
import itertools
import json
import re
import time

import pytest
from small_training import MODEL, assert_same_state, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sv.errors import SvError, UsageError
from sv.train import egs, log, stopping
from sv.train.config import read_train_config


@pytest.fixture
def every_step(monkeypatch):
    """A line, events and a reading of the meter after every step and not every minute."""
    monkeypatch.setattr(log, "LOG_S", 0.0)
    monkeypatch.setattr(stopping, "READ_S", 0.0)


def read_events(exp):
    events = EventAccumulator(str(exp / "log" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def wait_for_the_next_second():
    """Event files are read in order of their names, which have whole seconds."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.05)


def test_events_are_those_of_an_uninterrupted_run(small_egs, tmp_path, every_step):
    exp = tmp_path / MODEL
    train(small_egs, exp, max_steps=4)
    wait_for_the_next_second()
    # As after kill -9: 13 steps were done, and the last checkpoint is of the tenth.
    train(small_egs, exp, max_steps=9)
    wait_for_the_next_second()
    (exp / "checkpoints" / "last.pt").unlink()
    run = train(small_egs, exp)
    assert run.get_marks("resumed") == [{"mark": "resumed", "step": 10}]
    events = read_events(exp)
    steps = [step for step, _ in events["train/loss"]]
    assert steps == list(range(20))
    eers = [(10 * row["epoch"], row["valid_eer_percent"]) for row in run.epochs]
    assert [step for step, _ in events["epoch/valid_eer_percent"]] == [0, 10, 20]
    assert [v for _, v in events["epoch/valid_eer_percent"]] == pytest.approx([v for _, v in eers])
    assert events["train/learning_rate"][0] == (0, pytest.approx(1e-3))
    assert {"train/margin", "train/crops_per_s", "train/wait_percent"} <= events.keys()


def test_no_tensorboard_is_one_line(small_egs, tmp_path, monkeypatch, caplog, every_step):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name)
    )
    caplog.set_level("INFO")
    run = train(small_egs, tmp_path / MODEL, num_epochs=1)
    assert caplog.text.count("tensorboard") == 1 and "not installed" in caplog.text
    assert not (run.exp / "log" / "tensorboard").exists()


def test_a_line_says_how_far_and_how_long(small_egs, tmp_path, caplog, every_step):
    caplog.set_level("INFO")
    train(small_egs, tmp_path / MODEL)
    lines = [line for line in caplog.messages if line.startswith("epoch 1/2, step 10/10: ")]
    assert re.fullmatch(
        r"epoch 1/2, step 10/10: loss [\d.]+, accuracy [\d.]+ %, [\d.]+ crops/s, waiting [\d.]+ %, "
        r"reading [\d.]+ %, lr 0\.0451, margin 0\.09, about \d+ minutes left, "
        r"until \d{4}-\d\d-\d\d \d\d:\d\d",
        lines[0],
    )
    assert any(
        re.match(r"epoch 2/2 done: .* valid EER .*, lr .*, margin .*, memory \d+ MB", line)
        for line in caplog.messages
    )
    with open(tmp_path / MODEL / "log" / "epochs.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["loss"] == "" and float(rows[2]["loss"]) > 0
    assert "j_per_crop" not in rows[0] and float(rows[1]["valid_s"]) > 0
    assert 0 < float(rows[1]["read_percent"]) < 100


def make_meter(kwh_a_reading, measured):
    """A meter that counts the same energy from reading to reading, a minute apart."""
    count = itertools.count(1)

    def read():
        n = next(count)
        kwh = None if kwh_a_reading is None else n * kwh_a_reading
        return {"energy_kwh": kwh, "elapsed_s": 60.0 * n, "measured_fraction": measured}

    return read


@pytest.mark.parametrize(("measured", "words"), [(0.0, "(estimated)"), (0.25, "(25 % measured)")])
def test_energy_a_crop_says_its_kind(request, small_egs, tmp_path, measured, words):
    request.getfixturevalue("every_step")
    caplog = request.getfixturevalue("caplog")
    caplog.set_level("INFO")
    # A reading at the start of an epoch, one at each line and one at its end: eleven intervals.
    meter = make_meter(1e-6, measured)
    run = train(small_egs, tmp_path / MODEL, num_epochs=1, live=meter)
    row = run.epochs[1]
    assert row["j_per_crop"] == pytest.approx(11 * 3.6 / 80)
    assert row["energy_measured_fraction"] == pytest.approx(measured)
    assert f"J/crop {words}" in caplog.text
    assert read_events(run.exp)["epoch/j_per_crop"][0][1] == pytest.approx(row["j_per_crop"])


def test_unknown_energy_is_not_zero(small_egs, tmp_path, caplog, every_step):
    caplog.set_level("INFO")
    meter = make_meter(None, None)
    run = train(small_egs, tmp_path / MODEL, num_epochs=1, live=meter)
    assert "j_per_crop" not in run.epochs[1] and "J/crop" not in caplog.text


def test_too_short_a_time_has_no_figure(small_egs, tmp_path, every_step):
    meter = make_meter(1e-6, 1.0)
    run = train(
        small_egs, tmp_path / MODEL, num_epochs=1, live=lambda: {**meter(), "elapsed_s": 1.0}
    )
    assert "j_per_crop" not in run.epochs[1]


def test_the_best_and_the_last_are_kept(small_egs, tmp_path, monkeypatch):
    eers = iter([50.0, 10.0, 20.0, 10.0])
    monkeypatch.setattr(egs.Validation, "compute_eer_percent", lambda *_: next(eers))
    run = train(small_egs, tmp_path / MODEL, num_epochs=3)
    names = sorted(p.name for p in (run.exp / "checkpoints").iterdir())
    assert names == ["best.pt", "epoch_002.pt", "epoch_003.pt"]
    best = run.load("checkpoints/best.pt")  # the first of two that are as good
    assert best["step"] == 10 and best["history"][-1]["valid_eer_percent"] == 10.0


def test_held_out_trials_are_read_once(small_egs, tmp_path, monkeypatch):
    reads = []
    read = egs.read_trials
    monkeypatch.setattr(egs, "read_trials", lambda path: (reads.append(path), read(path))[1])
    run = train(small_egs, tmp_path / MODEL)
    assert len(reads) == 1 and len(run.get_marks("validation")) == 3


FINE = {"num_epochs": 1, "crop_frames": 70, "margin": 0.4, "initial_lr": 1e-3, "final_lr": 1e-4}


def test_fine_tuning_is_a_phase_of_its_own(small_egs, tmp_path):
    changes = {"num_epochs": 1, "keep_checkpoints": 1}
    run = train(small_egs, tmp_path / "a" / MODEL, fine_tuning=FINE, **changes)
    assert [mark["name"] for mark in run.get_marks("phase")] == ["training", "fine_tuning"]
    names = [mark["mark"] for mark in run.marks]
    at = names.index("phase", names.index("phase") + 1)
    # The last epoch of training is finished, with its validation, before the next phase begins.
    assert names[:at].count("epoch") == 1 and names[at:].count("epoch") == 1
    row = run.epochs[2]
    assert row["margin"] == 0.4 and row["learning_rate"] == pytest.approx(1e-4)
    kept = {p.name for p in (run.exp / "checkpoints").iterdir()} - {"best.pt"}
    assert kept == {"epoch_001.pt", "epoch_002.pt"}
    info = json.loads((run.exp / "model.json").read_text())
    assert info["crops_by_phase"] == {"training": 80, "fine_tuning": 80}
    assert info["crops_trained"] == 160 and info["final_epochs"] == [2]
    final, last = run.load("final.pt")["net"], run.load("checkpoints/epoch_002.pt")["net"]
    assert all((final[key] == tensor).all() for key, tensor in last.items())
    # Requested when the training is done, the result is the same; once done it is not undone.
    exp = tmp_path / "b" / MODEL
    train(small_egs, exp, **changes)
    for max_steps in (4, None):
        later = train(small_egs, exp, fine_tuning=FINE, max_steps=max_steps, **changes)
        assert [m["name"] for m in later.get_marks("phase")] == ["fine_tuning"]
    assert_same_state(run.load("checkpoints/epoch_002.pt"), later.load("checkpoints/epoch_002.pt"))
    with pytest.raises(SvError, match=r"fine_tuning.num_epochs: 1 -> 0.*--resume false"):
        train(small_egs, exp, **changes)


@pytest.mark.parametrize(
    ("fine", "message"),
    [
        ({"num_epochs": -1}, "num_epochs must be at least 0"),
        ({"margin": 2.0}, "margin must be below pi / 2"),
        ({"final_lr": 0.0}, "final_lr above 0"),
        ({"micro_batch_size": 3}, "multiple of fine_tuning.micro_batch_size"),
        ({"micro_batch_size": 1}, "micro_batch_size must be at least 2, or 0"),
        ({"crop_frame": 3}, "did you mean 'crop_frames'"),
    ],
)
def test_fine_tuning_without_sense_is_refused(small_egs, tmp_path, fine, message):
    path = small_egs.write_config(tmp_path / "c.toml", fine_tuning=fine)
    with pytest.raises(UsageError, match=message):
        read_train_config(path)
