"""Training through its command line, on a small set of made-up speakers."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import tomli_w
import torch
from conftest import ROOT, environment
from small_egs import write_features

from sv.config import build_config
from sv.data.crops import CropReader, load_crop_index
from sv.data.loader import iterate_batches
from sv.data.training_set import hash_training_set, make_training_set
from sv.errors import UsageError
from sv.kaldi.data_dir import read_table
from sv.train.config import TrainConfig, read_train_config

MODEL = "resnet18_d"
CONFIG = tomllib.loads((ROOT / "tests/egs/tiny/conf/train.toml").read_text())


@pytest.fixture(scope="module")
def egs(tmp_path_factory):
    """Twelve speakers in two kinds, made into a training set by stage 4's script."""
    root = tmp_path_factory.mktemp("egs")
    write_features(root, "noise")
    write_config(root / "train.toml")
    subprocess.run(
        ["steps/make_egs.sh", "--config", root / "train.toml", "--kinds", "noise",
         root / "train", root / "egs"],
        cwd=ROOT, env=environment(), check=True, capture_output=True,
    )  # fmt: skip
    return root / "egs"


def write_config(path, **changes):
    """Write the tiny training config with ``section__key=value`` changed."""
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in CONFIG.items()}
    config |= {"num_epochs": 3, "checkpoint_minutes": 0.0}  # a checkpoint after every step
    config["set"] |= {"min_frames": 50, "min_utterances": 4}
    # Gentle enough to learn in thirty steps of eight crops, whatever the seed.
    config["optimizer"]["peak_lr"], config["margin"]["scale"] = 0.02, 8.0
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    path.write_text(tomli_w.dumps(config))
    return path


def argv(egs, exp, config):
    return ["sv.bin.train", "--model", MODEL, "--config", config, egs, exp]


def tensors(path):
    return torch.load(path, weights_only=True)["net"]


@pytest.fixture(scope="module")
def trained(egs, tmp_path_factory):
    """A training that nothing interrupted, with its marks."""
    exp = tmp_path_factory.mktemp("trained") / MODEL
    config = write_config(egs.parent / "three.toml")
    marks = exp.parent / "marks"
    done = subprocess.run(
        [sys.executable, "-m", *map(str, argv(egs, exp, config))],
        cwd=ROOT, env=environment(SV_METER_MARKS=str(marks)), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return exp, done.stderr, [json.loads(line) for line in marks.read_text().splitlines()]


def test_filters_hold_out_and_index(egs):
    summary = json.loads((egs / "egs.json").read_text())
    assert summary["speakers"] == 12 and summary["kinds"] == ["clean", "noise"]
    assert summary["utterances"] == 12 * 8 - 12 and summary["held_out"] == 12
    held_out = read_table(egs / "valid" / "utt2spk")
    assert not held_out.keys() & read_table(egs / "utterances").keys()
    trials = (egs / "valid" / "trials").read_text().splitlines()
    assert len(trials) == 12 * 11 // 2 and sum(line.endswith(" target") for line in trials) == 6


def test_dropped_utterances_are_counted_and_said(egs, tmp_path, run_cli):
    config = write_config(tmp_path / "c.toml", set__min_frames=60, set__min_utterances=6)
    data = egs.parent / "train"
    done = run_cli("sv.bin.make_egs", "--config", config, data, tmp_path / "egs")
    assert "dropped 24 of 96 utterances shorter than 60 frames (first: s00-0)" in done.stderr
    config = write_config(tmp_path / "c.toml", set__min_utterances=9)
    done = run_cli("sv.bin.make_egs", "--config", config, data, tmp_path / "e", check=False)
    assert done.returncode == 1 and "only 0 speakers are left" in done.stderr


def test_it_learns_and_says_how(trained):
    exp, log, marks = trained
    info = json.loads((exp / "model.json").read_text())
    epochs = info["epochs"]
    assert [row["epoch"] for row in epochs] == [0, 1, 2, 3]
    assert epochs[3]["loss"] < epochs[1]["loss"] - 0.2
    assert epochs[3]["valid_eer_percent"] < epochs[0]["valid_eer_percent"]
    assert re.search(r"epoch 3/3 done: loss .*accuracy .*crops/s, waiting .*valid EER", log)
    assert info["crops_trained"] == 3 * 10 * 8 and info["speakers"] == 12
    assert info["parameters"] == sum(
        t.numel() for k, t in tensors(exp / "final.pt").items()
        if "running" not in k and "num_batches" not in k
    )  # fmt: skip
    assert sorted(p.name for p in (exp / "checkpoints").iterdir()) == [
        "best.pt",
        "epoch_002.pt",
        "epoch_003.pt",
    ]
    assert [m["epoch"] for m in marks if m["mark"] == "epoch"] == [1, 2, 3]
    assert (exp / "log" / "epochs.tsv").read_text().startswith("epoch\tloss\t")


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_step_it_ends_with_the_same_weights(egs, trained, tmp_path, seed):
    """kill -9 three times at random moments, the same command again: bit for bit the same."""
    exp = tmp_path / MODEL
    config = write_config(tmp_path / "three.toml")
    rng, resumed = random.Random(seed), 0
    command = [sys.executable, "-m", *map(str, argv(egs, exp, config))]
    for _ in range(3):
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
        )
        # From when the first checkpoint may be there; a training takes about as long again.
        deadline = time.monotonic() + 60
        while not (exp / "checkpoints").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 1.2))
        process.send_signal(signal.SIGKILL)
        resumed += "resumed at step" in process.communicate()[1]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert resumed + ("resumed at step" in done.stderr) >= 1
    whole, pieced = tensors(trained[0] / "final.pt"), tensors(exp / "final.pt")
    assert whole.keys() == pieced.keys()
    assert all(torch.equal(whole[key], pieced[key]) for key in whole)
    losses = [
        [
            (row["epoch"], row.get("loss"), row["valid_eer_percent"])
            for row in json.loads(text)["epochs"]
        ]
        for text in ((trained[0] / "model.json").read_text(), (exp / "model.json").read_text())
    ]
    assert losses[0] == losses[1]


def test_another_config_is_refused_with_what_differs(egs, trained, tmp_path, run_cli):
    exp = trained[0]
    before = (exp / "final.pt").stat().st_mtime_ns
    config = write_config(tmp_path / "c.toml", optimizer__peak_lr=0.07, keep_checkpoints=9)
    done = run_cli(*argv(egs, exp, config), check=False)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "optimizer.peak_lr: 0.02 -> 0.07" in done.stderr and "keep" not in done.stderr
    assert "--resume false" in done.stderr
    assert (exp / "final.pt").stat().st_mtime_ns == before


def test_another_training_set_is_refused(egs, trained, tmp_path, run_cli):
    config = write_config(tmp_path / "c.toml", set__seed=2)
    data = egs.parent / "train"
    run_cli("sv.bin.make_egs", "--config", config, data, tmp_path / "egs")
    done = run_cli(*argv(tmp_path / "egs", trained[0], egs.parent / "three.toml"), check=False)
    assert done.returncode == 1 and f"training set: {tmp_path}/egs holds another" in done.stderr


def test_other_features_of_the_same_size_are_another_training_set(egs, tmp_path):
    index = load_crop_index(egs / "train.npz")
    text = (egs.parent / "train.ark").read_bytes()
    config = build_config(
        tomllib.loads((egs.parent / "three.toml").read_text()), TrainConfig, where=""
    )
    try:  # another value in each matrix: its first bytes after the header
        changed = bytearray(text)
        at = text.index(b"CM2 ") + 20
        changed[at] ^= 1
        (egs.parent / "train.ark").write_bytes(changed)
        make_training_set(egs.parent / "train", [egs.parent / "train_noise"], tmp_path, config.set)
    finally:
        (egs.parent / "train.ark").write_bytes(text)
    other = load_crop_index(tmp_path / "train.npz")
    assert (other.rows == index.rows).all() and (other.offset == index.offset).all()
    assert hash_training_set(tmp_path, other) != hash_training_set(egs, index)


def test_an_epoch_that_was_killed_before_its_end_is_finished(egs, trained, tmp_path, run_cli):
    """Killed after the last step, before the validation: the epoch still gets its row."""
    exp = tmp_path / MODEL
    shutil.copytree(trained[0], exp)
    state = torch.load(exp / "checkpoints" / "epoch_003.pt", weights_only=True)
    row = state["history"].pop()
    loss, crops = row["loss"] * 10, 80
    state["tally"] = {"steps": 10, "crops": crops, "correct": 0, "loss": loss, "train_s": 1.0,
                      "wait_s": 0.0}  # fmt: skip
    torch.save(state, exp / "checkpoints" / "last.pt")
    for name in ("checkpoints/epoch_003.pt", "final.pt", "model.json"):
        (exp / name).unlink()
    run_cli(*argv(egs, exp, egs.parent / "three.toml"))
    epochs = json.loads((exp / "model.json").read_text())["epochs"]
    assert [r["epoch"] for r in epochs] == [0, 1, 2, 3]
    assert epochs[3]["loss"] == pytest.approx(row["loss"])
    assert epochs[3]["valid_eer_percent"] == row["valid_eer_percent"]


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer__micro_batch_size": 0},
        {"optimizer__batch_size": 0},
        {"optimizer__peak_lr": float("nan")},
        {"optimizer__decay_factor": 0},
        {"num_epochs": 0},
        {"crop_frames": 0},
        {"keep_checkpoints": 0},
        {"specaugment__probability": 7},
        {"specaugment__time_width": -3},
        {"margin__scale": -1},
        {"set__valid_utterances": 1},
    ],
    ids=str,
)
def test_a_config_without_sense_is_refused(egs, tmp_path, capsys, change):
    config = write_config(tmp_path / "c.toml", **change)
    with pytest.raises(UsageError, match=next(iter(change)).split("__")[-1]):
        read_train_config(config)


def test_a_finished_training_is_not_trained_again(egs, trained, tmp_path, run_cli):
    before, written = tensors(trained[0] / "final.pt"), (trained[0] / "final.pt").stat().st_mtime_ns
    marks = tmp_path / "marks"
    config = egs.parent / "three.toml"
    done = run_cli(*argv(egs, trained[0], config), env={"SV_METER_MARKS": str(marks)})
    assert "resumed at step 30 of 30" in done.stderr and "epoch 1/3" not in done.stderr
    assert json.loads(marks.read_text().splitlines()[0])["mark"] == "resumed"
    after = tensors(trained[0] / "final.pt")
    assert all(torch.equal(before[key], after[key]) for key in before)
    # Its time too: what was extracted with it is not extracted again.
    assert (trained[0] / "final.pt").stat().st_mtime_ns == written


def test_divergence_names_step_rate_and_checkpoint(egs, tmp_path, run_cli):
    config = write_config(tmp_path / "c.toml", optimizer__peak_lr=1e30, optimizer__initial_lr=1e30)
    done = run_cli(*argv(egs, tmp_path / MODEL, config), check=False)
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"the loss is (nan|inf) at step \d+ .*learning rate 1e\+30.*last\.pt", line)


def test_a_corrupt_archive_is_named(egs, tmp_path, run_cli):
    broken = tmp_path / "egs"
    shutil.copytree(egs, broken)
    with np.load(egs / "train.npz") as data:
        arrays = dict(data)
    arrays["minimum"][:] = np.nan
    np.savez(broken / "train.npz", **arrays)
    done = run_cli(*argv(broken, tmp_path / MODEL, egs.parent / "three.toml"), check=False)
    assert done.returncode == 1
    assert re.search(r"train(_noise)?\.ark:\d+: NaN or infinity in rows", done.stderr)


def test_batches_are_a_function_of_seed_epoch_and_step(egs):
    index = load_crop_index(egs / "train.npz")
    config = build_config(
        tomllib.loads((egs.parent / "three.toml").read_text()), TrainConfig, where=""
    )
    reader = CropReader(index)
    options = {"batch_size": 8, "frames": 60, "specaugment": config.specaugment}
    whole = list(iterate_batches(reader, seed=3, epoch=1, **options))
    rest = list(iterate_batches(reader, seed=3, epoch=1, first_step=4, **options))
    assert len(whole) == 10 and len(rest) == 6
    for a, b in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(a.crops, b.crops)
        np.testing.assert_array_equal(a.speakers, b.speakers)
    other = next(iterate_batches(reader, seed=3, epoch=2, **options))
    assert not np.array_equal(other.crops, whole[0].crops)
    reader.close()


def test_extraction_is_the_same_alone_and_in_batches(egs, trained, tmp_path, run_cli):
    data = egs.parent / "train"
    files = [trained[0] / "final.pt", data / "feats.scp", data / "utt2num_frames"]
    for nj in (1, 3):
        for job in range(1, nj + 1):
            out = tmp_path / str(nj)
            outputs = [out / f"x.{job}.ark", out / f"x.{job}.scp", out / f"info.{job}.json"]
            run_cli("sv.bin.extract", "--job", job, "--nj", nj, *files, *outputs)
    one = dict(kaldiio.load_scp_sequential(str(tmp_path / "1" / "x.1.scp")))
    three = {}
    for job in (1, 2, 3):
        three |= dict(kaldiio.load_scp_sequential(str(tmp_path / "3" / f"x.{job}.scp")))
    assert one.keys() == three.keys() == read_table(data / "utt2spk").keys()
    for key, embedding in one.items():
        np.testing.assert_allclose(embedding, three[key], atol=1e-5)


def test_half_precision_is_close_and_a_wrong_one_is_refused(egs, trained, tmp_path, run_cli):
    data = egs.parent / "train"
    files = [trained[0] / "final.pt", data / "feats.scp", data / "utt2num_frames"]
    embeddings = {}
    for precision in ("fp32", "bf16"):
        out = [tmp_path / f"{precision}.{ending}" for ending in ("ark", "scp", "json")]
        run_cli("sv.bin.extract", "--precision", precision, *files, *out)
        embeddings[precision] = dict(kaldiio.load_scp_sequential(str(out[1])))
    cosines = [
        np.dot(a, embeddings["bf16"][key])
        / (np.linalg.norm(a) * np.linalg.norm(embeddings["bf16"][key]))
        for key, a in embeddings["fp32"].items()
    ]
    assert min(cosines) > 0.99 and not np.array_equal(*(e["s00-0"] for e in embeddings.values()))
    out = [tmp_path / "x.ark", tmp_path / "x.scp", tmp_path / "x.json"]
    done = run_cli("sv.bin.extract", "--precision", "int4", *files, *out, check=False)
    assert done.returncode == 2 and "int4" in done.stderr


def test_no_gpu_is_said(egs, tmp_path, run_cli):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = write_config(tmp_path / "c.toml")
    done = run_cli("sv.bin.train", "--model", MODEL, "--ngpu", 1, "--config", config, egs,
                   tmp_path / MODEL, check=False)  # fmt: skip
    assert done.returncode == 2 and "torch sees no GPU here" in done.stderr


def test_a_file_that_is_no_checkpoint_is_named(egs, trained, tmp_path, run_cli):
    path = Path(tmp_path / "final.pt")
    path.write_bytes(os.urandom(100))
    data = egs.parent / "train"
    out = [tmp_path / "x.ark", tmp_path / "x.scp", tmp_path / "x.json"]
    done = run_cli(
        "sv.bin.extract", path, data / "feats.scp", data / "utt2num_frames", *out, check=False
    )
    assert done.returncode == 1 and f"{path}: not a checkpoint" in done.stderr
