"""Embeddings of audio files, one by one: what stages 3 and 6 compute, without their archives."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sv.data.audio import SAMPLE_RATE_HZ, read_samples
from sv.data.fbank import FbankConfig, compute_fbank
from sv.errors import SvError
from sv.train.embed import DTYPES


@torch.inference_mode()
def embed_files(
    net: nn.Module,
    paths: Sequence[Path],
    features: FbankConfig,
    *,
    device: torch.device,
    precision: str = "fp32",
) -> Iterator[np.ndarray]:
    """Embed audio files in the given order.

    The features are not rounded to two bytes a value as those of an archive are; but for this
    rounding an embedding is stage 6's of the same utterance.

    Args:
        net: An embedding network on ``device``; put into evaluation mode.
        paths: Audio files of one channel at 16 kHz.
        features: The front end that the network was trained with.
        device: Where to compute.
        precision: ``fp32``, ``fp16`` or ``bf16`` (autocast; the embedding is float32).

    Yields:
        (dim,) float32 of each file.

    Raises:
        SvError: A file is not readable, shorter than one window, or its embedding is not finite.
    """
    net.eval()
    for path in paths:
        frames = compute_fbank(read_samples(path), features, SAMPLE_RATE_HZ)
        if len(frames) == 0:
            raise SvError(f"{path}: shorter than one window ({features.frame_length_ms:g} ms)")
        x = torch.from_numpy(frames)[None].to(device)
        with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            embedding = net(x)[0].float().cpu().numpy()
        if not np.isfinite(embedding).all():
            raise SvError(f"{path}: its embedding is not finite in {precision}")
        yield embedding
