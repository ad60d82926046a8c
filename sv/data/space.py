"""Room on a disk: what stages 1 and 3 will write and what is free, said before they begin.

No audio is read for it. What an earlier run has written counts as there.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sv.data.config import FRONT_END, KINDS, FbankConfig
from sv.errors import SvError
from sv.files import read_json
from sv.kaldi.data_dir import read_table

ENTRY_BYTES = 24  # of a matrix in an archive, without its name and values: sv/kaldi/archive.py


@dataclass(frozen=True)
class Share:
    """One part of what will be written.

    Attributes:
        name: For the log.
        folder: Where it is written; it need not exist.
        size: Bytes of the whole part.
        there: Bytes of it that an earlier run has written.
        replaced: These are of other settings, and stay until the part has been written anew.
    """

    name: str
    folder: Path
    size: int
    there: int = 0
    replaced: bool = False


def require_space(shares: Sequence[Share], ways_out: str) -> None:
    """Log the size of each share, and for each disk what will be written and what is free.

    Args:
        shares: In the order in which they are written.
        ways_out: What to do where they do not fit; ends the message.

    Raises:
        SvError: A disk has less free than is needed.
    """
    disks: dict[Path, list[Share]] = {}
    for share in shares:
        there = f", {format_bytes(share.there)} there" if share.there else ""
        old = " of other settings" if there and share.replaced else ""
        logging.info("%s: %s%s%s", share.name, format_bytes(share.size), there, old)
        disks.setdefault(_find_disk(share.folder), []).append(share)
    for disk, group in disks.items():
        needed = used = 0
        for share in group:
            needed = max(needed, used + share.size - (0 if share.replaced else share.there))
            used += share.size - share.there
        free = shutil.disk_usage(disk).free
        sums = f"{format_bytes(needed)} to write, {format_bytes(free)} free on the disk at {disk}"
        logging.info("%s", sums)
        if needed > free:
            raise SvError(f"no room: {sums}; {ways_out}")


def _find_disk(folder: Path) -> Path:
    """Return where the disk is mounted that a folder is on, or will be."""
    folder = folder.resolve()
    return next(p for p in (folder, *folder.parents) if p.exists() and os.path.ismount(p))


def format_bytes(count: float) -> str:
    """Format a size: ``690.5 GB``, ``12.3 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def require_feature_space(
    data_dirs: Sequence[Path], config: FbankConfig, nj: int | None = None
) -> None:
    """Check that the features of data directories fit, by their durations (utt2dur).

    ``nj``: archives of each to write, whatever is there; None: as many as there are.

    Raises:
        SvError: They do not; or a table is no table of durations.
    """
    known = [data_dir for data_dir in data_dirs if (data_dir / "utt2dur").exists()]
    for data_dir in data_dirs:
        if data_dir not in known:
            logging.info("%s: no utt2dur, so the size of its features is not known", data_dir.name)
    shares = [_foresee_features(data_dir, config, nj) for data_dir in known]
    ways = ["give another --data"]
    if config.item_bytes > 1:
        total = sum(share.size for share in shares) / config.item_bytes
        ways.insert(0, f'set compression = "one-byte" in features.toml ({format_bytes(total)})')
    copies = [s.size for s in shares if s.name.endswith(tuple(f"_{kind}" for kind in KINDS))]
    if copies:
        each = format_bytes(max(copies))
        ways.insert(0, f"have fewer kinds in corpora.toml ({each} each; stage 2 again)")
    require_space(shares, ", or ".join(ways))


def _foresee_features(data_dir: Path, config: FbankConfig, nj: int | None) -> Share:
    table = read_table(data_dir / "utt2dur")
    try:
        seconds = np.array(list(table.values()), np.float64)
    except ValueError as error:
        raise SvError(f"{data_dir}/utt2dur: not a table of seconds ({error})") from error
    windows = 1 + (1000 * seconds - config.frame_length_ms) // config.frame_shift_ms
    folder = data_dir / "fbank"
    values = int(windows.clip(0).sum()) * config.dim * config.item_bytes
    archives = [path.stat().st_size for path in folder.glob("fbank.*.ark")]
    made = folder / FRONT_END
    is_regrouped = nj is not None and len(archives) != min(nj, len(table))
    return Share(
        name=data_dir.name,
        folder=folder,
        size=values + sum(map(len, table)) + ENTRY_BYTES * len(table),
        there=sum(archives),
        replaced=is_regrouped or (made.is_file() and read_json(made) != asdict(config)),
    )
