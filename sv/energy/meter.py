"""Run a command and record what it uses.

The meter is a process of its own: it starts the command as its child, while it has one thread,
samples all channels at a period, at the start and at the end, and writes every sample to the
journal before it continues. Whatever happens to the meter's own files, the command runs to its end
and its exit status is the meter's.

What computes figures (the sidecar, the live figures) is loaded once the command runs: no command
waits for it, and a failure of it loses no exit status. Nor does a sensor: whatever its library
throws, at any moment, is no reading.

A meter below a stage's meter only runs its command, which that one counts already. A process that
no meter sees, because it runs on another machine or was started by a daemon of this one (a Slurm
job), has a meter of its own, which writes a journal for the stage (`sv.energy.nodes`).
"""

import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sv.energy.command import STOPPING, Command, StartError, replace_process
from sv.energy.config import EnergyConfig, build_energy_config
from sv.energy.factors import CarbonFactor, FactorFeed
from sv.energy.journal import (
    MARKS_VARIABLE,
    RESUMED,
    SCHEMA,
    SUFFIX,
    Journal,
    MarksFile,
    Record,
    count_attempts,
    fold_leftover,
    get_marks_path,
    get_sidecar_path,
    list_readable,
    open_journal,
    read_journal,
)
from sv.energy.live import (
    NOTHING_YET,
    format_figures,
    get_live_path,
    read_live_file,
    remove_live,
    write_live,
)
from sv.energy.live import VARIABLE as LIVE_VARIABLE
from sv.energy.nodes import SCHEMA as STAGE_SCHEMA
from sv.energy.nodes import (
    SETTLE_S,
    STAGE_FILE,
    STAGE_VARIABLE,
    get_nodes_root,
    is_stale,
    make_folder,
    read_stage,
    set_aside,
    wait_for_ends,
)
from sv.energy.nodes import VARIABLE as NODES_VARIABLE
from sv.energy.processes import (
    find_process,
    get_process,
    is_below,
    read_boot_id,
    read_git,
    read_start_ticks,
    read_usage,
    run_in_child,
)
from sv.energy.sensors.estimate import EstimateReader
from sv.energy.sensors.node import open_node
from sv.energy.sensors.nvml import NvmlReader, name_missing
from sv.energy.sensors.rapl import open_rapl
from sv.energy.sensors.readers import (
    THROWN,
    ChannelSpec,
    Reader,
    build_unavailable,
    contain,
    max_period_s,
)
from sv.energy.units import sum_known
from sv.errors import SvError
from sv.system import mask_secrets

if TYPE_CHECKING:
    from sv.energy.record import Attempt
    from sv.energy.tracker import Tracker

PROGRAM = "utils/meter.sh"
ACTIVE_VARIABLE = "SV_METER_ACTIVE"  # set for the command: names the meter's process
REMEDY = "; run: sudo chmod"  # in the reason of a counter that only root may read
T = TypeVar("T")
CODE = Path(__file__).resolve().parents[2]
USAGE_S = 10.0  # between two readings of what job and machine use, as attribution needs them
GOLDEN = (math.sqrt(5) - 1) / 2
FINISH_S = 5.0  # a carbon factor asked over the network is waited for so long at the end
LIVE_KEYS = (
    "stage", "name", "model", "label", "started_utc", "attempt", "host", "boot_id", "meter_pid",
)  # fmt: skip


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
        label: Of a process of a stage that another meter began; None: this is the stage's own
            meter.
        keep: Whether the folder outlives the meter; else the figures are only printed.
    """

    stage: int
    name: str
    folder: Path
    model: str | None
    argv: tuple[str, ...]
    config: EnergyConfig
    sysfs: Path
    label: str | None = None
    keep: bool = True

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / f"{self.label or f'{self.stage:02d}_{self.name}'}{SUFFIX}"


def run_nested(
    label: str, name: str, argv: tuple[str, ...], environ: Mapping[str, str]
) -> int | None:
    """Run a command that may be inside a stage.

    Args:
        label: Of `sv.energy.nodes.node_command`; empty: the command was to be a stage of its
            own.
        name: Of that stage.
        argv: The command.
        environ: Environment.

    Returns:
        The command's exit status; None where there is no stage around and it is to be one.

    Raises:
        SvError: The stage's folder cannot be made or read, or another meter has the label.
    """
    outer = find_process(environ.get(ACTIVE_VARIABLE, ""))
    if outer is not None and is_below(outer):  # that meter counts this process already
        return replace_process(argv, environ, say)
    folder = make_folder(environ)
    if folder is None:
        return replace_process(argv, environ, say) if label else None
    about = read_stage(folder)
    stage = Stage(
        stage=about["stage"],
        name=about["name"],
        folder=folder,
        model=about["model"],
        argv=argv,
        config=build_energy_config(about["config"], str(folder / STAGE_FILE)),
        sysfs=Path(about["sysfs"]),
        label=label or f"{name}.{os.uname().nodename}.{os.getpid()}",
    )
    return run_metered(stage, environ)


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
        head = _build_head(stage, len(attempts) + 1, git, readers)
        marks = MarksFile(get_marks_path(stage.journal, head["attempt"]).absolute())
        try:
            if stage.label is None:
                for folder in set_aside(stage.journal, head["attempt"]):
                    say(f"set aside, for the journal of its attempt is gone: {folder}")
            marks.path.unlink(missing_ok=True)  # a link would lead elsewhere
            marks.path.write_bytes(b"")
            journal.append(head)
        except OSError as error:
            raise SvError(f"cannot write in {stage.folder}: {error.strerror}") from error
        _print_remedy(stage, readers)
        live = get_live_path(stage.journal).absolute()
        nodes = (get_nodes_root(stage.journal) / str(head["attempt"])).absolute()
        recorder = Recorder(
            journal, head, readers, marks=marks, feed=feed, live=live, nodes=nodes,
            earlier_kwh=_sum_earlier(stage, attempts),
        )  # fmt: skip
        extra = {
            ACTIVE_VARIABLE: get_process(),
            MARKS_VARIABLE: str(marks.path),
            LIVE_VARIABLE: str(live),
        }
        if stage.label is None:  # else the folder is the stage's already
            about = {key: head[key] for key in ("stage", "name", "model", "attempt", "config")}
            about |= {"schema": STAGE_SCHEMA, "sysfs": str(stage.sysfs.absolute())}
            extra |= {NODES_VARIABLE: str(nodes), STAGE_VARIABLE: json.dumps(about)}
        status = _run(stage.argv, {**environ, **extra}, recorder)
        with suppress(OSError):
            marks.path.unlink()
        if stage.label is None:
            _write_sidecar(stage, nodes if status == 0 else None)
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
    opened: dict[tuple[str, str], Callable[[], Sequence[Reader]]] = {
        ("rapl.package", "cpu_package"): lambda: open_rapl(sysfs),
        (name_missing(visible), "gpu_board"): lambda: [NvmlReader(visible, pci_order)],
        (f"node.{config.node_power}", "node"): lambda: open_node(config, sysfs, environ),
        ("cpu_time", "cpu_package"): lambda: [EstimateReader(config)],
    }
    readers: list[Reader] = []
    for (name, boundary), open_readers in opened.items():
        try:
            readers += open_readers()
        except THROWN as error:
            channel = build_unavailable(name, boundary, name, f"the sensor failed: {error!r}")
            readers.append(Reader([channel]))
    contain(readers, node_includes_gpu=config.node_includes_gpu)
    return readers


def _build_head(
    stage: Stage, attempt: int, git: Mapping[str, Any], readers: Sequence[Reader]
) -> Record:
    """Build the attempt's first line in the journal."""
    return {
        "line": "head",
        "schema": SCHEMA,
        "attempt": attempt,
        "stage": stage.stage,
        "name": stage.name,
        "model": stage.model,
        **({} if stage.label is None else {"label": stage.label}),
        "argv": mask_secrets(os.fsencode(word).decode("utf-8", "replace") for word in stage.argv),
        "host": os.uname().nodename,
        "boot_id": read_boot_id(),
        "meter_pid": os.getpid(),
        "started_utc": _format_now(),
        **_read_clocks(),
        "git": git,
        "period_s": stage.config.period_s,
        "config": asdict(stage.config),
        "pue": {"value": stage.config.pue, "source": stage.config.pue_source},
        "channels": [asdict(channel) for reader in readers for channel in reader.channels],
    }


def _read_attempts(stage: Stage, journal: Journal) -> "Sequence[Attempt]":
    """Return the earlier attempts; if the last one's meter was killed, write its sidecar first."""
    path, stale = stage.journal, is_stale(stage.journal)
    if stale:  # a label's always is: it has no sidecar of its own
        attempts = count_attempts(path)
        if attempts == 0:
            return ()
        fold_leftover(journal, attempts)
    from sv.energy.record import read_record  # noqa: PLC0415
    from sv.energy.sidecar import fold_nodes, rebuild, write_sidecar  # noqa: PLC0415

    if stage.label is not None:
        return rebuild(read_journal(path)).attempts
    if stale:
        fold_nodes(path)
    else:
        with suppress(SvError):  # it was changed by hand: the journal knows
            return read_record(get_sidecar_path(path)).attempts
    run_in_child(lambda: write_sidecar(path))
    return read_record(get_sidecar_path(path)).attempts


def _sum_earlier(stage: Stage, attempts: "Sequence[Attempt]") -> float | None:
    """Add up the energy of the earlier attempts that this one would resume; None: not known."""
    run = attempts
    if stage.label is None and attempts:
        from sv.energy.sidecar import find_run  # noqa: PLC0415 - loaded with the attempts

        resumed = replace(attempts[-1], resumed=True, status="complete", marks=())
        run = find_run([*attempts, resumed])[:-1]
    return sum_known(attempt.energy_kwh for attempt in run)


def _run(argv: Sequence[str], environ: Mapping[str, str], recorder: "Recorder") -> int:
    """Run the command between the first and the last sample; return its exit status."""
    recorder.write_metadata()
    recorder.sample()
    try:
        command = Command(argv, environ)
    except StartError as error:
        say(str(error))
        recorder.end("failed", error.status)
        return error.status
    factors = spread_samples()
    next_s = time.monotonic() + recorder.get_period_s() * next(factors)
    recorder.follow_command()
    while command.exit_code is None:
        command.wait_for_signal(next_s - time.monotonic())
        if command.exit_code is None and time.monotonic() >= next_s:
            recorder.sample()
            # Late (the disk, a suspended machine): the missed samples are not made up for.
            next_s = max(next_s, time.monotonic()) + recorder.get_period_s() * next(factors)
    command.end_leftovers()
    status = "complete" if command.exit_code == 0 else "failed"
    if command.stopped_by is not None and command.exit_code != 0:
        status = "interrupted"
    recorder.end(status, command.exit_code)
    return command.exit_code


def spread_samples() -> Iterator[float]:
    """Yield by what part of the period the next sample is away: 1 on average.

    A load whose steps take as long as a period would else always be read at the same point of a
    step. Multiples of the golden ratio come to every point of it equally often.
    """
    point = 0.0
    while True:
        before, point = point, (point + GOLDEN) % 1
        yield 1 + point - before


def _print_remedy(stage: Stage, readers: Sequence[Reader]) -> None:
    """Print once how a counter can be made readable; the sidecar says it every time."""
    reasons = [c.reason or "" for r in readers for c in r.channels if c.kind == "unavailable"]
    remedies = [reason for reason in reasons if REMEDY in reason]
    if remedies and set(stage.folder.glob(f"*{SUFFIX}")) == {stage.journal}:
        say(f"not measured: {remedies[0]}")


def _write_sidecar(stage: Stage, awaited: Path | None) -> None:
    """Write the sidecar and print its figures; a failure does not change the exit status.

    Args:
        stage: What has ended.
        awaited: Folder of the other meters whose ends should be there.
    """
    try:
        from sv.energy.sidecar import fold_nodes, format_summary, write_sidecar  # noqa: PLC0415

        if awaited is not None and awaited.is_dir():
            wait_for_ends(awaited)
            # Meters of an earlier attempt, whose jobs this one has waited for.
            deadline_s = time.monotonic() + SETTLE_S
            while fold_nodes(stage.journal) and time.monotonic() < deadline_s:
                if signal.sigpending() & STOPPING:
                    break
                time.sleep(0.2)
        fold_nodes(stage.journal)
        sidecar = write_sidecar(stage.journal)
    except Exception as error:  # the command's status is worth more than its figures
        say(f"no sidecar: {error if isinstance(error, (SvError, ImportError)) else repr(error)}")
    else:
        where = f" -> {get_sidecar_path(stage.journal)}" if stage.keep else ""
        say(f"{format_summary(sidecar)}{where}")
        for channel in sidecar.attempts[-1].channels:
            if channel.boundary == "node" and channel.kind == "unavailable":
                say(f"{channel.id} not measured: {channel.reason}")


def say(message: str, *, program: str = PROGRAM) -> None:
    """Print one line on stderr, under the name by which a user knows the meter."""
    with suppress(OSError):  # stderr may be closed
        print(f"{program}: {message}", file=sys.stderr, flush=True)


class Recorder:
    """Writes one attempt into the journal and the live file.

    Args:
        journal: Open, with the attempt's head in it.
        head: That line.
        readers: The sensors.
        marks: What the command reports.
        feed: Carbon factors.
        live: Path of the live file.
        nodes: Folder of the stage's other meters, there once it has any.
        earlier_kwh: Energy of the attempts that this one would resume; None: not known.
    """

    def __init__(
        self,
        journal: Journal,
        head: Record,
        readers: Sequence[Reader],
        *,
        marks: MarksFile,
        feed: FactorFeed,
        live: Path,
        nodes: Path,
        earlier_kwh: float | None,
    ) -> None:
        self._journal = journal
        self._readers = readers
        self._marks = marks
        self._feed = feed
        self._live = live
        self._nodes = nodes
        self._earlier_kwh = earlier_kwh
        self._tracker: Tracker | None = None
        self._untracked: deque[Record] = deque()  # lines that the tracker has not taken
        self._loader = threading.Thread(target=self._load, name="figures", daemon=True)
        self._head = head
        self._order = list_readable(head["channels"])
        self._channels: list[ChannelSpec] = [c for reader in readers for c in reader.channels]
        self._period_s = head["period_s"]
        self._rule = head["config"]["attribution"]
        self._write_failed = self._resumed = False
        self._failed: dict[Reader, str] = {}  # what a sensor's library threw
        self._last_s, self._usage_s = -math.inf, -math.inf
        self._about = {key: head.get(key) for key in LIVE_KEYS}
        if self._about["label"] is not None:
            self._about["before_kwh"] = earlier_kwh or 0.0
        self._about["meter_start_ticks"] = read_start_ticks(os.getpid())

    def follow_command(self) -> None:
        """Begin, once the command was forked from the only thread, what need not be before it."""
        for reader in self._readers:
            self._call(reader, reader.start, None)
        self._feed.start()
        self._loader.start()

    def _load(self) -> None:
        """Load what computes figures, in a thread of its own: it delays no sample."""
        try:
            import sv.energy.sidecar  # noqa: F401, PLC0415 - for the end: the code may change
            from sv.energy.tracker import Tracker  # noqa: PLC0415
        except Exception as error:  # the command's status is worth more than its figures
            say(f"no live figures: {error}; the command goes on")
            self._untracked = deque(maxlen=0)
        else:
            self._tracker = Tracker(self._head)

    def get_period_s(self) -> float:
        """Return the time to the next sample: the config's, less where a counter wraps sooner."""
        powers_w = self._tracker.get_powers_w() if self._tracker else {}
        return min(self._period_s, max_period_s(self._channels, powers_w))

    def sample(self, *, final: bool = False) -> None:
        """Read everything, write it to the journal and update the live file."""
        raw: dict[str, int | None] = {}
        for reader in self._readers:
            raw |= self._call(reader, reader.read, {})
        clocks = _read_clocks()
        line = {"line": "sample", **clocks, "raw": [raw.get(name) for name in self._order]}
        if final or self._is_usage_due(clocks["t_s"]):
            line["usage"] = read_usage(os.getpid(), memory=self._rule == "ceems")
        self._write(self._journal.append, line)
        self._untracked.append({**line, "raw": raw})
        for mark in self._marks.read_new(final=final):
            self._resumed = self._resumed or mark["mark"] == RESUMED
            line = {"line": "mark", "t_s": self._find_time(mark), "said": mark}
            self._write(self._journal.append, line)
        self._take(self._feed.drain())
        self._last_s = clocks["t_s"]
        if not final:  # `end` follows
            self._write(self._journal.sync)
            write_live(self._live, self._summarise())

    def _is_usage_due(self, t_s: float) -> bool:
        if t_s - self._usage_s < USAGE_S:
            return False
        first, self._usage_s = self._usage_s == -math.inf, t_s
        # A machine that waits for others is shared by its usage, whatever the rule.
        return first or self._rule != "exclusive" or self._nodes.is_dir()

    def _find_time(self, mark: Record) -> float:
        """Return a mark's time on the meter's clock: after the sample before this one."""
        now_s, unix_s = _read_clocks()["t_s"], mark.get("time_unix")
        if isinstance(unix_s, bool) or not isinstance(unix_s, int | float):
            return now_s
        ago_s = time.time() - unix_s
        return min(now_s, max(now_s - ago_s, self._last_s))

    def _summarise(self) -> Record:
        figures = NOTHING_YET
        if self._tracker:
            while self._untracked:
                self._tracker.take(self._untracked.popleft())
            figures = self._tracker.summarise()
        parts_kwh = [figures["energy_kwh"], self._earlier_kwh if self._resumed else 0.0]
        run_kwh = None if None in parts_kwh else sum(parts_kwh)
        return {**self._about, **figures, "run_energy_kwh": run_kwh}

    def write_metadata(self) -> None:
        """Write what the sensors report besides readings, where they do."""
        metadata: Record = {}
        for reader in self._readers:
            metadata |= self._call(reader, reader.read_metadata, {})
        for reader, error in self._failed.items():
            for channel in reader.channels:
                metadata.setdefault(channel.id, {"last_error": error})
        if metadata:
            line = {"line": "facts", "t_s": _read_clocks()["t_s"], "facts": metadata}
            self._write(self._journal.append, line)

    def end(self, status: str, exit_code: int) -> None:
        """Write the last sample and the last lines."""
        self.sample(final=True)
        for reader in self._readers:
            self._call(reader, reader.close, None)
        self.write_metadata()
        self._take(self._feed.finish(FINISH_S))
        own = resource.getrusage(resource.RUSAGE_SELF)
        line = {
            "line": "end",
            **_read_clocks(),
            "ended_utc": _format_now(),
            "status": status,
            "exit_code": exit_code,
            "meter_cpu_s": own.ru_utime + own.ru_stime,
        }
        self._write(self._journal.append, line)
        self._write(self._journal.sync)
        if self._loader.ident is None:  # the command was not found
            self._loader.start()
        self._loader.join()
        write_live(self._live, self._summarise())

    def _call(self, reader: Reader, call: Callable[[], T], default: T) -> T:
        """Ask a sensor; what its library throws is kept for the journal: the command goes on."""
        try:
            return call()
        except THROWN as error:
            if reader not in self._failed:
                names = ", ".join(channel.id for channel in reader.channels)
                say(f"sensor of {names}: {error!r}; the command goes on")
            self._failed[reader] = repr(error)
            return default

    def _take(self, factors: list[CarbonFactor]) -> None:
        for factor in factors:
            line = {"line": "factor", "t_s": _read_clocks()["t_s"], "factor": vars(factor)}
            self._write(self._journal.append, line)
            self._untracked.append(line)

    def _write(self, write: Callable[..., None], *record: Record) -> None:
        try:
            write(*record)
        except (OSError, TypeError, ValueError) as error:
            # Neither a full disk nor what is no JSON may end a training; the sidecar has the gap.
            if not self._write_failed:
                reason = error.strerror if isinstance(error, OSError) else repr(error)
                say(f"cannot write {self._journal.path}: {reason}; the command goes on")
            self._write_failed = True


def _read_clocks() -> dict[str, float]:
    """Read the two clocks that nothing sets, to the microsecond.

    A wall clock that NTP or a person sets changes no duration: UTC is only for labels.
    """
    return {
        "t_s": round(time.clock_gettime(time.CLOCK_BOOTTIME), 6),
        "awake_s": round(time.clock_gettime(time.CLOCK_MONOTONIC), 6),
    }


def _format_now() -> str:
    """Format the wall clock (UTC), with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
