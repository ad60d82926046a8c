"""The training set as an index of arrays: where the rows of every utterance and copy lie.

Five and a half million matrices (VoxCeleb2 and its four augmented copies) as Python objects would
take gigabytes; as arrays they take a hundred megabytes, and a crop is one ``pread`` of its rows.
"""

import hashlib
import logging
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sv.errors import SvError
from sv.files import replacing
from sv.kaldi.archive import MatrixLocation, read_header, read_rows

HASHED_BYTES = 64  # of each matrix: half a row of a small front end


@dataclass(frozen=True)
class CropIndex:
    """Every crop source of a training set: N utterances in K kinds (clean and augmented copies).

    ``speaker`` is (N,) int32; ``ark``, ``offset``, ``rows``, ``minimum`` and ``step`` are (K, N)
    and describe each matrix as `MatrixLocation` does; ``arks`` are the archives' names.
    ``content_sha256`` is of the beginnings of all matrices: other features give another one.
    """

    kinds: tuple[str, ...]
    arks: tuple[str, ...]
    columns: int
    item_bytes: int
    content_sha256: str
    speaker: np.ndarray
    ark: np.ndarray
    offset: np.ndarray
    rows: np.ndarray
    minimum: np.ndarray
    step: np.ndarray

    def __len__(self) -> int:
        return len(self.speaker)


_ARRAYS = ("speaker", "ark", "offset", "rows", "minimum", "step")


def build_crop_index(
    utterances: Sequence[str], labels: Mapping[str, int], copies: Mapping[str, Mapping[str, str]]
) -> CropIndex:
    """Read the header of every matrix once.

    Args:
        utterances: Ids of the training utterances, in order.
        labels: Class of each utterance.
        copies: For each kind ("clean", "babble", ...) its feats.scp: utterance to ``ark:offset``.

    Raises:
        SvError: A matrix is missing or of another kind, or a copy's frames differ from the clean's.
    """
    n, kinds = len(utterances), tuple(copies)
    ark_ids: dict[str, int] = {}
    descriptors: list[int] = []
    shape = (len(kinds), n)
    ark, rows = np.empty(shape, np.int16), np.empty(shape, np.int32)
    offset = np.empty(shape, np.int64)
    minimum, step = np.empty(shape, np.float32), np.empty(shape, np.float32)
    formats: set[tuple[int, int]] = set()
    content = hashlib.sha256()
    try:
        for k, kind in enumerate(kinds):
            for i, utterance in enumerate(utterances):
                name, _, position = copies[kind][utterance].rpartition(":")
                if name not in ark_ids:
                    ark_ids[name] = len(descriptors)
                    descriptors.append(_open(name))
                where = read_header(descriptors[ark_ids[name]], name, int(position))
                ark[k, i], offset[k, i], rows[k, i] = ark_ids[name], where.offset, where.rows
                minimum[k, i], step[k, i] = where.minimum, where.step
                formats.add((where.columns, where.item_bytes))
                content.update(struct.pack("<if", where.rows, where.minimum))
                content.update(os.pread(descriptors[ark_ids[name]], HASHED_BYTES, where.offset))
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
        columns=columns,
        item_bytes=item_bytes,
        content_sha256=content.hexdigest(),
        speaker=speaker,
        ark=ark,
        offset=offset,
        rows=rows,
        minimum=minimum,
        step=step,
    )


def _open(name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY)
    except OSError as error:
        raise SvError(f"cannot open {name}: {error.strerror}; make stage 3 again") from error


def save_crop_index(path: Path, index: CropIndex) -> None:
    """Write an index as one ``.npz`` file."""
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    with replacing(path, mode="wb") as file:
        np.savez(
            file,
            kinds=np.array(index.kinds),
            arks=np.array(index.arks),
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
    except (OSError, ValueError, KeyError) as error:
        raise SvError(f"cannot read {path}: {error}; make stage 4 again") from error
    return CropIndex(kinds, arks, columns, item_bytes, content, **arrays)


class CropReader:
    """Reads crops of an index; keeps every archive open. Safe to call from several threads."""

    def __init__(self, index: CropIndex) -> None:
        self.index = index
        self._descriptors = [_open(name) for name in index.arks]

    def read(self, kind: int, utterance: int, start: int, out: np.ndarray) -> None:
        """Fill ``out`` (frames, columns) float32 from row ``start`` on.

        A shorter utterance is repeated from its beginning, as often as it takes.
        """
        i = self.index
        where = MatrixLocation(
            i.arks[i.ark[kind, utterance]],
            int(i.offset[kind, utterance]),
            int(i.rows[kind, utterance]),
            i.columns,
            i.item_bytes,
            float(i.minimum[kind, utterance]),
            float(i.step[kind, utterance]),
        )
        descriptor = self._descriptors[i.ark[kind, utterance]]
        filled = 0
        while filled < len(out):
            stop = min(where.rows, start + len(out) - filled)
            read_rows(descriptor, where, start, stop, out=out[filled : filled + stop - start])
            filled += stop - start
            start = 0

    def close(self) -> None:
        """Close the archives."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
