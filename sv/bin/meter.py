"""Run a command and write what it used (energy, carbon, time) to a sidecar.

Usage: python3 -m sv.bin.meter --stage N --name NAME --dir DIR [options] -- command [argument ...]
       python3 -m sv.bin.meter --node LABEL -- command [argument ...]
       python3 -m sv.bin.meter --check|--trace SIDECAR...
       python3 -m sv.bin.meter --rebuild|--watch DIR
       python3 -m sv.bin.meter --schema
"""

import argparse
import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sv.bin import cli
from sv.config import build_json_schema
from sv.energy.boards import take_boards
from sv.energy.config import EnergyConfig, read_energy_config
from sv.energy.journal import get_sidecar_path
from sv.energy.live import watch
from sv.energy.meter import Stage, run_metered, run_nested, say
from sv.energy.nodes import LABEL
from sv.errors import UsageError
from sv.system import end_with_parent

TOOLS = {"--rebuild", "--check", "--watch", "--trace", "--schema"}


def main(argv: Sequence[str] | None = None) -> int:
    """Meter a command, whose status it returns, or run another tool of the meter."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before the command is there
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    if TOOLS & set(words[:at]):
        return run_tool(words)
    args = parse_args(words, at)
    if (status := run_nested(args.node, args.name, args.command, os.environ)) is not None:
        return status
    config = read_energy_config(Path(args.config)) if args.config else EnergyConfig()
    if args.country:
        if config.g_per_kwh is not None:
            raise UsageError(f"{args.config} has g_per_kwh: remove it, or --country")
        config = dataclasses.replace(config, country=args.country)
    number, folder, model = int(args.stage), Path(args.dir), args.model or None
    stage = Stage(number, args.name, folder, model, args.command, config, args.sysfs)
    if args.end_with_parent:
        end_with_parent()
    if args.skip_finished == "true" and is_finished(stage):
        say(f"stage {stage.stage} {stage.name}: finished before")
        return 0
    environ = os.environ if args.ngpu is None else take_boards(args.ngpu, os.environ)
    return (run_step if args.skip_finished else run_metered)(stage, environ)


def parse_args(words: list[str], at: int):
    """Parse the options; what follows word ``at``, the first ``--``, is the command."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--stage", default="", help="number of the stage, 0 to 99")
    parser.add_argument("--name", default="", help="name of the stage: train, extract_<set>, ...")
    parser.add_argument("--dir", default="", help="folder of the sidecar, exp/<model>/energy")
    parser.add_argument("--model", default="", help="name of the model; empty: all share it")
    parser.add_argument("--config", default="", help="energy.toml; empty: built-in values")
    parser.add_argument("--country", default="", help="ISO3 code, instead of the config's")
    parser.add_argument("--sysfs", type=Path, default=Path("/sys"), help="root of sysfs")
    parser.add_argument("--node", default="", help="a process of the stage in $SV_METER_NODES")
    parser.add_argument(
        "--ngpu", type=parse_ngpu, metavar="N",
        help="lock N free GPUs for the command and count these; 0: none; empty: all it sees",
    )  # fmt: skip
    parser.add_argument("--end-with-parent", default=False, type=cli.true_or_false)
    parser.add_argument(
        "--skip-finished", default="", choices=["", "true", "false"],
        help="prove that the step is finished (sv/jobs/completion.py); true: skip it if it is",
    )  # fmt: skip
    args = parser.parse_args(words[:at])
    args.command = tuple(words[at + 1 :])
    if not args.command:
        raise UsageError("no command: write it after -- (see --help)")
    option, name = ("node", args.node) if args.node else ("name", args.name)
    if not LABEL.fullmatch(name):
        raise UsageError(f"--{option} must be letters, digits, '.', '_', '-', not '{name}'")
    if not args.node and not re.fullmatch(r"\d{1,2}", args.stage, re.ASCII):
        raise UsageError(f"--stage must be a number from 0 to 99, not '{args.stage}'")
    if not args.node and not args.dir:
        raise UsageError("--dir is missing: the folder of the sidecar")
    return args


def parse_ngpu(text: str) -> int | None:
    """Parse a number of GPUs; None where it is empty."""
    if not re.fullmatch(r"\d{0,4}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be a whole number, not '{text}'")
    return int(text) if text else None


def is_finished(stage: Stage) -> bool:
    """Tell whether a step was proved to be finished."""
    from sv.jobs import completion  # noqa: PLC0415 - not for the meters of jobs

    return completion.is_stage_finished(get_sidecar_path(stage.journal), stage.argv)


def run_step(stage: Stage, environ: Mapping[str, str]) -> int:
    """Run a step under the meter, and prove that it is finished.

    One that fails leaves the proof of an earlier run, which holds while its files are as they were.
    """
    from sv.jobs import completion  # noqa: PLC0415 - not for the meters of jobs

    sidecar, status = get_sidecar_path(stage.journal), None
    earlier = completion.begin_stage(sidecar, stage.argv)
    try:
        status = run_metered(stage, environ)
    finally:
        if status == 0:
            completion.end_stage(sidecar, stage.argv)
        elif earlier is not None:
            completion.write_proof(completion.get_stage_proof(sidecar), earlier)
    return status


def run_tool(words: Sequence[str]) -> int:
    """Check, trace, rebuild or watch sidecars, or print their schema."""
    parser = cli.Parser(__doc__)
    tool = parser.add_mutually_exclusive_group(required=True)
    tool.add_argument("--rebuild", type=Path, help="rebuild sidecars of killed meters; 1: failed")
    tool.add_argument("--check", type=Path, nargs="+", help="check sidecars; status 1: violations")
    tool.add_argument("--trace", type=Path, nargs="+", help="write the power traces of sidecars")
    tool.add_argument("--watch", type=Path, help="show the stages that run below a folder")
    tool.add_argument("--schema", action="store_true", help="print a sidecar's JSON Schema")
    args = parser.parse_args(words)
    # A stage's meter needs none of these.
    from sv.energy.check import check_files  # noqa: PLC0415
    from sv.energy.record import Sidecar  # noqa: PLC0415
    from sv.energy.sidecar import rebuild_folder, write_trace  # noqa: PLC0415

    if args.check:
        wrong = check_files(args.check)
        for path, line in wrong:
            print(f"{path}: {line}")
        _print(f"{len(args.check)} sidecars, {len(wrong)} violations")
        return 1 if wrong else 0
    if args.schema:
        print(json.dumps(build_json_schema(Sidecar), indent=1))
    elif args.watch:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        watch(args.watch)
    elif args.rebuild:
        lines, succeeded = rebuild_folder(args.rebuild)
        for line in lines:
            _print(line)
        return int(not succeeded)
    else:
        for path, rows in map(write_trace, args.trace):
            _print(f"{path}: {rows} rows")
    return 0


def _print(line: str) -> None:
    print(f"sv.bin.meter: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run("sv.bin.meter", main))
