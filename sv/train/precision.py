"""Number formats of training: which a device has, and what computing in one means."""

import contextlib

import torch

from sv.errors import UsageError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(precision: str, device: torch.device) -> None:
    """Make 32-bit arithmetic of this process what ``precision`` says.

    Only ``tf32`` rounds the factors of 32-bit products: cuDNN would do so by itself, and then a
    run called fp32 would not be one.

    Raises:
        UsageError: The device does not have it.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UsageError("precision 'tf32' is a GPU's; set fp32 or bf16 in train.toml, or --ngpu 1")
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    # Ampere is the first with either (NVIDIA, CUDA C programming guide, compute capabilities).
    if precision in ("tf32", "bf16") and capability < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise UsageError(f"precision '{precision}': not on {name}; set fp16 or fp32 in train.toml")
    # The older of torch's two ways to say it: after the newer one, code that reads the older (the
    # compiler among it) fails (torch 2.13).
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Give the context in which a network computes in ``precision``."""
    if precision not in AUTOCAST:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])
