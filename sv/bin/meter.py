"""Run a command and print the kWh, gCO2 and watts that it used, or see what was metered before.

Usage: python3 -m sv.bin.meter [options] [--] COMMAND [ARGUMENT...]
       python3 -m sv.bin.meter --check SIDECAR...
       python3 -m sv.bin.meter --trace SIDECAR...
       python3 -m sv.bin.meter --watch|--rebuild DIR
       python3 -m sv.bin.meter --schema

 e.g.: python3 -m sv.bin.meter sleep 60
           print what it used; --country gives the grid whose CO2 it is
       python3 -m sv.bin.meter --country FRA --dir energy python3 my_training.py --lr 0.1
           and keep the figures: energy/99_python3.json, the sidecar, and its journal
       python3 -m sv.bin.meter --stage 5 --name train --dir exp/M/energy -- steps/train_xvector.sh
           a stage of a recipe, as run.sh calls it
       python3 -m sv.bin.meter --node worker1 -- python3 worker.py
           a process of a stage on another machine, with that stage's $SV_METER_NODES
       python3 -m sv.bin.meter --check exp/M/energy/05_train.json
           compute sidecars again from their journals; status 1: they differ
       python3 -m sv.bin.meter --trace exp/M/energy/05_train.json
           write the power over time: 05_train.trace.csv
       python3 -m sv.bin.meter --watch exp
           power, energy and CO2 so far of all that runs below a folder
       python3 -m sv.bin.meter --rebuild exp/M/energy
           write the sidecars of meters that were killed
       python3 -m sv.bin.meter --schema
           print every field of a sidecar, as JSON Schema
"""

import argparse
import dataclasses
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sv.bin import cli
from sv.config import build_json_schema
from sv.energy.boards import take_boards
from sv.energy.config import WORLD, EnergyConfig, read_energy_config
from sv.energy.journal import OWN, get_sidecar_path
from sv.energy.live import watch
from sv.energy.meter import Stage, run_metered, run_nested, say
from sv.energy.nodes import LABEL
from sv.errors import SvError, UsageError
from sv.files import validate_name
from sv.system import end_with_parent

TOOLS = {"--rebuild", "--check", "--watch", "--trace", "--schema"}


def main(argv: Sequence[str] | None = None) -> int:
    """Meter a command, whose status it returns, or run another tool of the meter."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before the command is there
    words = list(sys.argv[1:] if argv is None else argv)
    at = find_command(words)
    if {"-h", "--help"} & set(words[:at]):
        words, at = ["--help"], 1
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
    elif not args.stage and not args.config:
        config = dataclasses.replace(config, country=WORLD)
    if not args.dir:
        with tempfile.TemporaryDirectory(prefix="sv_meter.") as folder:
            return run_stage(args, config, Path(folder))
    return run_stage(args, config, Path(args.dir))


def run_stage(args: argparse.Namespace, config: EnergyConfig, folder: Path) -> int:
    """Meter the command as `parse_args` returned it; its figures go into ``folder``."""
    number, model = int(args.stage or OWN), args.model or None
    stage = Stage(
        number, args.name, folder, model, args.command, config, args.sysfs, keep=bool(args.dir)
    )
    if args.end_with_parent:
        end_with_parent()
    if args.skip_finished == "true" and is_finished(stage):
        say(f"stage {stage.stage} {stage.name}: finished before")
        return 0
    environ = os.environ if args.ngpu is None else take_boards(args.ngpu, os.environ)
    return (run_step if args.skip_finished else run_metered)(stage, environ)


def find_command(words: Sequence[str]) -> int:
    """Return where the command begins: after the options, a value each, and perhaps ``--``."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        at += 1 if "=" in words[at] or words[at] in ("-h", "--help") else 2
    return min(at, len(words))


def parse_args(words: list[str], at: int) -> argparse.Namespace:
    """Parse the options; the command begins at word ``at``, or after it if that is ``--``."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--stage", default="", help="number of the stage, 0 to 99; empty: no stage of a recipe"
    )
    parser.add_argument(
        "--name", default="", help="of the stage: train, extract_<set>, ... (the program's)"
    )
    parser.add_argument(
        "--dir", default="", help="folder of the sidecar, exp/<model>/energy; empty: none is kept"
    )
    parser.add_argument("--model", default="", help="name of the model; empty: all share it")
    parser.add_argument("--config", default="", help="energy.toml; empty: built-in values")
    parser.add_argument(
        "--country", default="", help="ISO3 code of the grid (the config's, else the world's mean)"
    )
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
    args.command = tuple(words[at + (words[at : at + 1] == ["--"]) :])
    if not args.command:
        raise UsageError("no command: write it after the options (see --help)")
    is_own = not args.stage and not args.node  # a command that is no stage
    if is_own and not args.name:
        program = re.sub(r"[^A-Za-z0-9._-]", "_", Path(args.command[0]).name)
        args.name = program.lstrip(".-") or "command"
    if not args.node:
        try:
            validate_name(args.name, "--name must be a name:")  # as those of data sets
        except SvError as error:
            raise UsageError(str(error)) from error
    elif not LABEL.fullmatch(args.node):
        raise UsageError(f"--node must be letters, digits, '.', '_', '-', not '{args.node}'")
    if args.stage and not re.fullmatch(r"\d{1,2}", args.stage, re.ASCII):
        raise UsageError(f"--stage must be a number from 0 to 99, not '{args.stage}'")
    if args.stage and not args.dir:
        raise UsageError("--dir is missing: the folder of the sidecar")
    return args


def parse_ngpu(text: str) -> int | None:
    """Parse a number of GPUs; None where it is empty."""
    if not re.fullmatch(r"\d{0,4}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be a whole number, not '{text}'")
    return int(text) if text else None


def is_finished(stage: Stage) -> bool:
    """Return whether a step was proved to be finished."""
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
