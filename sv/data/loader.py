"""Training batches: a pure function of (seed, epoch, step), read ahead.

No state is carried from batch to batch: the batch of step s is the same whether the epoch was
started or resumed there, and for any number of processes. So a resumed training sees the data that
the uninterrupted one would have seen. Each of several processes draws the whole batch and reads
its own crops of it.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sv.data.config import SpecAugmentConfig
from sv.data.crops import CropReader
from sv.data.parallel import map_ahead

READ_AHEAD = 4  # batches


@dataclass(frozen=True)
class Batch:
    """Crops (B, frames, features) float32 and their speakers (B,) int64.

    With several processes these are the process's own crops, and B is their number. ``read_s`` is
    how long reading them took.
    """

    crops: np.ndarray
    speakers: np.ndarray
    read_s: float


@dataclass(frozen=True)
class Share:
    """The part of every batch that one process computes: ``rows`` of it.

    They are whole micro-batches, and ``sharers`` the process itself. Where there are more
    processes than micro-batches, the ranks ``sharers`` compute one together.
    """

    rows: range
    sharers: range


def find_share(batch_size: int, micro_batch_size: int, rank: int, processes: int) -> Share:
    """Find what process ``rank`` computes of a batch; sizes are over all processes.

    Neighbours share a micro-batch, because they are on the same machine. Numbers that do not
    divide evenly give some processes more than others.
    """
    micro_batches = batch_size // micro_batch_size
    teams = min(micro_batches, processes)
    team = rank * teams // processes
    sharers = range(-(-team * processes // teams), -(-(team + 1) * processes // teams))
    first, last = (number * micro_batches // teams for number in (team, team + 1))
    start, crops = first * micro_batch_size, (last - first) * micro_batch_size
    place = rank - sharers.start
    edges = [start + crops * number // len(sharers) for number in (place, place + 1)]
    return Share(range(*edges), sharers)


def count_at_once(batch_size: int, micro_batch_size: int, processes: int) -> int:
    """Count the crops that a process has in memory at once: those of a micro-batch, or its part."""
    sharers = max(1, processes // (batch_size // micro_batch_size))  # the fewest
    return -(-micro_batch_size // sharers)


def count_steps(utterances: int, batch_size: int) -> int:
    """Return the steps of an epoch: whole batches; each shuffle leaves out other utterances."""
    return utterances // batch_size


def read_batch(
    reader: CropReader,
    order: np.ndarray,
    seed: tuple[int, int, int],
    frames: int,
    specaugment: SpecAugmentConfig | None,
    *,
    rows: Sequence[int] | None = None,
) -> Batch:
    """Read one batch, or part of it: a random crop of a random copy of each utterance.

    Args:
        reader: The training set.
        order: Utterances of the batch, (B,) indices.
        seed: Of all random numbers drawn here, for the whole batch.
        frames: Frames of a crop.
        specaugment: Masks, or None.
        rows: Rows of the batch to read (`find_share`); None: all.
    """
    index = reader.index
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(index.kinds), size=len(order))
    room = np.maximum(index.rows[0, order] - frames + 1, 1)
    starts = (rng.random(len(order)) * room).astype(np.int64)
    rows = np.arange(len(order)) if rows is None else np.asarray(rows)
    crops = np.empty((len(rows), frames, index.columns), dtype=np.float32)
    started = time.monotonic()
    reader.read(kinds[rows], order[rows], starts[rows], crops)
    read_s = time.monotonic() - started
    if specaugment is not None:
        places = np.full(len(order), -1)  # in `crops`; -1: of another process
        places[rows] = np.arange(len(rows))
        _mask(crops, places, specaugment, rng)
    return Batch(crops, index.speaker[order[rows]].astype(np.int64), read_s)


def _mask(
    crops: np.ndarray, places: np.ndarray, config: SpecAugmentConfig, rng: np.random.Generator
) -> None:
    chosen = np.flatnonzero(rng.random(len(places)) < config.probability)
    for axis, masks, width in (
        (1, config.time_masks, config.time_width),
        (2, config.frequency_masks, config.frequency_width),
    ):
        size = crops.shape[axis]
        widths = rng.integers(min(width, size) + 1, size=(masks, len(chosen)))
        starts = rng.integers(size - widths + 1)
        stops = starts + widths
        for row_starts, row_stops in zip(starts.tolist(), stops.tolist(), strict=True):
            masks_of = zip(places[chosen].tolist(), row_starts, row_stops, strict=True)
            for crop, start, stop in masks_of:
                if crop < 0:
                    continue
                if axis == 1:
                    crops[crop, start:stop] = 0
                else:
                    crops[crop, :, start:stop] = 0


def iterate_batches(
    reader: CropReader,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    frames: int,
    specaugment: SpecAugmentConfig | None,
    first_step: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Yield the batches of an epoch from ``first_step`` on, read ahead by a thread.

    With ``rows``, only these rows of each batch.

    Threads (this one and the reader's) and not worker processes: reading a crop is a system call
    and a copy, and passing a batch between processes costs more than that.

    Raises:
        SvError: What reading a crop raises, at the batch where it happened.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(reader.index))
    steps = count_steps(len(order), batch_size)

    def read(step: int) -> Batch:
        part = order[step * batch_size : (step + 1) * batch_size]
        return read_batch(reader, part, (seed, epoch, step), frames, specaugment, rows=rows)

    with ThreadPoolExecutor(1, "batches") as pool:
        yield from map_ahead(pool, read, range(first_step, steps), READ_AHEAD)
