"""Embeddings of whole utterances: from archives, batched by length, and from audio files.

Batching changes no result: lengths are passed to the network, which masks the padding. On a GPU
threads read the next batches, and the embeddings of a batch are fetched when the next is queued.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sv.data.audio import read_samples
from sv.data.config import FbankConfig
from sv.data.fbank import compute_fbank
from sv.data.parallel import map_ahead
from sv.errors import SvError
from sv.kaldi.archive import ArchiveReader
from sv.train.device import autocast, explain_out_of_memory

# Frames of one batch, padding included; tests/bench/extraction.py compares sizes on a CPU. A GPU
# needs more to be busy, and 24000 are 1 GB per feature map at the study's width.
BATCH_FRAMES = {"cpu": 1500, "cuda": 24000}
# Longest utterance of a batch over the shortest: bounds the padding that is computed for nothing.
MAX_LENGTH_RATIO = 1.1
READ_THREADS = 8  # batches read at once: on a network disk each utterance takes milliseconds


def plan_batches(frames: Mapping[str, int], batch_frames: int) -> list[list[str]]:
    """Group utterances of similar length; the longest come first, so memory peaks at the start.

    An utterance of more than ``batch_frames`` is a batch of its own.
    """
    batches: list[list[str]] = []
    longest = 0
    for key in sorted(frames, key=lambda k: (-frames[k], k)):
        fits = (
            batches
            and longest * (len(batches[-1]) + 1) <= batch_frames
            and longest <= MAX_LENGTH_RATIO * frames[key]
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
) -> Iterator[tuple[str, np.ndarray]]:
    """Embed utterances from archives, in order of decreasing length.

    Args:
        net: An `sv.nnet.xvector.XVector` on ``device``; put into evaluation mode.
        feats: Utterance to ``ark:offset``.
        frames: Utterance to its number of frames.
        device: Where to compute.
        precision: One of `sv.score.config.PRECISIONS`.
        batch_frames: Frames of one batch; None: the device's default (`BATCH_FRAMES`).

    Yields:
        Utterance and embedding, (dim,) float32.

    Raises:
        SvError: Features are missing or corrupt, or an embedding is not finite.
    """
    net.eval()
    batches = plan_batches(frames, batch_frames or BATCH_FRAMES[device.type])
    on_gpu = device.type == "cuda"
    queued: deque[tuple[list[str], Tensor]] = deque()
    with (
        contextlib.closing(ArchiveReader()) as reader,
        ThreadPoolExecutor(READ_THREADS, "utterances") as pool,
    ):

        def load(batch: list[str]) -> tuple[Tensor, Tensor | None]:
            return _load_batch(batch, feats, frames, reader, pin_memory=on_gpu)

        read = map_ahead(pool, load, batches, READ_THREADS)
        for batch, (padded, lengths) in zip(batches, read, strict=True):
            x = padded.to(device, non_blocking=True)
            n = None if lengths is None else lengths.to(device, non_blocking=True)
            with autocast(precision, device):
                queued.append((batch, net(x, n)))
            if len(queued) > on_gpu:
                yield from _fetch(*queued.popleft(), precision)
        while queued:
            yield from _fetch(*queued.popleft(), precision)


def _load_batch(
    batch: list[str],
    feats: Mapping[str, str],
    frames: Mapping[str, int],
    reader: ArchiveReader,
    *,
    pin_memory: bool,
) -> tuple[Tensor, Tensor | None]:
    """Read utterances into (B, T, features) float32, zeros after the end of each, longest first.

    Returns:
        With their lengths (B,) int64, or None where all are equal: these need no mask.
    """
    places = [reader.locate(feats[key]) for key in batch]
    for key, where in zip(batch, places, strict=True):
        if where.rows != frames[key]:
            raise SvError(
                f"{key}: {feats[key]} has {where.rows} frames, utt2num_frames says {frames[key]}"
            )
    shape = (len(batch), places[0].rows, places[0].columns)
    padded = torch.zeros(shape, pin_memory=pin_memory)
    for key, where, rows in zip(batch, places, padded.numpy(), strict=True):
        reader.read(feats[key], where, rows[: where.rows])
    lengths = torch.tensor([where.rows for where in places], pin_memory=pin_memory)
    return padded, lengths if places[-1].rows < places[0].rows else None


@torch.inference_mode()
def embed_files(
    net: nn.Module,
    paths: Sequence[Path],
    features: FbankConfig,
    *,
    device: torch.device,
    precision: str = "fp32",
) -> Iterator[np.ndarray]:
    """Embed audio files in the given order: what stages 3 and 6 compute, without archives.

    The features are not rounded to two bytes per value as those of an archive are; except for
    this rounding the embedding of an utterance is that of stage 6.

    Args:
        net: An embedding network on ``device``; put into evaluation mode.
        paths: Audio files of one channel at 16 kHz.
        features: The front end that the network was trained with.
        device: Where to compute.
        precision: One of `sv.score.config.PRECISIONS`.

    Yields:
        (dim,) float32 of each file.

    Raises:
        SvError: A file is not readable, shorter than one window, or its embedding is not finite.
    """
    net.eval()
    for path in paths:
        samples = read_samples(path)
        if samples.min() == samples.max():
            logging.warning("%s is silent: its embedding says nothing of a speaker", path)
        with explain_out_of_memory(device, [f"cut {path} into shorter files"]):
            frames = compute_fbank(samples, features)
            if len(frames) == 0:
                raise SvError(f"{path}: shorter than one window ({features.frame_length_ms:g} ms)")
            x = torch.from_numpy(frames)[None].to(device)  # (1, T, features)
            with autocast(precision, device):
                y = net(x)
        for _, embedding in _fetch([str(path)], y, precision):
            yield embedding


def _fetch(
    names: Sequence[str], embeddings: Tensor, precision: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each name with its embedding, (dim,) float32 on the host, which must be finite."""
    for name, embedding in zip(names, embeddings.float().cpu().numpy(), strict=True):
        if not np.isfinite(embedding).all():
            raise SvError(f"{name}: its embedding is not finite in {precision}")
        yield name, embedding
