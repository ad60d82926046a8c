"""Heads and poolings by config, and which weights end in final.pt: through real trainings."""

import json
import shutil
import sys

import pytest
import torch
from conftest import call

from sv.errors import SvError, UsageError
from sv.train.config import read_train_config
from sv.train.store import choose_final, load_network

MODEL = "resnet18_w0.25"


def load(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def train(small_egs, tmp_path_factory):
    """Train with changes of the config; gives the model's folder."""

    def run(model=MODEL, **changes):
        root = tmp_path_factory.mktemp("exp")
        config = small_egs.write_config(root / "train.toml", **changes)
        exp = root / model
        argv = ["--model", model, "--config", config, small_egs.egs, exp]
        done = call([sys.executable, "-m", "sv.bin.train", *argv], timeout=60)
        assert done.returncode == 0, done.stderr
        return exp

    return run


@pytest.mark.parametrize(
    ("network", "head", "centres"),
    [
        ({}, {}, 1),
        ({"pooling": "mean_std"}, {"head": "am"}, 1),
        ({"pooling": "asp"}, {"head": "sub_centre_aam", "sub_centres": 2}, 2),
    ],
)
def test_parts_are_chosen_by_config(train, network, head, centres):
    exp = train(network=network, margin=head)
    info, final = json.loads((exp / "model.json").read_text()), load(exp / "final.pt")
    assert info["pooling"] == final["pooling"] == network.get("pooling", "asp")
    assert info["head"] == head.get("head", "aam")
    attention = [key for key in final["net"] if key.startswith("pooling.attention")]
    assert bool(attention) == (info["pooling"] == "asp")
    state = load(exp / "checkpoints" / "epoch_002.pt")
    assert state["head"]["weight"].shape == (12 * centres, 16)
    assert info["parameters_with_head"] - info["parameters"] == 12 * centres * 16
    # The schedule of tests/egs/tiny: 0 to 0.2 over two epochs of ten steps or so, at the last step.
    margins = [row["margin"] for row in info["epochs"][1:]]
    steps = state["step"]
    assert margins == pytest.approx([0.2 * (steps / 2 - 1) / steps, 0.2 * (steps - 1) / steps])


@pytest.fixture(scope="module")
def averaged(train):
    return train(final_weights="average", average_epochs=3, num_epochs=4, keep_checkpoints=3)


def test_the_average_is_of_weights_and_running_statistics(averaged):
    exp = averaged
    final = load(exp / "final.pt")["net"]
    states = [load(exp / "checkpoints" / f"epoch_00{n}.pt")["net"] for n in (2, 3, 4)]
    for key, value in final.items():
        expected = states[2][key]
        if value.is_floating_point():
            expected = sum(state[key].double() for state in states).div(3).float()
        assert torch.equal(value, expected), key
    assert not torch.equal(final["linear.weight"], states[2]["linear.weight"])
    assert json.loads((exp / "model.json").read_text())["final_epochs"] == [2, 3, 4]


def test_the_best_epoch_is_kept_and_chosen(train):
    exp = train(final_weights="best", num_epochs=3, keep_checkpoints=1)
    info = json.loads((exp / "model.json").read_text())
    eers = {row["epoch"]: row["valid_eer_percent"] for row in info["epochs"][1:]}
    best = min(eers, key=lambda epoch: (eers[epoch], epoch))
    assert info["final_epochs"] == [best]
    state = load(exp / "checkpoints" / "best.pt")
    assert state["step"] == best * 10
    final = load(exp / "final.pt")["net"]
    assert all(torch.equal(state["net"][key], value) for key, value in final.items())
    kept = {path.name for path in (exp / "checkpoints").glob("epoch_*")}
    assert kept == {f"epoch_{epoch:03}.pt" for epoch in (best, 3)}
    # best.pt is of an epoch that was done again, and came out worse.
    history, other = info["epochs"], best % 3 + 1
    history[other]["valid_eer_percent"] = 0.0
    (exp / "checkpoints" / f"epoch_{other:03}.pt").unlink(missing_ok=True)
    with pytest.raises(SvError, match=f"needs epoch_{other:03}.pt, and best.pt is of another"):
        choose_final(exp / "checkpoints", read_train_config(exp / "config.toml"), history)


def test_a_checkpoint_that_is_needed_and_gone_is_named(averaged, tmp_path):
    shutil.copytree(averaged, tmp_path / "exp")
    exp = tmp_path / "exp"
    config = read_train_config(exp / "config.toml")
    history = json.loads((exp / "model.json").read_text())["epochs"]
    assert choose_final(exp / "checkpoints", config, history)[1] == (2, 3, 4)
    (exp / "checkpoints" / "epoch_003.pt").unlink()
    with pytest.raises(SvError, match=r"'average' needs epoch_003\.pt"):
        choose_final(exp / "checkpoints", config, history)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_weights": "mean"}, "final_weights must be one of last, best, average"),
        ({"final_weights": "average"}, "average_epochs (5) must not be above num_epochs (2)"),
        ({"network": {"pooling": "max"}}, "pooling must be one of asp, mean_std, not 'max'"),
        ({"network": {"poolin": "asp"}}, "did you mean 'pooling'"),
        ({"network": {"base_channels": [8, 16, 16]}}, "the feature maps of four stages"),
        ({"network": {"base_channels": [8, 8, 16, 0]}}, "the feature maps of four stages"),
        ({"network": {"base_channels": 8}}, "base_channels must be a list"),
        ({"margin": {"head": "softmax"}}, "head must be one of aam, am, sub_centre_aam"),
        ({"margin": {"sub_centres": 0}}, "sub_centres must be at least 1"),
    ],
)
def test_a_wrong_part_is_refused(small_egs, tmp_path, changes, message):
    config = small_egs.write_config(tmp_path / "train.toml", **changes)
    with pytest.raises(UsageError) as error:
        read_train_config(config)
    assert message in str(error.value) and str(config) in str(error.value)


STUDY_BASE = [128, 128, 256, 256]


def test_the_base_is_the_recipes_and_a_file_without_it_has_the_studys(train, small_egs, tmp_path):
    """As f8b4a44 wrote them, whose width alone made a network small."""
    exp = train(model="resnet18_w0.015625", network={"base_channels": STUDY_BASE})
    info, final = json.loads((exp / "model.json").read_text()), load(exp / "final.pt")
    assert (info["base_channels"], info["channels"]) == (STUDY_BASE, [2, 2, 4, 4])
    same = train()
    small = json.loads((same / "model.json").read_text())
    assert (small["base_channels"], small["channels"]) == ([8, 8, 16, 16], [2, 2, 4, 4])
    for key in ("parameters", "gmac"):  # the same network, by two names
        assert small[key] == info[key]
    assert list(final.pop("base_channels")) == STUDY_BASE
    torch.save(final, tmp_path / "final.pt")
    old = load_network(tmp_path / "final.pt", torch.device("cpu"))
    for key, value in load(same / "final.pt")["net"].items():
        assert torch.equal(old.state_dict()[key], value)


def test_a_training_with_another_base_is_refused(train, small_egs, tmp_path):
    exp = train()
    config = small_egs.write_config(tmp_path / "c.toml", network={"base_channels": [16] * 4})
    argv = ["--model", exp.name, "--config", config, small_egs.egs, exp]
    done = call([sys.executable, "-m", "sv.bin.train", *argv], timeout=60)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "network.base_channels: (8, 8, 16, 16) -> (16, 16, 16, 16)" in done.stderr
