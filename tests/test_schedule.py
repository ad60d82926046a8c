"""Schedules and phases are pure functions of the step, and the study's are those of the design."""

import re
import tomllib
from dataclasses import replace

import pytest
from conftest import ROOT
from small_training import MODEL, assert_same_state, train

from sv.config import build_config
from sv.data.loader import count_steps
from sv.train.config import (
    FINE_TUNING,
    TRAINING,
    FineTuningConfig,
    TrainConfig,
    build_plan,
    read_train_config,
)
from sv.train.step import TrainStep

STUDY = ROOT / "egs/voxceleb/conf/train.toml"
STEPS = count_steps(1_092_009, 512)


def test_the_study_at_its_corners():
    plan = build_plan(read_train_config(STUDY), STEPS)
    at = {epoch: plan.learning_rate(epoch * STEPS) for epoch in range(42)}
    assert at[0] == 1e-5 and at[5] == 0.2 and at[19] == 0.2
    assert at[1] == pytest.approx(1e-5 + 0.2 * (0.2 - 1e-5))
    assert [at[20], at[30], at[40]] == pytest.approx([0.04, 0.008, 0.0016])
    assert [at[29], at[39], at[41]] == pytest.approx([0.04, 0.008, 0.0016])
    # The last step before a corner still has what was before it.
    for epoch in (20, 30, 40):
        assert plan.learning_rate(epoch * STEPS - 1) == at[epoch - 1]
    assert 0.1999 < plan.learning_rate(5 * STEPS - 1) < 0.2
    angles = [plan.margin(epoch * STEPS) for epoch in (0, 5, 12.5, 20, 41)]
    assert angles == pytest.approx([0, 0, 0.1, 0.2, 0.2])
    assert 0 < plan.margin(5 * STEPS + 1) < 1e-4
    assert 0.1999 < plan.margin(20 * STEPS - 1) < 0.2


def test_the_study_is_that_of_the_design():
    """The numbers of docs/design.md, section 6, are those of the recipe."""
    text = " ".join((ROOT / "docs/design.md").read_text().split())
    text = text[text.index("## 6. Training") : text.index("## 7.")]
    config = read_train_config(STUDY)
    optimizer, head, mask = config.optimizer, config.margin, config.specaugment

    def find(pattern):
        found = re.search(pattern, text)
        assert found, f"docs/design.md, section 6, does not say: {pattern}"
        return [float(number) for number in found.groups()]

    assert find(r"\((\d+) frames\)") == [config.crop_frames]
    assert find(r"global batch (\d+)") == [optimizer.batch_size]
    assert find(r"(\d+) epochs of one crop an utterance") == [config.num_epochs]
    assert find(r"momentum ([\d.]+), weight decay ([\d.e-]+)") == [
        optimizer.momentum, optimizer.weight_decay,
    ]  # fmt: skip
    said = find(r"scale (\d+), margin 0 for (\d+) epochs, then linear to ([\d.]+) at epoch (\d+)")
    assert said == [head.scale, head.start_epoch, head.margin, head.end_epoch]
    said = find(r"learning rate linear ([\d.e-]+) -> ([\d.]+) over (\d+) epochs, .* divided by "
                r"(\d+) at epochs (\d+), (\d+) and (\d+)")  # fmt: skip
    assert said == [optimizer.initial_lr, optimizer.peak_lr, optimizer.warmup_epochs,
                    optimizer.decay_factor, *optimizer.decay_epochs]  # fmt: skip
    assert "one time and one frequency mask" in text
    assert (mask.time_masks, mask.frequency_masks) == (1, 1)
    assert config.embedding_dim == 256 and head.head == "aam"
    assert config.precision == "fp16" and config.checkpointing == "selective"
    assert config.fine_tuning.num_epochs == 0


def test_fine_tuning_falls_by_the_same_factor_each_step():
    fine = FineTuningConfig(num_epochs=1, initial_lr=1e-2, final_lr=1e-4)
    config = replace(read_train_config(STUDY), fine_tuning=fine)
    rates = [build_plan(config, 5).learning_rate(42 * 5 + step) for step in range(5)]
    assert rates[0] == 1e-2 and rates[2] == pytest.approx(1e-3) and rates[4] == pytest.approx(1e-4)
    assert build_plan(config, 1).learning_rate(42) == 1e-2


@pytest.fixture
def tuned():
    values = tomllib.loads(STUDY.read_text())
    values["fine_tuning"] = {"num_epochs": 2, "micro_batch_size": 16}
    return build_plan(build_config(values, TrainConfig, where=""), STEPS)


def test_phases_change_between_two_steps(tuned):
    end = 42 * STEPS
    assert (tuned.num_epochs, tuned.num_steps) == (44, 44 * STEPS)
    before, after = tuned.find_phase(end - 1), tuned.find_phase(end)
    assert (before.name, before.crop_frames, before.micro_batch_size) == (TRAINING, 350, 32)
    assert (after.name, after.crop_frames, after.micro_batch_size) == (FINE_TUNING, 600, 16)
    assert before.specaugment is not None and after.specaugment is None
    assert tuned.find_phase(44 * STEPS) is after
    assert [tuned.margin(end - 1), tuned.margin(end)] == [0.2, 0.5]
    assert tuned.learning_rate(end - 1) == pytest.approx(0.0016)
    assert tuned.learning_rate(end) == 1e-4
    assert tuned.learning_rate(44 * STEPS - 1) == pytest.approx(2.5e-5)
    assert [tuned.count_crops(p, end + 3) for p in tuned.phases] == [512 * end, 512 * 3]
    assert [tuned.count_crops(p, 7) for p in tuned.phases] == [512 * 7, 0]


def test_nothing_shifts_in_a_resume(small_egs, tmp_path, monkeypatch):
    """Rate and margin of every step, and the weights, as without the interruption."""
    changes = {"num_epochs": 1, "fine_tuning": {"num_epochs": 1, "crop_frames": 80,
                                                "initial_lr": 1e-3, "final_lr": 1e-4}}  # fmt: skip
    seen = []
    original, original_update = TrainStep.compute_gradients, TrainStep.update

    def spy(step, crops, speakers, **how):
        seen.append((crops.shape[1], how["margin"]))
        return original(step, crops, speakers, **how)

    def spy_update(step, rate):
        original_update(step, rate)
        seen[-1] += (rate, step.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(TrainStep, "compute_gradients", spy)
    monkeypatch.setattr(TrainStep, "update", spy_update)
    whole = train(small_egs, tmp_path / "a" / MODEL, **changes)
    at_once, seen[:] = list(seen), []
    for max_steps in (4, 6, 3, None):  # within an epoch, at its end, within fine-tuning
        pieced = train(small_egs, tmp_path / "b" / MODEL, max_steps=max_steps, **changes)
    assert len(at_once) == 20 and seen == at_once
    assert [frames for frames, *_ in seen] == [60] * 10 + [80] * 10
    assert all(rate == used for _, _, rate, used in seen)
    assert_same_state(
        whole.load("checkpoints/epoch_002.pt"), pieced.load("checkpoints/epoch_002.pt")
    )
