"""Activation checkpointing: a block's maps are recomputed in the backward pass, not kept.

``selective`` keeps the outputs of convolutions and recomputes what lies between them: no
multiplication is done twice, and memory falls by 40 to 45 %. ``full`` keeps the inputs of blocks
alone: least memory, at the cost of a third more arithmetic. The results are the same: the second
computation sees the batch of the first, and does not count it again in the running statistics of
the normalisations.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

MODES = ("none", "selective", "full")  # the less memory, the more is computed twice


def can_checkpoint(net: nn.Module) -> bool:
    """Whether a part of the network has an attribute ``checkpointing``; see `run_checkpointed`."""
    return any(hasattr(module, "checkpointing") for module in net.modules())


def set_checkpointing(net: nn.Module, mode: str) -> None:
    """Set the mode, one of `MODES`, of all parts of a network that support it.

    A part supports it if it has an attribute ``checkpointing`` and calls `run_checkpointed`; where
    none does, all maps are kept.
    """
    for module in net.modules():
        if hasattr(module, "checkpointing"):
            module.checkpointing = mode


def run_checkpointed(mode: str, block: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Run ``block`` on ``inputs``, keeping of what its gradient needs what ``mode`` says."""
    if mode == MODES[0] or not (block.training and torch.is_grad_enabled()):
        return block(*inputs)
    contexts: dict[str, Any] = {}
    if not torch.compiler.is_compiling():
        contexts["context_fn"] = functools.partial(_build_contexts, mode, block)
    elif mode == "selective":  # a compiled graph counts a batch once by itself
        contexts["context_fn"] = _build_selective_contexts
    # Nothing in a block is random.
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, **contexts)


def _keep_convolutions(_context: object, operation: object, *_: object, **__: object) -> Any:
    is_convolution = operation == torch.ops.aten.convolution.default
    return CheckpointPolicy.MUST_SAVE if is_convolution else CheckpointPolicy.PREFER_RECOMPUTE


_build_selective_contexts = functools.partial(
    create_selective_checkpoint_contexts, _keep_convolutions
)


def _build_contexts(
    mode: str, block: nn.Module
) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
    """Return the contexts of the first and of the second computation of ``block``."""
    first, second = contextlib.nullcontext(), contextlib.nullcontext()
    if mode == "selective":
        first, second = _build_selective_contexts()
    return first, _count_once(block, second)


@contextlib.contextmanager
def _count_once(block: nn.Module, second: contextlib.AbstractContextManager) -> Iterator[None]:
    """Let the normalisations update copies of their statistics in the ``second`` computation."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update((k, b if b is None else b.clone()) for k, b in buffers.items())
    try:
        with second:
            yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
