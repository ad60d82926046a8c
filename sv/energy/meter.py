"""Run a command and write down what it used.

The meter is a process of its own: it starts the command as its child, while it has one thread,
samples all channels at a period, at the start and at the end, and writes every sample to the
journal before it goes on. Whatever happens to the meter's own files, the command runs to its end
and its exit status is the meter's.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sv.energy.carbon import FactorFeed
from sv.energy.command import Command, StartError
from sv.energy.config import EnergyConfig
from sv.energy.fleet.nodes import SCHEMA as STAGE_SCHEMA
from sv.energy.fleet.nodes import STAGE_VARIABLE, get_nodes_folder
from sv.energy.fleet.nodes import VARIABLE as NODES_VARIABLE
from sv.energy.journal import (
    MARKS_VARIABLE,
    SCHEMA,
    SUFFIX,
    Journal,
    MarksFile,
    fold_leftover,
    get_marks_path,
    open_journal,
    read_journal,
)
from sv.energy.live import VARIABLE as LIVE_VARIABLE
from sv.energy.live import format_figures, get_live_path, read_live_file, remove_live
from sv.energy.processes import get_process, read_boot_id, read_git
from sv.energy.record import Attempt, read_record
from sv.energy.recorder import Recorder, format_now, read_clocks
from sv.energy.sensors.estimate import EstimateReader
from sv.energy.sensors.node import open_node
from sv.energy.sensors.nvml import NvmlReader
from sv.energy.sensors.rapl import open_rapl
from sv.energy.sensors.readers import ChannelSpec, Reader, contain
from sv.energy.sidecar import (
    count_attempts,
    find_run,
    fold_nodes,
    get_sidecar_path,
    is_stale,
    rebuild,
    sum_known,
    write_sidecar,
)
from sv.energy.summary import format_summary
from sv.errors import SvError

PROGRAM = "utils/meter.sh"
ACTIVE = "SV_METER_ACTIVE"  # set for the command: the machine that is being metered
REMEDY = "; run: sudo chmod"  # in the reason of a counter that only root may read
CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Stage:
    """What is metered and where its figures go.

    Attributes:
        stage: Number of the stage, 0 to 99.
        name: Name of the stage and of what it works on, a file name: train, extract_voxceleb1.
        folder: Where journal and sidecar are written.
        model: Model of the stage; None for a stage that all models share.
        argv: The command.
        config: Settings.
        sysfs: Root of sysfs.
        label: Of a process of a stage that another meter began (sv/energy/fleet); None: this is
            the stage's own meter.
    """

    stage: int
    name: str
    folder: Path
    model: str | None
    argv: tuple[str, ...]
    config: EnergyConfig
    sysfs: Path
    label: str | None = None

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / f"{self.label or f'{self.stage:02d}_{self.name}'}{SUFFIX}"


def run_metered(stage: Stage, environ: Mapping[str, str]) -> int:
    """Run a command under the meter.

    Args:
        stage: What to run.
        environ: Environment of the command, and the GPUs that it may use.

    Returns:
        The command's exit status, 128 + signal when it was killed, 127 when it was not found.

    Raises:
        UsageError: The country is unknown. Nothing has been started or written.
        SvError: Another meter writes the journal, or it cannot be written.
    """
    feed = FactorFeed(stage.config, environ)
    with open_journal(stage.journal) as journal:
        attempts = _read_attempts(stage, journal)
        git = read_git(CODE)
        readers = _open_readers(stage.config, stage.sysfs, environ)
        channels = [channel for reader in readers for channel in reader.channels]
        marks = MarksFile(get_marks_path(stage.journal, len(attempts) + 1).absolute())
        head = {
            "line": "head",
            "schema": SCHEMA,
            "attempt": len(attempts) + 1,
            "stage": stage.stage,
            "name": stage.name,
            "model": stage.model,
            **({} if stage.label is None else {"label": stage.label}),
            "argv": [os.fsencode(word).decode("utf-8", "replace") for word in stage.argv],
            "host": os.uname().nodename,
            "boot_id": read_boot_id(),
            "meter_pid": os.getpid(),
            "started_utc": format_now(),
            **read_clocks(),
            "git": git,
            "period_s": stage.config.period_s,
            "config": asdict(stage.config),
            "pue": {"value": stage.config.pue, "source": stage.config.pue_source},
            "channels": [asdict(channel) for channel in channels],
        }
        try:
            marks.path.write_bytes(b"")
            journal.append(head)
        except OSError as error:
            raise SvError(f"cannot write in {stage.folder}: {error.strerror}") from error
        _tell_remedy(stage, channels)
        live = get_live_path(stage.journal).absolute()
        if stage.label is None:
            earlier_kwh = _sum_earlier(attempts)
        else:
            earlier_kwh = sum_known(attempt.energy_kwh for attempt in attempts)
        nodes = get_nodes_folder(stage.journal, head["attempt"]).absolute()
        recorder = Recorder(
            journal, head, readers, marks=marks, feed=feed, live=live, earlier_kwh=earlier_kwh,
            nodes=nodes, complain=say,
        )  # fmt: skip
        extra = {ACTIVE: get_process(), MARKS_VARIABLE: str(marks.path), LIVE_VARIABLE: str(live)}
        if stage.label is None:  # else the folder is the stage's already
            extra |= {NODES_VARIABLE: str(nodes), STAGE_VARIABLE: _describe_stage(stage, head)}
        status = _run(stage.argv, {**environ, **extra}, recorder)
        with suppress(OSError):
            marks.path.unlink()
        if stage.label is None:
            _report(stage, nodes if status == 0 else None)
        else:
            figures = format_figures(read_live_file(live) or {})
            say(f"node {stage.label}: {figures}", program=f"# {PROGRAM}")  # not a job's last word
        remove_live(live)
    return status


def _open_readers(config: EnergyConfig, sysfs: Path, environ: Mapping[str, str]) -> list[Reader]:
    """Open all sensors, in the order of the sidecar's channels.

    Args:
        config: Settings.
        sysfs: Root of sysfs.
        environ: Environment of the metered command: it says which GPUs the command sees, where
            programs are, and holds the user and password of Redfish.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    pci_order = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    readers = [
        *open_rapl(sysfs),
        NvmlReader(visible, pci_order),
        *open_node(config, sysfs, environ),
        EstimateReader(config),
    ]
    contain(readers, node_includes_gpu=config.node_includes_gpu)
    return readers


def _describe_stage(stage: Stage, head: Mapping[str, Any]) -> str:
    """Give what the stage's other meters must know, one line of JSON."""
    about = {key: head[key] for key in ("stage", "name", "model", "attempt")}
    about |= {"config": head["config"], "sysfs": str(stage.sysfs.absolute())}
    return json.dumps({"schema": STAGE_SCHEMA, **about})


def _read_attempts(stage: Stage, journal: Journal) -> Sequence[Attempt]:
    """Return the earlier attempts; if the last one's meter was killed, write its sidecar first."""
    path = stage.journal
    if stage.label is not None:  # it has no sidecar of its own
        attempts = count_attempts(path)
        fold_leftover(journal, attempts)
        return rebuild(read_journal(path)).attempts if attempts else ()
    if is_stale(path):
        attempts = count_attempts(path)
        if attempts == 0:
            return ()
        fold_leftover(journal, attempts)
        fold_nodes(path)
        return write_sidecar(path).attempts
    try:
        return read_record(get_sidecar_path(path)).attempts
    except SvError:  # somebody changed it: the journal knows
        return write_sidecar(path).attempts


def _sum_earlier(attempts: Sequence[Attempt]) -> float | None:
    """Add up the energy that would be the run's if this attempt resumed it."""
    if not attempts:
        return None
    resumed = replace(attempts[-1], resumed=True, status="interrupted", marks=())
    run = [*attempts, resumed][find_run([*attempts, resumed]) : -1]
    return sum_known(attempt.energy_kwh for attempt in run)


def _run(argv: Sequence[str], environ: Mapping[str, str], recorder: Recorder) -> int:
    """Run the command between the first and the last sample; give its exit status."""
    recorder.write_metadata()
    recorder.sample()
    try:
        command = Command(argv, environ)
    except StartError as error:
        say(str(error))
        recorder.sample(final=True)
        recorder.end("failed", error.status)
        return error.status
    recorder.start_threads()
    next_s = time.monotonic() + recorder.get_period_s()
    while command.exit_code is None:
        command.wait_for_signal(next_s - time.monotonic())
        if command.exit_code is None and time.monotonic() >= next_s:
            recorder.sample()
            # Late (the disk, a suspended machine): the missed samples are not made up for.
            next_s = max(next_s, time.monotonic()) + recorder.get_period_s()
    command.end_leftovers()
    recorder.sample(final=True)
    status = "complete" if command.exit_code == 0 else "failed"
    if command.stopped_by is not None and command.exit_code != 0:
        status = "interrupted"
    recorder.end(status, command.exit_code)
    return command.exit_code


def _tell_remedy(stage: Stage, channels: list[ChannelSpec]) -> None:
    """Say once how a counter could be read that may not be; the sidecar says it every time."""
    others = set(stage.folder.glob(f"*{SUFFIX}")) - {stage.journal}
    remedies = [
        c.reason for c in channels if c.kind == "unavailable" and REMEDY in (c.reason or "")
    ]
    if remedies and not others:
        say(f"not measured: {remedies[0]}")


def _report(stage: Stage, awaited: Path | None) -> None:
    """Write the sidecar and say so; a failure is told but does not change the exit status.

    Args:
        stage: What has ended.
        awaited: Folder of the other meters whose ends should be there.
    """
    try:
        if awaited is not None and awaited.is_dir():
            from sv.energy.fleet.journals import wait_for_ends  # noqa: PLC0415 - one machine has none

            wait_for_ends(awaited)
        fold_nodes(stage.journal)
        sidecar = write_sidecar(stage.journal)
    except SvError as error:
        say(f"no sidecar: {error}")
    else:
        say(format_summary(sidecar, get_sidecar_path(stage.journal)))


def say(message: str, *, program: str = PROGRAM) -> None:
    """Print one line on stderr, under the name by which a user knows the meter."""
    with suppress(OSError):  # stderr may be closed
        print(f"{program}: {message}", file=sys.stderr, flush=True)
