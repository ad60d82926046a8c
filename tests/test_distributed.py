"""Training by several processes: the curve of one, and nothing lost however they end."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, call, environment
from slurm_site import slurm  # noqa: F401 - a fixture
from small_training import MODEL, train

from sv.data.crops import CropReader, load_crop_index
from sv.data.loader import count_at_once, find_share, iterate_batches
from sv.errors import SvError, UsageError
from sv.train.config import read_train_config
from sv.train.launch import find_first_node, find_meeting

# Eighty utterances in batches of forty: two steps an epoch, each of two micro-batches.
GENTLE = {
    "optimizer": {"batch_size": 40, "micro_batch_size": 20, "initial_lr": 1e-4, "peak_lr": 1e-3},
    "margin": {"head": "sub_centre_aam", "sub_centres": 2, "scale": 8.0},
    "checkpoint_minutes": 0.0,
}
ONE_STEP = {
    **GENTLE,
    "optimizer": {**GENTLE["optimizer"], "batch_size": 80, "micro_batch_size": 80},
}


def two(small_egs, exp, *options, changes=GENTLE):
    """Return the command that trains with two processes of a thread each."""
    exp.parent.mkdir(exist_ok=True)
    config = small_egs.write_config(exp.parent / "two.toml", **changes)
    words = ["steps/train_xvector.sh", "--model", MODEL, "--config", config, "--nproc", 2]
    return [str(word) for word in (*words, *options, small_egs.egs, exp)]


def load(exp, name="last.pt"):
    return torch.load(exp / "checkpoints" / name, weights_only=True)


def assert_close(a, b, *, atol):
    """Two checkpoints are of the same form, and as close as another order of sums leaves them."""
    assert a.keys() == b.keys() and a["step"] == b["step"]
    assert a["tally"]["loss"] == pytest.approx(b["tally"]["loss"], rel=1e-5)
    assert a["tally"]["crops"] == b["tally"]["crops"]
    for part in ("net", "head"):
        assert list(a[part]) == list(b[part])
        for key, value in a[part].items():
            torch.testing.assert_close(value, b[part][key], rtol=0, atol=atol, msg=key)


def start(command, **env):
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(**env), stderr=subprocess.PIPE, text=True
    )


def wait_for(process, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def test_two_processes_have_the_curve_of_one(small_egs, tmp_path):
    """SpecAugment, squeeze-and-excitation, attentive pooling, sub-centres, a shared micro-batch."""
    changes = {**ONE_STEP, "num_epochs": 4}
    one = train(small_egs, tmp_path / "one" / MODEL, **changes)
    # Checkpointing does not change results, and exchanges the statistics once more.
    exp, marks = tmp_path / "two" / MODEL, tmp_path / "marks"
    command = two(small_egs, exp, changes={**changes, "checkpointing": "selective"})
    done = call(command, timeout=60, SV_METER_MARKS=str(marks))
    assert done.returncode == 0, done.stderr + (exp / "log" / "train.log").read_text()
    rows = [json.loads((e / "model.json").read_text())["epochs"] for e in (one.exp, exp)]
    assert len(rows[1]) == 5
    for expected, found in zip(*rows, strict=True):
        assert found["valid_eer_percent"] == pytest.approx(expected["valid_eer_percent"])
        if found["epoch"]:
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
            assert found["accuracy_percent"] == expected["accuracy_percent"]
    names = sorted(path.name for path in (one.exp / "checkpoints").iterdir())
    assert names == sorted(path.name for path in (exp / "checkpoints").iterdir())
    assert_close(load(one.exp, "epoch_004.pt"), load(exp, "epoch_004.pt"), atol=1e-4)
    # One process speaks: a mark and a log line each, as of one.
    names = [json.loads(line)["mark"] for line in marks.read_text().splitlines()]
    assert [name for name in names if name != "job"] == [mark["mark"] for mark in one.marks]
    log = (exp / "log" / "train.log").read_text()
    assert log.count("epoch 2/4 done") == 1 and "Warning" not in log
    assert log.count("2 processes are more than micro-batches (1 of 80 crops)") == 1


def test_steps_of_any_number_of_processes_are_those_of_one(tmp_path):
    """Losses, statistics and collectives of 32 crops in micro-batches of 8."""
    cases = {1: "20:none", 2: "20:selective", 4: "20:full", 3: "3:none", 6: "3:full"}
    script = ROOT / "tests" / "step_processes.py"
    argv = ["python3", script, tmp_path, *(f"{n}:{case}" for n, case in cases.items())]
    done = call(argv, timeout=240)
    assert done.returncode == 0, done.stderr
    found = {
        n: [torch.load(tmp_path / f"{n}.{rank}.pt", weights_only=True) for rank in range(n)]
        for n in cases
    }
    (one,) = found[1]
    for n, parts in found.items():
        assert sum((part["rows"] for part in parts), []) == list(range(32))
        # Gradients (one bucket) and running statistics, once; nothing else but of shared ones.
        assert one["collectives"] == [] or n > 1
        if n in (2, 3, 4):
            assert parts[0]["collectives"] == ["gloo:all_reduce"] * 2
        for part in parts:
            steps = len(part["losses"])
            assert part["losses"] == pytest.approx(one["losses"][:steps], rel=1e-6)
            for key, value in one[0].items():
                if n <= 4:
                    assert torch.equal(part[0][key], value), (n, key)  # from the same weights
                torch.testing.assert_close(part[0][key], value, rtol=1e-5, atol=1e-6)
                if steps == 20:
                    torch.testing.assert_close(part[19][key], one[19][key], rtol=1e-5, atol=1e-5)
                # All have the same bits at any time.
                assert torch.equal(part[steps - 1][key], parts[0][steps - 1][key])
    assert one[19]["resnet.stem_norm.num_batches_tracked"] == 80
    # Six have four micro-batches: every normalisation, forward, recomputed and backward.
    assert found[6][0]["collectives"].count("gloo:all_gather") > 20


def test_every_crop_is_computed_once_whatever_the_numbers():
    for processes in range(1, 25):
        for micro_batch_size in (1, 3, 4, 6, 12, 24):
            sizes = 24, micro_batch_size
            shares = [find_share(*sizes, rank, processes) for rank in range(processes)]
            assert [row for share in shares for row in share.rows] == list(range(24))
            at_once = max(min(len(share.rows), micro_batch_size) for share in shares)
            assert at_once == count_at_once(*sizes, processes)
            for rank, share in enumerate(shares):
                assert rank in share.sharers and share.rows
                if processes <= 24 // micro_batch_size:  # whole ones
                    assert share.sharers == range(rank, rank + 1)
                    edges = share.rows.start, share.rows.stop
                    assert [edge % micro_batch_size for edge in edges] == [0, 0]
                else:  # the same one
                    numbers = {
                        row // micro_batch_size for r in share.sharers for row in shares[r].rows
                    }
                    assert len(numbers) == 1


def test_a_signal_saves_first_and_any_number_goes_on(small_egs, tmp_path):
    """SIGTERM to one of two processes; then one goes on for a step, then two for another."""
    exp, marks = tmp_path / "two" / MODEL, tmp_path / "marks"
    slow = {**GENTLE, "num_epochs": 50, "checkpoint_minutes": 15.0}
    process = start(two(small_egs, exp, changes=slow), SV_METER_MARKS=str(marks))
    wait_for(process, lambda: marks.exists() and '"validation"' in marks.read_text())
    os.kill(find_processes(exp)[1], signal.SIGTERM)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, error
    step = load(exp)["step"]
    assert f"stopped by SIGTERM, at step {step} of 100; checkpoint: {exp}" in error
    assert not find_processes(exp) and not (exp / "final.pt").exists()
    train(small_egs, exp, **slow, max_steps=1)
    done = call(two(small_egs, exp, "--max-steps", 1, changes=slow), timeout=60)
    assert done.returncode == 0, done.stderr
    whole = train(small_egs, tmp_path / "one" / MODEL, **slow, max_steps=step + 2)
    assert_close(whole.load("checkpoints/last.pt"), load(exp), atol=1e-3)


def test_a_process_that_is_killed_ends_the_training(small_egs, tmp_path):
    exp = tmp_path / "two" / MODEL
    process = start(two(small_egs, exp, changes={**GENTLE, "num_epochs": 50}))
    wait_for(process, lambda: list(exp.glob("checkpoints/*.pt")))
    os.kill(find_processes(exp)[1], signal.SIGKILL)
    line = process.communicate(timeout=180)[1].splitlines()[-1]
    assert process.returncode == 128 + signal.SIGKILL
    assert "process 1 of 2 on " in line and "was ended by SIGKILL; the same command resumes" in line
    assert not find_processes(exp)
    resumed = train(small_egs, exp, **GENTLE, num_epochs=50, max_steps=1)
    assert resumed.get_marks("resumed") and resumed.stop.status == 0


def find_processes(exp):
    """Return the running processes of a training, in order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"sv.bin.train" in words and str(exp).encode() in words and b"--nproc" not in words:
                pairs = (folder / "environ").read_bytes().split(b"\0")
                (rank,) = [int(p[5:]) for p in pairs if p.startswith(b"RANK=")]
                found[rank] = int(folder.name)
        except (OSError, ValueError):  # it has just ended, or is just starting
            continue
    return [pid for _, pid in sorted(found.items())]


def test_an_error_is_said_once_and_its_status_kept(small_egs, tmp_path):
    exp = tmp_path / "two" / MODEL
    changes = {"optimizer": {**GENTLE["optimizer"], "batch_size": 2, "micro_batch_size": 2}}
    done = call(two(small_egs, exp, "--nproc", 3, changes=changes), timeout=60)
    assert done.returncode == 2
    lines = [s for s in (exp / "log" / "train.log").read_text().splitlines() if s[0] != "#"]
    assert len(lines) == 1
    assert lines[0].startswith("sv.bin.train: batch_size (2)") and "processes (3)" in lines[0]
    done = call(two(small_egs, exp, "--ngpu", 3), timeout=60)
    assert done.returncode == 2 and "--ngpu 3 has 3 processes a node" in done.stderr


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="two GPUs are here")
def test_more_gpus_than_there_are(small_egs, tmp_path):
    argv = ["python3", "-m", "sv.bin.launch", "--nproc", 2, "--ngpu", 2, "--", "x"]
    done = call(argv, timeout=60)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "sv.bin.train: --ngpu 2: torch sees" in done.stderr


def test_each_process_reads_its_own_crops(small_egs, monkeypatch):
    """All draw the same; together they are the whole batch, and each reads its bytes alone."""
    read = []
    preadv = os.preadv

    def counting(descriptor, buffers, offset):
        read.append(sum(len(buffer) for buffer in buffers))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counting)
    index = load_crop_index(small_egs.egs / "train.npz")
    config = read_train_config(small_egs.data.parent / "train.toml")
    reader = CropReader(index)
    options = {"seed": 3, "epoch": 1, "batch_size": 40, "frames": 50, "first_step": 1}
    batches, counts = [], []
    for rows in (None, *(find_share(40, 8, rank, 2).rows for rank in range(2))):
        read.clear()
        (batch,) = iterate_batches(reader, **options, specaugment=config.specaugment, rows=rows)
        batches.append(batch)
        counts.append(sum(read))
    reader.close()
    assert counts[1] + counts[2] == counts[0] and 1.5 * counts[1] == counts[2]
    whole, *parts_read = batches
    assert (whole.crops == 0).any()  # SpecAugment's masks are in what is compared
    for name in ("crops", "speakers"):
        parts = [getattr(part, name) for part in parts_read]
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate(parts))


def test_where_nodes_meet():
    assert find_meeting({}, 1, None, 0).host == "127.0.0.1"
    meeting = find_meeting({}, 2, "n7:29400", 1)
    assert (meeting.host, meeting.port, meeting.node) == ("n7", 29400, 1)
    environ = {"SLURM_NODEID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "123456",
             "SLURM_JOB_NODELIST": "localhost,n2"}  # fmt: skip
    meeting = find_meeting(environ, 2, None, 0)
    assert (meeting.host, meeting.port, meeting.node) == ("127.0.0.1", 13_456, 1)
    with pytest.raises(UsageError, match="Slurm has started this on 2"):
        find_meeting(environ, 3, None, 0)
    with pytest.raises(UsageError, match="not under Slurm here; .*--rdzv host:port"):
        find_meeting({}, 2, None, 0)
    for wrong in ("n7", "n7:x", ":29400", "n7:70000"):
        with pytest.raises(UsageError, match="--rdzv must be host:port"):
            find_meeting({}, 2, wrong, 0)
    with pytest.raises(UsageError, match="--node-rank must be 0 to 1"):
        find_meeting({}, 2, "n7:29400", 2)
    assert find_first_node("n[01-04,7],m2") == "n01" and find_first_node("x[2-3]-ib") == "x2-ib"
    assert find_first_node("a-b,c") == "a-b"
    with pytest.raises(SvError):
        find_first_node("")


def test_two_nodes_under_slurm(slurm, small_egs, tmp_path):  # noqa: F811 - the fixture
    """Each node's launcher finds the other by Slurm's variables; the curve is that of one."""
    exp = tmp_path / "two" / MODEL
    changes = {**GENTLE, "num_epochs": 1}
    options = ["--cmd", "utils/slurm.py", "--nproc", 1, "--nnodes", 2, "--num-threads", 1]
    done = call(two(small_egs, exp, *options, changes=changes), timeout=90, **slurm.env)
    assert done.returncode == 0, done.stderr + (exp / "log" / "train.log").read_text()
    one = train(small_egs, tmp_path / "one" / MODEL, **changes)
    assert_close(one.load("checkpoints/epoch_001.pt"), load(exp, "epoch_001.pt"), atol=1e-4)
