"""Where a process computes: its GPU or the CPU, number formats, and memory."""

import contextlib
import resource
from collections.abc import Iterator, Mapping

import torch

from sv.errors import SvError, UsageError
from sv.train.config import TrainConfig

CPU = torch.device("cpu")
RUN_ID = "TORCHELASTIC_RUN_ID"  # the variable that says that torchrun started a process
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# In the messages of torch's CPU allocator and oneDNN; both raise a plain RuntimeError.
CPU_MESSAGES = ("can't allocate memory", "could not create a memory", "bad_alloc")


def choose_device(ngpu: int, environ: Mapping[str, str] | None = None) -> torch.device:
    """Return the CPU for 0 GPUs, else one GPU to each process of this machine.

    Args:
        ngpu: GPUs that the processes of this machine use.
        environ: Variables of this process, as of `Group`; None: it is the only one.

    Raises:
        UsageError: There are not as many GPUs as processes, or fewer than asked for: a silent
            change to the CPU would turn hours into months.
    """
    if ngpu == 0:
        return CPU
    local_rank, processes = 0, 1
    if environ and RUN_ID in environ:
        local_rank, processes = int(environ["LOCAL_RANK"]), int(environ["LOCAL_WORLD_SIZE"])
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


def set_precision(precision: str, device: torch.device) -> None:
    """Set the 32-bit arithmetic of this process to that of ``precision``.

    Only ``tf32`` rounds the factors of 32-bit products: cuDNN would do so by default, and then a
    run called fp32 would not be one.

    Raises:
        UsageError: The device does not have it.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(
            "precision 'tf32' needs a GPU; set fp32 or bf16 in train.toml, or --ngpu 1"
        )
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    # Ampere is the first with either (NVIDIA, CUDA C programming guide, compute capabilities).
    if precision in ("tf32", "bf16") and capability < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise UsageError(f"precision '{precision}': not on {name}; set fp16 or fp32 in train.toml")
    # The older of torch's two interfaces: once the newer one is used, code that reads the older
    # one (the compiler, for example) fails (torch 2.13).
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which a network computes in ``precision``."""
    if precision not in AUTOCAST:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def measure_memory_mb(device: torch.device) -> dict[str, float]:
    """Return this process's peak memory in MiB: of the machine and, if used, of the GPU."""
    peaks = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        peaks["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peaks


@contextlib.contextmanager
def explain_out_of_memory(config: TrainConfig) -> Iterator[None]:
    """Turn every error that means "out of memory" into one line that says what to lower.

    Raises:
        SvError: Memory of the GPU or of the machine is exhausted.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):  # a RuntimeError
            where = "GPU memory"
        elif isinstance(error, MemoryError) or any(text in str(error) for text in CPU_MESSAGES):
            where = "memory"
        else:
            raise
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
        raise SvError(f"out of {where}; in train.toml {', or '.join(ways)}") from error
