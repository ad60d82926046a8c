"""Which device a program computes on."""

import torch

from sv.errors import UsageError


def choose_device(ngpu: int) -> torch.device:
    """Give the CPU for 0, the first visible GPU for 1.

    Raises:
        UsageError: More GPUs than one process uses, or a GPU is asked for and none is there:
            falling back to the CPU would turn hours into months without a word.
    """
    if ngpu == 0:
        return torch.device("cpu")
    if ngpu != 1:
        raise UsageError(f"--ngpu {ngpu}: one process uses 0 or 1 GPU")
    if not torch.cuda.is_available():
        raise UsageError("--ngpu 1: torch sees no GPU here; give --ngpu 0 to train on the CPU")
    return torch.device("cuda", 0)
