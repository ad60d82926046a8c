"""Embeddings of whole utterances: from archives, batched by length, and from audio files.

Batching changes no result: lengths are passed to the network, which masks the padding.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sv.data.audio import read_samples
from sv.data.config import FbankConfig
from sv.data.fbank import compute_fbank
from sv.data.parallel import map_ahead
from sv.errors import SvError
from sv.kaldi.archive import read_matrix
from sv.train.device import autocast

# Frames of one batch, padding included; tests/bench/extraction.py compares sizes on a CPU. A GPU
# needs more to be busy, and 24000 are 1 GB per feature map at the study's width.
BATCH_FRAMES = {"cpu": 1500, "cuda": 24000}
# Longest utterance of a batch over the shortest: bounds the padding that is computed for nothing.
MAX_LENGTH_RATIO = 1.1


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
    with ThreadPoolExecutor(1) as pool:
        # The next batch is read while one is computed: a GPU must not wait for a disk.
        read = map_ahead(pool, lambda batch: _load_batch(batch, feats, frames), batches, 1)
        for batch, padded in zip(batches, read, strict=True):
            lengths = [frames[key] for key in batch]
            x = padded.to(device)
            # Equal lengths need no mask.
            n = torch.tensor(lengths, device=device) if min(lengths) < max(lengths) else None
            yield from zip(batch, _embed(net, x, n, precision, batch), strict=True)


def _load_batch(batch: list[str], feats: Mapping[str, str], frames: Mapping[str, int]) -> Tensor:
    """Read utterances into (B, T, features) float32, zeros after the end of each."""
    matrices = [read_matrix(feats[key]) for key in batch]
    for key, matrix in zip(batch, matrices, strict=True):
        if len(matrix) != frames[key]:
            raise SvError(
                f"{key}: {feats[key]} has {len(matrix)} frames, utt2num_frames says {frames[key]}"
            )
    return pad_sequence([torch.from_numpy(matrix) for matrix in matrices], batch_first=True)


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
        frames = compute_fbank(read_samples(path), features)
        if len(frames) == 0:
            raise SvError(f"{path}: shorter than one window ({features.frame_length_ms:g} ms)")
        x = torch.from_numpy(frames)[None].to(device)  # (1, T, features)
        yield _embed(net, x, None, precision, [str(path)])[0]


def _embed(
    net: nn.Module, x: Tensor, lengths: Tensor | None, precision: str, names: Sequence[str]
) -> np.ndarray:
    """Embed (B, T, features) in (B, dim) float32 on the host; each must be finite."""
    with autocast(precision, x.device):
        y = net(x, lengths)
    embeddings = y.float().cpu().numpy()
    for name, embedding in zip(names, embeddings, strict=True):
        if not np.isfinite(embedding).all():
            raise SvError(f"{name}: its embedding is not finite in {precision}")
    return embeddings
