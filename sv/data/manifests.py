"""Lhotse manifests as compressed JSON lines, written in chunks and read in order.

Items are in C order of their ids. A manifest is a chain of gzip members, one for each chunk,
without timestamps: preparing the same corpus again gives the same bytes, whatever the number of
processes, and an unchanged manifest keeps its modification time, so that nothing made from it is
made again.

A manifest may be somebody else's, and Lhotse runs the commands and fetches the addresses that one
can hold in place of a file. So nothing but files is a source here, wherever it stands: in a
recording, in the tracks of a mix, as an impulse response.
"""

import contextlib
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from lhotse import Recording, SupervisionSegment
from lhotse.augmentation import AudioTransform
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from sv.data.config import MAX_SAMPLES
from sv.data.inputs import read_lines
from sv.data.parallel import split_chunks
from sv.errors import SvError, describe
from sv.files import parse_json, replacing

Manifested = Recording | SupervisionSegment | Cut


def pack_items(items: Iterable[Manifested]) -> bytes:
    """Return the lines of some items as one gzip member."""
    lines = "".join(
        json.dumps(item, default=_describe, ensure_ascii=False) + "\n" for item in items
    )
    # Level 3, as in sv.files: manifests are written and read once or twice, not kept for years.
    return gzip.compress(lines.encode(), 3, mtime=0)


def _describe(item: Any) -> dict[str, Any]:
    """Return what ``item.to_dict()`` does, one level deep: that copies deeply, several times."""
    if isinstance(item, AudioTransform):
        return item.to_dict()
    # None: not given; False: the switches of a mix's track, which it leaves out too.
    fields = {k: v for k, v in vars(item).items() if v is not None and v is not False}
    if isinstance(item, Cut):
        fields["type"] = type(item).__name__
    return fields


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


def write_manifest(path: Path, items: Iterable[Manifested]) -> None:
    """Write a ``.jsonl.gz`` manifest in the given order."""
    with open_manifests(path) as [file]:
        for chunk in split_chunks(items):
            file.write(pack_items(chunk))


def read_manifest(path: Path, *, job: int = 1, nj: int = 1) -> Iterator:
    """Read the items of a ``.jsonl.gz`` manifest, or the share of one job among ``nj``.

    A share is every nj-th item from number ``job`` on; the first has number 1.

    Raises:
        SvError: No such file, or not a manifest.
    """
    return (parse_item(line, path) for line in read_lines(path, job=job, nj=nj))


def parse_item(line: str, path: Path) -> Any:
    """Build the recording, supervision or cut that a line of ``path`` describes.

    Raises:
        SvError: It describes none, or one that is not read from files, or is longer than a day.
    """
    try:
        values = parse_json(line)
        _refuse_other_sources(values)
        item = deserialize_item(values)
        if not isinstance(item, Manifested):
            raise ValueError(f"a {type(item).__name__}")
        if isinstance(item, Cut | Recording) and not 0 < item.num_samples <= MAX_SAMPLES:
            raise ValueError(f"'{item.id}' has {item.num_samples} samples")
    except Exception as error:  # Lhotse's, for what is missing or of another type
        raise SvError(f"{path}: not a manifest: {describe(error)}") from error
    return item


def _refuse_other_sources(values: Any) -> None:
    """Raise ValueError if an item has data that are not in an audio file."""
    todo = [values]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            is_file = value.get("type") == "file" and isinstance(value.get("source"), str)
            if ("source" in value and not is_file) or "storage_type" in value:
                kind = value.get("type", value.get("storage_type"))
                raise ValueError(f"a source of type {kind!r}: only files are read")
            todo += value.values()
        elif isinstance(value, list):
            todo += value
