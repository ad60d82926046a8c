"""Kaldi archives: matrices and vectors, written through kaldiio and read with one ``pread`` each.

What is read may be somebody else's, and kaldiio runs a pipe in a table and unpickles an archive
that asks for it. So it reads nothing here: an entry is ``<ark>:<offset>`` of a regular file and
nothing else, and a header is believed only as far as the file reaches, before memory is taken.

Kaldi's float32 ("FM"), two-byte ("CM2") and one-byte ("CM3") formats store rows one after the
other, so that a training crop, 350 rows of a matrix that may have thousands, can be read alone
(`sv.data.crops`). Its speech feature format ("CM") stores column by column and is refused.
Formats: Kaldi src/matrix/compressed-matrix.h and kaldi-matrix.cc, 2025-07.
"""

import contextlib
import hashlib
import os
import re
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import kaldiio
import numpy as np

from sv.errors import SvError
from sv.files import read_text, replacing, write_text

# kaldiio's numbers for Kaldi's kTwoByteAuto and kOneByteAuto: least value and range of the matrix,
# then an unsigned integer for each value, linear between the two.
COMPRESSION = {"two-byte": 3, "one-byte": 5, "none": None}
_CODED = {b"\0BCM2 ": 2, b"\0BCM3 ": 1}  # bytes of such an integer
ITEMS = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<f4")}  # by `item_bytes`
LEVELS = {1: 255, 2: 65535}  # the largest integer; a float has none
HEADER_BYTES = 2 + 4 + 16  # "\0B", "CM2 ", min, range, rows, columns: the longest header read
_ENTRY = re.compile(r"(\S.*):([0-9]{1,18})")
_VECTORS = {b"\0BFV \4": "<f4", b"\0BDV \4": "<f8"}  # Kaldi's; "\4" is the size of an int32
_VECTOR_BYTES = 10  # of their headers: the six above and the int32
_TEXT_BYTES = 1 << 24  # of a vector as text at most
AGAIN = "; stage 3 makes it again"  # matrices are features
_SMALL_BYTES = 1 << 28  # so much may be taken for vectors, whatever their archives' size


@dataclass(frozen=True)
class MatrixLocation:
    """Location of the rows of one matrix: all that is needed to read any of them.

    A value is ``minimum + step * raw`` for compressed matrices (``item_bytes`` 1 or 2) and the
    raw float32 itself otherwise (``item_bytes`` 4, ``step`` 0).
    """

    offset: int
    rows: int
    columns: int
    item_bytes: int
    minimum: float
    step: float


def write_archive(
    ark: Path,
    scp: Path,
    items: Iterator[tuple[str, np.ndarray]],
    *,
    method: str,
    checksum: bool = False,
) -> int:
    """Write ``(key, matrix or vector)`` items to an ark and its scp; both appear once complete.

    Args:
        ark: Archive to write; the scp holds this path as given.
        scp: Table ``key ark:offset``.
        items: Float32 arrays, (rows, columns) or (dim,).
        method: Of matrices: ``"two-byte"`` (half the size, error < 5e-4 of log-mel),
            ``"one-byte"`` (a quarter, error < 0.1) or ``"none"``.
        checksum: Write `get_checksum_path` too.

    Returns:
        The number of items.
    """
    entries = []
    with replacing(ark, mode="wb") as raw:
        file = _Hashed(raw)
        for key, array in items:
            # An scp points to the position after the key and its space.
            entries.append((key, f"{ark}:{file.tell() + len(key.encode()) + 1}"))
            matrix = np.ascontiguousarray(array, dtype=np.float32)
            kaldiio.save_ark(file, {key: matrix}, compression_method=COMPRESSION[method])
    if checksum:
        write_text(get_checksum_path(ark), f"{file.digest.hexdigest()}  {ark.name}\n")
    with replacing(scp) as table:
        table.writelines(f"{key} {entry}\n" for key, entry in entries)
    return len(entries)


class _Hashed:
    """A file to write to, and the hash of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.tell = file, hashlib.sha256(), file.tell

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def get_checksum_path(ark: Path) -> Path:
    """Return where an archive's SHA-256 is, a line as sha256sum writes and checks it."""
    return ark.with_name(f"{ark.name}.sha256")


def read_checksum(ark: Path) -> str | None:
    """Return the SHA-256 that stage 3 wrote next to an archive; None: there is no such file."""
    path = get_checksum_path(ark)
    return read_text(path).partition(" ")[0] if path.is_file() else None


def parse_entry(entry: str) -> tuple[str, int]:
    """Return archive and offset of an entry ``<ark>:<offset>``.

    Raises:
        SvError: It is anything else: a pipe, a range of rows, a file without offset.
    """
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise SvError(f"'{entry[:200]}': expected '<ark>:<offset>'")
    return found[1], int(found[2])


def open_archive(ark: str) -> int:
    """Open an archive for reading; return its descriptor.

    Raises:
        SvError: It cannot be opened, or is no regular file (opening a pipe would wait for ever).
    """
    try:
        descriptor = os.open(ark, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise SvError(f"cannot read {ark}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SvError(f"cannot read {ark}: not a regular file")
    return descriptor


class ArchiveReader:
    """Reads matrices of archives; opens each archive once. Safe to call from several threads."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._opening = threading.Lock()

    def locate(self, entry: str) -> MatrixLocation:
        """Return where the matrix is that an scp entry ``file.ark:offset`` points to.

        Raises:
            SvError: No such file, or no matrix of these formats that ends within it at that
                offset.
        """
        ark, offset = parse_entry(entry)
        header = self._read(ark, HEADER_BYTES, offset)
        return parse_header(header, ark, offset, os.fstat(self._descriptors[ark]).st_size)

    def read(self, entry: str, where: MatrixLocation, out: np.ndarray) -> None:
        """Read the matrix at ``where``, (rows, columns) float32, into ``out``.

        Raises:
            SvError: It is truncated or holds NaN or infinity.
        """
        size = where.rows * where.columns * where.item_bytes
        data = self._read(parse_entry(entry)[0], size, where.offset)
        if len(data) != size:
            raise SvError(f"{entry}: truncated: {len(data)} of {size} bytes are there{AGAIN}")
        raw = np.frombuffer(data, ITEMS[where.item_bytes])
        out[:] = raw.reshape(where.rows, where.columns)
        if where.item_bytes in LEVELS:
            out *= np.float32(where.step)
            out += np.float32(where.minimum)
        # Any NaN or infinity shows in the sum, without an array of flags.
        if not np.isfinite(out.sum(dtype=np.float64)):
            raise SvError(f"{entry}: NaN or infinity in the matrix")

    def _read(self, ark: str, size: int, offset: int) -> bytes:
        try:
            with self._opening:
                if ark not in self._descriptors:
                    self._descriptors[ark] = open_archive(ark)
            return os.pread(self._descriptors[ark], size, offset)
        except OSError as error:
            raise SvError(f"cannot read {ark}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the archives."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}


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


def parse_header(header: bytes, ark: str, offset: int, ark_bytes: int) -> MatrixLocation:
    """Parse the `HEADER_BYTES` (or more) of an ark from ``offset`` on.

    Raises:
        SvError: There is no matrix of these formats, an empty one, or one that does not end within
            the ``ark_bytes`` of the archive.
    """
    if offset >= ark_bytes:
        raise SvError(f"{ark}:{offset}: truncated: the archive has {ark_bytes} bytes{AGAIN}")
    if (item_bytes := _CODED.get(header[:6])) and len(header) >= HEADER_BYTES:
        minimum, value_range, rows, columns = struct.unpack_from("<ffii", header, 6)
        step = value_range / LEVELS[item_bytes]
        where = MatrixLocation(offset + 22, rows, columns, item_bytes, minimum, step)
    elif header[:6] == b"\0BFM \4" and len(header) >= 15:
        rows, columns = struct.unpack_from("<ixi", header, 6)
        where = MatrixLocation(offset + 15, rows, columns, 4, 0.0, 0.0)
    else:
        raise SvError(
            f"{ark}:{offset}: no Kaldi matrix of rows there: float32 (FM), two-byte (CM2) or "
            f"one-byte (CM3) (bytes {header[:6]!r})"
        )
    if rows < 1 or columns < 1:
        raise SvError(f"{ark}:{offset}: a matrix of {rows} rows and {columns} columns")
    size, there = rows * columns * where.item_bytes, ark_bytes - where.offset
    if there < size:
        raise SvError(f"{ark}:{offset}: truncated: {there} of {size} bytes are there{AGAIN}")
    return where


def read_vectors(scp: Path) -> tuple[list[str], np.ndarray]:
    """Read all vectors of an scp: Kaldi's float32, float64 or text.

    Returns:
        The keys in file order, and (keys, dim) float32.

    Raises:
        SvError: Missing or damaged files, a key that is listed twice, vectors of different size,
            NaN or infinity.
    """
    places: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(read_text(scp).splitlines(), 1):
        key, entry = [*line.split(maxsplit=1), "", ""][:2]
        if key in places:
            raise SvError(f"{scp}: line {number}: '{key}' is listed twice")
        try:
            places[key] = parse_entry(entry.strip())
        except SvError as error:
            raise SvError(f"{scp}: line {number}: {error}") from error
    if not places:
        raise SvError(f"{scp}: empty")
    try:
        with contextlib.ExitStack() as stack:
            files = {}
            for ark in dict.fromkeys(ark for ark, _ in places.values()):
                files[ark] = open_archive(ark)
                stack.callback(os.close, files[ark])
            vectors = _read_places(places, files)
    except (SvError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SvError(f"cannot read the vectors of {scp}: {reason}") from error
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        keys = list(places)
        raise SvError(f"{scp}: {bad.size} vectors hold NaN or infinity (first: {keys[bad[0]]})")
    return list(places), vectors


def _read_places(places: dict[str, tuple[str, int]], files: dict[str, int]) -> np.ndarray:
    """Read the vectors at the places of some keys, (keys, dim) float32, from open archives."""
    sizes = {ark: os.fstat(descriptor).st_size for ark, descriptor in files.items()}
    key, place = next(iter(places.items()))
    first = _read_vector(key, *place, files, sizes)
    # Text of a number has two bytes at least, where the array has four.
    if len(places) * first.nbytes > max(2 * sum(sizes.values()), _SMALL_BYTES):
        raise SvError(f"{len(places)} of {len(first)} values are larger than their archives")
    vectors = np.empty((len(places), len(first)), dtype="<f4")
    header = b"\0BFV \4" + struct.pack("<i", len(first))
    found = bytearray(_VECTOR_BYTES)
    for row, (key, (ark, offset)) in enumerate(places.items()):
        # One read where it is a float32 vector like the first: five times as fast as parsing it.
        size = os.preadv(files[ark], [found, vectors[row]], offset)
        if found == header and size == _VECTOR_BYTES + first.nbytes:
            continue
        vector = _read_vector(key, ark, offset, files, sizes)
        if vector.shape != first.shape:
            shapes = f"{len(first)} and {len(vector)} values"
            raise SvError(f"vectors of different shapes: {shapes}")
        vectors[row] = vector
    return vectors


def _read_vector(
    key: str, ark: str, offset: int, files: dict[str, int], sizes: dict[str, int]
) -> np.ndarray:
    """Read a vector of any of Kaldi's forms, (dim,) float32."""
    where = f"{key}: {ark}:{offset}"
    if offset >= sizes[ark]:
        raise SvError(f"{where}: truncated: the archive has {sizes[ark]} bytes")
    head = os.pread(files[ark], _VECTOR_BYTES, offset)
    if (dtype := _VECTORS.get(head[:6])) and len(head) == _VECTOR_BYTES:
        dim, item_bytes = struct.unpack_from("<i", head, 6)[0], np.dtype(dtype).itemsize
        if dim < 1 or offset + _VECTOR_BYTES + dim * item_bytes > sizes[ark]:
            raise SvError(f"{where}: truncated, or no vector: {dim} values")
        data = os.pread(files[ark], dim * item_bytes, offset + _VECTOR_BYTES)
        with np.errstate(over="ignore"):  # infinity is found below
            return np.frombuffer(data, dtype).astype("<f4")
    if head.lstrip(b" ").startswith(b"["):
        with open(files[ark], "rb", closefd=False) as file:
            file.seek(offset)
            text = file.readline(_TEXT_BYTES).strip()
        with contextlib.suppress(ValueError), np.errstate(over="ignore"):
            if text.endswith(b"]") and (words := text[1:-1].split()):
                return np.array([float(word) for word in words]).astype("<f4")
    raise SvError(f"{where}: no Kaldi vector there (bytes {head[:6]!r})")
