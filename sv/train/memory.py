"""The memory plan of a training: which feature maps it keeps, so that its steps fit the GPU."""

import logging
from collections.abc import Callable, Iterable

import torch
from torch import nn

from sv.data.loader import count_at_once
from sv.errors import UsageError
from sv.nnet.recompute import MODES
from sv.train.config import TRAINING, Phase, Plan
from sv.train.device import AUTOCAST
from sv.train.group import Group

# Of what is free: for cuDNN's workspaces, NCCL's buffers and the allocator's fragmentation. An
# assumption.
RESERVE_BYTES = 1.5e9


def choose_checkpointing(
    plan: Plan,
    build: Callable[[], tuple[nn.Module, nn.Module]],
    input_dim: int,
    *,
    device: torch.device,
    group: Group,
) -> str:
    """Choose which maps are recomputed: as few as fit what the fullest GPU of the group has free.

    A collective call. On a CPU, ``auto`` recomputes nothing, and nothing is refused.

    Args:
        plan: The settings of every step, with the config's ``checkpointing``.
        build: Builds network and head.
        input_dim: Features per frame.
        device: Where this process computes, with nothing on it yet.
        group: The processes that train together.

    Returns:
        A mode of `sv.nnet.recompute`.

    Raises:
        UsageError: None fits, or the one that the config asks for does not.
    """
    asked = plan.config.checkpointing
    if device.type != "cuda":
        return MODES[0] if asked == "auto" else asked
    # Only now: fake tensors are slow to import, and a CPU needs none.
    from sv.nnet.memory import StepModel  # noqa: PLC0415

    free = min(group.gather([torch.cuda.mem_get_info(device)[0]])) - RESERVE_BYTES
    model, half = StepModel(build, input_dim), plan.config.precision in AUTOCAST
    modes = [asked] if asked != "auto" else MODES if model.has_blocks else MODES[:1]
    largest: dict[Phase, int] = {}  # number of crops at once that fit
    batch_size = plan.config.optimizer.batch_size
    for mode in modes:
        needed = 0.0
        for phase in plan.phases:
            # Of two at least: what several processes share is normalised together.
            crops = max(2, count_at_once(batch_size, phase.micro_batch_size, group.size))
            step = model.measure(phase.crop_frames, crops, checkpointing=mode, half=half)
            largest[phase] = step.count_crops(free)
            needed = max(needed, step.total(crops))
        if needed <= free:
            logging.info(
                "checkpointing %s: a step takes %.1f GB of %.1f GB of the GPU, less %.1f GB for "
                "what is not counted", mode, needed / 1e9, (free + RESERVE_BYTES) / 1e9,
                RESERVE_BYTES / 1e9,
            )  # fmt: skip
            return mode
    raise UsageError(
        f"with checkpointing '{mode}' a step takes {needed / 1e9:.1f} GB, and the GPU has "
        f"{free / 1e9:.1f} GB free for it; in train.toml "
        f"{'' if mode == MODES[-1] else 'set checkpointing = auto, or '}"
        f"{', and '.join(_advise(plan, largest, group.size))}"
    )


def _advise(plan: Plan, largest: dict[Phase, int], processes: int) -> Iterable[str]:
    """Yield what to set for each phase that does not fit."""
    batch_size = plan.config.optimizer.batch_size
    for phase, crops in largest.items():
        sizes = [n for n in range(2, phase.micro_batch_size + 1) if batch_size % n == 0]
        fits = [n for n in sizes if count_at_once(batch_size, n, processes) <= crops]
        if fits and fits[-1] == phase.micro_batch_size:
            continue
        key = "micro_batch_size" if phase.name == TRAINING else "fine_tuning.micro_batch_size"
        if fits:
            yield f"set {key} = {fits[-1]} or less ({crops} crops fit)"
        else:
            yield f"shorten the crops: not one of {phase.crop_frames} frames fits on each GPU"
