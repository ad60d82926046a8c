"""Run a command, or an array of jobs, by Slurm with a log each, and wait. Kaldi's contract.

Usage: utils/slurm.py [--config <slurm.conf>] [options] [JOB=1:nj] <log> <command> [<argument>...]
 e.g.: utils/slurm.py --mem 4G JOB=1:8 exp/log/fbank.JOB.log python3 -m x.y feats.JOB.ark

Takes utils/run.py's command line, writes its logs, and skips what either of them has finished. All
jobs are one job array, with the caller's environment and working directory, which must be on a disk
that the nodes share. With --nodes M the command is started once on each of M nodes. The site's
settings are in the TOML file of --config, where everything has a default:

    account = "abc@v100"                 # of all jobs
    options = ["--hint=nomultithread"]   # further options of sbatch, word by word
    [cpu_jobs]                           # of jobs without --gpu, instead of the above
    partition = "prepost"
    [gpu_jobs]                           # of jobs with --gpu
    constraint = "v100-32g"
    time = "20:00:00"

``options`` of a table are added to the general ones; its other keys replace them.

A job's own status file decides: while squeue does not answer, this program waits. So it does for a
job that Slurm requeues (preempted, its node lost). Ctrl-C (SIGINT) cancels the jobs. Whatever else
ends this program leaves them in the queue, and the same command waits for them again; one with the
same log that asks for something else, or whose inputs have changed, cancels them first.
"""

import argparse
import fcntl
import os
import re
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from sv.config import Minimum, read_config
from sv.energy import nodes
from sv.energy.journal import MARKS_VARIABLE, RESUMED, write_mark
from sv.errors import SvError, UsageError
from sv.files import refuse_link, write_json
from sv.jobs.completion import Prints, take_prints
from sv.jobs.jobs import (
    Job,
    Progress,
    Request,
    StopSignal,
    build_parser,
    catch_signals,
    fail,
    find_last_message,
    find_newest_line,
    find_todo,
    format_now,
    mark_done,
    parse,
    report,
)
from sv.jobs.slurm_job import parse_time_s, read_own_json, read_status
from sv.system import names_secret

NAME = "utils/slurm.py"
SUBMIT_S = 900.0  # a restart of the controller is over by then
STOP_S = 300.0  # cancelled jobs have their KillWait to end, 30 s by default, and their epilogs
LOOK_S = 0.5  # between two looks at the status files
LOST = "Slurm has lost it; did its node fail?"
WORDS = ("partition", "account", "qos", "constraint", "mem", "time")
TIMEOUT_S = 60.0  # a busy controller answers late; squeue itself gives up after about ten seconds
KEY = re.compile("[0-9a-f]{8}")  # the folder of a submission, and the end of its jobs' name
# States in which a job has ended, slurm.h; in all others Slurm still has it.
ENDED = {
    "BOOT_FAIL": "its node failed to boot",
    "CANCELLED": "cancelled",
    "COMPLETED": "ended for Slurm",
    "DEADLINE": "past its deadline",
    "FAILED": "failed for Slurm",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory; give more by --mem",
    "PREEMPTED": "preempted",
    "REVOKED": "revoked",
    "TIMEOUT": "ran into its time limit; give more by --time",
}
# What passes by itself, in the messages of sbatch.
TRANSIENT = re.compile(
    "unable to contact|timed out|connection|temporarily|try again|no answer", re.IGNORECASE
)


@dataclass(frozen=True)
class JobKind:
    """What one kind of job asks for; None: the site's default."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mem: str | None = None
    time: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what sbatch would refuse without naming this file."""
        if self.time is not None:
            parse_time_s(self.time)


@dataclass(frozen=True)
class SlurmConfig(JobKind):
    """The settings of a site.

    Attributes:
        gpu: Option that asks for ``{n}`` GPUs on every node of a job.
        poll_s: Time between two calls of squeue.
        grace_s: A job that Slurm no longer has is lost if its status does not appear on the shared
            disk for so long.
        warning_s: So long before its time limit a training is signalled, to save a checkpoint;
            longer where its own steps are found to need more.
        max_restarts: How often such a training is put back into the queue without a checkpoint
            since the time before.
    """

    gpu: str = "--gres=gpu:{n}"
    poll_s: Annotated[float, Minimum(0.1)] = 15.0
    grace_s: Annotated[float, Minimum(0.1)] = 90.0
    warning_s: Annotated[int, Minimum(0)] = 180
    max_restarts: Annotated[int, Minimum(0)] = 20
    cpu_jobs: JobKind = field(default_factory=JobKind)
    gpu_jobs: JobKind = field(default_factory=JobKind)

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if "{n}" not in self.gpu:
            raise ValueError(f"gpu must hold {{n}}, the number of GPUs, unlike '{self.gpu}'")


def build_options(config: SlurmConfig, asked: argparse.Namespace, *, is_array: bool) -> list[str]:
    """Return the options of sbatch that say what a job gets; the command line's win.

    Args:
        config: Of the site.
        asked: Options of utils/slurm.py.
        is_array: Whether the job is one of many, which cannot resume from a checkpoint.
    """
    kind = config.gpu_jobs if asked.gpu else config.cpu_jobs
    own = {"mem": asked.mem, "time": asked.time}
    values = {word: own.get(word) or getattr(kind, word) or getattr(config, word) for word in WORDS}
    words = [f"--{word}={value}" for word, value in values.items() if value]
    words += [f"--cpus-per-task={asked.num_threads}", f"--nodes={asked.nodes}"]
    words += [f"--ntasks={asked.nodes}", "--ntasks-per-node=1", "--requeue"]
    if asked.gpu:
        words += config.gpu.replace("{n}", str(asked.gpu)).split()
    limit_s = parse_time_s(values["time"]) if values["time"] else None
    # A job whose limit is nearer than that would be signalled at once.
    is_long = limit_s is None or limit_s >= 2 * config.warning_s
    if not is_array and config.warning_s and is_long:
        words.append(f"--signal=B:USR1@{config.warning_s}")
    return [*words, *config.options, *kind.options]


class NoAnswerError(Exception):
    """A program of Slurm failed; the message is its last line."""

    @property
    def is_transient(self) -> bool:
        """Whether asking again later may help."""
        return TRANSIENT.search(str(self)) is not None


@dataclass(frozen=True)
class Entry:
    """A job in the queue.

    Attributes:
        id: Slurm's number of it, 12_3 in an array.
        state: In Slurm's words: PENDING.
        reason: Why it waits: "Resources".
    """

    id: str
    state: str
    reason: str

    @property
    def has_ended(self) -> bool:
        """Whether it will not run any more."""
        return self.state in ENDED


def call(argv: Sequence[str]) -> str:
    """Run a program of Slurm; return what it prints.

    A signal to this process does not reach it, and is handled when it has ended: a submission is
    never half made.

    Raises:
        NoAnswerError: It failed, or took too long.
        SvError: It is not installed.
    """
    # Within a job of Slurm: that job's settings are not for the new one, nor are the GPUs here.
    # Slurm keeps what sbatch exports with the job: no secrets but those that its meter needs.
    kept = {"SLURM_CONF", *nodes.list_secrets(os.environ)}
    environ = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not (name.startswith(("SLURM_", "CUDA_VISIBLE_")) or names_secret(name))
    }
    try:
        process = subprocess.Popen(
            list(argv), env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise SvError(f"{argv[0]}: {error.strerror}; is this a machine of a Slurm site?") from None
    with process:  # waits for its end, whatever comes
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise NoAnswerError(f"{argv[0]}: no answer in {TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        lines = [line for line in err.splitlines() if line.strip()]
        raise NoAnswerError(lines[-1] if lines else f"{argv[0]}: status {process.returncode}")
    return out


def sbatch(options: Sequence[str], script: str) -> None:
    """Submit a script.

    Raises:
        NoAnswerError: It is refused, or there is no answer; then it may have been submitted.
    """
    call(["sbatch", "--parsable", *options, script])


def read_queue(name: str) -> dict[int | None, Entry]:
    """Return the jobs of one name that Slurm knows, by number in their array (None: no array).

    Raises:
        NoAnswerError: There is no answer.
    """
    form = "--format=%F|%K|%T|%r"
    who = [f"--user={os.getuid()}", f"--name={name}"]
    text = call(["squeue", "--noheader", "--array", "--states=all", *who, form])
    entries = {}
    for line in text.splitlines():
        array, index, state, reason = line.strip().split("|", 3)
        is_array = index.isdecimal()
        number = f"{array}_{index}" if is_array else array
        entries[int(index) if is_array else None] = Entry(number, state, reason)
    return entries


def cancel(name: str) -> None:
    """Cancel the jobs of one name; that there are none is not an error.

    Raises:
        NoAnswerError: There is no answer; they may have been cancelled.
    """
    call(["scancel", f"--user={os.getuid()}", f"--name={name}"])


def say(message: str) -> None:
    """Print one line on stderr."""
    print(f"{NAME}: {message}", file=sys.stderr, flush=True)


class Watch:
    """Waits for the jobs of one submission: their status files, and what Slurm knows of the rest.

    Args:
        folder: Of the submission, where the jobs leave their status.
        name: Of the jobs in the queue.
        jobs: All that were submitted.
        is_array: Whether they are jobs of an array.
        config: Of the site.
    """

    def __init__(
        self, folder: Path, name: str, jobs: list[Job], *, is_array: bool, config: SlurmConfig
    ) -> None:
        self.statuses: dict[int, int] = {}
        self._folder, self._name, self._config = folder, name, config
        self._is_array = is_array
        self._jobs = {job.number: job for job in jobs}
        self._open = list(self._jobs)
        self._queue: dict[int, Entry] = {}
        self._gone_s: dict[int, float] = {}  # since when Slurm is done with a job
        self._is_answering = True
        self._progress = Progress()

    def wait(self) -> dict[int, int]:
        """Wait until every job has ended; return the statuses by number."""
        asked_s = time.monotonic()
        while True:
            self.collect()
            if not self._open:
                return self.statuses
            if time.monotonic() - asked_s >= self._config.poll_s:
                self._ask()
                asked_s = time.monotonic()
            self._progress.show(self._describe)
            time.sleep(min(LOOK_S, self._config.poll_s))

    def collect(self) -> None:
        """Read the status files of the jobs that have ended by themselves."""
        # Listing the folder makes an NFS client ask anew; a file it found missing stays so longer.
        names = set(os.listdir(self._folder)) if self._folder.is_dir() else set()
        for number in tuple(self._open):
            name = f"{number}.status"
            found = read_status(self._folder / name) if name in names else None
            if found is not None and found["final"]:
                self._close(number, found["status"])

    def _close(self, number: int, status: int) -> None:
        self._open.remove(number)
        self.statuses[number] = status
        if status == 0 and self._is_array:
            mark_done(self._jobs[number])

    def _ask(self) -> None:
        """Ask Slurm for the jobs, and close those that it ended before they left a status."""
        try:
            found = read_queue(self._name)
        except NoAnswerError as error:
            if self._is_answering:
                say(f"squeue does not answer ({error}); waiting on: jobs report their end")
            self._is_answering = False
            self._gone_s.clear()  # jobs that seemed lost may be seen again
            return
        if not self._is_answering:
            say("squeue answers again")
        self._is_answering = True
        if None in found:  # one job, no array
            found[self._open[0]] = found.pop(None)
        self._queue = {number: entry for number, entry in found.items() if number is not None}
        self.collect()  # a job that has ended since the last look
        now = time.monotonic()
        for number in tuple(self._open):
            entry = self._queue.get(number)
            if entry is not None and not entry.has_ended:
                self._gone_s.pop(number, None)
            elif now - self._gone_s.setdefault(number, now) >= self._config.grace_s:
                self._give_up(number, entry)

    def _give_up(self, number: int, entry: Entry | None) -> None:
        """Close a job that Slurm has ended; its log gets the reason as its last line."""
        found, job = read_status(self._folder / f"{number}.status"), self._jobs[number]
        status = 1 if found is None else found["status"]
        what = LOST if entry is None else ENDED[entry.state]
        own = find_last_message(self._folder / f"{number}.out")
        if found is None and entry is not None and entry.state in ("COMPLETED", "FAILED"):
            what += f" without a status in {self._folder}; is that on a disk the nodes share?"
        name = f"job {entry.id}" if entry is not None else f"job {number} of {self._name}"
        with open(job.log, "a", encoding="utf-8", opener=refuse_link) as log:
            log.write(f"{own}\n" if own else "")
            log.write(f"{name}: {what}\n# Ended (code {status}) at {format_now()}\n")
        self._close(number, status)

    def _describe(self) -> str:
        """Return how many jobs are done, running and waiting, and the newest line of a log."""
        entries = {number: self._queue[number] for number in self._open if number in self._queue}
        running = [number for number, entry in entries.items() if entry.state == "RUNNING"]
        waiting = [entry for entry in entries.values() if entry.state == "PENDING"]
        several = len(self._jobs) > 1
        parts = [f"{len(self.statuses)} of {len(self._jobs)} jobs done"] if several else []
        if several and running:
            parts.append(f"{len(running)} running")
        if waiting:
            count = f"{len(waiting)} " if several else ""
            parts.append(f"{count}waiting ({waiting[0].reason})")
        line = find_newest_line(self._jobs[number] for number in running)
        return "; ".join(part for part in (", ".join(parts), line) if part)


@contextmanager
def lock_folder(root: Path) -> Iterator[None]:
    """Keep other calls from the jobs of the same log; an empty folder is removed afterwards.

    Raises:
        SvError: Another call waits for these jobs.
    """
    path = root / "lock"
    lock = _open_lock(path)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SvError(f"another {NAME} waits for these jobs (it has locked {path})") from None
        except OSError as error:  # Lustre without flock, for one
            say(f"cannot lock {path} ({error.strerror}): start no other call with the same log")
        if not _is_open(path, lock):  # its holder has removed it since it was opened
            raise SvError(f"another {NAME} has just ended with these jobs; start this one again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: jobs have not ended
                root.rmdir()
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """Open the lock in a folder that its owner alone may enter: its files are what jobs run.

    Raises:
        SvError: The folder is somebody else's, or it or the lock is a link.
    """
    root = path.parent
    root.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise SvError(f"{root} is a link or another user's; remove it")
    root.chmod(0o700)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SvError(f"cannot lock {path}: {error.strerror}; remove it") from error


def _is_open(path: Path, descriptor: int) -> bool:
    """Return whether a path is still the file that a descriptor is of."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def take_over(root: Path, stem: str, request: Request, config: SlurmConfig) -> dict[int, int]:
    """Wait for the jobs that a call with the same log has left, if they are those of this one.

    All others are cancelled. Jobs that ended badly before are not among the result: they are to be
    submitted again.

    Returns:
        The status of each job that was left, by number.

    Raises:
        StopSignal: See `cancelling`.
    """
    statuses: dict[int, int] = {}
    # Other names are none of ours, and scancel would take a comma for a list of jobs.
    for folder in sorted(path for path in root.iterdir() if KEY.fullmatch(path.name)):
        name = f"{stem}-{folder.name}"
        found = _find_left(folder, request)
        if found is None:
            say(f"an earlier call's jobs are not those of this one: cancelling {name}")
            stop(name, config.poll_s, patience_s=None)
        else:
            queue = _ask_for_queue(name, config.poll_s)
            jobs = [job for job in found if _is_of_use(folder, job, queue)]
            if jobs:
                watch = Watch(folder, name, jobs, is_array=request.is_array, config=config)
                with cancelling(watch, folder, name, config):
                    say(f"an earlier call has ended: waiting for its jobs, {name}")
                    marks = os.environ.get(MARKS_VARIABLE)
                    write_mark(marks, RESUMED, skipped=f"{len(jobs)} of {len(request.jobs)} jobs")
                    nodes.expect(os.environ, [])  # their meters are of the attempt before
                    statuses |= watch.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return statuses


def _find_left(folder: Path, request: Request) -> list[Job] | None:
    """Return the jobs of a submission; None: a call would not submit the same ones now."""
    try:
        spec = read_own_json(folder / "jobs.json")
    except (OSError, ValueError):  # killed before it was written
        return None
    jobs = {str(job.number): job for job in request.jobs if str(job.number) in spec["jobs"]}
    same = build_spec(request, list(jobs.values()))
    if request.options.resume == "false" or spec != {**same, "max_restarts": spec["max_restarts"]}:
        return None
    return list(jobs.values())


def _ask_for_queue(name: str, poll_s: float) -> dict[int | None, Entry]:
    """Return the jobs of one name that Slurm knows, when it answers."""
    warned = False
    while True:
        try:
            return read_queue(name)
        except NoAnswerError as error:
            if not warned:
                say(f"squeue does not answer ({error}); trying on")
                warned = True
        time.sleep(poll_s)


def _is_of_use(folder: Path, job: Job, queue: dict[int | None, Entry]) -> bool:
    """Return whether a job that was left is in the queue or has ended well."""
    found = read_status(folder / f"{job.number}.status")
    if found is not None and found["final"]:
        return found["status"] == 0
    entry = queue.get(job.number, queue.get(None))
    return entry is not None and not entry.has_ended


def stop(name: str, poll_s: float, patience_s: float | None) -> bool:
    """Cancel the jobs of one name and wait until they have ended; False: not in ``patience_s``."""
    until = None if patience_s is None else time.monotonic() + patience_s
    warned = False
    while True:
        try:
            cancel(name)
            if all(entry.has_ended for entry in read_queue(name).values()):
                return True
        except NoAnswerError as error:
            if not warned:
                say(f"cannot cancel {name} yet ({error}); trying on")
                warned = True
        if until is not None and time.monotonic() > until:
            return False
        time.sleep(min(poll_s, 1.0))


def build_spec(request: Request, todo: list[Job]) -> dict[str, Any]:
    """Return what jobs are to run, and from what: it is the same for the same jobs."""
    # The folder that holds log/ distinguishes the label from those of a stage's other arrays.
    above = todo[0].log.absolute().parent if todo else Path()
    top = above.parent if above.name == "log" else above
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", f"{top.name}.{request.name}").lstrip(".-") or "job"
    options = request.options
    return {
        "cwd": os.getcwd(),
        "threads": options.num_threads,
        "nodes": options.nodes,
        "gpu": options.gpu,
        "mem": options.mem,
        "time": options.time,
        "is_array": request.is_array,
        # Jobs of an array have a proof for each.
        "inputs": {} if request.is_array else _take_inputs(todo, top),
        "shared": sorted(request.inputs),
        "jobs": {
            str(job.number): {
                "log": str(job.log), "command": job.command, "label": f"{stem}.{job.number}",
            }
            for job in todo
        },
    }  # fmt: skip


def _take_inputs(todo: list[Job], top: Path) -> Prints:
    """Look up the files that commands name, and those in folders that they name.

    Those above the log are where the results go, and --features-root is of each node.
    """
    paths: dict[str, Path] = {}
    for before, word in (pair for job in todo for pair in pairwise(("", *job.command))):
        path = Path(word)
        if before == "--features-root":
            continue
        if os.path.isdir(word) and not top.is_relative_to(path.absolute()):
            paths |= {str(each): each for each in path.iterdir() if each.is_file()}
        elif os.path.isfile(word):
            paths[word] = path
    return take_prints(paths)


def write_submission(
    folder: Path, request: Request, todo: list[Job], config: SlurmConfig
) -> tuple[list[str], list[str]]:
    """Write the files that the jobs read on their nodes.

    Returns:
        Options of sbatch that belong to them, and the labels of the jobs' meters.
    """
    options = request.options
    folder.mkdir(mode=0o700)
    spec = {**build_spec(request, todo), "max_restarts": config.max_restarts}
    write_json(folder / "jobs.json", spec)
    (folder / "jobs.json").chmod(0o600)  # whatever the umask: see `read_own_json`
    first = todo[0].number
    words = [sys.executable, "-m", "sv.jobs.slurm_job", str(folder)]
    script = f'#!/bin/sh\nexec {shlex.join(words)} "${{SLURM_ARRAY_TASK_ID:-{first}}}"\n'
    (folder / "job.sh").write_text(script, encoding="utf-8")
    output = str(folder).replace("\\", "\\\\").replace("%", "%%")
    if len(todo) == 1:
        own = [f"--output={output}/{first}.out"]
    else:
        throttle = f"%{options.max_jobs_run}" if options.max_jobs_run else ""
        numbers = ",".join(str(job.number) for job in todo)
        own = [f"--output={output}/%a.out", f"--array={numbers}{throttle}"]
    all_labels = [job["label"] for job in spec["jobs"].values()]
    if options.nodes > 1:
        all_labels = [f"{label}.node{i}" for label in all_labels for i in range(options.nodes)]
    return [*own, f"--chdir={os.getcwd()}", "--open-mode=append", "--export=ALL"], all_labels


def submit(options: list[str], script: Path, name: str, poll_s: float) -> None:
    """Submit the jobs; try again while the controller does not answer.

    Raises:
        SvError: Slurm refuses, or does not answer for too long.
    """
    until, warned = time.monotonic() + SUBMIT_S, False
    while True:
        try:
            sbatch([f"--job-name={name}", *options], str(script))
            return
        except NoAnswerError as error:
            if not error.is_transient or time.monotonic() > until:
                text = str(error).removeprefix("sbatch: error: ")
                raise SvError(f"sbatch: {text}; see --config and the options of the job") from None
            if not warned:
                say(f"cannot submit yet ({error}); trying on")
                warned = True
        time.sleep(poll_s)
        if _ask_for_queue(name, poll_s):  # the answer was lost, not the request
            return


def run_jobs(
    folder: Path, name: str, request: Request, todo: list[Job], config: SlurmConfig
) -> dict[int, int]:
    """Submit the jobs and wait for them; return their statuses.

    Args:
        folder: To make; removed when all of its jobs have ended.
        name: Of the jobs in the queue, where it is unique.
        request: All jobs and the options.
        todo: The jobs to do.
        config: Of the site.

    Raises:
        StopSignal: See `cancelling`.
        SvError: They cannot be submitted.
    """
    watch = Watch(folder, name, todo, is_array=request.is_array, config=config)
    with cancelling(watch, folder, name, config):
        try:
            own, labels = write_submission(folder, request, todo, config)
            nodes.expect(os.environ, labels)
            options = build_options(config, request.options, is_array=request.is_array)
            submit([*options, *own], folder / "job.sh", name, config.poll_s)
            statuses = watch.wait()
        except SvError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    shutil.rmtree(folder, ignore_errors=True)
    return statuses


@contextmanager
def cancelling(watch: Watch, folder: Path, name: str, config: SlurmConfig) -> Iterator[None]:
    """Cancel the jobs of a submission if Ctrl-C ends the block.

    Another signal says that this program cannot wait longer, and the jobs go on.
    """
    try:
        yield
    except StopSignal as stopped:
        if stopped.args[0] != signal.SIGINT:
            say(f"{name} goes on, the same command waits for it; scancel --name={name} ends it")
            raise
        say(f"stopped by Ctrl-C: cancelling {name}")
        if stop(name, config.poll_s, STOP_S):
            watch.collect()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"{name} has not ended yet: scancel --name={name}")
        raise


def run(request: Request, config: SlurmConfig) -> int:
    """Run the jobs that are not finished; return the exit status."""
    root = request.slurm_folder
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", request.name).lstrip("-") or "job"
    with lock_folder(root):
        statuses = take_over(root, stem, request, config)
        # One that has ended well counts by its proof: what it read may have changed meanwhile.
        left = [
            job
            for job in request.jobs
            if job.number not in statuses
            or (request.is_array and statuses[job.number] == 0 and not job.is_finished())
        ]
        todo = find_todo(replace(request, jobs=left))
        for job in todo:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        key = secrets.token_hex(4)
        if todo:
            statuses |= run_jobs(root / key, f"{stem}-{key}", request, todo, config)
    return report(NAME, request, statuses)


def read_request(argv: list[str]) -> tuple[Request, SlurmConfig]:
    """Parse a command line and read the site's settings.

    Raises:
        ValueError, UsageError: One of them is wrong.
    """
    parser = build_parser(NAME, __doc__)
    parser.add_argument("--config", type=Path, help="the site's slurm.conf (Slurm's defaults)")
    request = parse(parser, argv)
    if request.options.time:
        parse_time_s(request.options.time)
    path = request.options.config
    return request, read_config(path, SlurmConfig) if path else SlurmConfig()


def check(argv: list[str]) -> None:
    """Check a command line, and that this machine can submit jobs.

    Raises:
        ValueError, SvError: It is wrong, or there is no Slurm. That its controller does not answer
            now is no error.
    """
    read_request(argv)
    try:
        read_queue(NAME)
    except NoAnswerError as error:
        if not error.is_transient:
            raise ValueError(f"{error}; is this a machine of a Slurm site?") from error


def main(argv: list[str]) -> int:
    """Run what the command line asks for; return 0, or the status of the first failed job."""
    try:
        request, config = read_request(argv)
    except (ValueError, UsageError) as error:
        return fail(NAME, str(error))
    catch_signals()
    try:
        return run(request, config)
    except StopSignal as stopped:
        return fail(NAME, f"stopped by signal {stopped.args[0]}", 128 + stopped.args[0])
    except SvError as error:
        return fail(NAME, str(error), 1)
    except OSError as error:
        return fail(NAME, f"cannot write a log or its folder: {error}", 1)
