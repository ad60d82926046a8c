"""The processes that train one network together, and what they exchange.

A batch is divided by micro-batches: each process computes some of them, and once a step gradients
and statistics of the normalisations are exchanged (sv/train/step.py). So batch, data order and
learning curve are those of one process, whatever their number. Only where there are more processes
than micro-batches, neighbours share one, and every normalisation exchanges its statistics.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.nn.parallel import DistributedDataParallel

from sv.data.loader import Share, find_share
from sv.errors import SvError, UsageError
from sv.nnet.sync_norm import convert_norms
from sv.system import end_with_parent
from sv.train.device import CPU, RUN_ID, is_out_of_memory

# How long processes wait for another one: a checkpoint on a slow disk takes minutes.
TIMEOUT = timedelta(minutes=30)
# In the messages of gloo and NCCL when the process at the other end has ended (torch 2.13).
LOST = ("closed by peer", "reset by peer", "Broken pipe", "gloo/transport", "NCCL", "Timed out")


class LostProcess(SvError):  # noqa: N818 - names what happened to another process
    """Another process of the group has ended; the cause to report is what ended that one."""


class Group:
    """The processes of a training; ``Group()`` is one that trains alone and exchanges nothing.

    `total`, `vote`, `agree`, `share` and `gather` are collective: every process calls them.

    Args:
        environ: Variables of this process; torchrun's (rank, number of processes, rendezvous)
            make it one of several.
        device: Where this process computes.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, device: torch.device = CPU
    ) -> None:
        environ = environ or {}
        self.rank, self.size, self._device = 0, 1, device
        self._is_alone = RUN_ID not in environ
        if not self._is_alone:
            self.rank, self.size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
            end_with_parent()  # a killed launcher: save and end rather than train on alone
        self._teams = [range(rank, rank + 1) for rank in range(self.size)]

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, logs and marks."""
        return self.rank == 0

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Connect to the other processes; disconnect when all are done.

        Raises:
            LostProcess: One of them has ended.
        """
        if self._is_alone:
            yield
            return
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self._device)
        try:
            # Numbers on the host go by gloo, so that exchanging them never waits for a GPU.
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                timeout=TIMEOUT,
                device_id=self._device if on_gpu else None,  # NCCL connects now, or fails now
            )
            yield
            self.agree(0)  # the first one has written its files
            dist.destroy_process_group()
        except RuntimeError as error:
            if is_out_of_memory(error):  # of NCCL too: this process is the cause
                raise
            if not isinstance(error, dist.DistError) and not any(w in str(error) for w in LOST):
                raise
            reason = str(error).strip().splitlines()[0]
            raise LostProcess(f"another process of this training has ended ({reason})") from error

    def prepare(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that gradients are means over all processes; its parts stay the same."""
        if self._is_alone:
            return model
        devices = [self._device.index] if self._device.type == "cuda" else None
        wrapped = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
        # Running statistics are not the first process's: the step exchanges them. The second name
        # is that of torch before 2.13, whose constructor does not know the first.
        wrapped.forward_sync_buffers = wrapped.broadcast_buffers = False
        return wrapped

    def divide(self, model: nn.Module, batch_size: int, micro_batch_size: int) -> Share:
        """Find this process's share of a batch; a collective call.

        Where processes share a micro-batch, the normalisations of the model are replaced by some
        that exchange their statistics; their tensors stay the same.
        """
        sizes = batch_size, micro_batch_size
        shares = [find_share(*sizes, rank, self.size) for rank in range(self.size)]
        teams = list(dict.fromkeys(share.sharers for share in shares))
        if teams != self._teams:
            self._teams = teams
            own, _ = dist.new_subgroups_by_enumeration([list(team) for team in teams], TIMEOUT)
            if self._device.type == "cuda":
                nn.SyncBatchNorm.convert_sync_batchnorm(model, own)
            else:
                convert_norms(model, own)
            if len(teams) < self.size:
                logging.info(
                    "%d processes are more than micro-batches (%d of %d crops): neighbours share "
                    "one, and exchange the statistics of every normalisation",
                    self.size, batch_size // micro_batch_size, micro_batch_size,
                )  # fmt: skip
        return shares[self.rank]

    def exchange(self, model: nn.Module, is_last: bool) -> contextlib.AbstractContextManager:
        """Return the context of a micro-batch: gradients are exchanged in the last one alone."""
        return contextlib.nullcontext() if is_last or self._is_alone else model.no_sync()

    def total(self, numbers: Tensor) -> Tensor:
        """Sum numbers over all processes; on a GPU the host does not wait."""
        if not self._is_alone:
            dist.all_reduce(numbers)
        return numbers

    def vote(self, number: int) -> Callable[[], int]:
        """Begin to find the greatest of all processes' numbers; return what waits for it.

        By gloo, whatever the device.
        """
        if self._is_alone:
            return lambda: number
        greatest = torch.tensor([number])
        work = dist.all_reduce(greatest, dist.ReduceOp.MAX, async_op=True)

        def wait() -> int:
            work.wait()
            return int(greatest)

        return wait

    def agree(self, number: int) -> int:
        """Return the greatest of all processes' numbers; waits for all of them."""
        return max(self.gather([number]))

    def share(self, value: Any) -> Any:
        """Return the first process's value; see `gather`."""
        return self.gather([value])[0]

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """Return the concatenated lists of all processes, in order of their ranks.

        Items are what JSON can hold: torch's own way is a pickle, which could run anything that
        came by the network.
        """
        if self._is_alone:
            return list(items)
        text = torch.frombuffer(bytearray(json.dumps(list(items)).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(text)]))
        longest = max(int(length) for length in lengths)
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(parts, nn.functional.pad(text, (0, longest - len(text))))
        texts = [
            part[: int(length)].numpy().tobytes()
            for part, length in zip(parts, lengths, strict=True)
        ]
        return [item for text in texts for item in json.loads(text)]


def report_to_launcher(main: Callable[[Any], int]) -> Callable[[Any], int]:
    """Wrap a program so that the launcher prints its error once, and not every process.

    A traceback is still printed where it arises.
    """

    def reporting(argv: Any) -> int:
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:
            return main(argv)
        try:
            return main(argv)
        except SvError as error:
            if isinstance(error, LostProcess):
                time.sleep(1)  # the process that was the cause is to be seen first
            get_error_handler().record_exception(error)
            return 2 if isinstance(error, UsageError) else 1
        except Exception as error:
            get_error_handler().record_exception(error)
            raise

    return reporting
