"""Files written to a temporary name and renamed, so that no reader or crash leaves half a file.

Everything may import this module; it imports only the standard library and ``sv.errors``.
"""

import contextlib
import filecmp
import gzip
import io
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sv.errors import SvError, UsageError

MAX_DEPTH = 50  # of what is nested in JSON and TOML; a sidecar has 9
MAX_INTEGER = 1 << 64


@contextlib.contextmanager
def replacing(
    path: Path, *, mode: str = "w", keep_if_same: bool = False, packed: bool = False
) -> Iterator[IO[Any]]:
    """Open a temporary file for writing; rename it to ``path`` when the block ends without error.

    Args:
        path: The file to make or replace; its folder is created. A name that ends in ``.gz``
            is compressed, without a timestamp: the same content gives the same bytes.
        mode: ``"w"`` (UTF-8 text) or ``"wb"``.
        keep_if_same: Leave an existing file with the same bytes untouched (and its modification
            time), so that what was made from it is not made again.
        packed: The data written to a ``.gz`` file is compressed already.

    Raises:
        SvError: The file cannot be written (no space, no permission, not a folder).
    """
    path = Path(path)
    # The process id keeps two writers of one file apart; the last rename wins, whole.
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp.unlink(missing_ok=True)  # of a killed process, or a link that leads elsewhere
        with open(tmp, "xb") as raw:
            yield from _stream(raw, mode, compress=path.suffix == ".gz" and not packed)
            raw.flush()
            os.fsync(raw.fileno())
        filecmp.clear_cache()  # it takes a file of the same size and time for the same
        if keep_if_same and path.is_file() and filecmp.cmp(tmp, path, shallow=False):
            tmp.unlink()
        else:
            os.replace(tmp, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # where its folder is no folder, there is no tmp
            tmp.unlink()
        raise SvError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise


def _stream(raw: IO[bytes], mode: str, *, compress: bool) -> Iterator[IO[Any]]:
    binary: IO[bytes] = raw
    if compress:
        # Level 3: manifests are written and read once or twice, not kept for years.
        binary = gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0)  # type: ignore
    if mode == "wb":
        yield binary
    else:
        text = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()
    if binary is not raw:
        binary.close()


def refuse_link(path: str, flags: int) -> int:
    """Open a file that is appended to, as the ``opener`` of `open`: a link would lead elsewhere."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def write_text(path: Path, text: str, *, keep_if_same: bool = False) -> None:
    """Write ``text`` to ``path``; see `replacing`."""
    with replacing(path, keep_if_same=keep_if_same) as file:
        file.write(text)


def write_json(path: Path, value: Any, *, keep_if_same: bool = False) -> None:
    """Write ``value`` as indented JSON with a final newline; NaN is refused (use null)."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text, keep_if_same=keep_if_same)


def is_packed(path: Path) -> bool:
    """Whether a file is packed by gzip, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading; one that is packed by gzip is unpacked on the way."""
    return gzip.open(path) if is_packed(path) else open(path, "rb")


def read_text(path: Path, *, unpack: bool = False) -> str:
    """Read a UTF-8 text file; a byte-order mark and CRLF line ends are accepted.

    ``unpack``: it may be packed by gzip, as lists often are.

    Raises:
        SvError: The file is missing, unreadable or not UTF-8.
    """
    try:
        with open_unpacked(path) if unpack else open(path, "rb") as file:
            return file.read().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, EOFError) as error:
        raise SvError(f"cannot read {path}: {getattr(error, 'strerror', 0) or error}") from error
    except UnicodeDecodeError as error:
        raise SvError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SvError: The file is missing or not JSON (see `parse_json`); the message names the line.
    """
    try:
        return parse_json(read_text(path))
    except json.JSONDecodeError as error:
        raise SvError(f"{path}: not JSON: {error.msg} in line {error.lineno}") from error
    except ValueError as error:
        raise SvError(f"{path}: not JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        SvError: See `read_json`, or it holds something else.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise SvError(f"{path}: not a JSON object")
    return record


def parse_json(text: str) -> Any:
    """Parse JSON that somebody else may have written: what it returns can be used and written.

    Raises:
        ValueError: Not JSON; or nested deeper, or an integer longer, than any record of ours; or
            NaN, infinity or half a character (a lone surrogate), which no file of ours could hold.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    _validate_bounds(value, finite=True)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: The file is missing or not TOML, or see `parse_json`.
    """
    text = ""
    try:
        text = read_text(path)
        values = tomllib.loads(text)
        _validate_bounds(values, finite=False)
    except ValueError as error:
        raise UsageError(f"{path}: not TOML: {_name_line(str(error), text)}") from error
    except RecursionError:
        raise UsageError(f"{path}: not TOML: nested too deep") from None
    except SvError as error:
        raise UsageError(str(error)) from error
    return values


def _name_line(message: str, text: str) -> str:
    """Put the line that a TOML error is in behind it; a key that stands twice is called that."""
    if (found := re.search(r" \(at line (\d+), column \d+\)$", message)) is None:
        return message
    number = int(found[1])
    line = text.splitlines()[number - 1].strip()[:200]
    message = message[: found.start()].replace("Cannot overwrite a value", "a key is there twice")
    return f"{message} in line {number}: {line!r}"


def _validate_bounds(value: Any, *, finite: bool) -> None:
    level = [[value]]
    for _ in range(MAX_DEPTH):
        below = []
        for container in level:
            for item in container.values() if isinstance(container, dict) else container:
                if isinstance(item, dict | list):
                    below.append(item)
                elif isinstance(item, int) and abs(item) >= MAX_INTEGER:
                    raise ValueError("an integer of more than 64 bits")
                elif finite and isinstance(item, float) and not math.isfinite(item):
                    raise ValueError(f"{item} is no number")
        if not below:
            return
        level = below
    raise ValueError("nested too deep")


def validate_name(name: str, what: str) -> str:
    """Return a name that files or folders are called after, in letters of any script.

    Raises:
        SvError: It has a separator of paths, a space or a control character, or is no name of a
            file of its own (``""``, ``"."``, ``".."``).
    """
    if name in ("", ".", "..") or not name.isprintable() or re.search(r"[\s/\\]", name):
        raise SvError(f"{what} {name!r} cannot be the name of a file: no '/', '..' or spaces")
    return name


def hash_file(path: Path, algorithm: str) -> str:
    """Return the hash of a file in hex; ``algorithm`` is one of hashlib's, such as ``"sha256"``."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, which most programs do not need

    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
