"""conf/train.toml: everything that decides what a training computes."""

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import tomli_w

from sv.config import at_least, read_config
from sv.data.loader import SpecAugmentConfig
from sv.data.training_set import TrainingSetConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent and its schedule; epochs may be fractions."""

    batch_size: int
    micro_batch_size: int  # crops at once; a batch is accumulated from these
    momentum: float
    weight_decay: float  # on the embedding network, not on the head
    initial_lr: float
    peak_lr: float
    warmup_epochs: float
    decay_epochs: tuple[float, ...]
    decay_factor: float

    def __post_init__(self) -> None:
        """Check the ranges, and that micro-batches fill a batch."""
        at_least(self, 1, "micro_batch_size", "decay_factor")
        at_least(self, 0, "momentum", "weight_decay", "initial_lr", "peak_lr", "warmup_epochs")
        if self.batch_size < 1 or self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        if list(self.decay_epochs) != sorted(self.decay_epochs):
            raise ValueError("decay_epochs must rise")


@dataclass(frozen=True)
class MarginConfig:
    """Additive angular margin: 0 to ``start_epoch``, then linear to ``margin`` at ``end_epoch``."""

    scale: float
    margin: float
    start_epoch: float
    end_epoch: float

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 0, "margin", "start_epoch")
        if not 0 < self.scale < math.inf or self.margin >= math.pi / 2:
            raise ValueError("scale must be above 0 and margin below pi / 2")
        if self.end_epoch < self.start_epoch:
            raise ValueError("end_epoch must not be before start_epoch")


@dataclass(frozen=True)
class TrainConfig:
    """The whole file. ``set`` is read by stage 4, the rest by stage 5."""

    seed: int
    num_epochs: int
    crop_frames: int
    embedding_dim: int
    checkpoint_minutes: float
    keep_checkpoints: int
    set: TrainingSetConfig
    optimizer: OptimizerConfig
    margin: MarginConfig
    specaugment: SpecAugmentConfig

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "num_epochs", "crop_frames", "embedding_dim", "keep_checkpoints")
        at_least(self, 0, "seed", "checkpoint_minutes")


def read_train_config(path: Path) -> TrainConfig:
    """Read conf/train.toml; errors as `sv.config.read_config`."""
    return read_config(path, TrainConfig)


def format_resolved(config: TrainConfig) -> str:
    """Give the config as TOML, every value written out."""
    return tomli_w.dumps(asdict(config))


# Settings that change when something is saved, not what is computed.
NOT_COMPARED = ("checkpoint_minutes", "keep_checkpoints")


def hash_config(config: TrainConfig) -> str:
    """Give the SHA-256 of what a config makes a training compute."""
    compared = {key: value for key, value in asdict(config).items() if key not in NOT_COMPARED}
    return hashlib.sha256(tomli_w.dumps(compared).encode()).hexdigest()


def describe_difference(old: dict, new: dict, prefix: str = "") -> list[str]:
    """List the keys in which two resolved configs differ, as ``key: old -> new``."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        if not prefix and key in NOT_COMPARED:
            continue
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += describe_difference(a, b, f"{prefix}{key}.")
        elif (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b):
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines
