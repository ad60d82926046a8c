"""Where a process computes: its GPU or the CPU, number formats, and memory."""

import contextlib
import glob
import os
import re
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from sv.errors import SvError, UsageError
from sv.train.config import AMPERE, BUILDS, TrainConfig, validate_device, validate_precision

CPU = torch.device("cpu")
RUN_ID = "TORCHELASTIC_RUN_ID"  # the variable that says that torchrun started a process
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
DEVICES, DRIVER = "/dev/nvidia[0-9]*", "/proc/driver/nvidia/version"
# In the messages of plain RuntimeErrors: of torch's CPU allocator and oneDNN;
CPU_MESSAGES = ("can't allocate memory", "could not create a memory", "bad_alloc")
# of CUDA, NCCL and Triton; of cuBLAS, cuDNN and their handles, which live outside torch's
# allocator; and of cuDNN when no algorithm got its workspace (torch 2.13).
GPU_MESSAGES = (
    "out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED", "unable to find an engine", "find a valid cuDNN algorithm",
)  # fmt: skip


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
    """Check that torch sees as many GPUs and has kernels for them.

    Raises:
        UsageError: It does not.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < ngpu:
        few = f"torch sees {count} GPU{'s' * (count > 1)} here; give --ngpu {count}"
        raise UsageError(f"--ngpu {ngpu}: {few if count else explain_no_gpu()}")
    built = torch.cuda.get_arch_list()
    for number in range(ngpu):
        major, minor = torch.cuda.get_device_capability(number)
        if not _has_kernels(built, (major, minor)):
            raise UsageError(
                f"{torch.cuda.get_device_name(number)} has compute capability {major}.{minor}, and "
                f"{describe_torch()}, has kernels for {' '.join(built)} alone; {BUILDS}"
            )


def explain_no_gpu() -> str:
    """Say why torch sees no GPU on this machine, and what to do."""
    seen = "torch sees no GPU here"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not glob.glob(DEVICES):
        return f"{seen}: the machine has none ({DEVICES})"
    if hidden in ("", "-1", "NoDevFiles"):
        return f"{seen}: CUDA_VISIBLE_DEVICES='{hidden}' hides them"
    if torch.version.cuda is None:
        return f"{seen}: {describe_torch()}; {BUILDS}"
    driver = ""
    with contextlib.suppress(OSError):
        # NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
        found = re.search(r"\d{3}\.\d+(\.\d+)?", Path(DRIVER).read_text(encoding="ascii"))
        driver = f" {found[0]}" if found else ""
    return f"{seen}: {describe_torch()}, does not work with the driver{driver}; {BUILDS}"


def describe_torch() -> str:
    """Name torch and the CUDA that it was built for."""
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return f"torch {torch.__version__.split('+')[0]}, built {build}"


def _has_kernels(built: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether a build runs on a card; one that does not say what it has is believed.

    Machine code (sm) is for one major version from its minor version on, intermediate code
    (compute) for all later cards (NVIDIA, CUDA C programming guide, application compatibility).
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name) for name in built]
    versions = [(m[1], (int(m[2]), int(m[3]))) for m in found if m]
    return not versions or any(
        version <= capability and (kind == "compute" or version[0] == capability[0])
        for kind, version in versions
    )


def set_precision(precision: str, device: torch.device) -> None:
    """Set the 32-bit arithmetic of this process to that of ``precision``.

    Only ``tf32`` rounds the factors of 32-bit products: cuDNN would do so by default, and then
    what is called fp32 would not be.

    Raises:
        UsageError: The device does not have it.
    """
    if device.type != "cuda":
        if precision == "tf32":
            validate_device(precision, 0)
        return
    card = torch.cuda.get_device_name(device)
    validate_precision(precision, card, torch.cuda.get_device_capability(device))
    # The older of torch's two interfaces: once the newer one is used, code that reads the older
    # one (the compiler, for example) fails (torch 2.13).
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which a network computes in ``precision``."""
    if precision not in AUTOCAST:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def choose_memory_format(precision: str, device: torch.device) -> torch.memory_format:
    """Return the order in which feature maps are fast: channels last where products are tiled.

    That is on a CPU (1.5 times as fast: tests/bench/extraction.py) and on tensor cores, which take
    half precision and TF32 in no other order (NVIDIA, Deep learning performance: convolutional
    layers, 2023; a V100 in fp16: 1.22 times, Paddle #20597). In fp32 a V100 took 1.64 times as long
    by channels last (PyTorch #44943).
    """
    if device.type == "cuda" and precision == "fp32":
        return torch.contiguous_format
    return torch.channels_last


def measure_memory_mb(device: torch.device) -> dict[str, float]:
    """Return this process's peak memory in MiB: of the machine and, if used, of the GPU."""
    peaks = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        peaks["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peaks


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory of the GPU or of the machine is exhausted."""
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in text for sign in (*GPU_MESSAGES, *CPU_MESSAGES)
    )


@contextlib.contextmanager
def explain_out_of_memory(device: torch.device, savings: Sequence[str]) -> Iterator[None]:
    """Turn every error that means "out of memory" into one line that says what to do.

    Args:
        device: Where it is computed.
        savings: What would take less memory: of `list_savings`.

    Raises:
        SvError: Memory of the GPU or of the machine is exhausted.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        where = "memory"
        if device.type == "cuda" and any(sign in str(error) for sign in GPU_MESSAGES):
            size = torch.cuda.get_device_properties(device).total_memory / 1e9
            card = f"{torch.cuda.get_device_name(device)}, {size:.0f} GB"
            cause = str(error).splitlines()[0]  # "no engine" rarely means something else
            where = f"GPU memory ({card if 'out of memory' in cause else f'{card}: {cause}'})"
        raise SvError(f"out of {where}; {', or '.join(savings)}") from error


@contextlib.contextmanager
def explain_compiler(is_used: bool) -> Iterator[None]:
    """Turn an error of torch's compiler into one line.

    Raises:
        SvError: It failed, for want of a C++ compiler for example.
    """
    if not is_used:
        yield
        return
    # Only now: it is slow to import.
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415

    try:
        yield
    except TorchDynamoException as error:
        cause = " ".join(str(error).strip().partition("\n\n")[0].split())
        advice = "set compile = false in train.toml"
        raise SvError(f"torch.compile failed: {cause}; {advice}") from error


def list_savings(config: TrainConfig, device: torch.device) -> list[str]:
    """List what would make a training take less memory, on this device."""
    ways = []
    if config.optimizer.micro_batch_size > 2:
        # The batch stays: it is accumulated from more parts.
        ways.append(f"lower micro_batch_size ({config.optimizer.micro_batch_size})")
    if config.fine_tuning.num_epochs:
        ways.append("lower fine_tuning.micro_batch_size")
    if config.checkpointing != "full":
        ways.append("set checkpointing = 'full'")
    if config.precision in ("fp32", "tf32"):
        ways.append(f"set precision = '{find_half(device)}'")
    ways.append(f"shorten crop_frames ({config.crop_frames})")
    return [f"in train.toml {ways[0]}", *ways[1:]]


def find_half(device: torch.device) -> str:
    """Return the 16-bit format that the device computes fast."""
    is_old = device.type == "cuda" and torch.cuda.get_device_capability(device) < AMPERE
    return "fp16" if is_old else "bf16"
