"""Which device a program computes on."""

import torch

from sv.errors import UsageError


def choose_device(ngpu: int, local_rank: int = 0, processes: int = 1) -> torch.device:
    """Give the CPU for 0 GPUs, else one GPU to each process of this machine.

    Args:
        ngpu: GPUs that the processes of this machine use.
        local_rank: Number of this process among them.
        processes: How many there are.

    Raises:
        UsageError: Not as many GPUs as processes, or fewer are there than asked for: falling back
            to the CPU would turn hours into months without a word.
    """
    if ngpu == 0:
        return torch.device("cpu")
    if ngpu != processes:
        raise UsageError(f"--ngpu {ngpu}: each process uses one GPU, and here are {processes}")
    check_gpus(ngpu)
    return torch.device("cuda", local_rank)


def check_gpus(ngpu: int) -> None:
    """Check that as many GPUs are there.

    Raises:
        UsageError: They are not.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < ngpu:
        seen = f"{count} GPUs" if count > 1 else "1 GPU" if count else "no GPU"
        advice = f"give --ngpu {count}" if count else "give --ngpu 0 to compute on the CPU"
        raise UsageError(f"--ngpu {ngpu}: torch sees {seen} here; {advice}")
