"""Which weights of a training become ``final.pt``: the last, the best, or an average."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sv.errors import SvError
from sv.train.checkpoint import epoch_checkpoint, find_epoch_checkpoints, load_checkpoint
from sv.train.config import TrainConfig

BEST = "best.pt"  # in checkpoints/: a copy of the epoch with the lowest validation EER


@dataclass(frozen=True)
class FinalWeights:
    """The chosen weights (a state dict on the CPU) and the epochs that they are of."""

    net: dict[str, Tensor]
    epochs: tuple[int, ...]


def choose_final(
    checkpoints: Path, config: TrainConfig, history: list[dict[str, Any]]
) -> FinalWeights:
    """Choose the weights of ``final.pt`` as ``config.final_weights`` says.

    Args:
        checkpoints: Folder of the epoch checkpoints and of ``best.pt``.
        config: Resolved training config.
        history: A row an epoch with ``epoch`` and ``valid_eer_percent``; epoch 0 is the untrained
            network, which is never chosen.

    Raises:
        SvError: A checkpoint that is needed is not there, or not one of ours.
    """
    if config.final_weights == "best":
        epoch = min(history[1:], key=lambda row: (row["valid_eer_percent"], row["epoch"]))["epoch"]
        kept = epoch_checkpoint(checkpoints, int(epoch))
        path = kept if kept.is_file() else checkpoints / BEST
        return FinalWeights(load_checkpoint(path)["net"], (epoch,))
    paths = find_epoch_checkpoints(checkpoints)
    wanted = config.average_epochs if config.final_weights == "average" else 1
    end = int(history[-1]["epoch"])  # fine-tuning has epochs beyond config.num_epochs
    last = range(end - wanted + 1, end + 1)
    missing = [p.name for e in last if (p := epoch_checkpoint(checkpoints, e)) not in paths]
    if missing:
        raise SvError(
            f"{checkpoints}: final_weights '{config.final_weights}' needs {', '.join(missing)}; "
            "give --resume false to train again"
        )
    return FinalWeights(average_weights(paths[-wanted:]), tuple(last))


def average_weights(paths: list[Path]) -> dict[str, Tensor]:
    """Average the embedding networks of checkpoints, one file in memory at a time.

    Sums are float64. The running means and variances of the normalisations are averaged as the
    weights are: near the end of a training they differ little, and exact ones would take another
    pass over the data. What counts (batches seen) is the last checkpoint's.

    Raises:
        SvError: See `sv.train.checkpoint.load_checkpoint`.
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
