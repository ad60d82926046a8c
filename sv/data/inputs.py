"""What the features of a data directory are made from, by job: its cuts, and the files they name.

A manifest names files and says nothing of their content: it stays the same when one is replaced.
So each job of stage 3 has a digest of its own lines of the manifest and of the size and time of
every file in them (recordings, noises, impulse responses). It stands on the job's command line in
the place of the manifest, so that the job is done again when one of these changes, and only then.

This module loads neither Lhotse nor torch: it runs before every stage 3.
"""

import gzip
import hashlib
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from sv.errors import SvError
from sv.files import read_text, write_text

CUTS = "cuts.jsonl.gz"
MAX_LINE = 1 << 24  # characters; the longest of ours, a mix of many noises, has thousands
SOURCE = re.compile(r'"source":\s*"((?:[^"\\]|\\.)*)"')


def read_lines(path: Path, *, job: int = 1, nj: int = 1) -> Iterator[str]:
    """Read the lines of a manifest, or those of one job: every nj-th from number ``job`` on.

    Raises:
        SvError: No such file, or not a manifest.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = iter(lambda: file.readline(MAX_LINE), "")
            yield from itertools.islice(lines, job - 1, None, nj)
    except (OSError, EOFError, zlib.error) as error:
        raise SvError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise SvError(f"{path}: not a manifest: {error}") from error


def write_inputs(data_dirs: Iterable[Path], nj: int, *, keep: bool) -> None:
    """Write ``<data-dir>/fbank/inputs.JOB`` for each job; an unchanged one keeps its time.

    The number of jobs stands in ``<data-dir>/fbank/num_jobs``.

    Args:
        data_dirs: With ``cuts.jsonl.gz`` and ``utt2spk``.
        nj: Jobs, but no more than utterances.
        keep: Where archives are there already, as many jobs as made them.

    Raises:
        SvError: A manifest cannot be read.
    """
    prints: dict[str, bytes] = {}  # a file stands in several manifests, a noise in many lines
    for data_dir in data_dirs:
        folder = data_dir / "fbank"
        wanted = (_read_jobs(folder) if keep else None) or nj
        jobs = min(wanted, read_text(data_dir / "utt2spk").count("\n"))
        write_text(folder / "num_jobs", f"{jobs}\n", keep_if_same=True)
        digests = [hashlib.sha256() for _ in range(jobs)]
        for line, digest in zip(read_lines(data_dir / CUTS), itertools.cycle(digests)):
            digest.update(line.encode())
            for name in SOURCE.findall(line):
                if name not in prints:
                    prints[name] = _take_print(name)
                digest.update(prints[name])
        for job, digest in enumerate(digests, 1):
            write_text(folder / f"inputs.{job}", f"{digest.hexdigest()}\n", keep_if_same=True)


def _read_jobs(folder: Path) -> int | None:
    path = folder / "num_jobs"
    if not (path.is_file() and any(folder.glob("fbank.*.ark"))):
        return None
    words = read_text(path).split()
    return int(words[0]) if words and re.fullmatch(r"[1-9][0-9]{0,5}", words[0]) else None


def _take_print(name: str) -> bytes:
    try:
        status = os.stat(json.loads(f'"{name}"'))
    except (OSError, ValueError):  # the job says what is wrong with it
        return b"none"
    return f"{status.st_size} {status.st_mtime_ns}".encode()
