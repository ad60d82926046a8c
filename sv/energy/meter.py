"""Run a command and write down what it used.

The meter is a process of its own with one thread: it starts the command as its child, samples
all channels at a period, at the start and at the end, and writes every sample to the journal
before it goes on. Whatever happens to the meter's own files, the command runs to its end and
its exit status is the meter's.
"""

import os
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sv.energy.carbon.factor import choose_factor
from sv.energy.command import Command, StartError
from sv.energy.config import EnergyConfig
from sv.energy.host import get_machine, read_boot_id, read_git
from sv.energy.journal import SCHEMA, SUFFIX, Journal, Record, open_journal, read_journal
from sv.energy.marks_file import VARIABLE, MarksFile, fold_leftover, get_marks_path
from sv.energy.sensors.channel import Reader
from sv.energy.sensors.readers import open_readers
from sv.energy.sidecar import (
    get_sidecar_path,
    is_stale,
    split_attempts,
    write_sidecar,
)
from sv.energy.summary import format_summary
from sv.errors import SvError

PROGRAM = "utils/meter.sh"
ACTIVE = "SV_METER_ACTIVE"  # set for the command: the machine that is being metered
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
    """

    stage: int
    name: str
    folder: Path
    model: str | None
    argv: tuple[str, ...]
    config: EnergyConfig
    sysfs: Path

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / f"{self.stage:02d}_{self.name}{SUFFIX}"


def is_metered(environ: Mapping[str, str]) -> bool:
    """Tell whether an outer meter on this machine already counts this process."""
    return environ.get(ACTIVE) == get_machine()


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
    carbon = choose_factor(stage.config)
    with open_journal(stage.journal) as journal:
        attempts = len(split_attempts(read_journal(stage.journal)))
        if attempts and is_stale(stage.journal):
            fold_leftover(journal, attempts)
            write_sidecar(stage.journal)  # of the attempt whose meter was killed
        git = read_git(CODE)
        readers = open_readers(stage.config, stage.sysfs, environ)
        marks = MarksFile(get_marks_path(stage.journal, attempts + 1).absolute())
        head = {
            "line": "head",
            "schema": SCHEMA,
            "attempt": attempts + 1,
            "stage": stage.stage,
            "name": stage.name,
            "model": stage.model,
            "argv": [os.fsencode(word).decode("utf-8", "replace") for word in stage.argv],
            "host": os.uname().nodename,
            "boot_id": read_boot_id(),
            "meter_pid": os.getpid(),
            "started_utc": _format_utc(),
            **_read_clocks(),
            "git": git,
            "period_s": stage.config.period_s,
            "config": asdict(stage.config),
            "pue": {"value": stage.config.pue, "source": stage.config.pue_source},
            "carbon": asdict(carbon),
            "channels": [asdict(channel) for reader in readers for channel in reader.channels],
        }
        try:
            marks.path.write_bytes(b"")
            journal.append(head)
        except OSError as error:
            raise SvError(f"cannot write in {stage.folder}: {error.strerror}") from error
        meter = Meter(journal, readers, marks)
        status = meter.run(stage, environ)
        with suppress(OSError):
            marks.path.unlink()
        _report(stage)
    return status


class Meter:
    """The sampling of one attempt."""

    def __init__(self, journal: Journal, readers: list[Reader], marks: MarksFile) -> None:
        self._journal = journal
        self._readers = readers
        self._marks = marks
        self._write_failed = False

    def run(self, stage: Stage, environ: Mapping[str, str]) -> int:
        """Run the command between the first and the last sample; give its exit status."""
        self._sample()
        extra = {ACTIVE: get_machine(), VARIABLE: str(self._marks.path)}
        try:
            command = Command(stage.argv, {**environ, **extra})
        except StartError as error:
            say(str(error))
            self._sample(final=True)
            self._end("failed", error.status)
            return error.status
        next_s = time.monotonic() + stage.config.period_s
        while command.exit_code is None:
            command.wait_for_signal(next_s - time.monotonic())
            if command.exit_code is None and time.monotonic() >= next_s:
                self._sample()
                # Late (the disk, a suspended machine): the missed samples are not made up for.
                next_s = max(next_s, time.monotonic()) + stage.config.period_s
        command.end_leftovers()
        self._sample(final=True)
        status = "complete" if command.exit_code == 0 else "failed"
        if command.stopped_by is not None and command.exit_code != 0:
            status = "interrupted"
        self._end(status, command.exit_code)
        return command.exit_code

    def _sample(self, *, final: bool = False) -> None:
        raw: dict[str, int | None] = {}
        for reader in self._readers:
            raw |= reader.read()
        clocks = _read_clocks()
        self._append({"line": "sample", **clocks, "raw": raw})
        for said in self._marks.read_new(final=final):
            self._append({"line": "mark", "t_s": clocks["t_s"], "raw": raw, "said": said})

    def _end(self, status: str, exit_code: int) -> None:
        own = resource.getrusage(resource.RUSAGE_SELF)
        self._append(
            {
                "line": "end",
                **_read_clocks(),
                "ended_utc": _format_utc(),
                "status": status,
                "exit_code": exit_code,
                "meter_cpu_s": own.ru_utime + own.ru_stime,
            }
        )

    def _append(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except OSError as error:
            # A full disk must not end a training; the gap shows in the sidecar.
            if not self._write_failed:
                say(f"cannot write {self._journal.path}: {error.strerror}; the command goes on")
            self._write_failed = True


def _read_clocks() -> dict[str, float]:
    # A clock set by NTP or a person changes no duration: UTC is only for labels.
    return {
        "t_s": time.clock_gettime(time.CLOCK_BOOTTIME),
        "awake_s": time.clock_gettime(time.CLOCK_MONOTONIC),
    }


def _format_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _report(stage: Stage) -> None:
    """Write the sidecar and say so; a failure is told but does not change the exit status."""
    try:
        sidecar = write_sidecar(stage.journal)
    except SvError as error:
        say(f"no sidecar: {error}")
    else:
        say(format_summary(sidecar, get_sidecar_path(stage.journal)))


def say(message: str) -> None:
    """Print one line on stderr, under the name by which a user knows the meter."""
    with suppress(OSError):  # stderr may be closed
        print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)
