"""Fetch, verify and unpack the corpora that need no login; name what must be requested.

A transfer that broke off is resumed, a file gets its name only after its MD5 was verified, and an
archive (in one file or in parts) is unpacked without any path that leaves its folder: only files
and folders of it are made, by this program and not by tarfile or zipfile, whose own protection
depends on the version of Python.
"""

import http.client
import io
import logging
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from sv.bin.cli import Parser, run
from sv.config import build_config
from sv.errors import SvError, UsageError
from sv.files import hash_file, read_toml, refuse_link, validate_name
from sv.system import mask_secrets

TRIES = 5
TIMEOUT_S = 60.0
BLOCK = 1 << 20
PROGRESS_S = 10.0
MAX_RATIO = 20  # of unpacked to packed bytes; audio packs to a quarter at best
SMALL_BYTES = 100_000_000  # may come of any archive
ENTRY_BYTES = 4096  # that a file or a folder takes at least
MAX_NAME = 1 << 20  # bytes of a long name in a tar


@dataclass(frozen=True)
class FileConfig:
    """A file, its MD5 and its source; one without url has to be requested from its makers."""

    name: str
    md5: str
    url: str = ""

    def __post_init__(self) -> None:
        """Check that the file stays in its folder and comes from a server."""
        try:
            validate_name(self.name, "name")
        except SvError as error:
            raise ValueError(str(error)) from error
        if self.url and urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url of {self.name} must begin with https:// or http://")


@dataclass(frozen=True)
class DownloadConfig:
    """A table of local/downloads.toml: one archive (in parts), or plain files."""

    files: list[FileConfig]
    unpack: str = ""
    proof: str = ""
    place: str = ""
    request: str = ""

    def __post_init__(self) -> None:
        """Check that everything stays below the folder of the corpora."""
        for path in (self.unpack, self.proof, self.place):
            if leads_out(path):
                raise ValueError(f"'{path}' leads out of the folder of the corpora")


def leads_out(path: str) -> bool:
    """Return whether a path leads out of the folder that it is relative to."""
    return Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path


def main(argv: Sequence[str] | None = None) -> int:
    """Status 1 if something failed or, of the chosen tables, has to be requested."""
    parser = Parser(__doc__)
    parser.add_argument("--only", default="", help="names of the table, with spaces; empty: all")
    parser.add_argument(
        "--table",
        type=Path,
        default=Path(__file__).with_name("downloads.toml"),
        help="what to fetch",
    )
    parser.add_argument("corpora", type=Path, help="folder that holds the corpora")
    args = parser.parse_args(argv)
    table = {
        name: build_config(values, DownloadConfig, where=f"{args.table}: [{name}]")
        for name, values in read_toml(args.table).items()
    }
    chosen = args.only.split() or list(table)
    if unknown := [name for name in chosen if name not in table]:
        raise UsageError(f"--only {unknown[0]}: {args.table} has {', '.join(table)}")
    failed = []
    for name in chosen:
        try:
            _get(name, table[name], args.corpora)
        except SvError as error:
            # One that fails must not keep the others from being fetched.
            print(f"local.download_corpora: {name}: {error}", file=sys.stderr)
            failed.append(name)
    if failed:
        raise SvError(f"{', '.join(failed)}: not there yet, see above; run again when they may be")
    return 0


def _get(name: str, config: DownloadConfig, corpora: Path) -> None:
    proof = corpora / config.proof if config.proof else None
    if proof is not None and proof.exists():
        logging.info("%s: %s is there", name, proof)
        return
    folder = corpora / (config.place or "archives")
    paths = [folder / file.name for file in config.files]
    for file, path in zip(config.files, paths, strict=True):
        if path.exists():
            if (found := hash_file(path, "md5")) != file.md5:
                raise SvError(
                    f"{path}: MD5 {found}, {file.md5} was published; remove it and fetch it again"
                )
        elif file.url:
            fetch(file.url, path, file.md5)
        else:
            names = ", ".join(file.name for file in config.files)
            raise SvError(f"request it at {config.request}, put {names} into {folder}, run again")
    if proof is not None:
        logging.info("%s: unpacking into %s", name, corpora / config.unpack)
        unpack(paths, corpora / config.unpack, proof)
        logging.info("%s: done; %s may be removed", name, ", ".join(map(str, paths)))


def fetch(url: str, target: Path, md5: str, *, pause_s: float = 1.0) -> None:
    """Fetch a file; what has arrived is kept in ``target``.part if the transfer breaks off.

    Args:
        url: The source.
        target: The file to make.
        md5: Its published hash.
        pause_s: Before the second try; doubled each time.

    Raises:
        SvError: It cannot be fetched, or its hash is another one.
    """
    part = target.with_name(f"{target.name}.part")
    [shown] = mask_secrets([url])
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, TRIES + 1):
        try:
            _fetch_rest(url, part)
            break
        except urllib.error.HTTPError as error:
            raise SvError(f"{shown}: HTTP status {error.code} ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == TRIES:
                raise SvError(
                    f"{shown}: broke off {TRIES} times ({error}); run again to resume at "
                    f"{part.stat().st_size if part.exists() else 0} bytes"
                ) from error
            logging.warning("%s: %s; try %d of %d", shown, error, attempt + 1, TRIES)
            time.sleep(pause_s * 2 ** (attempt - 1))
    if (found := hash_file(part, "md5")) != md5:
        part.unlink()  # resuming a wrong file would never end
        raise SvError(f"{shown}: MD5 {found}, {md5} was published; the fetched file is removed")
    part.replace(target)
    logging.info("%s: fetched", target)


def _fetch_rest(url: str, part: Path) -> None:
    """Append what is missing of a file; raise if the transfer ends early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # nothing is missing, if the MD5 agrees
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        length, free = (
            response.headers.get("Content-Length", ""),
            shutil.disk_usage(part.parent).free,
        )
        if not re.fullmatch("[0-9]{1,18}", length):
            raise ConnectionError("the server does not say how long the file is")
        if int(length) > free:
            raise SvError(f"{part}: {int(length)} bytes to come, and {free} are free")
        done, last = (have if resumed else 0), time.monotonic()
        expected = done + int(length)
        # A server may not support ranges.
        with open(part, "ab" if resumed else "wb", opener=refuse_link) as file:
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                if time.monotonic() - last > PROGRESS_S:
                    logging.info("%s: %d MB", part.name, done // 1_000_000)
                    last = time.monotonic()
        if done < expected:
            raise ConnectionError(f"{done} of {expected} bytes arrived")


class JoinedFiles(io.RawIOBase):
    """The parts of an archive as one seekable file: nothing has to be joined on disk."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [open(path, "rb") for path in paths]  # noqa: SIM115
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position in the whole archive."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer) -> int:
        """Read from the part that holds the position."""
        for file, start, end in zip(self._files, self._starts, self._starts[1:], strict=False):
            if start <= self._position < end:
                file.seek(self._position - start)
                count = file.readinto(memoryview(buffer)[: end - self._position])
                self._position += count
                return count
        return 0

    def close(self) -> None:
        """Close the parts."""
        for file in self._files:
            file.close()
        super().close()


def unpack(parts: list[Path], folder: Path, proof: Path) -> None:
    """Unpack an archive (tar, zip) into a folder.

    It is unpacked into a temporary folder first, so that ``proof`` exists only once all of it does.

    Args:
        parts: The archive, in one or several files.
        folder: Its paths are relative to this one.
        proof: A path that it makes.

    Raises:
        SvError: Not an archive, damaged, a path in it leads out of the folder, it holds a link, or
            it unpacks to far more than its size. Nothing of it is left then.
    """
    temporary = folder / f".unpacking.{parts[0].name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with io.BufferedReader(JoinedFiles(parts), 1 << 20) as file:
            left = SMALL_BYTES + MAX_RATIO * sum(part.stat().st_size for part in parts)
            for name, content in _list_zip(file) if zipfile.is_zipfile(file) else _list_tar(file):
                left -= _unpack_entry(temporary, name, content, left)
        if not (temporary / proof.relative_to(folder)).exists():
            raise SvError(f"{parts[0]}: no {proof.relative_to(folder)} in it")
        _move_into(temporary, folder)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # RuntimeError: an encrypted zip, or compressed by an unknown method
        raise SvError(f"{parts[0]}: cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


Entry = tuple[str, IO[bytes] | None]  # of an archive: its path, and its bytes; None: a folder


def _unpack_entry(folder: Path, name: str, content: IO[bytes] | None, left: int) -> int:
    """Write a file or make a folder; return the bytes that it takes.

    Raises:
        ValueError: Its path leads out of the folder, or it takes more than the bytes ``left``.
    """
    if leads_out(name):
        raise ValueError(f"'{name}' leads out of the folder")
    path, size = folder / name, ENTRY_BYTES
    (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
    if content is not None:
        with content, open(path, "wb") as file:
            while size <= left and (block := content.read(BLOCK)):
                file.write(block)
                size += len(block)
    if size > left:
        raise ValueError(f"it unpacks to more than {MAX_RATIO} times its size")
    return size


class _Member(tarfile.TarInfo):
    """A member whose long name or extended header is not read into memory however long it is."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        """Parse a header."""
        member = super().frombuf(buf, encoding, errors)
        if not (member.isreg() or member.isdir()) and member.size > MAX_NAME:
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member


def _list_tar(file: io.BufferedReader) -> Iterator[Entry]:
    file.seek(0)
    with tarfile.open(fileobj=file, tarinfo=_Member) as archive:
        for member in archive:
            if not (member.isdir() or (member.isreg() and not member.issparse())):
                # No corpus has links, and a link is how a path leaves its folder.
                raise ValueError(f"'{member.name}' is neither a file nor a folder")
            yield member.name, None if member.isdir() else archive.extractfile(member)


def _list_zip(file: io.BufferedReader) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ValueError(f"'{info.filename}' is a link")
            yield info.filename, None if info.is_dir() else archive.open(info)


def _move_into(source: Path, target: Path) -> None:
    """Move the contents of one folder into another; folders that both have are merged."""
    for path in source.iterdir():
        to = target / path.name
        if path.is_dir() and not path.is_symlink() and to.is_dir():
            _move_into(path, to)
        else:
            os.replace(path, to)


if __name__ == "__main__":
    sys.exit(run("local.download_corpora", main))
