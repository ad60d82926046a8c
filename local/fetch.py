"""Files over HTTP: resumed where they broke off, checked before they get their name."""

import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path

from sv.errors import SvError

TRIES = 5
TIMEOUT_S = 60.0
BLOCK = 1 << 20
PROGRESS_S = 10.0


def fetch(url: str, target: Path, md5: str, *, pause_s: float = 1.0) -> None:
    """Fetch a file to ``target``; what came is kept in ``target``.part if it breaks off.

    Args:
        url: Where from.
        target: Where to; a file that is there with this MD5 is left as it is.
        md5: What it must have.
        pause_s: Before another try; doubled each time.

    Raises:
        SvError: It cannot be fetched, or what came is another file.
    """
    if target.exists():
        verify(target, md5)
        return
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, TRIES + 1):
        try:
            _fetch_rest(url, part)
            break
        except urllib.error.HTTPError as error:
            raise SvError(f"{url}: HTTP status {error.code} ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == TRIES:
                raise SvError(
                    f"{url}: broke off {TRIES} times ({error}); run again to go on from "
                    f"{part.stat().st_size if part.exists() else 0} bytes"
                ) from error
            logging.warning("%s: %s; try %d of %d", url, error, attempt + 1, TRIES)
            time.sleep(pause_s * 2 ** (attempt - 1))
    if (found := compute_md5(part)) != md5:
        part.unlink()  # resuming a wrong file would never end
        raise SvError(f"{url}: MD5 {found}, {md5} was published; what came is removed")
    part.replace(target)
    logging.info("%s: fetched", target)


def _fetch_rest(url: str, part: Path) -> None:
    """Append what is missing of a file; raise if it ends early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # nothing is missing; the MD5 tells whether that is true
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        length = response.headers.get("Content-Length")
        done, last = (have if resumed else 0), time.monotonic()
        expected = None if length is None else done + int(length)
        with open(part, "ab" if resumed else "wb") as file:  # a server may not know ranges
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                if time.monotonic() - last > PROGRESS_S:
                    logging.info("%s: %d MB", part.name, done // 1_000_000)
                    last = time.monotonic()
        if expected is not None and done < expected:
            raise ConnectionError(f"{done} of {expected} bytes came")


def verify(path: Path, md5: str) -> None:
    """See that a file has its MD5.

    Raises:
        SvError: It has another one.
    """
    if (found := compute_md5(path)) != md5:
        raise SvError(f"{path}: MD5 {found}, {md5} was published; remove it and fetch it again")


def compute_md5(path: Path) -> str:
    """Give the MD5 of a file, in hex; it is what the corpora publish."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
