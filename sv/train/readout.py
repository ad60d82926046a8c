"""Losses on their way to the host: at once on a CPU, a step late on a GPU.

Asking a GPU for a number waits until all its work is done, and then it has none. So the loss of a
step is copied while the device computes on, and read when the next step has been handed over. Of
several processes the numbers are summed on the device; with them goes each one's wish to stop.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from sv.train.group import Group
from sv.train.stopping import count_votes, vote


@dataclass(frozen=True)
class StepResult:
    """What one step gave, over all processes.

    ``wait_s`` is how long a device had nothing to do for want of data, the mean of the processes;
    ``stop`` the exit status with which one of them wishes to end, 0: none does.
    """

    step: int
    loss: float
    correct: int
    crops: int
    wait_s: float
    stop: int


class Readout:
    """Brings the results of steps to the host, in order.

    Args:
        device: Where they arise.
        group: The processes whose results are put together.

    Attributes:
        lag: Steps by which `take` is late.
    """

    def __init__(self, device: torch.device, group: Group) -> None:
        self._on_gpu = device.type == "cuda"
        self._group, self.lag = group, int(self._on_gpu)
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
        stop: int = 0,
    ) -> None:
        """Hand in the results of a step; every process must come here.

        Args:
            step: Its number.
            loss: Mean over the crops of this process, a scalar on the device.
            correct: Right answers among them, likewise.
            crops: Of the whole batch.
            waited_s: How long this host waited for data.
            began: What `begin` gave.
            stop: Exit status with which this process wishes to end, 0: it does not.
        """
        size = self._group.size
        said = [waited_s / size, *vote(stop)]
        host = torch.tensor(said, dtype=torch.double, pin_memory=loss.is_cuda)
        found = torch.stack([loss.double() / size, correct.double()])
        numbers = torch.cat([found, host.to(loss.device, non_blocking=True)])
        numbers = self._group.total(numbers)
        pending = _Pending(step, numbers, crops, self._last_end, began, None)
        if self._on_gpu:
            pending.numbers = torch.empty(len(numbers), dtype=torch.double, pin_memory=True)
            pending.numbers.copy_(numbers, non_blocking=True)
            pending.end = self._last_end = self._record()
        self._pending.append(pending)

    def take(self, *, everything: bool = False) -> list[StepResult]:
        """Give the results that are to be looked at now, oldest first.

        On a GPU that is all but the newest step; ``everything`` waits for the device.
        """
        keep = 0 if everything else self.lag
        return [self._pending.popleft().read() for _ in range(len(self._pending) - keep)]

    @staticmethod
    def _record() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass
class _Pending:
    step: int
    numbers: Tensor  # loss, right answers, seconds that the hosts waited, votes; float64
    crops: int
    last_end: "torch.cuda.Event | None"
    began: "torch.cuda.Event | None"
    end: "torch.cuda.Event | None"

    def read(self) -> StepResult:
        if self.end is not None:
            self.end.synchronize()
        loss, correct, wait_s, *votes = self.numbers.tolist()
        if self.last_end is not None and self.began is not None:
            # While the host waited the device may still have had the last step to compute.
            wait_s = min(wait_s, max(0.0, self.last_end.elapsed_time(self.began) / 1000))
        return StepResult(self.step, loss, int(correct), self.crops, wait_s, count_votes(votes))
