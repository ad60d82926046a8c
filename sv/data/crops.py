"""The training set as an index of arrays: the location of the rows of every utterance and copy.

Five and a half million matrices (VoxCeleb2 and its four augmented copies) as Python objects would
take gigabytes; as arrays they take 120 MB. A crop is one ``preadv`` of its rows. Threads read a
batch, as a network disk takes milliseconds for each crop, and decode several as one array:
tests/bench/crop_reading.py, crop_index.py and loader.py have the figures.
"""

import errno
import hashlib
import logging
import os
import resource
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from sv.errors import SvError, describe
from sv.files import replacing
from sv.kaldi.archive import (
    HEADER_BYTES,
    ITEMS,
    LEVELS,
    open_archive,
    parse_entry,
    parse_header,
    read_checksum,
)

MORE_FILES = "allow more: ulimit -n, or fewer archives (stage 3 with --resume false and less --nj)"
HASHED_BYTES = 64  # of each matrix: half a row of a small front end
READ_THREADS = 16  # of a process: so many crops are asked of the disk at once
DECODED_AT_ONCE = 16  # crops: 1 MB of two-byte rows, which stay in the cache until they are decoded


@dataclass(frozen=True)
class CropIndex:
    """Every crop source of a training set: N utterances in K kinds (clean and augmented copies).

    ``speaker`` is (N,) int32; ``ark``, ``offset``, ``rows``, ``minimum`` and ``step`` are (K, N)
    and describe each matrix as `MatrixLocation` does; ``arks`` are the archives' names and
    ``ark_bytes`` (archives,) int64 their sizes, ``checksums`` what stage 3 wrote next to them,
    empty where there is none. ``content_sha256`` is of the beginnings of all matrices: other
    features give another one.
    """

    kinds: tuple[str, ...]
    arks: tuple[str, ...]
    checksums: tuple[str, ...]
    columns: int
    item_bytes: int
    content_sha256: str
    ark_bytes: np.ndarray
    speaker: np.ndarray
    ark: np.ndarray
    offset: np.ndarray
    rows: np.ndarray
    minimum: np.ndarray
    step: np.ndarray

    def __len__(self) -> int:
        return len(self.speaker)


_ARRAYS = ("ark_bytes", "speaker", "ark", "offset", "rows", "minimum", "step")


def build_crop_index(
    utterances: Sequence[str], labels: Mapping[str, int], copies: Mapping[str, Mapping[str, str]]
) -> CropIndex:
    """Read the header of every matrix once.

    Args:
        utterances: Ids of the training utterances, in order.
        labels: Class of each utterance.
        copies: The feats.scp of each kind ("clean", "babble", ...): utterance to ``ark:offset``.

    Raises:
        SvError: A matrix is missing or of another format, or a copy has another number of frames
            than the clean utterance.
    """
    n, kinds = len(utterances), tuple(copies)
    ark_ids: dict[str, int] = {}
    _allow_many_files()
    descriptors: list[int] = []
    sizes: list[int] = []
    shape = (len(kinds), n)
    ark, rows = np.empty(shape, np.int16), np.empty(shape, np.int32)
    offset = np.empty(shape, np.int64)
    minimum, step = np.empty(shape, np.float32), np.empty(shape, np.float32)
    formats: set[tuple[int, int]] = set()
    content = hashlib.sha256()
    try:
        for k, kind in enumerate(kinds):
            for i, utterance in enumerate(utterances):
                name, start = parse_entry(copies[kind][utterance])
                if name not in ark_ids:
                    ark_ids[name] = len(sizes)
                    descriptors.append(_open(name))
                    sizes.append(os.fstat(descriptors[-1]).st_size)
                at = ark_ids[name]
                head = os.pread(descriptors[at], HEADER_BYTES + HASHED_BYTES, start)
                where = parse_header(head, name, start, sizes[at])
                ark[k, i], offset[k, i], rows[k, i] = at, where.offset, where.rows
                minimum[k, i], step[k, i] = where.minimum, where.step
                formats.add((where.columns, where.item_bytes))
                values = where.offset - start
                content.update(struct.pack("<if", where.rows, where.minimum))
                content.update(head[values : values + HASHED_BYTES])
            logging.info("indexed %d matrices of kind %s", n, kind)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if len(formats) != 1:
        raise SvError(f"features of different size or format (columns, bytes): {sorted(formats)}")
    differing = np.flatnonzero((rows != rows[0]).any(axis=0))
    if differing.size:
        raise SvError(
            f"{differing.size} utterances have copies of another length than the clean one "
            f"(first: {utterances[differing[0]]}); make stages 2 and 3 again"
        )
    columns, item_bytes = formats.pop()
    speaker = np.array([labels[u] for u in utterances], np.int32)
    return CropIndex(
        kinds=kinds,
        arks=tuple(ark_ids),
        checksums=tuple(read_checksum(Path(ark)) or "" for ark in ark_ids),
        columns=columns,
        item_bytes=item_bytes,
        content_sha256=content.hexdigest(),
        ark_bytes=np.array(sizes, np.int64),
        speaker=speaker,
        ark=ark,
        offset=offset,
        rows=rows,
        minimum=minimum,
        step=step,
    )


def _open(name: str) -> int:
    try:
        return open_archive(name)
    except SvError as error:
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EMFILE
        raise SvError(f"{error}; {MORE_FILES if full else 'make stage 3 again'}") from error


def _allow_many_files() -> None:
    """Let this process open as many files as the system lets it: an archive each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def validate_features(index: CropIndex) -> None:
    """Check that the archives are those that were indexed, by the checksums next to them.

    Raises:
        SvError: One has been made again since, of other features.
    """
    for ark, known in zip(index.arks, index.checksums, strict=True):
        if known and read_checksum(Path(ark)) != known:
            raise SvError(f"{ark}: other features than in stage 4; make stage 4 again")


def save_crop_index(path: Path, index: CropIndex) -> None:
    """Write an index as one ``.npz`` file; an unchanged one keeps its time."""
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    with replacing(path, mode="wb", keep_if_same=True) as file:
        np.savez(
            file,
            kinds=np.array(index.kinds),
            arks=np.array(index.arks),
            checksums=np.array(index.checksums),
            form=np.array([index.columns, index.item_bytes]),
            content=np.array(index.content_sha256),
            **arrays,
        )


def load_crop_index(path: Path) -> CropIndex:
    """Load an index that `save_crop_index` wrote.

    Raises:
        SvError: No such file, or not an index.
    """
    try:
        with np.load(path) as data:
            columns, item_bytes = data["form"].tolist()
            arrays = {name: data[name] for name in _ARRAYS}
            kinds, arks = tuple(data["kinds"].tolist()), tuple(data["arks"].tolist())
            content = str(data["content"])
            known = data["checksums"].tolist() if "checksums" in data else [""] * len(arks)
    except (OSError, EOFError, ValueError, KeyError, TypeError, MemoryError, BadZipFile) as error:
        raise SvError(f"cannot read {path}: {describe(error)}; make stage 4 again") from error
    return CropIndex(kinds, arks, tuple(known), columns, item_bytes, content, **arrays)


class CropReader:
    """Reads crops of an index; keeps every archive open. Safe to call from several threads.

    Args:
        index: The training set.
        threads: Crops that are read at the same time.

    Raises:
        SvError: An archive is missing, or its size differs from that in the index.
    """

    def __init__(self, index: CropIndex, *, threads: int = READ_THREADS) -> None:
        _allow_many_files()
        self.index, self._threads = index, threads
        self._pool = ThreadPoolExecutor(threads, "crops")
        self._descriptors: list[int] = []
        for name, size in zip(index.arks, index.ark_bytes.tolist(), strict=True):
            descriptor = _open(name)
            self._descriptors.append(descriptor)
            # What follows a crop is not worth reading: the next crop lies anywhere.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            now = os.fstat(descriptor).st_size
            if now != size:
                raise SvError(f"{name}: {now} bytes, but {size} in stage 4; make stage 4 again")

    def read(
        self, kinds: np.ndarray, utterances: np.ndarray, starts: np.ndarray, out: np.ndarray
    ) -> None:
        """Read a batch of crops.

        Args:
            kinds: Number of the copy of each crop, (B,).
            utterances: Number of its utterance, (B,).
            starts: Its first row, (B,): at most rows - frames, and 0 if the utterance has fewer
                rows than the crop; it is then repeated from its beginning to the crop's length.
            out: (B, frames, columns) float32, contiguous, to fill.

        Raises:
            SvError: An archive cannot be read, ends before the rows do, or holds NaN or infinity.
        """
        i, frames, row_bytes = self.index, out.shape[1], self.index.columns * self.index.item_bytes
        arks, offsets = i.ark[kinds, utterances], i.offset[kinds, utterances]
        counts = np.minimum(i.rows[kinds, utterances], frames)
        minimum = i.minimum[kinds, utterances, None, None]
        step = i.step[kinds, utterances, None, None]
        places = np.stack([arks, offsets + starts * row_bytes, counts], axis=1).tolist()
        size = min(DECODED_AT_ONCE, -(-len(out) // self._threads))

        def read_part(first: int) -> None:
            part = slice(first, first + size)
            crops, levels = out[part], LEVELS.get(i.item_bytes)
            stored = np.empty(crops.shape, ITEMS[i.item_bytes]) if levels else crops
            for crop, (ark, offset, count) in zip(stored, places[part], strict=True):
                self._fill(ark, offset, memoryview(crop[:count]).cast("B"))
                for row in range(count, frames, count):
                    crop[row : row + count] = crop[: min(count, frames - row)]
            if levels:
                np.multiply(stored, step[part], out=crops)
                crops += minimum[part]
            # Decoded values are finite if the largest possible one is.
            checked = minimum[part] + levels * step[part] if levels else crops
            finite = np.isfinite(checked).all(axis=(1, 2))
            if not finite.all():
                bad = first + int(finite.argmin())
                where = f"{i.arks[arks[bad]]}:{offsets[bad]}"
                last = starts[bad] + counts[bad]
                raise SvError(f"{where}: NaN or infinity in rows {starts[bad]}-{last}")

        # In order, so that of several errors the first crop's is raised.
        for _ in self._pool.map(read_part, range(0, len(out), size)):
            pass

    def _fill(self, ark: int, offset: int, buffer: memoryview) -> None:
        name = self.index.arks[ark]
        try:
            count = os.preadv(self._descriptors[ark], [buffer], offset)
        except OSError as error:
            raise SvError(f"cannot read {name}: {error.strerror}") from error
        if count != len(buffer):
            end = offset + len(buffer)
            raise SvError(f"{name}: truncated: bytes {offset} to {end} are not there")

    def close(self) -> None:
        """Close the archives, once no thread reads."""
        self._pool.shutdown(cancel_futures=True)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
