"""Learning rate and margin as pure functions of the step.

A step is counted from 0 over the whole training and its values hold while it is computed; nothing
is remembered, so a resumed training cannot be off by one.
"""

from sv.train.config import FineTuningConfig, MarginConfig, OptimizerConfig


def learning_rate(step: int, steps_per_epoch: int, config: OptimizerConfig) -> float:
    """Learning rate of a step: linear warm-up, then divided at each decay epoch.

    The first step has ``initial_lr``, the first step after the warm-up ``peak_lr``; the first step
    of decay epoch e is the first with the lower rate.
    """
    epoch = step / steps_per_epoch
    if epoch < config.warmup_epochs:
        share = epoch / config.warmup_epochs
        return config.initial_lr + share * (config.peak_lr - config.initial_lr)
    decays = sum(epoch >= decay for decay in config.decay_epochs)
    return config.peak_lr / config.decay_factor**decays


def margin(step: int, steps_per_epoch: int, config: MarginConfig) -> float:
    """Margin of a step in radians: 0, then linear, then ``config.margin``."""
    epoch = step / steps_per_epoch
    if epoch >= config.end_epoch:
        return config.margin
    if epoch <= config.start_epoch:
        return 0.0
    share = (epoch - config.start_epoch) / (config.end_epoch - config.start_epoch)
    return share * config.margin


def fine_tuning_rate(step: int, steps: int, config: FineTuningConfig) -> float:
    """Learning rate of a step of fine-tuning, counted from its first: geometric to the last."""
    share = step / max(1, steps - 1)
    return config.initial_lr * (config.final_lr / config.initial_lr) ** share
