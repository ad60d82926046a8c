"""conf/train.toml: everything that decides what a training computes, and when.

`TrainConfig` is the file, `Plan` what follows from it for every step: phase, crops, learning rate
and margin. A plan is a pure function of the config and the size of the training set. Steps and
epochs are counted from 0 over all phases and nothing is remembered between them, so a resumed
training cannot be off by one.
"""

import hashlib
import math
import re
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w

from sv.config import Minimum, build_config
from sv.data.config import SpecAugmentConfig, TrainingSetConfig
from sv.errors import UsageError
from sv.files import read_toml
from sv.model_name import STUDY_NETWORK, NetworkConfig

TURING = (7, 5)  # no build for CUDA 13 has kernels for older cards (CUDA 13.0, release notes)
AMPERE = (8, 0)  # the compute capability from which on a GPU has bf16 and TF32
BUILDS = "utils/install.sh --cuda auto installs a build for the GPUs of this machine into .venv"
# Settings that change when something is saved or kept, or how it is computed, not what.
NOT_COMPARED = ("checkpoint_minutes", "keep_checkpoints", "checkpointing", "compile")
# Of configs before there was `checkpointing`: whether it was full.
OLD_CHECKPOINTING = "activation_checkpointing"
TRAINING = "training"  # the names of the phases
FINE_TUNING = "fine_tuning"


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent and its schedule; epochs may be fractions."""

    batch_size: Annotated[int, Minimum(1)]
    # Crops in memory at once; a batch is accumulated from these. One has no variance.
    micro_batch_size: Annotated[int, Minimum(2)]
    momentum: Annotated[float, Minimum(0)]
    weight_decay: Annotated[float, Minimum(0)]  # on the embedding network, not on the head
    initial_lr: Annotated[float, Minimum(0)]
    peak_lr: Annotated[float, Minimum(0)]
    warmup_epochs: Annotated[float, Minimum(0)]
    decay_epochs: tuple[float, ...]
    decay_factor: Annotated[float, Minimum(1)]

    def __post_init__(self) -> None:
        """Check the ranges, and that micro-batches fill a batch."""
        if self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        if list(self.decay_epochs) != sorted(self.decay_epochs):
            raise ValueError("decay_epochs must rise")


@dataclass(frozen=True)
class MarginConfig:
    """The head and its margin: 0 to ``start_epoch``, then linear to ``margin`` at ``end_epoch``."""

    scale: float
    margin: Annotated[float, Minimum(0)]  # radians; with head "am": subtracted from the cosine
    start_epoch: Annotated[float, Minimum(0)]
    end_epoch: float
    head: Literal["aam", "am", "sub_centre_aam"] = "aam"  # see sv/nnet/margin.py
    sub_centres: Annotated[int, Minimum(1)] = 3  # a speaker's vectors; of "sub_centre_aam" alone

    @property
    def centres(self) -> int:
        """Weight vectors per speaker."""
        return self.sub_centres if self.head == "sub_centre_aam" else 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.scale < math.inf or self.margin >= math.pi / 2:
            raise ValueError("scale must be above 0 and margin below pi / 2")
        if self.end_epoch < self.start_epoch:
            raise ValueError("end_epoch must not be before start_epoch")


@dataclass(frozen=True)
class FineTuningConfig:
    """A second phase with longer crops and a larger margin, without SpecAugment; 0 epochs: none.

    The learning rate falls by the same factor each step, from ``initial_lr`` to ``final_lr``.
    Source: Thienpondt et al., "The IDLAB VoxSRC-20 submission: large margin fine-tuning and
    quality-aware score calibration in DNN based speaker verification", ICASSP 2021.
    """

    num_epochs: Annotated[int, Minimum(0)] = 0
    crop_frames: Annotated[int, Minimum(1)] = 600
    micro_batch_size: Annotated[int, Minimum(0)] = 0  # they need more memory; 0: as [optimizer]
    margin: Annotated[float, Minimum(0)] = 0.5
    initial_lr: Annotated[float, Minimum(0)] = 1e-4
    final_lr: Annotated[float, Minimum(0)] = 2.5e-5

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.micro_batch_size == 1:
            raise ValueError("micro_batch_size must be at least 2, or 0: as in [optimizer]")
        if self.margin >= math.pi / 2 or 0 in (self.initial_lr, self.final_lr):
            raise ValueError("margin must be below pi / 2, initial_lr and final_lr above 0")


@dataclass(frozen=True)
class TrainConfig:
    """The whole file. ``set`` is read by stage 4, the rest by stage 5."""

    seed: Annotated[int, Minimum(0)]
    num_epochs: Annotated[int, Minimum(1)]
    crop_frames: Annotated[int, Minimum(1)]
    embedding_dim: Annotated[int, Minimum(1)]
    checkpoint_minutes: Annotated[float, Minimum(0)]
    keep_checkpoints: Annotated[int, Minimum(1)]
    set: TrainingSetConfig
    optimizer: OptimizerConfig
    margin: MarginConfig
    specaugment: SpecAugmentConfig
    network: NetworkConfig = STUDY_NETWORK
    # In final.pt: "best" is the epoch of the lowest validation EER.
    final_weights: Literal["last", "best", "average"] = "last"
    average_epochs: Annotated[int, Minimum(1)] = 5  # for "average": the number of last epochs
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"  # of the arithmetic
    # Which maps of a block are recomputed, not kept: sv/nnet/recompute.py; "auto": as few as fit.
    checkpointing: Literal["auto", "none", "selective", "full"] = "auto"
    compile: bool = False  # the network, by torch.compile: the same up to rounding
    fine_tuning: FineTuningConfig = FineTuningConfig()

    def __post_init__(self) -> None:
        """Check the ranges."""
        micro_batch = self.fine_tuning.micro_batch_size
        if micro_batch and self.optimizer.batch_size % micro_batch:
            raise ValueError("batch_size must be a multiple of fine_tuning.micro_batch_size")
        # Within one phase: weights before fine-tuning are not averaged with those after it.
        epochs = self.fine_tuning.num_epochs or self.num_epochs
        if self.final_weights == "average" and self.average_epochs > min(
            epochs, self.keep_checkpoints
        ):
            raise ValueError(
                f"average_epochs ({self.average_epochs}) must not be above num_epochs "
                f"({epochs}) nor keep_checkpoints ({self.keep_checkpoints})"
            )


def read_train_config(path: Path) -> TrainConfig:
    """Read conf/train.toml; errors as `sv.config.read_config`."""
    values = read_toml(path)
    if OLD_CHECKPOINTING in values:
        now = "full" if values[OLD_CHECKPOINTING] else "none"
        raise UsageError(
            f"{path}: {OLD_CHECKPOINTING} has become checkpointing: write checkpointing = '{now}', "
            "or 'auto' for what the GPU's memory needs"
        )
    return build_config(values, TrainConfig, where=str(path))


def build_resolved_config(values: dict[str, Any], *, where: str) -> TrainConfig:
    """Build the config that a training has left, also one from before `checkpointing`.

    A setting that is newer than the training had the meaning of its default.
    """
    values = dict(values)
    if OLD_CHECKPOINTING in values:
        values["checkpointing"] = "full" if values.pop(OLD_CHECKPOINTING) else "none"
    return build_config(values, TrainConfig, where=where)


def validate_processes(config: TrainConfig, processes: int) -> None:
    """Check that this many processes can train together.

    Raises:
        UsageError: They cannot: one has no crop of a batch, or the compiler gives up.
    """
    crops = config.optimizer.batch_size
    if processes > crops:
        raise UsageError(
            f"batch_size ({crops}) is less than the number of processes ({processes}); change "
            "it in train.toml, or start fewer"
        )
    if config.compile and processes > 1:
        raise UsageError(
            f"compile = true is for one process, and here are {processes}; set compile = false in "
            "train.toml, or train on one GPU"
        )


def validate_device(precision: str, ngpu: int) -> None:
    """Check that a training has the GPU that its number format needs.

    Raises:
        UsageError: It has none. A CPU without fp16 emulates it, and hours would become months.
    """
    if ngpu == 0 and precision in ("fp16", "tf32"):
        raise UsageError(
            f"precision '{precision}' needs a GPU; set fp32 or bf16 in train.toml, or --ngpu 1 "
            "where a GPU is"
        )


def validate_precision(precision: str, card: str, capability: tuple[int, int]) -> None:
    """Check that a GPU has a number format.

    Raises:
        UsageError: It does not (NVIDIA, CUDA C programming guide, compute capabilities).
    """
    if precision in ("tf32", "bf16") and capability < AMPERE:
        raise UsageError(f"precision '{precision}': not on {card}; set fp16 or fp32")


def validate_kernels(card: str, capability: tuple[int, int]) -> None:
    """Check, without loading torch, that its build can have kernels for a GPU.

    `sv.train.device.check_gpus` sees the rest of what a build lacks.

    Raises:
        UsageError: It is for CUDA 13, and the card is older than what that knows.
    """
    torch = find_spec("torch")
    if capability >= TURING or torch is None or torch.origin is None:
        return
    path = Path(torch.origin).with_name("version.py")  # cuda: Optional[str] = '13.0'
    found = re.search(r"^cuda\b.*= '(\d+)\.", path.read_text("utf-8"), re.M)
    if found and int(found[1]) >= 13:
        raise UsageError(
            f"{card} has compute capability {capability[0]}.{capability[1]}, and torch here, built "
            f"for CUDA {found[1]}, has no kernels for it; {BUILDS}"
        )


def hash_config(config: TrainConfig) -> str:
    """Return the SHA-256 of the settings that decide what is computed (`NOT_COMPARED` do not)."""
    compared = {key: value for key, value in asdict(config).items() if key not in NOT_COMPARED}
    return hashlib.sha256(tomli_w.dumps(compared).encode()).hexdigest()


def describe_difference(old: dict, new: dict, prefix: str = "") -> list[str]:
    """List the keys in which two `TrainConfig` as dicts differ, as ``key: old -> new``."""
    lines = []
    for key, a in sorted(old.items()):
        if isinstance(a, dict):
            lines += describe_difference(a, new[key], f"{prefix}{key}.")
        elif a != new[key] and (prefix or key not in NOT_COMPARED):
            lines.append(f"{prefix}{key}: {a} -> {new[key]}")
    return lines


@dataclass(frozen=True)
class Phase:
    """Whole epochs whose batches are of one kind."""

    name: str
    first_step: int
    steps: int
    crop_frames: int
    micro_batch_size: int
    specaugment: SpecAugmentConfig | None


@dataclass(frozen=True)
class Plan:
    """The phases of a training, in order, and the settings of every step.

    The settings of a step hold while it is computed.
    """

    config: TrainConfig
    steps_per_epoch: int
    phases: tuple[Phase, ...]

    @property
    def num_epochs(self) -> int:
        """Epochs of all phases."""
        return self.num_steps // self.steps_per_epoch

    @property
    def num_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def find_phase(self, step: int) -> Phase:
        """Return the phase of a step; the last phase for a step after the end."""
        return next((p for p in self.phases if step < p.first_step + p.steps), self.phases[-1])

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then divided at each decay epoch.

        The first step has ``initial_lr``, the first step after the warm-up ``peak_lr``; the first
        step of a decay epoch is the first with the lower rate. In fine-tuning the rate is
        geometric from its first step to its last.
        """
        phase = self.find_phase(step)
        if phase.name == FINE_TUNING:
            fine = self.config.fine_tuning
            share = (step - phase.first_step) / max(1, phase.steps - 1)
            return fine.initial_lr * (fine.final_lr / fine.initial_lr) ** share
        config, epoch = self.config.optimizer, step / self.steps_per_epoch
        if epoch < config.warmup_epochs:
            share = epoch / config.warmup_epochs
            return config.initial_lr + share * (config.peak_lr - config.initial_lr)
        decays = sum(epoch >= decay for decay in config.decay_epochs)
        return config.peak_lr / config.decay_factor**decays

    def margin(self, step: int) -> float:
        """Return the margin of a step: 0, then linear, then constant; fine-tuning has its own."""
        if self.find_phase(step).name == FINE_TUNING:
            return self.config.fine_tuning.margin
        config, epoch = self.config.margin, step / self.steps_per_epoch
        if epoch >= config.end_epoch:
            return config.margin
        if epoch <= config.start_epoch:
            return 0.0
        share = (epoch - config.start_epoch) / (config.end_epoch - config.start_epoch)
        return share * config.margin

    def count_crops(self, phase: Phase, steps: int) -> int:
        """Count the crops of a phase within the first ``steps`` steps of the training."""
        return min(max(0, steps - phase.first_step), phase.steps) * self.config.optimizer.batch_size


def build_plan(config: TrainConfig, steps_per_epoch: int) -> Plan:
    """Plan the training and, if the config has one, its fine-tuning."""
    steps, fine = config.num_epochs * steps_per_epoch, config.fine_tuning
    micro_batch = config.optimizer.micro_batch_size
    phases = [Phase(TRAINING, 0, steps, config.crop_frames, micro_batch, config.specaugment)]
    if fine.num_epochs:
        fine_steps = fine.num_epochs * steps_per_epoch
        micro_batch = fine.micro_batch_size or micro_batch
        phases.append(Phase(FINE_TUNING, steps, fine_steps, fine.crop_frames, micro_batch, None))
    return Plan(config, steps_per_epoch, tuple(phases))
