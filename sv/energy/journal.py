"""The journal of a stage: one JSON object a line, each sample on the disk before the next.

Lines by their ``line``: ``head`` (begins an attempt), ``sample`` (raw readings, in the order of the
head's channels), ``mark`` (something that the command said), ``factor`` (of carbon), ``facts``
(what sensors say beside readings), ``end``. An attempt without an end was interrupted. Files are
only ever appended to; a line torn by a crash or a full disk is kept and read as ``torn``. Who
holds the lock on the file (flock) is its only writer.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sv.errors import SvError

SCHEMA = "energy-journal/1"
SUFFIX = ".journal.jsonl"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # this file system has no flock
Record = dict[str, Any]


class BusyError(SvError):
    """Another process writes the journal: its meter is still running."""


class Journal:
    """A journal open for appending; made by `open_journal`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        size = os.fstat(fd).st_size
        self._torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"

    def append(self, record: Record) -> None:
        """Write one line; `sync` brings it to the disk, a killed meter does not lose it.

        Raises:
            OSError: It could not be written. The next line will begin on a line of its own.
        """
        text = json.dumps(record, allow_nan=False, separators=(",", ":"))
        data = (b"\n" if self._torn else b"") + text.encode("ascii") + b"\n"
        self._torn = True
        while data:
            data = data[os.write(self._fd, data) :]
        self._torn = False

    def sync(self) -> None:
        """Bring what was written to the disk: it outlives a crash of the machine.

        Raises:
            OSError: The disk failed.
        """
        os.fsync(self._fd)


@contextmanager
def open_journal(path: Path, *, wait_s: float = 2.0) -> Iterator[Journal]:
    """Open a journal, made if missing, and lock it while the block runs.

    Args:
        path: The file; its folder is made.
        wait_s: How long to wait for the lock: a reader that rebuilds holds it for a moment.

    Raises:
        BusyError: Another process holds it.
        SvError: The file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise SvError(f"cannot write {path}: {error.strerror}") from error
    try:
        _lock(fd, path, wait_s)
        yield Journal(path, fd)
    finally:
        os.close(fd)


def _lock(fd: int, path: Path, wait_s: float) -> None:
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline_s:
                raise BusyError(f"{path}: another meter is running on it; wait for it") from error
            time.sleep(0.05)
        except OSError as error:
            # A stage is worth more than the lock: some cluster file systems have none.
            if error.errno not in NO_LOCKS:
                raise SvError(f"cannot lock {path}: {error.strerror}") from error
            return


def list_readable(channels: list[Record]) -> list[str]:
    """Give the channels that are read, by id: ``raw`` of a sample line is in their order."""
    return [channel["id"] for channel in channels if channel["kind"] != "unavailable"]


def read_journal(path: Path) -> Iterator[Record]:
    """Read the lines of a journal one by one; ``raw`` of a sample is given by channel id.

    A line that is not a JSON object becomes ``{"line": "torn"}``.

    Raises:
        SvError: The file cannot be read.
    """
    readable: list[str] = []
    try:
        with open(path, "rb") as file:
            for data in file:
                if data == b"\n":
                    continue
                record = _parse_line(data.decode("utf-8", "replace").rstrip("\n"))
                if record["line"] == "head":
                    readable = list_readable(record["channels"])
                elif record["line"] == "sample" and isinstance(record["raw"], list):
                    record["raw"] = dict(zip(readable, record["raw"], strict=False))
                yield record
    except OSError as error:
        raise SvError(f"cannot read {path}: {error.strerror}") from error


def _parse_line(line: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        record = None
    if isinstance(record, dict) and "line" in record:
        return record
    return {"line": "torn", "text": line[:200]}
