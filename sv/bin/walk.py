"""Run stages 5 to 8 of many systems, one after the other, and say what became of each.

Usage: python3 -m sv.bin.walk [options] DATA EXP -- ./run.sh [options of run.sh]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin import cli
from sv.errors import UsageError
from sv.study.summary import format_forecasts, format_summary
from sv.study.walk import FAILED, Walk


def main(argv: Sequence[str] | None = None) -> int:
    """Walk and print the summary; 1 if a system failed, 128 + the signal that stopped it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--" not in words[:-1]:
        raise UsageError("no command: write run.sh and its options after --")
    at = words.index("--")
    parser = cli.Parser(__doc__)
    parser.add_argument("--stage", type=int, default=5, help="first stage")
    parser.add_argument("--stop-stage", type=int, default=8, help="last stage")
    parser.add_argument("--models", required=True, help="names, with spaces between")
    parser.add_argument("--precisions", default="fp32", help="words, with spaces between")
    parser.add_argument("--backend", default="cosine", help="whose EER the summary shows")
    parser.add_argument("--forecast", type=cli.true_or_false, default=False)
    parser.add_argument("data", type=Path)
    parser.add_argument("exp", type=Path)
    args = parser.parse_args(words[:at])
    walk = Walk(words[at + 1 :], args.stage, args.stop_stage)
    rows = walk.run(args.models.split(), list(dict.fromkeys(args.precisions.split())))
    if args.forecast:
        print(format_forecasts(rows, args.exp))
    else:
        print(format_summary(rows, args.data, args.exp, args.backend))
    if walk.stopped_by is not None:
        return 128 + walk.stopped_by
    return 1 if any(row.outcome.status == FAILED for row in rows) else 0


if __name__ == "__main__":
    sys.exit(cli.run("sv.bin.walk", main))
