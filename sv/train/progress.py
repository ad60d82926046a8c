"""How far a training is and what came of it: sums of an epoch, epochs.tsv, model.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sv.files import replacing
from sv.model_name import parse_model_name
from sv.nnet.xvector import compute_cost
from sv.train.config import TrainConfig, hash_config


@dataclass
class Tally:
    """Sums over the steps of an epoch so far."""

    steps: int = 0
    crops: int = 0
    correct: int = 0
    loss: float = 0.0
    train_s: float = 0.0
    wait_s: float = 0.0

    def describe(self) -> str:
        """Say loss, accuracy, speed and the share of time spent waiting for data."""
        return (
            f"loss {self.loss / self.steps:.3f}, accuracy {100 * self.correct / self.crops:.1f} %, "
            f"{self.crops / self.train_s:.1f} crops/s, "
            f"waiting {100 * self.wait_s / self.train_s:.1f} %"
        )


def write_epoch_table(path: Path, history: list[dict[str, float]]) -> None:
    """Write a line an epoch, tab separated, in the columns of the newest one."""
    columns = list(history[-1])
    with replacing(path) as file:
        file.write("\t".join(columns) + "\n")
        for row in history:
            file.write("\t".join(f"{row[c]:.6g}" if c in row else "" for c in columns) + "\n")


def describe_model(
    name: str,
    config: TrainConfig,
    *,
    input_dim: int,
    speakers: int,
    steps: int,
    history: list[dict[str, float]],
) -> dict[str, Any]:
    """Give what model.json holds: the network, its size and cost, and its epochs.

    Args:
        name: Model name.
        config: Resolved training config.
        input_dim: Features a frame.
        speakers: Classes of the training head.
        steps: Batches that were trained on.
        history: A row an epoch; epoch 0 is the untrained network.
    """
    model = parse_model_name(name)
    cost = compute_cost(model, input_dim, config.crop_frames, config.embedding_dim)
    return {
        "name": name,
        "blocks": model.blocks,
        "channels": model.channels,
        "layers": model.layers,
        "input_dim": input_dim,
        "speakers": speakers,
        "parameters": cost.parameters,
        "parameters_with_head": cost.parameters + speakers * config.embedding_dim,
        "gmac": round(cost.gmac, 6),
        "crop_frames": config.crop_frames,
        "crops_trained": steps * config.optimizer.batch_size,
        "epochs": history,
        "config_sha256": hash_config(config),
    }
