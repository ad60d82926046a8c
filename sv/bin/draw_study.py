"""Draw the published figures of a study as stage 8 draws one's own: accuracy against energy."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sv.bin.cli import Parser, run
from sv.errors import SvError
from sv.report.advice import collect_published
from sv.report.figures.energy import draw_points
from sv.report.figures.files import write_figure
from sv.report.published import read_study


def main(argv: Sequence[str] | None = None) -> int:
    """Write ``<stem>.pdf``, ``.png`` and ``.svg``, and print the caption."""
    parser = Parser(__doc__)
    parser.add_argument("study", type=Path, help="folder of the study: egs/voxceleb/study")
    parser.add_argument("stem", type=Path, help="the files, without .png, .pdf and .svg")
    args = parser.parse_args(argv)
    points = collect_published(read_study(args.study))
    if not points:
        raise SvError(f"{args.study}: no system has an average EER and an energy")
    draw = partial(draw_points, points=points, what="Average EER")
    print(write_figure(draw, args.stem).caption)
    return 0


if __name__ == "__main__":
    sys.exit(run("sv.bin.draw_study", main))
