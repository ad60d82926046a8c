"""What sv.bin.meter does besides metering, one tool at a time.

Usage: python3 -m sv.bin.meter --check|--trace SIDECAR...
       python3 -m sv.bin.meter --rebuild|--watch DIR
       python3 -m sv.bin.meter --schema
"""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin import cli
from sv.config import build_json_schema
from sv.energy.check import check_files
from sv.energy.record import Sidecar
from sv.energy.sidecar import rebuild_folder
from sv.energy.trace import write_trace
from sv.energy.watch import watch


def main(argv: Sequence[str]) -> int:
    """Run one tool; its name is the first word."""
    parser = cli.Parser(__doc__)
    tool = parser.add_mutually_exclusive_group(required=True)
    tool.add_argument("--rebuild", type=Path, help="rebuild the sidecars of killed meters")
    tool.add_argument("--check", type=Path, nargs="+", help="check sidecars; status 1: violations")
    tool.add_argument("--trace", type=Path, nargs="+", help="write the power traces of sidecars")
    tool.add_argument("--watch", type=Path, help="show the stages that run below a folder")
    tool.add_argument("--schema", action="store_true", help="print a sidecar's JSON Schema")
    args = parser.parse_args(argv)
    lines: list[str] = []
    if args.check:
        return check(args.check)
    if args.schema:
        print(json.dumps(build_json_schema(Sidecar), indent=1))
    elif args.watch:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        watch(args.watch)
    elif args.rebuild:
        lines = rebuild_folder(args.rebuild)
    else:
        lines = [f"{path}: {rows} rows" for path, rows in map(write_trace, args.trace)]
    for line in lines:
        print(f"sv.bin.meter: {line}", file=sys.stderr)
    return 0


def check(paths: list[Path]) -> int:
    """Print a line for each violation; status 1 if there is any."""
    wrong = check_files(paths)
    for path, line in wrong:
        print(f"{path}: {line}")
    print(f"sv.bin.meter: {len(paths)} sidecars, {len(wrong)} violations", file=sys.stderr)
    return 1 if wrong else 0
