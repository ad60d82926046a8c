"""How far a training is and what came of it: sums of an epoch, epochs.tsv, model.json."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sv.files import replacing
from sv.model_name import describe_model_name
from sv.nnet.architectures import compute_cost
from sv.train.config import hash_config
from sv.train.gauge import CropEnergy
from sv.train.plan import Plan


@dataclass
class Tally:
    """Sums over the steps of an epoch so far; energy is of ``metered_crops`` of the crops."""

    steps: int = 0
    crops: int = 0
    correct: int = 0
    loss: float = 0.0
    train_s: float = 0.0
    wait_s: float = 0.0
    energy_j: float = 0.0
    measured_j: float = 0.0
    metered_crops: int = 0

    def add_energy(self, energy: CropEnergy | None) -> None:
        """Add the energy of some of the crops, if it is known."""
        if energy is not None:
            self.energy_j += energy.energy_j
            self.measured_j += energy.measured_j
            self.metered_crops += energy.crops

    def since(self, earlier: "Tally") -> "Tally":
        """Give the sums over what came after ``earlier``."""
        before = asdict(earlier)
        return Tally(**{key: value - before[key] for key, value in asdict(self).items()})

    def compute_figures(self) -> dict[str, float]:
        """Give loss, accuracy, speed, the share of time spent waiting for data, J per crop.

        A figure of energy is left out where no energy is known.
        """
        figures = {
            "loss": self.loss / self.steps,
            "accuracy_percent": 100 * self.correct / self.crops,
            "crops_per_s": self.crops / self.train_s,
            "wait_percent": 100 * self.wait_s / self.train_s,
        }
        if self.metered_crops and self.energy_j > 0:
            figures["j_per_crop"] = self.energy_j / self.metered_crops
            figures["energy_measured_fraction"] = self.measured_j / self.energy_j
        return figures

    def describe(self) -> str:
        """Say the figures in words."""
        figures = self.compute_figures()
        words = (
            f"loss {figures['loss']:.3f}, accuracy {figures['accuracy_percent']:.1f} %, "
            f"{figures['crops_per_s']:.1f} crops/s, waiting {figures['wait_percent']:.1f} %"
        )
        if "j_per_crop" in figures:
            measured = figures["energy_measured_fraction"]
            kind = "estimated" if measured == 0 else f"{100 * measured:.0f} % measured"
            words += f", {figures['j_per_crop']:.3g} J/crop ({kind})"
        return words


# The columns of epochs.tsv, in order; a column that no epoch has is left out.
COLUMNS = (
    "epoch", "loss", "accuracy_percent", "valid_eer_percent", "learning_rate", "margin",
    "crops_per_s", "wait_percent", "j_per_crop", "energy_measured_fraction", "train_s", "valid_s",
    "memory_mb", "gpu_memory_mb",
)  # fmt: skip


def write_epoch_table(path: Path, history: list[dict[str, float]]) -> None:
    """Write a line an epoch, tab separated; what is not known is an empty cell."""
    columns = [name for name in COLUMNS if any(name in row for row in history)]
    with replacing(path) as file:
        file.write("\t".join(columns) + "\n")
        for row in history:
            file.write("\t".join(f"{row[c]:.6g}" if c in row else "" for c in columns) + "\n")


def describe_model(
    name: str,
    plan: Plan,
    *,
    input_dim: int,
    speakers: int,
    steps: int,
    history: list[dict[str, float]],
) -> dict[str, Any]:
    """Give what model.json holds: the network, its size and cost, and its epochs.

    Args:
        name: Model name.
        plan: What was done at each step.
        input_dim: Features a frame.
        speakers: Classes of the training head.
        steps: Batches that were trained on.
        history: A row an epoch; epoch 0 is the untrained network.
    """
    config = plan.config
    pooling, margin = config.network.pooling, config.margin
    crops = {phase.name: plan.count_crops(phase, steps) for phase in plan.phases}
    cost = compute_cost(name, input_dim, config.crop_frames, config.embedding_dim, pooling)
    return {
        "name": name,
        **describe_model_name(name),
        "pooling": pooling,
        "head": margin.head,
        "input_dim": input_dim,
        "speakers": speakers,
        "parameters": cost.parameters,
        "parameters_with_head": cost.parameters + speakers * margin.centres * config.embedding_dim,
        "gmac": round(cost.gmac, 6),
        "crop_frames": config.crop_frames,
        "crops_trained": sum(crops.values()),
        "crops_by_phase": crops,
        "epochs": history,
        "config_sha256": hash_config(config),
    }
