"""Batches on their way to the device."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sv.data.loader import Batch


def iterate_on_device(
    batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield crops (B, frames, features) float32 and speakers (B,) int64 on ``device``.

    A GPU is given a step's work and computes by itself; meanwhile the next batch is copied from
    page-locked memory on a stream of its own, so that the copy costs no time.
    """
    if device.type != "cuda":
        for batch in batches:
            yield torch.from_numpy(batch.crops), torch.from_numpy(batch.speakers)
        return
    copies = torch.cuda.Stream(device)
    for batch in batches:
        pinned = [torch.from_numpy(a).pin_memory() for a in (batch.crops, batch.speakers)]
        with torch.cuda.stream(copies):
            crops, speakers = (tensor.to(device, non_blocking=True) for tensor in pinned)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copies)
        for tensor in (crops, speakers):
            tensor.record_stream(computing)  # else its memory is free for the next copy too early
        yield crops, speakers
