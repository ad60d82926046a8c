"""Embeddings of whole utterances, batched by length without changing a result."""

import logging
import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from sv.errors import SvError
from sv.kaldi.archive import read_matrix

# Frames of one batch, padding included: enough to fill the cores, little enough for their caches.
BATCH_FRAMES = 6000
# Longest utterance of a batch over the shortest: bounds the padding that is computed in vain.
MAX_STRETCH = 1.1
PROGRESS_S = 10.0
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def plan_batches(frames: Mapping[str, int]) -> list[list[str]]:
    """Group utterances of similar length; the longest come first, so memory peaks at once."""
    batches: list[list[str]] = []
    longest = 0
    for key in sorted(frames, key=lambda k: (-frames[k], k)):
        fits = (
            batches
            and longest * (len(batches[-1]) + 1) <= BATCH_FRAMES
            and longest <= MAX_STRETCH * frames[key]
        )
        if fits:
            batches[-1].append(key)
        else:
            batches.append([key])
            longest = frames[key]
    return batches


@torch.inference_mode()
def embed_utterances(
    net: nn.Module,
    feats: Mapping[str, str],
    frames: Mapping[str, int],
    *,
    device: torch.device,
    precision: str = "fp32",
    log_progress: bool = False,
) -> Iterator[tuple[str, np.ndarray]]:
    """Embed utterances, in order of falling length.

    Args:
        net: An `sv.nnet.xvector.XVector` on ``device``; put into evaluation mode.
        feats: Utterance to ``ark:offset``.
        frames: Utterance to its number of frames.
        device: Where to compute.
        precision: ``fp32``, ``fp16`` or ``bf16`` (autocast; the embedding is float32).
        log_progress: Log the progress every `PROGRESS_S` seconds.

    Yields:
        Utterance and embedding, (dim,) float32.

    Raises:
        SvError: Features are missing or corrupt, or an embedding is not finite.
    """
    net.eval()
    done, total = 0, len(frames)
    started = last = time.monotonic()
    for batch in plan_batches(frames):
        lengths = [frames[key] for key in batch]
        matrices = [_load(key, feats[key], n) for key, n in zip(batch, lengths, strict=True)]
        padded = np.zeros((len(batch), max(lengths), matrices[0].shape[1]), dtype=np.float32)
        for row, matrix in zip(padded, matrices, strict=True):
            row[: len(matrix)] = matrix
        x = torch.from_numpy(padded).to(device)
        # Equal lengths need no mask.
        n = torch.tensor(lengths, device=device) if min(lengths) < max(lengths) else None
        with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            y = net(x, n)
        embeddings = y.float().cpu().numpy()
        for key, embedding in zip(batch, embeddings, strict=True):
            if not np.isfinite(embedding).all():
                raise SvError(f"{key}: its embedding is not finite in {precision}")
            yield key, embedding
        done += len(batch)
        now = time.monotonic()
        if log_progress and (now - last >= PROGRESS_S or done == total):
            rate = done / (now - started)
            logging.info("%d of %d utterances, %.1f utterances/s", done, total, rate)
            last = now


def _load(key: str, entry: str, frames: int) -> np.ndarray:
    matrix = read_matrix(entry)
    if len(matrix) != frames:
        raise SvError(f"{key}: {entry} has {len(matrix)} frames, utt2num_frames says {frames}")
    return matrix
