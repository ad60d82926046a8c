"""Fetch, verify and unpack the corpora that need no login; say what to ask for of the others."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.fetch import fetch, verify
from local.unpack import unpack
from sv.bin.cli import Parser, run
from sv.config import build_config
from sv.errors import SvError, UsageError
from sv.files import read_toml


@dataclass(frozen=True)
class FileConfig:
    """A file, its MD5, and where it comes from; without url it has to be asked for."""

    name: str
    md5: str
    url: str = ""


@dataclass(frozen=True)
class DownloadConfig:
    """A table of local/downloads.toml: one archive (in parts), or plain files."""

    files: list[FileConfig]
    unpack: str = ""
    proof: str = ""
    place: str = ""
    request: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Status 1 if something failed or, named in --only, has to be asked for."""
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
        if file.url:
            fetch(file.url, path, file.md5)
        elif not path.exists():
            names = ", ".join(file.name for file in config.files)
            raise SvError(f"ask for it at {config.request}, put {names} into {folder}, run again")
        else:
            verify(path, file.md5)
    if proof is not None:
        logging.info("%s: unpacking into %s", name, corpora / config.unpack)
        unpack(paths, corpora / config.unpack, proof)
        logging.info("%s: done; %s may be removed", name, ", ".join(map(str, paths)))


if __name__ == "__main__":
    sys.exit(run("local.download_corpora", main))
