"""A training of a tiny network in this process, for tests of what it does step by step."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from sv.train.config import read_train_config
from sv.train.group import Group
from sv.train.stopping import Stop, StopConditions
from sv.train.trainer import Trainer

MODEL = "resnet18_d"


@dataclass(frozen=True)
class Run:
    """The results of a run: its folder, its marks, and why it ended early."""

    exp: Path
    marks: list[dict]
    stop: Stop | None

    @property
    def epochs(self) -> list[dict]:
        return json.loads((self.exp / "model.json").read_text())["epochs"]

    def load(self, name: str) -> dict:
        return torch.load(self.exp / name, weights_only=True)

    def get_marks(self, name: str) -> list[dict]:
        return [mark for mark in self.marks if mark["mark"] == name]


def train(small_egs, exp, *, max_steps=None, max_kwh=None, live=None, **changes) -> Run:
    """Train, or resume the training, in ``exp``; ``changes`` are those of train.toml."""
    exp.mkdir(parents=True, exist_ok=True)
    config = read_train_config(small_egs.write_config(exp.parent / "train.toml", **changes))
    marks = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stop = Trainer(
            MODEL,
            config,
            small_egs.egs,
            exp,
            device=torch.device("cpu"),
            mark=lambda mark, **fields: marks.append({"mark": mark, **fields}),
            conditions=StopConditions(live, max_kwh=max_kwh, max_steps=max_steps),
            group=Group(),
        ).run()
    finally:
        torch.set_num_threads(threads)
    return Run(exp, marks, stop)


def assert_same_state(a: dict, b: dict) -> None:
    """Everything that a training resumes from is bit for bit the same."""
    for part in ("net", "head"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])
    assert a["step"] == b["step"] and a["scaler"] == b["scaler"]
