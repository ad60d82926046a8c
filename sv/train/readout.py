"""Losses on their way to the host: at once on a CPU, a step late on a GPU.

Asking a GPU for a number waits until all its work is done, and then it has none. So the loss of a
step is copied while the device computes on, and read when the next step has been handed over.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepResult:
    """What one step gave: ``wait_s`` is how long the device had nothing to do for want of data."""

    step: int
    loss: float
    correct: int
    crops: int
    wait_s: float


class Readout:
    """Brings the results of steps to the host, in order."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._pending: deque[_Pending] = deque()
        self._last_end: torch.cuda.Event | None = None

    def begin(self) -> "torch.cuda.Event | None":
        """Call when a step's data is there, before its work is handed over; for `put`."""
        return self._record() if self._on_gpu else None

    def put(
        self,
        step: int,
        loss: Tensor,
        correct: Tensor,
        *,
        crops: int,
        waited_s: float,
        began: "torch.cuda.Event | None",
    ) -> None:
        """Hand in the results of a step: two numbers on the device."""
        both = torch.stack([loss.double(), correct.double()])
        pending = _Pending(step, both, crops, waited_s, self._last_end, began, None)
        if self._on_gpu:
            pending.numbers = torch.empty(2, dtype=torch.double, pin_memory=True)
            pending.numbers.copy_(both, non_blocking=True)
            pending.end = self._last_end = self._record()
        self._pending.append(pending)

    def take(self, *, everything: bool = False) -> list[StepResult]:
        """Give the results that are to be looked at now, oldest first.

        On a GPU that is all but the newest step; ``everything`` waits for the device.
        """
        keep = 1 if self._on_gpu and not everything else 0
        return [self._pending.popleft().read() for _ in range(len(self._pending) - keep)]

    @staticmethod
    def _record() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass
class _Pending:
    step: int
    numbers: Tensor  # loss and right answers, float64
    crops: int
    waited_s: float  # by the host
    last_end: "torch.cuda.Event | None"
    began: "torch.cuda.Event | None"
    end: "torch.cuda.Event | None"

    def read(self) -> StepResult:
        wait_s = self.waited_s
        if self.end is not None:
            self.end.synchronize()
            if self.last_end is not None and self.began is not None:
                # While the host waited the device may still have had the last step to compute.
                wait_s = min(wait_s, max(0.0, self.last_end.elapsed_time(self.began) / 1000))
        loss, correct = self.numbers.tolist()
        return StepResult(self.step, loss, int(correct), self.crops, wait_s)
