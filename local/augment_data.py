"""Stage 2: noise and room manifests, and an augmented copy of the training set for each kind."""

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lhotse import Recording

from local.corpora import find_root, read_corpora_config
from local.sources import list_sources
from sv.bin.cli import Parser, positive_int, run
from sv.config import read_config
from sv.data.augment import AugmentConfig, augment_cut
from sv.data.chunks import map_chunks
from sv.data.cuts import PROGRESS_S, link_cuts
from sv.data.manifests import pack_items, parse_item, read_lines, write_manifest
from sv.errors import SvError
from sv.files import replacing, write_text
from sv.kaldi.data_dir import read_table, write_data_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<train>_<kind>`` beside the training set, for each kind that has sources."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--augment-config", type=Path, required=True, help="conf/augment.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("--nj", type=positive_int, default=1, help="processes")
    parser.add_argument("data", type=Path)
    args = parser.parse_args(argv)
    corpora = read_corpora_config(args.config)
    config = read_config(args.augment_config, AugmentConfig)
    root = find_root(corpora, args.corpora, args.config)
    train, data = corpora.train, args.data
    sources = {kind: list_sources(root, entries) for kind, entries in corpora.augment.items()}
    for kind, recordings in sources.items():
        write_manifest(data / "manifests" / f"{kind}_recordings.jsonl.gz", recordings)
    if sources:
        _augment(data, train, sources, config, args.nj)
    utt2spk = read_table(data / train / "utt2spk")
    utt2dur = read_table(data / train / "utt2dur")
    for kind, recordings in sources.items():
        name = f"{train}_{kind}"
        write_data_dir(
            data / name,
            {f"{utterance}-{kind}": speaker for utterance, speaker in utt2spk.items()},
            utt2dur={f"{utterance}-{kind}": s for utterance, s in utt2dur.items()},
        )
        link_cuts(data, name)
        logging.info("%s: %d cuts from %d recordings", name, len(utt2spk), len(recordings))
    kinds = "".join(f"{kind}\n" for kind in corpora.augment)
    write_text(data / "augment_kinds", kinds, keep_if_same=True)
    return 0


def _augment(
    data: Path,
    train: str,
    sources: dict[str, list[Recording]],
    config: AugmentConfig,
    nj: int,
) -> None:
    """Write the cut manifests of all kinds in one pass over the training set."""
    manifests = data / "manifests"
    lines = read_lines(manifests / f"{train}_cuts.jsonl.gz")
    done, last = 0, time.monotonic()
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(
                replacing(
                    manifests / f"{train}_{kind}_cuts.jsonl.gz",
                    mode="wb",
                    keep_if_same=True,
                    packed=True,
                )
            )
            for kind in sources
        ]
        chunks = map_chunks(_pack_copies, lines, nj=nj, setup=_keep, setup_args=(sources, config))
        for count, packed in chunks:
            for file, part in zip(files, packed, strict=True):
                file.write(part)
            done += count
            if time.monotonic() - last >= PROGRESS_S:
                logging.info("%s: %d utterances", train, done)
                last = time.monotonic()


# Of each worker process: sent once, not with every chunk.
_kept: tuple[dict[str, list[Recording]], AugmentConfig] | None = None


def _keep(sources: dict[str, list[Recording]], config: AugmentConfig) -> None:
    global _kept  # noqa: PLW0603
    _kept = sources, config


def _pack_copies(lines: list[str]) -> tuple[int, list[bytes]]:
    """Give, for each kind, the manifest lines of the copies of some cuts."""
    assert _kept is not None
    sources, config = _kept
    try:
        cuts = [parse_item(line) for line in lines]
    except ValueError as error:
        raise SvError(f"the training set's cuts are no manifest: {error}") from error
    packed = [
        pack_items(augment_cut(cut, kind, recordings, config) for cut in cuts)
        for kind, recordings in sources.items()
    ]
    return len(cuts), packed


if __name__ == "__main__":
    sys.exit(run("local.augment_data", main))
