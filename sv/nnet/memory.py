"""What a training step takes of memory, computed without a GPU and without the memory.

The step itself, forward and backward, is run on torch's fake tensors (shapes on the meta device
that say they are on the CPU), and the storages alive are added up. What a card needs besides, its
context, the workspaces of convolutions and the holes of the allocator, is not in it.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from sv.nnet.recompute import can_checkpoint, set_checkpointing

COPY_BYTES = 4  # of a weight, its gradient or its momentum: float32


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step: ``fixed`` and ``crop`` for each crop of the micro-batch."""

    fixed: int
    crop: float

    def total(self, crops: int) -> float:
        """Return the bytes of a step with micro-batches of ``crops``."""
        return self.fixed + crops * self.crop

    def count_crops(self, available: float) -> int:
        """Return the largest micro-batch that fits into ``available`` bytes."""
        return max(0, int((available - self.fixed) // self.crop))


class StepModel:
    """A network and its head without data, whose training step can be measured.

    Args:
        build: Builds both.
        input_dim: Features per frame.
    """

    def __init__(self, build: Callable[[], tuple[nn.Module, nn.Module]], input_dim: int) -> None:
        self._mode, self._input_dim = _CountingMode(), input_dim
        with self._mode:
            self._net, self._head = build()

    @property
    def has_blocks(self) -> bool:
        """Whether the network has blocks to recompute."""
        return can_checkpoint(self._net)

    def measure(
        self, frames: int, crops: int, *, checkpointing: str, half: bool = False
    ) -> StepMemory:
        """Measure a step with micro-batches of ``crops``; exact for this size.

        Args:
            frames: Of a crop.
            crops: Of a micro-batch.
            checkpointing: A mode of `sv.nnet.recompute`.
            half: Whether convolutions and linear layers compute in half precision.
        """
        set_checkpointing(self._net, checkpointing)
        modules, mode = (self._net, self._head), self._mode
        mode.peak = mode.alive
        with mode:
            x, speakers = torch.empty(crops, frames, self._input_dim), torch.zeros(crops).long()
            with torch.autocast("cpu", torch.float16, enabled=half):
                loss, _ = self._head(self._net.train()(x), speakers, 0.1)
            loss.backward()
        del x, speakers, loss, _
        parameters = [p for module in modules for p in module.parameters()]
        for parameter in parameters:
            parameter.grad = None
        copy = COPY_BYTES * sum(p.numel() for p in parameters)
        fixed = mode.alive + 2 * copy  # gradients and momentum
        return StepMemory(fixed, (mode.peak + copy - fixed) / crops)


class _CountingMode(FakeTensorMode):
    """Fake tensors whose bytes are counted while their storages live."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = self._depth = 0
        self._storages: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._depth += 1
        try:
            result = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._depth -= 1
        # Shapes may be found by other operations, whose results no kernel stores.
        if not self._depth:
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def release(_: weakref.ref) -> None:
            del self._storages[key]
            self.alive -= size

        self._storages[key] = weakref.ref(storage, release)
        self.alive += size
        self.peak = max(self.peak, self.alive)
