"""Merge the info files of the extraction jobs into one info.json."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.errors import SvError
from sv.files import read_json, write_json
from sv.kaldi.data_dir import read_table

SUMMED = ("utterances", "frames")


def main(argv: Sequence[str] | None = None) -> int:
    """Sum the counts; everything else must be the same in all jobs."""
    parser = Parser(__doc__)
    parser.add_argument("data_dir", type=Path, help="the extracted data set, with utt2dur")
    parser.add_argument("merged", type=Path)
    parser.add_argument("parts", type=Path, nargs="+")
    args = parser.parse_args(argv)
    parts = [read_json(path) for path in args.parts]
    common = {k: v for k, v in parts[0].items() if k not in SUMMED}
    for path, part in zip(args.parts, parts, strict=True):
        if {k: v for k, v in part.items() if k not in SUMMED} != common:
            raise SvError(f"{path} was made differently from {args.parts[0]}; run stage 6 again")
    sums = {key: sum(part[key] for part in parts) for key in SUMMED}
    audio_s = round(sum(map(float, read_table(args.data_dir / "utt2dur").values())), 3)
    what = {"data_set": args.data_dir.name, **common, **sums, "audio_s": audio_s}
    write_json(args.merged, what)
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.merge_infos", main))
