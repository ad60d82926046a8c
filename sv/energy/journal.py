"""The journal of a stage, and the marks that its command reports.

A journal has one JSON object a line, each sample on the disk before the next. Lines by their
``line``: ``head`` (begins an attempt), ``sample`` (raw readings, in the order of the head's
channels), ``mark`` (what the command reported, in its ``said``), ``factor`` (of carbon), ``facts``
(metadata of the sensors), ``end``. An attempt without an end was interrupted. Files are only ever
appended to; a line torn by a crash or a full disk is kept and read as ``torn``. Who holds the lock
on the file (flock) is its only writer.

The meter names a marks file in ``$SV_METER_MARKS``; a command appends to it, one JSON line a mark,
with `write_mark`. The meter copies each into the journal after its next sample (`MarksFile`).
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
from sv.files import parse_json

SCHEMA = "energy-journal/1"
SUFFIX = ".journal.jsonl"
OWN = 99  # the number of a command that is no stage of a recipe
MARKS_VARIABLE = "SV_METER_MARKS"
# A program that resumes earlier work reports it: that work's energy then belongs to its result.
RESUMED = "resumed"
# One that found all of its work finished reports that; without a mark of work done, the attempt
# is no part of the run that made the result. Its ``what`` says what is finished.
UNCHANGED = "unchanged"
# The last mark of a program that ended at a checkpoint because its ``budget_kwh`` was used up.
STOPPED = "stopped"
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
        wait_s: How long to wait for the lock, which a reader that rebuilds holds for a short time.

    Raises:
        BusyError: Another process holds it.
        SvError: The file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(
            path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
        )
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
    """Return the channels that are read, by id: ``raw`` of a sample line is in their order."""
    return [channel["id"] for channel in channels if channel["kind"] != "unavailable"]


def read_journal(path: Path) -> Iterator[Record]:
    """Read the lines of a journal one by one; ``raw`` of a sample is returned by channel id.

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


@contextmanager
def naming(journal: Path) -> Iterator[None]:
    """Name a journal in whatever computing from its lines raises: it may be somebody else's.

    Raises:
        SvError: In place of any other exception.
    """
    try:
        yield
    except SvError:
        raise
    except Exception as error:
        raise SvError(f"{journal}: not a journal as a meter writes it ({error!r})") from error


def count_attempts(journal: Path) -> int:
    """Count the attempts in a journal.

    Raises:
        SvError: It cannot be read.
    """
    try:
        with open(journal, "rb") as file:
            # Parsed are lines that may be a head alone: ten days at 1 Hz are a million others.
            lines = (data.decode("utf-8", "replace") for data in file if b'"head"' in data)
            return sum(_parse_line(line.rstrip("\n"))["line"] == "head" for line in lines)
    except OSError as error:
        raise SvError(f"cannot read {journal}: {error.strerror}") from error


def _parse_line(line: str) -> Record:
    try:
        match record := parse_json(line):
            case {"line": "head", "channels": [*channels]}:
                list_readable(channels)
                return record
            case {"line": "sample", "raw": list() | dict()}:
                return record
            case {"line": str(kind)} if kind not in ("head", "sample"):
                return record
    except (ValueError, KeyError, TypeError):  # also a head whose channels are none
        pass
    return {"line": "torn", "text": line[:200]}


def append_line(path: str | os.PathLike[str], record: Record, *, sync: bool = False) -> None:
    """Append one JSON line to a file that several programs write; it is made if missing.

    Args:
        path: The file.
        record: The line.
        sync: Bring it to the disk.

    Raises:
        OSError: It cannot be written.
    """
    line = json.dumps(record) + "\n"
    # One write of one line in append mode: lines of several programs do not mix.
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, line.encode())
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def write_mark(path: str | None, mark: str, **payload: float | str) -> None:
    """Append a mark with the time; without a meter (no path) there is nothing to do.

    Args:
        path: Value of ``$SV_METER_MARKS``, None or empty outside a meter.
        mark: Name, e.g. ``"resumed"`` or ``"epoch"``.
        payload: What belongs to it, e.g. ``epoch=3``.
    """
    if path:
        append_line(path, {"mark": mark, "time_unix": time.time(), **payload})


class MarksFile:
    """The marks file of one attempt, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read_new(self, *, final: bool = False) -> list[Record]:
        """Return the marks since the last call; ``final`` takes a last line without its end too."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []  # the command removed it
        if not final:
            data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        lines = data.decode("utf-8", "replace").split("\n")
        return [_parse_mark(line) for line in lines if line]


def _parse_mark(line: str) -> Record:
    try:
        mark = parse_json(line)
        json.dumps(mark, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError:  # not JSON, or nothing that a sidecar could hold (NaN, half a character)
        mark = None
    if isinstance(mark, dict) and isinstance(mark.get("mark"), str):
        return mark
    return {"mark": "unreadable", "text": line[:200]}


def get_sidecar_path(journal: Path) -> Path:
    """Return the path of a journal's sidecar."""
    return journal.with_name(journal.name.removesuffix(SUFFIX) + ".json")


def get_journal_path(path: Path) -> Path:
    """Return the journal of a sidecar; of a journal itself."""
    stem = path.name.removesuffix(SUFFIX).removesuffix(".json")
    return path.with_name(stem + SUFFIX)


def get_marks_path(journal: Path, attempt: int) -> Path:
    """Return the marks file of an attempt, a hidden file next to the journal."""
    stem = journal.name.split(".journal.")[0]
    return journal.with_name(f".{stem}.marks.{attempt}.jsonl")


def fold_leftover(journal: Journal, attempt: int) -> None:
    """Append to the journal the marks that came after a killed meter's last sample."""
    path = get_marks_path(journal.path, attempt)
    if not path.exists():
        return
    known = 0  # lines of the file that are in the journal
    for record in read_journal(journal.path):
        if record["line"] in ("head", "mark"):
            known = 0 if record["line"] == "head" else known + 1
    for mark in MarksFile(path).read_new(final=True)[known:]:
        journal.append({"line": "mark", "t_s": None, "said": mark})
    journal.sync()
    path.unlink()
