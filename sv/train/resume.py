"""Whether a training may go on from a checkpoint."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sv.config import build_config
from sv.errors import SvError
from sv.train.config import TrainConfig, describe_difference
from sv.train.egs import Egs
from sv.train.plan import Plan


def check_same_training(
    path: Path, state: dict[str, Any], *, model: str, plan: Plan, egs: Egs
) -> None:
    """Refuse a checkpoint that the training asked for would not have made.

    Args:
        path: The checkpoint, ``exp/<model>/checkpoints/x.pt``.
        state: Its content.
        model: Name of the model asked for.
        plan: What is to be done at each step.
        egs: The training set.

    Raises:
        SvError: Something differs; the message names it, old and new.
    """
    # A setting that is newer than the checkpoint had its default's meaning.
    old = asdict(build_config(state["config"], TrainConfig, where=str(path)))
    differences = describe_difference(old, asdict(plan.config))
    if state["step"] <= plan.phases[0].steps:
        # Nothing of the second phase is done yet: it may still be asked for.
        differences = [line for line in differences if not line.startswith("fine_tuning.")]
    if state["model"] != model:
        differences.append(f"model: {state['model']} -> {model}")
    if state["set_sha256"] != egs.sha256:
        speakers = len(state["head"]["weight"]) // plan.config.margin.centres
        changed = "" if speakers == egs.speakers else f" ({speakers} speakers -> {egs.speakers})"
        differences.append(f"training set: {egs.folder} holds another one{changed}")
    if differences:
        raise SvError(
            f"{path.parents[1]} holds a training with other settings ({'; '.join(differences)}); "
            "give --resume false to move it to .backup and begin again"
        )
