"""The files of one training, and networks built from them, from a name and from a seed.

``checkpoints/epoch_003.pt`` is the state after three epochs, ``last.pt`` one within an epoch,
``best.pt`` a copy of the epoch with the lowest validation EER. ``final.pt`` is the trained
embedding network alone. All are written to a temporary file and renamed, and are loaded with
``weights_only``.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor, nn

from sv.errors import SvError, describe
from sv.files import read_toml, replacing, write_json, write_text
from sv.model_name import BASE_CHANNELS, NetworkConfig, describe_model_name
from sv.nnet.architectures import build_embedding_network, compute_cost
from sv.nnet.margin import MarginHead
from sv.train.config import (
    Plan,
    TrainConfig,
    build_resolved_config,
    describe_difference,
    hash_config,
)
from sv.train.device import choose_memory_format
from sv.train.egs import Egs
from sv.train.group import Group

FORMAT = "xvector/2"
LAST = "last.pt"
BEST = "best.pt"
FINAL = ("final.pt", "model.json")
# What a training and the stages after it leave in the model's folder. Its energy stays, because
# earlier attempts have cost energy too.
OF_A_RUN = (
    "checkpoints", *FINAL, "config.toml", "log/epochs.tsv", "log/tensorboard", "log/train.log.1",
    "xvectors_*", "cohort", "untrained", "scores", "results.json",
)  # fmt: skip

History = list[dict[str, Any]]  # a row per epoch; epoch 0 is the untrained network


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a state of tensors, numbers, strings, lists and dicts."""
    with replacing(path, mode="wb") as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote, to the CPU.

    Raises:
        SvError: No such file, or not a checkpoint of this recipe.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SvError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors for a bad file
        raise SvError(
            f"{path}: not a checkpoint (damaged? {path.stat().st_size} bytes, "
            f"{type(error).__name__}); delete it and run stage 5, which resumes from another one"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise SvError(f"{path}: not a checkpoint of this recipe (format {FORMAT})")
    return state


def build_network(name: str, config: TrainConfig, input_dim: int) -> nn.Module:
    """Build the network as it is before training: the same weights for the same seed."""
    torch.manual_seed(config.seed)
    return build_embedding_network(name, input_dim, config.embedding_dim, config.network)


def build_head(config: TrainConfig, speakers: int) -> MarginHead:
    """Build the training head as it is before training."""
    # With its own seed: the head's size must not change the network's initial weights.
    torch.manual_seed(config.seed + 1)
    margin = config.margin
    return MarginHead(
        config.embedding_dim,
        speakers,
        margin.scale,
        kind=margin.head,
        sub_centres=margin.centres,
    )


def load_network(
    path: Path, device: torch.device, precision: str = "fp32", *, untrained: bool = False
) -> nn.Module:
    """Build the embedding network of a checkpoint or ``final.pt``, ready to embed.

    ``untrained``: as it was before training, from the seed in the config.toml next to it.

    Training on a CPU is contiguous: torch sums the variance of a channels-last batch too roughly
    there (tests/bench/train_step.py).

    Raises:
        SvError: See `load_checkpoint`.
    """
    state = load_checkpoint(path)
    if untrained:
        resolved = path.with_name("config.toml")
        config = build_resolved_config(read_toml(resolved), where=str(resolved))
        net = build_network(state["model"], config, state["input_dim"])
    else:
        net = rebuild_network(state, path)
    return net.to(device, memory_format=choose_memory_format(precision, device)).eval()


def rebuild_network(state: dict[str, Any], path: Path) -> nn.Module:
    """Build the network of a checkpoint or ``final.pt``, loaded from ``path``, with its weights.

    Raises:
        SvError: It holds no network, or another one than it says.
    """
    try:
        # A file of before there was a base has the study's.
        network = NetworkConfig(state["pooling"], tuple(state.get("base_channels", BASE_CHANNELS)))
        net = build_embedding_network(
            state["model"], state["input_dim"], state["embedding_dim"], network
        )
        net.load_state_dict(state["net"])
    except (SvError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise SvError(f"{path}: not a network of this recipe ({describe(error)})") from error
    return net


def epoch_checkpoint(folder: Path, epoch: int) -> Path:
    """Return the name of the checkpoint after ``epoch`` epochs."""
    return folder / f"epoch_{epoch:03d}.pt"


def find_epoch_checkpoints(folder: Path) -> list[Path]:
    """List the epoch checkpoints, oldest first."""
    found = [p for p in folder.glob("epoch_*.pt") if re.fullmatch(r"epoch_\d{3,}\.pt", p.name)]
    return sorted(found, key=lambda p: int(p.stem.removeprefix("epoch_")))


def _load_first(paths: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Load the first checkpoint that can be read, if any; report the others before it."""
    for path in paths:
        try:
            yield path, load_checkpoint(path)
        except SvError as error:
            logging.warning("not used: %s", error)
        else:
            return


class Checkpoints:
    """What one training saves and loads.

    Args:
        exp_dir: Gets config.toml, checkpoints/, final.pt and model.json.
        model: Name of the model.
        plan: The settings of every step.
        egs: The training set.
        group: The processes of this training; the first one writes, all read the same.

    Attributes:
        last_saved: The newest checkpoint of this training, None before the first.
    """

    def __init__(self, exp_dir: Path, *, model: str, plan: Plan, egs: Egs, group: Group) -> None:
        self.exp_dir, self._model, self._plan, self._egs = exp_dir, model, plan, egs
        self._group, self._folder = group, exp_dir / "checkpoints"
        self.last_saved: Path | None = None
        # What `rebuild_network` builds the network from, and its front end.
        self._network = {
            "model": model,
            "input_dim": egs.index.columns,
            "embedding_dim": plan.config.embedding_dim,
            **asdict(plan.config.network),
            "features": egs.features,
        }

    def set_aside(self, backup: Path) -> None:
        """Move an earlier run to a folder; if that is there already, this run has begun since.

        Raises:
            SvError: It cannot be moved.
        """
        if not self._group.is_first or backup.exists():
            return
        part = backup.with_name(f"{backup.name}.part")
        try:
            (part / "log").mkdir(parents=True, exist_ok=True)
            for pattern in OF_A_RUN:
                for path in self.exp_dir.glob(pattern):
                    path.rename(part / path.relative_to(self.exp_dir))
            part.rename(backup)
        except OSError as error:
            raise SvError(f"cannot move {self.exp_dir} to {backup}: {error.strerror}") from error
        logging.info("moved the earlier run to %s", backup)

    def load_latest(self) -> dict[str, Any] | None:
        """Load the most advanced state that can be read; None if there is none.

        Raises:
            SvError: It belongs to another training, or no checkpoint can be read.
        """
        path, state = None, None
        # The first process chooses: another machine may not see the newest file yet.
        if self._group.is_first:
            epochs, last = find_epoch_checkpoints(self._folder)[::-1], [*self._folder.glob(LAST)]
            candidates = [*_load_first(epochs), *_load_first(last)]
            if candidates:
                # Of two at the same step the first: the end of its epoch is done.
                path, state = max(candidates, key=lambda candidate: candidate[1]["step"])
            elif found := [*epochs, *last]:
                raise SvError(
                    f"{found[0]}: not a checkpoint, nor is another one in its folder; --resume "
                    "false moves them to .backup and begins again"
                )
        shared = self._group.share(path and str(path))
        if shared is None:
            return None
        path = Path(shared)
        self.last_saved, state = path, state or load_checkpoint(path)
        self._check_same_training(path, state)
        return state

    def _check_same_training(self, path: Path, state: dict[str, Any]) -> None:
        """Refuse a checkpoint that the requested training would not have made."""
        plan, egs = self._plan, self._egs
        old = asdict(build_resolved_config(state["config"], where=str(path)))
        differences = describe_difference(old, asdict(plan.config))
        if state["step"] <= plan.phases[0].steps:
            # Nothing of the second phase is done yet: it may still be requested.
            differences = [line for line in differences if not line.startswith("fine_tuning.")]
        if state["model"] != self._model:
            differences.append(f"model: {state['model']} -> {self._model}")
        if state["set_sha256"] != egs.sha256:
            old_speakers = len(state["head"]["weight"]) // plan.config.margin.centres
            changed = f" ({old_speakers} speakers -> {egs.speakers})"
            changed = "" if old_speakers == egs.speakers else changed
            differences.append(f"training set: {egs.folder} holds another one{changed}")
        if differences:
            raise SvError(
                f"{self.exp_dir} holds a training with other settings ({'; '.join(differences)}); "
                "give --resume false to move it to .backup and start again"
            )

    def write_config(self) -> None:
        """Write the resolved config, every value written out."""
        if self._group.is_first:
            text = tomli_w.dumps(asdict(self._plan.config))
            write_text(self.exp_dir / "config.toml", text, keep_if_same=True)

    def save_last(self, state: dict[str, Any]) -> None:
        """Save a state within an epoch."""
        self._save(self._folder / LAST, state)

    def save_epoch(self, state: dict[str, Any], epoch: int, *, is_best: bool) -> None:
        """Save the state at the end of an epoch, and remove what it replaces."""
        if is_best:
            # Before the epoch's own checkpoint: killed in between, the epoch is finished again.
            self._save(self._folder / BEST, state)
        self._save(epoch_checkpoint(self._folder, epoch), state)
        if not self._group.is_first:
            return
        (self._folder / LAST).unlink(missing_ok=True)
        config, spared = self._plan.config, set()
        if config.fine_tuning.num_epochs:  # the result of the training proper
            spared.add(config.num_epochs)
        if config.final_weights == "best":  # best.pt may be of an epoch that was done again
            spared.add(_find_best(state["history"]))
        kept = {epoch_checkpoint(self._folder, number) for number in spared}
        for old in find_epoch_checkpoints(self._folder)[: -config.keep_checkpoints]:
            if old not in kept:
                old.unlink()

    def _save(self, path: Path, state: dict[str, Any]) -> None:
        training = {"config": asdict(self._plan.config), "set_sha256": self._egs.sha256}
        if self._group.is_first:
            save_checkpoint(path, {**self._network, **training, **state})
        self.last_saved = path

    def is_finished(self) -> bool:
        """Whether the final files exist."""
        return self._group.share(all((self.exp_dir / name).exists() for name in FINAL))

    def save_final(self, steps: int, history: History) -> None:
        """Write final.pt and model.json after ``steps`` steps, from the checkpoints.

        model.json describes the network, its size and cost, and what it was trained on.

        Raises:
            SvError: A checkpoint that ``final_weights`` needs does not exist.
        """
        if not self._group.is_first:
            return
        plan, config, egs = self._plan, self._plan.config, self._egs
        net, epochs = choose_final(self._folder, config, history)
        save_checkpoint(self.exp_dir / FINAL[0], {**self._network, "net": net})
        crops = {phase.name: plan.count_crops(phase, steps) for phase in plan.phases}
        parameters, gmac = compute_cost(
            self._model, egs.index.columns, config.crop_frames, config.embedding_dim,
            config.network,
        )  # fmt: skip
        head = egs.speakers * config.margin.centres * config.embedding_dim
        info = {
            "name": self._model,
            **describe_model_name(self._model, config.network),
            **asdict(config.network),
            "head": config.margin.head,
            "input_dim": egs.index.columns,
            "features": egs.features,
            "speakers": egs.speakers,
            "parameters": parameters,
            "parameters_with_head": parameters + head,
            "gmac": round(gmac, 6),
            "crop_frames": config.crop_frames,
            "checkpointing": config.checkpointing,
            "crops_trained": sum(crops.values()),
            "crops_by_phase": crops,
            "epochs": history,
            "config_sha256": hash_config(config),
            "final_epochs": epochs,
        }
        write_json(self.exp_dir / FINAL[1], info)


def choose_final(
    folder: Path, config: TrainConfig, history: History
) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """Choose the weights of ``final.pt`` as ``config.final_weights`` says.

    Args:
        folder: The folder of the epoch checkpoints and of ``best.pt``.
        config: Resolved training config.
        history: Rows with ``epoch`` and ``valid_eer_percent``; epoch 0 is never chosen.

    Returns:
        The weights, a state dict on the CPU, and the epochs that they come from.

    Raises:
        SvError: A checkpoint that is needed does not exist, or is not one of this recipe.
    """
    if config.final_weights == "best":
        epoch = _find_best(history)
        kept = epoch_checkpoint(folder, epoch)
        state = load_checkpoint(kept if kept.is_file() else folder / BEST)
        if state["history"][-1]["epoch"] != epoch:
            raise SvError(
                f"{folder}: final_weights 'best' needs {kept.name}, and {BEST} is of another "
                "epoch; give --resume false to train again"
            )
        return state["net"], (epoch,)
    wanted = config.average_epochs if config.final_weights == "average" else 1
    end = int(history[-1]["epoch"])  # fine-tuning has epochs beyond config.num_epochs
    epochs = tuple(range(end - wanted + 1, end + 1))
    paths = [epoch_checkpoint(folder, epoch) for epoch in epochs]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise SvError(
            f"{folder}: final_weights '{config.final_weights}' needs {', '.join(missing)}; "
            "give --resume false to train again"
        )
    return average_weights(paths), epochs


def _find_best(history: History) -> int:
    """Return the epoch of the lowest validation EER, the first of several."""
    best = min(history[1:], key=lambda row: (row["valid_eer_percent"], row["epoch"]))
    return int(best["epoch"])


def average_weights(paths: list[Path]) -> dict[str, Tensor]:
    """Average the embedding networks of checkpoints, one file in memory at a time.

    Sums are float64. The running means and variances of the normalisations are averaged like the
    weights: near the end of a training they differ little, and exact ones would need another
    pass over the data. Counters (batches seen) are the last checkpoint's.

    Raises:
        SvError: See `load_checkpoint`.
    """
    total: dict[str, Tensor] = {}
    for path in paths:
        net = load_checkpoint(path)["net"]
        for key, value in net.items():
            if not value.is_floating_point():
                total[key] = value
            elif key in total:
                total[key] += value
            else:
                total[key] = value.to(torch.float64)
    return {
        key: (value / len(paths)).to(net[key].dtype) if value.is_floating_point() else value
        for key, value in total.items()
    }
