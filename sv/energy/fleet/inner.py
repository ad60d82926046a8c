"""A meter inside a metered stage: below the stage's meter it only runs its command, else it meters.

The stage's meter sees what is below it. Not a process on another machine, nor one that a daemon of
its own machine started (a Slurm job): there a meter of its own writes a journal for the stage
(`sv.energy.fleet.nodes`).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from sv.energy.config import build_energy_config
from sv.energy.fleet.nodes import STAGE_FILE, VARIABLE, make_folder, read_stage
from sv.energy.meter import ACTIVE, Stage, run_metered, say
from sv.energy.processes import find_process, is_below


def run_inner(
    label: str, name: str, argv: tuple[str, ...], environ: Mapping[str, str]
) -> int | None:
    """Run a command inside a stage.

    Args:
        label: Of `nodes.node_command`; empty: the command was to be a stage of its own.
        name: Of that stage.
        argv: The command.
        environ: Environment.

    Returns:
        The command's exit status; None where there is no stage around and it is to be one.

    Raises:
        SvError: The stage's folder cannot be made or read, or another meter has the label.
    """
    if is_metered(environ):
        return exec_command(argv, environ)
    if environ.get(VARIABLE):
        label = label or f"{name}.{os.uname().nodename}.{os.getpid()}"
        return run_metered(build_node_stage(label, argv, environ), environ)
    return exec_command(argv, environ) if label else None


def is_metered(environ: Mapping[str, str]) -> bool:
    """Tell whether this process is below a running meter, which counts it already."""
    outer = find_process(environ.get(ACTIVE, ""))
    return outer is not None and is_below(outer)


def build_node_stage(label: str, argv: tuple[str, ...], environ: Mapping[str, str]) -> Stage:
    """Build what is metered for the stage that ``$SV_METER_NODES`` belongs to.

    Raises:
        SvError: The stage's folder cannot be made or read.
    """
    folder = make_folder(environ)
    assert folder is not None
    about = read_stage(folder)
    config = build_energy_config(about["config"], str(folder / STAGE_FILE))
    sysfs = Path(about["sysfs"])
    return Stage(about["stage"], about["name"], folder, about["model"], argv, config, sysfs, label)


def exec_command(argv: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """Become the command (same process id); gives a status only if that fails."""
    try:
        os.execvpe(argv[0], argv, dict(environ))
    except FileNotFoundError:
        say(f"{argv[0]}: command not found")
        return 127
    except OSError as error:
        say(f"{argv[0]}: {error.strerror}")
        return 126
