"""Archives, in one file or in parts, unpacked so that no path leaves its folder."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

from sv.errors import SvError


class JoinedFiles(io.RawIOBase):
    """The parts of an archive as one seekable file: nothing has to be joined on disk."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [open(path, "rb") for path in paths]  # noqa: SIM115
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the whole."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer) -> int:
        """Read from the part that the position lies in."""
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

    It is unpacked beside first: ``proof`` is there only once everything is.

    Args:
        parts: The archive, in one or several files.
        folder: Where its paths begin.
        proof: A path that it makes; if it is there, nothing is done.

    Raises:
        SvError: Not an archive, damaged, or a path in it leads out of the folder.
    """
    if proof.exists():
        return
    beside = folder / f".unpacking.{parts[0].name}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with io.BufferedReader(JoinedFiles(parts), 1 << 20) as file:
            if zipfile.is_zipfile(file):
                _unpack_zip(file, beside)
            else:
                file.seek(0)
                with tarfile.open(fileobj=file) as archive:
                    archive.extractall(beside, filter=_refuse_absolute)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise SvError(f"{parts[0]}: cannot be unpacked: {error}") from error
    if not (beside / proof.relative_to(folder)).exists():
        raise SvError(f"{parts[0]}: no {proof.relative_to(folder)} in it; left in {beside}")
    _move_into(beside, folder)
    shutil.rmtree(beside)


def _refuse_absolute(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    # Python's own filter refuses what leads out, but bends an absolute path into the folder.
    if Path(member.name).is_absolute():
        raise tarfile.AbsolutePathError(member)
    return tarfile.data_filter(member, folder)


def _unpack_zip(file: io.BufferedReader, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            # extractall would quietly bend such a path back into the folder.
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise zipfile.BadZipFile(f"'{name}' leads out of the folder")
        archive.extractall(folder)


def _move_into(source: Path, target: Path) -> None:
    """Move what lies in one folder into another; folders that both have are merged."""
    for path in source.iterdir():
        to = target / path.name
        if path.is_dir() and not path.is_symlink() and to.is_dir():
            _move_into(path, to)
        else:
            os.replace(path, to)
