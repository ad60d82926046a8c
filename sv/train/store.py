"""The files of one training: checkpoints while it runs, final.pt and model.json at its end."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sv.files import write_json, write_text
from sv.train.average import BEST, choose_final
from sv.train.checkpoint import (
    epoch_checkpoint,
    find_latest,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from sv.train.config import format_resolved
from sv.train.egs import Egs
from sv.train.group import Group
from sv.train.network import describe_network
from sv.train.plan import Plan
from sv.train.progress import describe_model
from sv.train.resume import check_same_training

LAST = "last.pt"  # in checkpoints/: a state within an epoch
FINAL = ("final.pt", "model.json")


class Store:
    """What is saved and found again.

    Args:
        exp_dir: Gets config.toml, checkpoints/, final.pt and model.json.
        model: Name of the model.
        plan: What is done at each step.
        egs: The training set.
        group: The processes of this training; the first one writes, all read the same.

    Attributes:
        last_saved: The newest checkpoint of this training, None before the first.
    """

    def __init__(self, exp_dir: Path, *, model: str, plan: Plan, egs: Egs, group: Group) -> None:
        self.exp_dir, self._model, self._plan, self._egs = exp_dir, model, plan, egs
        self._group = group
        self._checkpoints = exp_dir / "checkpoints"
        self.last_saved: Path | None = None

    def load_latest(self) -> dict[str, Any] | None:
        """Load the state that is furthest on, None if there is none.

        Raises:
            SvError: It is of another training, or not readable.
        """
        # The first process chooses: the folder of another machine may not yet show the newest.
        found = find_latest(self._checkpoints) if self._group.is_first else None
        path = self._group.share(found and found[0])
        if path is None:
            return None
        self.last_saved, state = found or (path, load_checkpoint(path))
        check_same_training(path, state, model=self._model, plan=self._plan, egs=self._egs)
        return state

    def write_config(self) -> None:
        """Write the resolved config."""
        if self._group.is_first:
            text = format_resolved(self._plan.config)
            write_text(self.exp_dir / "config.toml", text, keep_if_same=True)

    def save_last(self, state: dict[str, Any]) -> None:
        """Save a state within an epoch."""
        self._save(LAST, state)

    def save_epoch(self, state: dict[str, Any], epoch: int, *, is_best: bool) -> None:
        """Save the state at the end of an epoch, and remove what it replaces."""
        if is_best:
            # Before the epoch's own checkpoint: killed in between, the epoch is finished again.
            self._save(BEST, state)
        self._save(epoch_checkpoint(self._checkpoints, epoch).name, state)
        if not self._group.is_first:
            return
        (self._checkpoints / LAST).unlink(missing_ok=True)
        config = self._plan.config
        # The state before fine-tuning stays: it is the result of the training proper.
        spared = config.num_epochs if config.fine_tuning.num_epochs else None
        remove_old_checkpoints(self._checkpoints, config.keep_checkpoints, spared)

    def _save(self, name: str, state: dict[str, Any]) -> None:
        more = {"config": asdict(self._plan.config), "set_sha256": self._egs.sha256}
        path = self._checkpoints / name
        if self._group.is_first:
            save_checkpoint(path, {**self._describe_network(), **more, **state})
        self.last_saved = path

    def is_finished(self) -> bool:
        """Whether the final files are there."""
        return self._group.share(all((self.exp_dir / name).exists() for name in FINAL))

    def save_final(self, step: int, history: list[dict[str, float]]) -> None:
        """Write final.pt and model.json from the checkpoints.

        Raises:
            SvError: A checkpoint that ``final_weights`` asks for is not there.
        """
        if not self._group.is_first:
            return
        chosen = choose_final(self._checkpoints, self._plan.config, history)
        save_checkpoint(self.exp_dir / FINAL[0], {**self._describe_network(), "net": chosen.net})
        info = describe_model(
            self._model,
            self._plan,
            input_dim=self._egs.index.columns,
            speakers=self._egs.speakers,
            steps=step,
            history=history,
        )
        write_json(self.exp_dir / FINAL[1], {**info, "final_epochs": chosen.epochs})

    def _describe_network(self) -> dict[str, Any]:
        egs = self._egs
        return describe_network(self._model, self._plan.config, egs.index.columns, egs.features)
