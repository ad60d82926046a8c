"""Activation checkpointing: a block's maps are recomputed in the backward pass, not kept.

Memory then holds the maps between the blocks and those of one block, at the cost of a third more
arithmetic. The results are the same: the second computation sees the batch of the first, and does
not count it again in the running statistics of the normalisations.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from sv.errors import UsageError


def set_checkpointing(net: nn.Module, enabled: bool) -> None:
    """Switch activation checkpointing in all parts of a network that support it.

    A part supports it if it has an attribute ``checkpointing`` and calls `run_checkpointed`.

    Raises:
        UsageError: It is to be switched on and no part supports it.
    """
    parts = [module for module in net.modules() if hasattr(module, "checkpointing")]
    if enabled and not parts:
        raise UsageError("activation_checkpointing: this network has no blocks to recompute")
    for part in parts:
        part.checkpointing = enabled


def run_checkpointed(block: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Run ``block`` on ``inputs`` without keeping what its gradient needs."""
    return checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _keep_statistics(block)),
        preserve_rng_state=False,  # nothing in a block is random
    )


@contextlib.contextmanager
def _keep_statistics(block: nn.Module) -> Iterator[None]:
    """Let the normalisations of ``block`` update copies of their running statistics."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update((k, b if b is None else b.clone()) for k, b in buffers.items())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
