"""Stage 2: noise and room manifests, and an augmented copy of the training set for each kind."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lhotse import Recording

from local.corpora import (
    find_root,
    read_corpora_config,
    refuse_missing,
    remark_missing,
    write_remarks,
)
from local.sources import find_missing_sources, list_sources
from sv.bin.cli import Parser, positive_int, run, true_or_false
from sv.config import read_config
from sv.data.augment import augment_cut
from sv.data.config import AugmentConfig
from sv.data.cuts import link_cuts
from sv.data.inputs import read_lines
from sv.data.manifests import open_manifests, pack_items, parse_item, write_manifest
from sv.data.parallel import log_progress, map_chunks
from sv.files import write_text
from sv.jobs.completion import marking_changes
from sv.kaldi.data_dir import read_table, write_data_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data set ``<train>_<kind>`` for each kind that has sources."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--augment-config", type=Path, required=True, help="conf/augment.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("--nj", type=positive_int, default=1, help="processes")
    parser.add_argument(
        "--allow-partial", type=true_or_false, default=False, help="continue without missing parts"
    )
    parser.add_argument("data", type=Path)
    args = parser.parse_args(argv)
    corpora = read_corpora_config(args.config)
    config = read_config(args.augment_config, AugmentConfig)
    root = find_root(corpora, args.corpora, args.config)
    train, data = corpora.train, args.data
    missing = find_missing_sources(root, corpora.augment)
    refuse_missing(missing, allow_partial=args.allow_partial)
    sources = {
        kind: list_sources(root, kind, there, nj=args.nj)
        for kind, entries in corpora.augment.items()
        if (there := [entry for entry in entries if f"augment {kind} {entry}" not in missing])
    }
    folders = [data / "manifests", *(data / f"{train}_{kind}" for kind in sources)]
    with marking_changes(*folders):
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
    write_remarks(data / "augment_remarks.tsv", remark_missing(missing))
    kinds = "".join(f"{kind}\n" for kind in sources)
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
    clean = manifests / f"{train}_cuts.jsonl.gz"
    paths = (manifests / f"{train}_{kind}_cuts.jsonl.gz" for kind in sources)
    with open_manifests(*paths) as files:
        chunks = map_chunks(_pack_copies, read_lines(clean), (clean, sources, config), nj=nj)
        for _, packed in log_progress(chunks, train, count=lambda chunk: chunk[0]):
            for file, part in zip(files, packed, strict=True):
                file.write(part)


def _pack_copies(
    lines: list[str], shared: tuple[Path, dict[str, list[Recording]], AugmentConfig]
) -> tuple[int, list[bytes]]:
    """Return the number of some cuts and, for each kind, the manifest lines of their copies."""
    clean, sources, config = shared
    cuts = [parse_item(line, clean) for line in lines]
    packed = [
        pack_items(augment_cut(cut, kind, recordings, config) for cut in cuts)
        for kind, recordings in sources.items()
    ]
    return len(cuts), packed


if __name__ == "__main__":
    sys.exit(run("local.augment_data", main))
