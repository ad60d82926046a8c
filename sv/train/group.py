"""The processes that train one network together, and what they tell each other.

A batch is shared out by micro-batches: each process computes its part of every one, and the
normalisations exchange their statistics. So batch, data order and learning curve are those of one
process, whatever the number. `Group` is that of one process: nothing is exchanged.
"""

import contextlib
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

from sv.errors import SvError, UsageError
from sv.nnet.sync_norm import convert_norms
from sv.system import end_with_parent

# The others wait so long for one of them: a checkpoint on a slow disk takes minutes.
TIMEOUT = timedelta(minutes=30)
# What gloo and NCCL say where a process at the other end has gone (torch 2.13).
LOST = ("closed by peer", "reset by peer", "Broken pipe", "gloo/transport", "NCCL", "Timed out")


class LostProcess(SvError):  # noqa: N818 - what happened to another one
    """Another process of the group has gone; what ended it is the cause to be told."""


class Group:
    """A process that trains alone."""

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, logs and marks."""
        return self.rank == 0

    def check_micro_batch(self, crops: int) -> None:
        """Check that a micro-batch can be shared out.

        Raises:
            UsageError: Its crops are no multiple of the processes.
        """
        if crops % self.size:
            raise UsageError(
                f"micro_batch_size ({crops}) is no multiple of the {self.size} processes, which "
                "share these crops out; change it in train.toml, or the number of processes"
            )

    def prepare(self, model: nn.Module) -> nn.Module:
        """Make gradients the mean over all processes, and normalisations one over all batches."""
        return model

    def accumulate(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Give the context of a micro-batch after which another one follows."""
        return contextlib.nullcontext()

    def total(self, numbers: Tensor) -> Tensor:
        """Sum numbers over all processes; on a GPU without making the host wait."""
        return numbers

    def agree(self, number: int) -> int:
        """Give the greatest of all processes' numbers."""
        return number

    def share(self, value: Any) -> Any:
        """Give the first process's value."""
        return value

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """Put the lists of all processes together, in order of their ranks."""
        return list(items)

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Hold the group together while the training runs."""
        yield


class Processes(Group):
    """One of several processes, started by torchrun or `sv.bin.launch`.

    Args:
        environ: The variables that torchrun sets: rank, number of processes, where to meet.
        device: Where this one computes.
    """

    def __init__(self, environ: Mapping[str, str], device: torch.device) -> None:
        self.rank, self.size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        self._device = device
        end_with_parent()  # a killed launcher: save and end rather than train on alone

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Meet the others; part from them when all are through.

        Raises:
            LostProcess: One of them has gone.
        """
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self._device)
        try:
            # Numbers of the host go by gloo, so that asking for them never waits for a GPU.
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
            yield
            self.agree(0)  # the first one has written its files
            dist.destroy_process_group()
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or any(word in str(error) for word in LOST):
                reason = str(error).strip().splitlines()[0]
                raise LostProcess(
                    f"another process of this training has gone ({reason})"
                ) from error
            raise

    def prepare(self, model: nn.Module) -> nn.Module:
        """Wrap a model for several processes; its parts stay the same objects."""
        if self._device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
            places = [self._device.index]
        else:
            convert_norms(model)
            places = None
        # Running statistics are the same everywhere, so they need not be sent round.
        return DistributedDataParallel(
            model, device_ids=places, forward_sync_buffers=False, gradient_as_bucket_view=True
        )

    def accumulate(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Keep the gradients to this process until the last micro-batch."""
        return model.no_sync()

    def total(self, numbers: Tensor) -> Tensor:
        """Sum numbers over all processes."""
        dist.all_reduce(numbers)
        return numbers

    def agree(self, number: int) -> int:
        """Give the greatest of all processes' numbers; waits for all of them."""
        greatest = torch.tensor(number)
        dist.all_reduce(greatest, dist.ReduceOp.MAX)
        return int(greatest)

    def share(self, value: Any) -> Any:
        """Give the first process's value."""
        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """Put the lists of all processes together, in order of their ranks."""
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, list(items))
        return [item for part in gathered for item in part]


def find_local_rank(environ: Mapping[str, str]) -> tuple[int, int]:
    """Give this process's number on its machine, and how many processes run there."""
    if not is_one_of_several(environ):
        return 0, 1
    return int(environ["LOCAL_RANK"]), int(environ["LOCAL_WORLD_SIZE"])


def is_one_of_several(environ: Mapping[str, str]) -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in environ


def build_group(environ: Mapping[str, str], device: torch.device) -> Group:
    """Build the group that torchrun's variables tell of; without them this process is alone."""
    return Processes(environ, device) if is_one_of_several(environ) else Group()


def tell_launcher(main: Callable[[Any], int]) -> Callable[[Any], int]:
    """Let a program's errors be said once, by who started its processes, and not by each of them.

    A traceback is still printed where it arises.
    """

    def told(argv: Any) -> int:
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:
            return main(argv)
        try:
            return main(argv)
        except SvError as error:
            if isinstance(error, LostProcess):
                time.sleep(1)  # whoever was the cause shall be seen first
            get_error_handler().record_exception(error)
            return 2 if isinstance(error, UsageError) else 1
        except Exception as error:
            get_error_handler().record_exception(error)
            raise

    return told


def choose_device(ngpu: int, local_rank: int = 0, processes: int = 1) -> torch.device:
    """Return the CPU for 0 GPUs, else one GPU to each process of this machine.

    Args:
        ngpu: GPUs that the processes of this machine use.
        local_rank: Number of this process among them.
        processes: How many there are.

    Raises:
        UsageError: There are not as many GPUs as processes, or fewer than asked for: a silent
            change to the CPU would turn hours into months.
    """
    if ngpu == 0:
        return torch.device("cpu")
    if ngpu != processes:
        raise UsageError(f"--ngpu {ngpu}: each process uses one GPU, and here are {processes}")
    check_gpus(ngpu)
    return torch.device("cuda", local_rank)


def check_gpus(ngpu: int) -> None:
    """Check that torch sees as many GPUs.

    Raises:
        UsageError: It does not.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < ngpu:
        seen = f"{count} GPUs" if count > 1 else "1 GPU" if count else "no GPU"
        advice = f"give --ngpu {count}" if count else "give --ngpu 0 to compute on the CPU"
        raise UsageError(f"--ngpu {ngpu}: torch sees {seen} here; {advice}")
