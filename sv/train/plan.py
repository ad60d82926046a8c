"""What a training does at each step: its phases, and in them crops, learning rate and margin.

A plan is a pure function of the config and the size of the training set. A step is counted from 0
over all phases, an epoch likewise, so whoever resumes at a step does what was planned for it.
"""

from dataclasses import dataclass

from sv.data.loader import SpecAugmentConfig
from sv.train.config import TrainConfig
from sv.train.schedule import fine_tuning_rate, learning_rate, margin

TRAINING, FINE_TUNING = "training", "fine_tuning"


@dataclass(frozen=True)
class Phase:
    """A stretch of whole epochs whose batches are of one kind."""

    name: str
    first_step: int
    steps: int
    crop_frames: int
    micro_batch_size: int
    specaugment: SpecAugmentConfig | None


@dataclass(frozen=True)
class Plan:
    """The phases of a training, in order."""

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
        """Give the phase of a step; behind the last step the last phase."""
        return next((p for p in self.phases if step < p.first_step + p.steps), self.phases[-1])

    def learning_rate(self, step: int) -> float:
        """Give the learning rate that holds while a step is computed."""
        phase = self.find_phase(step)
        if phase.name == FINE_TUNING:
            return fine_tuning_rate(step - phase.first_step, phase.steps, self.config.fine_tuning)
        return learning_rate(step, self.steps_per_epoch, self.config.optimizer)

    def margin(self, step: int) -> float:
        """Give the margin that holds while a step is computed."""
        if self.find_phase(step).name == FINE_TUNING:
            return self.config.fine_tuning.margin
        return margin(step, self.steps_per_epoch, self.config.margin)

    def count_crops(self, phase: Phase, steps: int) -> int:
        """Count the crops that a phase has trained on after ``steps`` steps of the training."""
        return min(max(0, steps - phase.first_step), phase.steps) * self.config.optimizer.batch_size


def build_plan(config: TrainConfig, steps_per_epoch: int) -> Plan:
    """Plan the training and, if the config asks for it, its fine-tuning."""
    steps = config.num_epochs * steps_per_epoch
    micro_batch = config.optimizer.micro_batch_size
    phases = [Phase(TRAINING, 0, steps, config.crop_frames, micro_batch, config.specaugment)]
    fine = config.fine_tuning
    if fine.num_epochs:
        phases.append(
            Phase(
                FINE_TUNING,
                steps,
                fine.num_epochs * steps_per_epoch,
                fine.crop_frames,
                fine.micro_batch_size or micro_batch,
                None,
            )
        )
    return Plan(config, steps_per_epoch, tuple(phases))
