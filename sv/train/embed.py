"""Embeddings of whole utterances, batched by length without changing a result."""

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from sv.errors import SvError
from sv.kaldi.archive import read_matrix

# Frames of one batch, padding included; tests/bench/extraction.py compares sizes on a CPU. A card
# wants more to be full, and 24000 are 1 GB a feature map at the study's width.
BATCH_FRAMES = {"cpu": 1500, "cuda": 24000}
# Longest utterance of a batch over the shortest: bounds the padding that is computed in vain.
MAX_STRETCH = 1.1
PROGRESS_S = 10.0
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def plan_batches(frames: Mapping[str, int], batch_frames: int) -> list[list[str]]:
    """Group utterances of similar length; the longest come first, so memory peaks at once.

    An utterance of more than ``batch_frames`` is a batch of its own.
    """
    batches: list[list[str]] = []
    longest = 0
    for key in sorted(frames, key=lambda k: (-frames[k], k)):
        fits = (
            batches
            and longest * (len(batches[-1]) + 1) <= batch_frames
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
    batch_frames: int | None = None,
    log_progress: bool = False,
) -> Iterator[tuple[str, np.ndarray]]:
    """Embed utterances, in order of falling length.

    Args:
        net: An `sv.nnet.xvector.XVector` on ``device``; put into evaluation mode.
        feats: Utterance to ``ark:offset``.
        frames: Utterance to its number of frames.
        device: Where to compute.
        precision: ``fp32``, ``fp16`` or ``bf16`` (autocast; the embedding is float32).
        batch_frames: Frames of one batch; None: what suits the device (`BATCH_FRAMES`).
        log_progress: Log the progress every `PROGRESS_S` seconds.

    Yields:
        Utterance and embedding, (dim,) float32.

    Raises:
        SvError: Features are missing or corrupt, or an embedding is not finite.
    """
    net.eval()
    done, total = 0, len(frames)
    started = last = time.monotonic()
    batches = plan_batches(frames, batch_frames or BATCH_FRAMES[device.type])
    for batch, padded in _read_ahead(batches, feats, frames):
        lengths = [frames[key] for key in batch]
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


def _read_ahead(
    batches: list[list[str]], feats: Mapping[str, str], frames: Mapping[str, int]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Read the next batch while one is computed: a card must not wait for a disk."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(_load_batch, batch, feats, frames) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            padded = coming.pop().result()
            for following in batches[number + 1 : number + 2]:
                coming.append(pool.submit(_load_batch, following, feats, frames))
            yield batch, padded


def _load_batch(
    batch: list[str], feats: Mapping[str, str], frames: Mapping[str, int]
) -> np.ndarray:
    """Read utterances into (B, T, features) float32, zeros behind the end of each."""
    matrices = [_load(key, feats[key], frames[key]) for key in batch]
    shape = (len(batch), max(map(len, matrices)), matrices[0].shape[1])
    padded = np.zeros(shape, dtype=np.float32)
    for row, matrix in zip(padded, matrices, strict=True):
        row[: len(matrix)] = matrix
    return padded


def _load(key: str, entry: str, frames: int) -> np.ndarray:
    matrix = read_matrix(entry)
    if len(matrix) != frames:
        raise SvError(f"{key}: {entry} has {len(matrix)} frames, utt2num_frames says {frames}")
    return matrix
