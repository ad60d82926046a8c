"""Break a list's measures down by condition: gender, nationality, language, duration..."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from sv.bin.cli import Parser, run, whole_file
from sv.kaldi.data_dir import read_table
from sv.report.tables.cells import format_csv, format_markdown
from sv.report.tables.conditions import build_condition_table
from sv.report.tables.latex import format_latex
from sv.score.conditions import (
    MIN_ERRORS,
    bin_values,
    measure_conditions,
    name_bins,
    read_utterance_table,
)
from sv.score.trials import read_scored, read_values

FORMATS = {"md": format_markdown, "csv": format_csv, "tex": format_latex}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for all trials, those within and across values, and each pair of values."""
    parser = Parser(__doc__)
    parser.add_argument("--by", help="column of a table with several")
    parser.add_argument("--bins", type=_edges, help='edges of numbers in quotes: "2 4 8"')
    parser.add_argument("--utt2spk", type=whole_file, help="where the table is one of speakers")
    parser.add_argument("--min-errors", type=int, default=MIN_ERRORS, help="for a figure")
    parser.add_argument("--format", choices=(*FORMATS, "json"), default="md")
    parser.add_argument("trials", type=whole_file, help="lines: enrol test target|nontarget")
    parser.add_argument("scores", type=whole_file, help="lines: enrol test score")
    parser.add_argument(
        "table", type=whole_file, help=".tsv or .csv with a heading; or 'id value' lines"
    )
    args = parser.parse_args(argv)
    values = read_utterance_table(args.table, args.by)
    if args.bins:
        values = bin_values(values, args.bins)
    if args.utt2spk:
        # A speaker without a value leaves utterances without one, which are counted.
        speakers = read_table(args.utt2spk)
        values = {u: values[s] for u, s in speakers.items() if s in values}
    values = read_values(args.trials, values, mixed="mixed")
    trials, scores = read_scored(args.trials, args.scores)
    order = name_bins(args.bins) if args.bins else ()
    found = measure_conditions(trials, scores, values, order=order, min_errors=args.min_errors)
    rows = [asdict(row) for row in found]
    if args.format == "json":
        print(json.dumps(rows, indent=1))
    else:
        caption = f"{args.trials.name} by {args.by or args.table.stem}"
        print(FORMATS[args.format](build_condition_table(rows, caption)), end="")
    return 0


def _edges(text: str) -> list[float]:
    try:
        edges = [float(word) for word in text.split()]
    except ValueError:
        edges = []
    if not edges or edges != sorted(set(edges)):
        raise argparse.ArgumentTypeError(f"must be rising numbers, not '{text}'")
    return edges


if __name__ == "__main__":
    sys.exit(run("sv.bin.score_conditions", main))
