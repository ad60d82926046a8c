"""Lhotse manifests as compressed JSON lines, written in chunks and read in order.

Items are in C order of their ids. A manifest is a chain of gzip members, one for each chunk,
without timestamps: preparing the same corpus again gives the same bytes, whatever the number of
processes, and an unchanged manifest keeps its modification time, so that nothing made from it is
made again.
"""

import contextlib
import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from lhotse import Recording, SupervisionSegment
from lhotse.augmentation import AudioTransform
from lhotse.cut import Cut
from lhotse.cut.mixed import MixTrack
from lhotse.serialization import deserialize_item

from sv.data.parallel import split_chunks
from sv.errors import SvError
from sv.files import replacing

Manifested = Recording | SupervisionSegment | Cut
# Level 3: manifests are written and read once or twice, not kept for years.
GZIP_LEVEL = 3


def pack_items(items: Iterable[Manifested]) -> bytes:
    """Return the lines of some items as one gzip member."""
    lines = "".join(
        json.dumps(item, default=_describe, ensure_ascii=False) + "\n" for item in items
    )
    return gzip.compress(lines.encode(), GZIP_LEVEL, mtime=0)


def _describe(item: Any) -> dict[str, Any]:
    """Return what ``item.to_dict()`` does, one level deep: that copies deeply, several times."""
    if isinstance(item, MixTrack):
        return item.to_dict() if item.tag or item.mute or item.is_snr_reference else _track(item)
    if isinstance(item, AudioTransform):
        return item.to_dict()
    fields = {key: value for key, value in vars(item).items() if value is not None}
    if isinstance(item, Cut):
        fields["type"] = type(item).__name__
    return fields


def _track(track: MixTrack) -> dict[str, Any]:
    snr = {} if track.snr is None else {"snr": track.snr}
    return {"cut": track.cut, "type": track.type, "offset": track.offset, **snr}


@contextlib.contextmanager
def open_manifests(*paths: Path) -> Iterator[list[IO[bytes]]]:
    """Open ``.jsonl.gz`` manifests to write gzip members (`pack_items`) to.

    They are renamed into place when the block ends; after an error in it none is.

    Raises:
        SvError: One cannot be written.
    """
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(replacing(path, mode="wb", keep_if_same=True, packed=True))
            for path in paths
        ]


def write_manifest(path: Path, items: Iterable[Manifested]) -> int:
    """Write a ``.jsonl.gz`` manifest in the given order; return the number of its items."""
    count = 0
    with open_manifests(path) as [file]:
        for chunk in split_chunks(items):
            file.write(pack_items(chunk))
            count += len(chunk)
    return count


def read_lines(path: Path, *, job: int = 1, nj: int = 1) -> Iterator[str]:
    """Read the lines of a manifest, or those of one job; see `read_manifest`."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from itertools.islice(file, job - 1, None, nj)
    except (OSError, EOFError) as error:
        raise SvError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise SvError(f"{path}: not a manifest: {error}") from error


def read_manifest(path: Path, *, job: int = 1, nj: int = 1) -> Iterator:
    """Read the items of a manifest, or the share of one job among ``nj``.

    Args:
        path: A ``.jsonl.gz`` manifest.
        job: 1-based number of the share: every nj-th item from there.
        nj: Number of shares.

    Raises:
        SvError: No such file, or not a manifest.
    """
    for line in read_lines(path, job=job, nj=nj):
        try:
            yield parse_item(line)
        except ValueError as error:
            raise SvError(f"{path}: not a manifest: {error}") from error


def parse_item(line: str) -> Any:
    """Build the recording, supervision or cut that a line describes; ValueError if it is none."""
    return deserialize_item(json.loads(line))
