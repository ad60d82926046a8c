"""Kaldi archives: matrices and vectors, written through kaldiio and read with one ``pread`` each.

Kaldi's float32 and two-byte formats store rows one after the other, so that a training crop, 350
rows of a matrix that may have thousands, can be read alone (`sv.data.crops`). The one-byte "CM"
format stores column by column and is refused.
Formats: Kaldi src/matrix/compressed-matrix.h and kaldi-matrix.cc, 2025-07.
"""

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import kaldiio
import numpy as np

from sv.errors import SvError
from sv.files import read_text, replacing

# kaldiio's number for Kaldi's kTwoByteAuto: min, range, then one uint16 for each value.
COMPRESSION = {"two-byte": 3, "none": None}
HEADER_BYTES = 2 + 4 + 16  # "\0B", "CM2 ", min, range, rows, columns: the longest header read


@dataclass(frozen=True)
class MatrixLocation:
    """Location of the rows of one matrix: all that is needed to read any of them.

    A value is ``minimum + step * raw`` for two-byte matrices (``item_bytes`` 2) and the raw
    float32 itself otherwise (``item_bytes`` 4, ``step`` 0).
    """

    offset: int
    rows: int
    columns: int
    item_bytes: int
    minimum: float
    step: float


def write_archive(
    ark: Path, scp: Path, items: Iterator[tuple[str, np.ndarray]], *, method: str
) -> int:
    """Write ``(key, matrix or vector)`` items to an ark and its scp; both appear once complete.

    Args:
        ark: Archive to write; the scp holds this path as given.
        scp: Table ``key ark:offset``.
        items: Float32 arrays, (rows, columns) or (dim,).
        method: ``"two-byte"`` (matrices: half the size, error < 5e-4 of log-mel) or ``"none"``.

    Returns:
        The number of items.
    """
    entries = []
    with replacing(ark, mode="wb") as file:
        for key, array in items:
            # An scp points to the position after the key and its space.
            entries.append((key, f"{ark}:{file.tell() + len(key.encode()) + 1}"))
            matrix = np.ascontiguousarray(array, dtype=np.float32)
            kaldiio.save_ark(file, {key: matrix}, compression_method=COMPRESSION[method])
    with replacing(scp) as file:
        file.writelines(f"{key} {entry}\n" for key, entry in entries)
    return len(entries)


class ArchiveReader:
    """Reads matrices of archives; opens each archive once. Safe to call from several threads."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._opening = threading.Lock()

    def locate(self, entry: str) -> MatrixLocation:
        """Return where the matrix is that an scp entry ``file.ark:offset`` points to.

        Raises:
            SvError: No such file, or no float32 or two-byte matrix at that offset.
        """
        ark, offset = _split(entry)
        return parse_header(self._read(ark, HEADER_BYTES, offset), ark, offset)

    def read(self, entry: str, where: MatrixLocation, out: np.ndarray) -> None:
        """Read the matrix at ``where``, (rows, columns) float32, into ``out``.

        Raises:
            SvError: It is truncated or holds NaN or infinity.
        """
        size = where.rows * where.columns * where.item_bytes
        data = self._read(_split(entry)[0], size, where.offset)
        if len(data) != size:
            raise SvError(f"{entry}: truncated: {len(data)} of {size} bytes are there")
        raw = np.frombuffer(data, dtype="<u2" if where.item_bytes == 2 else "<f4")
        out[:] = raw.reshape(where.rows, where.columns)
        if where.item_bytes == 2:
            out *= np.float32(where.step)
            out += np.float32(where.minimum)
        # Any NaN or infinity shows in the sum, without an array of flags.
        if not np.isfinite(out.sum(dtype=np.float64)):
            raise SvError(f"{entry}: NaN or infinity in the matrix")

    def _read(self, ark: str, size: int, offset: int) -> bytes:
        try:
            with self._opening:
                if ark not in self._descriptors:
                    self._descriptors[ark] = os.open(ark, os.O_RDONLY)
            return os.pread(self._descriptors[ark], size, offset)
        except OSError as error:
            raise SvError(f"cannot read {ark}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the archives."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}


def _split(entry: str) -> tuple[str, int]:
    ark, _, offset = entry.rpartition(":")
    if not ark or not offset.isdigit():
        raise SvError(f"'{entry}': expected '<ark>:<offset>'")
    return ark, int(offset)


def read_matrix(entry: str) -> np.ndarray:
    """Read the matrix that an scp entry points to, (rows, columns) float32.

    Raises:
        SvError: See `ArchiveReader`.
    """
    with contextlib.closing(ArchiveReader()) as reader:
        where = reader.locate(entry)
        matrix = np.empty((where.rows, where.columns), np.float32)
        reader.read(entry, where, matrix)
    return matrix


def parse_header(header: bytes, ark: str, offset: int) -> MatrixLocation:
    """Parse the `HEADER_BYTES` (or more) of an ark from ``offset`` on.

    Raises:
        SvError: There is no float32 or two-byte matrix.
    """
    if header[:6] == b"\0BCM2 " and len(header) >= HEADER_BYTES:
        minimum, value_range, rows, columns = struct.unpack_from("<ffii", header, 6)
        step = value_range / 65535.0
        return MatrixLocation(offset + 22, rows, columns, 2, minimum, step)
    if header[:6] == b"\0BFM \4" and len(header) >= 15:
        rows, columns = struct.unpack_from("<ixi", header, 6)
        return MatrixLocation(offset + 15, rows, columns, 4, 0.0, 0.0)
    raise SvError(
        f"{ark}:{offset}: no float32 or two-byte Kaldi matrix there (bytes {header[:6]!r})"
    )


def read_vectors(scp: Path) -> tuple[list[str], np.ndarray]:
    """Read all vectors of an scp.

    Returns:
        The keys in file order, and (keys, dim) float32.

    Raises:
        SvError: Missing or damaged files, a key that is listed twice, vectors of different size,
            NaN or infinity.
    """
    keys, vectors = _read_float_vectors(scp) or _read_any_vectors(scp)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise SvError(f"{scp}: {bad.size} vectors hold NaN or infinity (first: {keys[bad[0]]})")
    return keys, vectors


def _read_float_vectors(scp: Path) -> tuple[list[str], np.ndarray] | None:
    """Read vectors that are all binary float32 of one size; None if anything differs.

    kaldiio, which reads every form and reports what is wrong, takes five times as long.
    """
    places: dict[str, tuple[str, int]] = {}
    for line in read_text(scp).splitlines():
        key, _, entry = line.partition(" ")
        ark, _, offset = entry.strip().rpartition(":")
        if not ark or not offset.isdigit() or key in places:
            return None
        places[key] = ark, int(offset)
    header, found = b"", bytearray(10)
    try:
        with contextlib.ExitStack() as stack:
            arks = dict.fromkeys(ark for ark, _ in places.values())
            files = {ark: stack.enter_context(open(ark, "rb")).fileno() for ark in arks}
            for row, (ark, offset) in enumerate(places.values()):
                if not header:
                    # "\0B" binary, "FV " float vector, the size of an int32, the int32.
                    header = os.pread(files[ark], 10, offset)
                    if header[:6] != b"\0BFV \4" or len(header) < 10:
                        return None
                    dim = struct.unpack_from("<i", header, 6)[0]
                    vectors = np.empty((len(places), dim), dtype="<f4")
                size = os.preadv(files[ark], [found, vectors[row]], offset)
                if found != header or size != 10 + 4 * dim:
                    return None
    except OSError:
        return None
    return (list(places), vectors) if places else None


def _read_any_vectors(scp: Path) -> tuple[list[str], np.ndarray]:
    """Read vectors of any Kaldi form through kaldiio. See `read_vectors`."""
    items: dict[str, np.ndarray] = {}
    try:
        for key, array in kaldiio.load_scp_sequential(str(scp)):
            if key in items:
                raise SvError(f"{scp}: line {len(items) + 1}: '{key}' is listed twice")
            items[key] = array
    except (OSError, ValueError, RuntimeError) as error:  # kaldiio's, for damage of any kind
        reason = " ".join(str(error).split())
        raise SvError(f"cannot read the vectors of {scp}: {reason}") from error
    if not items:
        raise SvError(f"{scp}: empty")
    dims = {array.shape for array in items.values()}
    if len(dims) != 1:
        raise SvError(f"{scp}: vectors of different shapes: {sorted(dims)[:3]}")
    return list(items), np.stack(list(items.values())).astype(np.float32, copy=False)
