"""What sv.bin.meter does beside metering: one of --rebuild, --check, --watch, --trace.

Usage: python3 -m sv.bin.meter --check|--trace SIDECAR...
       python3 -m sv.bin.meter --rebuild|--watch DIR
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sv.bin import cli
from sv.energy.check import check_overlaps, check_sidecar
from sv.energy.sidecar import rebuild_folder
from sv.energy.trace import write_trace
from sv.energy.watch import watch
from sv.files import read_json

SIDECAR_SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "energy-sidecar.schema.json"


def main(argv: Sequence[str]) -> int:
    """Run one tool; its name is the first word."""
    parser = cli.Parser(__doc__)
    tool = parser.add_mutually_exclusive_group(required=True)
    tool.add_argument("--rebuild", type=Path, help="rebuild the sidecars of killed meters")
    tool.add_argument("--check", type=Path, nargs="+", help="check sidecars; status 1: violations")
    tool.add_argument("--trace", type=Path, nargs="+", help="write the power traces of sidecars")
    tool.add_argument("--watch", type=Path, help="show the stages that run below a folder")
    args = parser.parse_args(argv)
    lines: list[str] = []
    if args.check:
        return check(args.check)
    if args.watch:
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
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - no stage's meter pays for it

    validator = Draft202012Validator(read_json(SIDECAR_SCHEMA))
    wrong, valid = [], []
    for path in paths:
        sidecar = read_json(path)
        errors = [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(sidecar)]
        valid += [] if errors else [(path, sidecar)]
        wrong += [(path, line) for line in errors or check_sidecar(path, sidecar)]
    wrong += check_overlaps(valid)
    for path, line in wrong:
        print(f"{path}: {line}")
    print(f"sv.bin.meter: {len(paths)} sidecars, {len(wrong)} violations", file=sys.stderr)
    return 1 if wrong else 0
