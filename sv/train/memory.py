"""Out of memory: said in one line, with what to lower."""

import contextlib
import resource
from collections.abc import Iterator

import torch

from sv.errors import SvError
from sv.train.config import TrainConfig

# What torch's allocator of the CPU and oneDNN say; both raise a plain RuntimeError.
CPU_MESSAGES = ("can't allocate memory", "could not create a memory", "bad_alloc")


@contextlib.contextmanager
def explain_out_of_memory(config: TrainConfig) -> Iterator[None]:
    """Turn whatever says that memory is out into a line that says what to lower.

    Raises:
        SvError: Memory of the GPU or of the machine is out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SvError(_advise("GPU memory", config)) from error
    except MemoryError as error:
        raise SvError(_advise("memory", config)) from error
    except RuntimeError as error:
        if any(message in str(error) for message in CPU_MESSAGES):
            raise SvError(_advise("memory", config)) from error
        raise


def _advise(what: str, config: TrainConfig) -> str:
    ways = []
    if config.optimizer.micro_batch_size > 1:
        # The batch stays: it is accumulated from more parts.
        ways.append(f"lower micro_batch_size ({config.optimizer.micro_batch_size})")
    if config.fine_tuning.num_epochs:
        ways.append("lower fine_tuning.micro_batch_size")
    if not config.activation_checkpointing:
        ways.append("set activation_checkpointing = true")
    if config.precision in ("fp32", "tf32"):
        ways.append("set precision = 'bf16'")
    ways.append(f"shorten crop_frames ({config.crop_frames})")
    return f"out of {what}; in train.toml {', or '.join(ways)}"


def measure_memory_mb(device: torch.device) -> dict[str, float]:
    """Give the most memory that this process had, in MiB: of the machine and, if used, the GPU."""
    peaks = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        peaks["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peaks
