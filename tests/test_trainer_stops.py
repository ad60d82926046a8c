"""How a training ends before its last epoch, and that nothing is lost by it."""

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, environment
from small_training import MODEL, assert_same_state, train

from sv.bin.train import main
from sv.errors import SvError, UsageError
from sv.train import stopping
from sv.train.config import read_train_config
from sv.train.device import CPU, explain_out_of_memory, list_savings
from sv.train.stopping import Stop, StopConditions
from sv.train.store import find_epoch_checkpoints


@pytest.fixture(scope="module")
def whole(small_egs, tmp_path_factory):
    return train(small_egs, tmp_path_factory.mktemp("whole") / MODEL)


def make_live(kwh, *, elapsed_s=5.0):
    return {"schema": "energy-live/1", "energy_kwh": kwh, "elapsed_s": elapsed_s,
            "measured_fraction": 1.0}  # fmt: skip


def test_sigterm_saves_first(small_egs, whole, tmp_path):
    exp, marks = tmp_path / MODEL, tmp_path / "marks"
    # Checkpoints are 15 minutes apart: what is there afterwards is there because of the signal.
    config = small_egs.write_config(tmp_path / "c.toml", checkpoint_minutes=15.0, num_epochs=50)
    process = subprocess.Popen(
        [sys.executable, "-m", "sv.bin.train", "--model", MODEL, "--config", str(config),
         str(small_egs.egs), str(exp)],
        cwd=ROOT, env=environment(SV_METER_MARKS=str(marks)), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not marks.exists() or '"validation"' not in marks.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    for _ in range(3):  # run.py, the kernel and the meter may all send one
        process.send_signal(signal.SIGTERM)
    line = process.communicate(timeout=120)[1].splitlines()[-1]
    assert process.returncode == 128 + signal.SIGTERM
    state = torch.load(exp / "checkpoints" / "last.pt", weights_only=True)
    step = state["step"]
    assert step >= 1 and not (exp / "final.pt").exists()
    assert f"stopped by SIGTERM, at step {step} of 500; checkpoint: {exp}" in line
    assert line.endswith("last.pt; the same command resumes from there")
    last = json.loads(marks.read_text().splitlines()[-1])
    assert last["mark"] == "checkpoint" and last["step"] == step


def test_a_bounded_run_marks_what_it_did(small_egs, whole, tmp_path):
    first = train(small_egs, tmp_path / MODEL, max_steps=16)
    assert first.stop.status == 0 and "stopped after 16 steps (--max-steps)" in first.stop.reason
    assert not (first.exp / "final.pt").exists()
    (plan,) = first.get_marks("plan")
    fields = {"first_step": 0, "total_steps": 20, "steps_per_epoch": 10, "num_epochs": 2,
              "crops_per_step": 8, "crop_frames": 60, "checkpointing": "none",
              "fine_tuning_steps": 0, "fine_tuning_crop_frames": 600}  # fmt: skip
    assert plan == {"mark": "plan", **fields}
    segments = first.get_marks("stretch")
    assert [mark["steps"] for mark in segments] == [2] * 8
    assert sum(mark["crops"] for mark in segments) == 16 * 8
    assert all(mark["seconds"] > 0 for mark in segments)
    # Of the untrained network and of the first epoch.
    assert len(first.get_marks("validation")) == 2
    names = [mark["mark"] for mark in first.marks]
    assert names[:4] == ["plan", "phase", "validation", "stretch"]
    rest = train(small_egs, tmp_path / MODEL, max_steps=16)  # more than is left
    assert rest.stop is None and rest.get_marks("plan")[0]["first_step"] == 16
    assert_same_state(whole.load("checkpoints/epoch_002.pt"), rest.load("checkpoints/epoch_002.pt"))
    assert [r["loss"] for r in rest.epochs[1:]] == [r["loss"] for r in whole.epochs[1:]]


def test_a_stop_in_the_middle_of_a_step_leaves_no_trace_of_it(small_egs, tmp_path, monkeypatch):
    looks = itertools.count(1)
    with monkeypatch.context() as patch:
        # A step has two micro-batches, so this is between those of the third.
        patch.setattr(StopConditions, "find_status", lambda _: 143 if next(looks) == 6 else 0)
        run = train(small_egs, tmp_path / "a" / MODEL, checkpoint_minutes=15.0)
    (mark,) = run.get_marks("checkpoint")
    assert run.stop.status == 143 and mark["step"] == 2 and 0 <= mark["stop_s"] < 60
    bound = train(small_egs, tmp_path / "b" / MODEL, max_steps=2, checkpoint_minutes=15.0)
    assert_same_state(run.load("checkpoints/last.pt"), bound.load("checkpoints/last.pt"))


def test_a_budget_ends_at_a_checkpoint(small_egs, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "READ_S", 0.0)
    reads = itertools.count()
    live = lambda: make_live(0.1 if next(reads) < 9 else 0.5)  # noqa: E731
    run = train(small_egs, tmp_path / MODEL, live=live, checkpoint_minutes=15.0, max_kwh=0.25)
    assert run.stop.status == 1 and run.stop.budget_kwh == 0.25
    assert "stopped at the budget: 0.5 kWh in this attempt (--max-kwh 0.25)" in run.stop.reason
    assert "rerun the same command" in run.stop.reason and "last.pt" in run.stop.reason
    assert run.load("checkpoints/last.pt")["step"] >= 1
    words = ["--model", MODEL, "--config", "c", "egs", "exp", "--max-kwh", "-1"]
    with pytest.raises(UsageError, match="must be a number above 0, not '-1'"):
        main(words)


def test_several_processes_agree_at_the_look_after(monkeypatch):
    """On the greatest: SIGTERM goes before SIGINT, and both before a budget."""

    class Others:
        size, status = 2, 0

        def vote(self, number):
            greatest = max(number, self.status)
            return lambda: greatest

    conditions, others = StopConditions(), Others()
    conditions.begin()
    conditions.look(others)
    conditions.request_stop(signal.SIGINT)
    conditions.look(others)
    with pytest.raises(Stop) as stopped:
        conditions.look(others)
    assert stopped.value == Stop("stopped by SIGINT", 130)
    others.status = 143
    with pytest.raises(Stop, match="SIGINT"):
        conditions.look(others)
    with pytest.raises(Stop, match="SIGTERM"):
        conditions.look(others)
    conditions.begin()  # what was voted on before other work is not counted
    conditions.look(others)


def test_a_budget_that_is_not_reached_changes_nothing(small_egs, tmp_path):
    run = train(small_egs, tmp_path / MODEL, max_kwh=1.0, live=lambda: make_live(0.5), num_epochs=1)
    assert run.stop is None and (run.exp / "final.pt").exists()


def test_a_run_leaves_its_place_only_for_one_that_begins(small_egs, tmp_path, run_cli):
    exp, backup = tmp_path / MODEL, tmp_path / MODEL / ".backup" / "1"
    config = small_egs.write_config(tmp_path / "c.toml", num_epochs=1)
    broken = tmp_path / "egs"
    shutil.copytree(small_egs.egs, broken)
    index = (broken / "train.npz").read_bytes()
    (broken / "train.npz").write_bytes(index[: len(index) // 2])

    def run(*options, egs=small_egs.egs, **more):
        words = ["sv.bin.train", "--model", MODEL, "--config", config, *options, egs, exp]
        return run_cli(*words, check=False, **more)

    assert run().returncode == 0
    old = (exp / "final.pt").read_bytes()
    anew = ["--backup", backup]
    for done, status in (
        (run(*anew, egs=broken), 1),
        (run(*anew, "--max-kwh", 1), 2),  # no meter
        (run(*anew, "--ngpu", 1, env={"CUDA_VISIBLE_DEVICES": ""}), 2),
    ):
        assert done.returncode == status and (exp / "final.pt").read_bytes() == old
        assert not backup.parent.exists()
    assert run(*anew, "--max-steps", 1).returncode == 0
    assert (backup / "final.pt").read_bytes() == old and not (exp / "final.pt").exists()
    # Slurm may start the same command again: the new run is resumed.
    done = run(*anew)
    assert done.returncode == 0 and "resumed at step 1" in done.stderr
    assert (exp / "final.pt").exists()
    names = [str(path) for path in backup.iterdir()]
    subprocess.run(["mv", "--backup=numbered", "-t", exp, *names], check=True)
    assert (exp / "final.pt").read_bytes() == old
    done = run()
    assert done.returncode == 0 and f"training of {MODEL} is finished, step" in done.stderr


@pytest.mark.parametrize("live", [None, lambda: None, lambda: make_live(None)])
def test_unknown_energy_keeps_no_budget(small_egs, tmp_path, monkeypatch, live):
    monkeypatch.setattr(stopping, "FIRST_S", 0.2)
    with pytest.raises(UsageError, match="no meter reports the energy"):
        train(small_egs, tmp_path / MODEL, max_kwh=1.0, live=live)


def test_a_meter_that_falls_silent_ends_a_budget(small_egs, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "STALE_S", 0.0)
    run = train(small_egs, tmp_path / MODEL, max_kwh=1.0, live=lambda: make_live(0.5))
    assert run.stop.status == 1 and "no energy from the meter" in run.stop.reason


def test_out_of_memory_says_what_to_lower(small_egs, tmp_path):
    """Crops of twenty minutes, in a process that may have 3 GB."""
    config = small_egs.write_config(tmp_path / "c.toml", crop_frames=120_000)
    limit = 3 * 2**30
    done = subprocess.run(
        [sys.executable, "-m", "sv.bin.train", "--model", MODEL, "--config", str(config),
         str(small_egs.egs), str(tmp_path / MODEL)],
        cwd=ROOT, env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),  # noqa: PLW1509
    )  # fmt: skip
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert line.startswith("sv.bin.train: out of memory; in train.toml lower micro_batch_size (4)")
    assert "set checkpointing = 'full'" in line and "precision = 'bf16'" in line


def test_only_what_would_help_is_advised(small_egs, tmp_path):
    changes = {"checkpointing": "full", "precision": "bf16"}
    config = read_train_config(small_egs.write_config(tmp_path / "c.toml", **changes))
    savings = list_savings(config, CPU)
    with pytest.raises(SvError) as raised, explain_out_of_memory(CPU, savings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
    assert "out of memory; in train.toml lower micro_batch_size" in str(raised.value)
    assert "checkpointing" not in str(raised.value) and "bf16" not in str(raised.value)
    with pytest.raises(RuntimeError, match="another fault"), explain_out_of_memory(CPU, savings):
        raise RuntimeError("another fault")


def test_weights_that_are_not_finite_are_never_saved(small_egs, tmp_path):
    """The loss of the first step is finite, its update is not."""
    rates = {"peak_lr": 3e38, "initial_lr": 3e38}
    with pytest.raises(SvError, match=r"weights are not finite .* at step 0 .* rate 3e\+38.*none"):
        train(small_egs, tmp_path / MODEL, optimizer=rates, checkpoint_minutes=0.0)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_damaged_checkpoint_costs_what_came_after_the_one_before_it(
    small_egs, whole, tmp_path, caplog
):
    exp = shutil.copytree(whole.exp, tmp_path / MODEL)
    (exp / "final.pt").unlink()
    *older, newest = find_epoch_checkpoints(exp / "checkpoints")
    os.truncate(newest, 2000)
    again = train(small_egs, exp)
    assert f"not used: {newest}: not a checkpoint" in caplog.text
    net, same = (run.load("final.pt")["net"] for run in (again, whole))
    assert all(torch.equal(net[key], same[key]) for key in same)
    for path in [*older, newest]:
        path.write_text("no checkpoint")
    with pytest.raises(SvError, match="not a checkpoint, nor is another one"):
        train(small_egs, exp)


def test_another_speaker_map_is_refused(small_egs, tmp_path):
    train(small_egs, tmp_path / MODEL, max_steps=1)
    path = small_egs.egs / "spk2int"
    before = path.read_text()
    lines = [line.split() for line in before.splitlines()]
    lines[0][1], lines[1][1] = lines[1][1], lines[0][1]
    try:
        path.write_text("".join(f"{speaker} {number}\n" for speaker, number in lines))
        with pytest.raises(SvError, match="training set: .* holds another one.*--resume false"):
            train(small_egs, tmp_path / MODEL)
    finally:
        path.write_text(before)


def test_a_checkpoint_from_before_a_setting_goes_on(small_egs, tmp_path):
    run = train(small_egs, tmp_path / MODEL, max_steps=3)
    path = run.exp / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    for key in ("precision", "fine_tuning", "checkpointing"):
        del state["config"][key]
    state["config"]["activation_checkpointing"] = False  # as it was once called
    torch.save(state, path)
    with pytest.raises(SvError, match="precision: fp32 -> bf16"):
        train(small_egs, tmp_path / MODEL, precision="bf16")
    resumed = train(small_egs, tmp_path / MODEL, checkpointing="full", max_steps=1)
    assert resumed.get_marks("resumed") == [{"mark": "resumed", "step": 3}]
