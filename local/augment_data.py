"""Stage 2: noise and room manifests, and an augmented copy of the training set for each kind."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lhotse import Recording

from local.corpora import find_root, read_corpora_config
from sv.bin.cli import Parser, run
from sv.config import read_config
from sv.data.augment import AugmentConfig, augment_cut
from sv.data.cuts import build_recordings, list_audio, read_manifest, write_cuts, write_manifest
from sv.files import write_text
from sv.kaldi.data_dir import read_table, write_data_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<train>_<kind>`` beside the training set, for each kind that has sources."""
    parser = Parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="conf/corpora.toml")
    parser.add_argument("--augment-config", type=Path, required=True, help="conf/augment.toml")
    parser.add_argument("--corpora", default="", help="the folder that holds the corpora")
    parser.add_argument("data", type=Path)
    args = parser.parse_args(argv)
    corpora = read_corpora_config(args.config)
    config = read_config(args.augment_config, AugmentConfig)
    root = find_root(corpora, args.corpora, args.config)
    train, data = corpora.train, args.data
    utt2spk = read_table(data / train / "utt2spk")
    utt2dur = read_table(data / train / "utt2dur")
    for kind, folders in corpora.augment.items():
        sources = _list_sources(root, folders)
        write_manifest(data / "manifests" / f"{kind}_recordings.jsonl.gz", sources)
        cuts = read_manifest(data / "manifests" / f"{train}_cuts.jsonl.gz")
        name = f"{train}_{kind}"
        count = write_cuts(data, name, (augment_cut(cut, kind, sources, config) for cut in cuts))
        write_data_dir(
            data / name,
            {f"{utterance}-{kind}": speaker for utterance, speaker in utt2spk.items()},
            utt2dur={f"{utterance}-{kind}": s for utterance, s in utt2dur.items()},
        )
        logging.info("%s: %d cuts from %d recordings", name, count, len(sources))
    kinds = "".join(f"{kind}\n" for kind in corpora.augment)
    write_text(data / "augment_kinds", kinds, keep_if_same=True)
    return 0


def _list_sources(root: Path, folders: list[str]) -> list[Recording]:
    """Describe every audio file of the folders; ids are paths below ``root``."""
    paths = [path for folder in folders for path in list_audio(root / folder)]
    return build_recordings({path.relative_to(root).as_posix(): path for path in paths})


if __name__ == "__main__":
    sys.exit(run("local.augment_data", main))
