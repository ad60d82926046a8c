"""Tell whether a model's stage is finished, or record that it has begun or ended; for run.sh.

Usage: python3 -m sv.bin.completion --begin|--end STAGE NAME ENERGY_DIR -- command [argument ...]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin import cli
from sv.errors import UsageError
from sv.study.completion import begin_stage, end_stage, is_finished


def main(argv: Sequence[str] | None = None) -> int:
    """Print ``finished`` (a begun stage that need not be run) or ``todo``."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--" not in words[:-1]:
        raise UsageError("no command: write it after --")
    at = words.index("--")
    parser = cli.Parser(__doc__)
    parser.add_argument("--begin", action="store_true", help="the stage is about to run")
    parser.add_argument("--end", action="store_true", help="the stage has run")
    parser.add_argument("--skip", type=cli.true_or_false, default=False, help="if it is finished")
    parser.add_argument("stage", type=int)
    parser.add_argument("name")
    parser.add_argument("energy_dir", type=Path)
    args = parser.parse_args(words[:at])
    if args.begin == args.end:
        raise UsageError("give --begin or --end")
    sidecar = args.energy_dir / f"{args.stage:02d}_{args.name}.json"
    command = words[at + 1 :]
    if args.end:
        end_stage(sidecar, command)
    elif args.skip and is_finished(sidecar, command):
        print("finished")
    else:
        begin_stage(sidecar, command)
        print("todo")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("sv.bin.completion", main))
