"""Copies of training features on a machine's own disk, where the shared disk is slow.

The copy of ``data/<set>/fbank/fbank.1.ark`` is ``<root>/<set>/fbank/fbank.1.ark``. It is used if it
has the size that stage 4 found and the checksum that stage 3 wrote; else it is made anew. What was
checked is noted next to it, so that a resumed training reads nothing twice.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sv.data.crops import CropIndex
from sv.data.parallel import map_ahead
from sv.data.space import Share, require_space
from sv.errors import SvError
from sv.files import hash_file, read_text, replacing, validate_name, write_text
from sv.kaldi.archive import get_checksum_path, read_checksum

THREADS = 8  # archives at once
BLOCK = 1 << 24


def use_copies(index: CropIndex, root: Path) -> CropIndex:
    """Return the index with the copies below ``root`` as its archives.

    Raises:
        SvError: Two archives would have the same copy, or one has no name for it.
    """
    copies = [
        root.joinpath(*(validate_name(part, f"{ark}:") for part in Path(ark).parts[-3:]))
        for ark in index.arks
    ]
    if len(set(copies)) < len(copies):
        raise SvError(f"{root}: archives of the same set and name would have one copy there")
    return replace(index, arks=tuple(map(str, copies)))


def stage_archives(index: CropIndex, root: Path) -> None:
    """Make sure that every archive of an index has a copy below ``root`` that is right.

    Raises:
        SvError: An archive has no checksum or differs from it, or from the index; no room.
    """
    copies = map(Path, use_copies(index, root).arks)
    sizes = index.ark_bytes.tolist()
    todo = list(zip(map(Path, index.arks), copies, sizes, strict=True))
    new = [size for _, copy, size in todo if not _has_size(copy, size)]
    share = Share(f"{len(new)} of {len(todo)} archives to copy", root, sum(new))
    require_space([share], "give another --features-root, or none")
    with ThreadPoolExecutor(THREADS, "staging") as pool:
        done = map_ahead(pool, lambda args: _stage(*args), todo, THREADS)
        for (_, copy, _), what in zip(todo, done, strict=True):
            logging.info("%s: %s", copy, what)


def _has_size(copy: Path, size: int) -> bool:
    return copy.is_file() and copy.stat().st_size == size


def _stage(ark: Path, copy: Path, size: int) -> str:
    """Check a copy, or make it; return what was done."""
    checksum, wanted = get_checksum_path(ark), read_checksum(ark)
    if wanted is None:
        raise SvError(
            f"no such file {checksum}, which stage 3 writes; "
            f"(cd {ark.parent} && sha256sum {ark.name} >{checksum.name}) does too"
        )
    note, what = copy.with_name(f".{copy.name}.checked"), "copied"
    if _has_size(copy, size):
        if note.is_file() and read_text(note) == _describe(copy, wanted):
            return "checked before"
        if hash_file(copy, "sha256") == wanted:
            _write_note(note, copy, wanted)
            return "checked"
        what = "copied again: it differed from its checksum"
    _copy(ark, copy, size, wanted)
    _write_note(note, copy, wanted)
    return what


def _copy(ark: Path, copy: Path, size: int, wanted: str) -> None:
    digest = hashlib.sha256()
    with _opening(ark) as source, replacing(copy, mode="wb") as target:
        if (now := os.fstat(source.fileno()).st_size) != size:
            raise SvError(f"{ark}: {now} bytes, but {size} in stage 4; make stage 4 again")
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
        if digest.hexdigest() != wanted:
            raise SvError(f"{ark}: differs from {get_checksum_path(ark)}; make stage 3 again")


@contextlib.contextmanager
def _opening(ark: Path) -> Iterator:
    try:
        file = open(ark, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SvError(f"cannot read {ark}: {error.strerror}; make stage 3 again") from error
    with file:
        yield file


def _describe(copy: Path, checksum: str) -> str:
    return f"{checksum} {copy.stat().st_mtime_ns}\n"


def _write_note(note: Path, copy: Path, checksum: str) -> None:
    with contextlib.suppress(SvError):  # a disk to read from only: checked each time
        write_text(note, _describe(copy, checksum))
