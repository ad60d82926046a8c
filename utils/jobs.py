"""What utils/run.py and utils/slurm.py share: their command line, logs and proofs of completion.

Both keep the same records beside the logs, so one of them finishes what the other began.
"""

import argparse
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sv.energy.journal import RESUMED, write_mark

MARKS = "SV_METER_MARKS"


@dataclass(frozen=True)
class Job:
    """One job of the array (or the only one): its number, its log and its command."""

    number: int
    log: Path
    command: list[str]

    @property
    def record(self) -> Path:
        """Where the proof of its completion lies."""
        return self.log.with_name(f".{self.log.name}.done")


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        options: Values of the options.
        jobs: All jobs, by number.
        is_array: Whether there was a ``JOB=1:nj``.
        name: Name of the log without the job's number and ``.log``: "fbank".
    """

    options: argparse.Namespace
    jobs: list[Job]
    is_array: bool
    name: str


class StopSignal(Exception):  # noqa: N818 - no error, a request
    """A signal asks to end; carries its number."""


def catch_signals() -> None:
    """Make the signals that ask for an end raise `StopSignal`."""

    def stop(number, frame):
        raise StopSignal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
            signal.signal(number, stop)


def build_parser(program: str, text: str | None) -> argparse.ArgumentParser:
    """Build the command line that both programs have; they add to it what is theirs."""
    parser = argparse.ArgumentParser(
        prog=program, description=text, allow_abbrev=False, exit_on_error=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads of one job")
    parser.add_argument("--max-jobs-run", type=int, help="jobs at a time")
    parser.add_argument("--mem", help="memory of a job, 4G; utils/run.py sets no limit")
    parser.add_argument("--gpu", type=int, default=0, help="GPUs of a job (on each of its nodes)")
    parser.add_argument("--time", help="time limit of a job, 2:00:00; utils/run.py sets none")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of a job; utils/run.py has one")
    parser.add_argument(
        "--resume", choices=["true", "false"], default="true", help="skip jobs done"
    )
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> Request:
    """Parse the command line.

    Raises:
        ValueError: The command line is wrong.
    """
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    try:
        args, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        raise ValueError(f"unknown option {unknown[0]} (see --help)")
    if args.num_threads < 1 or (args.max_jobs_run is not None and args.max_jobs_run < 1):
        raise ValueError("--num-threads and --max-jobs-run must be at least 1")
    if args.nodes < 1 or args.gpu < 0:
        raise ValueError("--nodes must be at least 1, --gpu at least 0")
    if args.mem is not None and not re.fullmatch(r"[1-9]\d*[KMGT]", args.mem, re.ASCII):
        raise ValueError(f"--mem must be a number and K, M, G or T, such as 4G, not '{args.mem}'")
    rest = args.rest
    array = re.fullmatch(r"([A-Z]+)=(\d+)(?::(\d+))?", rest[0], re.ASCII) if rest else None
    rest = rest[1:] if array else rest
    if len(rest) < 2:
        raise ValueError("a log and a command are needed (see --help)")
    name = Path(rest[0]).name.removesuffix(".log")
    if array is None:
        return Request(args, [Job(1, Path(rest[0]), rest[1:])], False, name)
    word, first = array[1], int(array[2])
    last = int(array[3] or first)
    if last < first:
        raise ValueError(f"{array[0]}: the last job comes before the first")
    if last > first and word not in rest[0]:
        raise ValueError(f"the log {rest[0]} must hold {word}, or all jobs write the same one")
    jobs = []
    for number in range(first, last + 1):
        log, *command = (text.replace(word, str(number)) for text in rest)
        jobs.append(Job(number, Path(log), command))
    return Request(args, jobs, True, name.replace(f".{word}", "").replace(word, ""))


def find_todo(request: Request) -> list[Job]:
    """Give the jobs to do: not those that finished before, of which it says how many they are."""
    jobs = request.jobs
    if not request.is_array or request.options.resume == "false":
        return jobs
    todo = [job for job in jobs if not is_done(job)]
    if len(todo) < len(jobs):
        skipped = f"{len(jobs) - len(todo)} of {len(jobs)} jobs"
        print(f"  {skipped} finished before, log is {jobs[0].log}", file=sys.stderr)
        write_mark(os.environ.get(MARKS), RESUMED, skipped=skipped)
    return todo


def fingerprint(command: list[str]) -> dict[str, list[int]]:
    """Give size and time of every file that the command line names."""
    prints = {}
    for word in command:
        if os.path.isfile(word):
            stat = os.stat(word)
            prints[word] = [stat.st_size, stat.st_mtime_ns]
    return prints


def is_done(job: Job) -> bool:
    """Whether the job finished with this command and its files are as it left them."""
    try:
        record = json.loads(job.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if record["command"] != job.command:
        return False
    return bool(record["files"]) and record["files"] == fingerprint(job.command)


def write_record(job: Job, inputs: dict[str, list[int]], began_ns: int) -> None:
    """Write the proof that the job is done.

    Args:
        job: It has just ended with status 0.
        inputs: `fingerprint` before it began.
        began_ns: Time of a file that was written when it began, of the clock of files.
    """
    # Of a file that was there before: written since, it is taken for an output; changed
    # and yet older (moved into place), for an input that is not the one that was read.
    outputs = fingerprint(job.command)
    files = {**outputs, **inputs}
    for name in outputs.keys() & inputs.keys():
        if outputs[name] != inputs[name] and outputs[name][1] >= began_ns:
            files[name] = outputs[name]
    tmp = job.record.with_suffix(".tmp")
    tmp.write_text(json.dumps({"command": job.command, "files": files}), encoding="utf-8")
    os.replace(tmp, job.record)


def tell_done(job: Job) -> None:
    """Tell the meter that this attempt left something to go on from."""
    write_mark(os.environ.get(MARKS), "job", log=str(job.log))


def format_now() -> str:
    """Give the time as date(1) does."""
    return time.strftime("%a %b %d %H:%M:%S %Z %Y")


def write_header(log: TextIO, job: Job, remark: str = "") -> int:
    """Begin the job's log; gives the file's time, as the clock of files may lag behind."""
    log.write(f"# {shlex.join(job.command)}\n# Running on {socket.gethostname()}{remark}\n")
    log.write(f"# Started at {format_now()}\n#\n")
    log.flush()
    return os.fstat(log.fileno()).st_mtime_ns


def write_footer(log: TextIO, status: int, seconds: int, threads: int) -> None:
    """End the job's log."""
    log.write(f"# Accounting: time={seconds} threads={threads}\n")
    log.write(f"# Ended (code {status}) at {format_now()}, elapsed time {seconds} seconds\n")


def find_newest_line(job: Job) -> str:
    """Give the last line of a running job's log; empty while there is none."""
    try:
        with open(job.log, "rb") as file:
            file.seek(max(0, os.path.getsize(job.log) - 2000))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line]
    except OSError:  # not begun, or the disk of the nodes is slow to show it
        return ""
    return f"{job.log.name}: {lines[-1]}" if lines and not lines[-1].startswith("#") else ""


def find_last_message(log: Path) -> str:
    """Give the last line that the command itself wrote, or else Slurm's own programs."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
    own = [line for line in lines if not line.startswith(("srun: ", "slurmstepd"))]
    return next(reversed(own or lines), "")


def fail(program: str, message: str, status: int = 2) -> int:
    """Print one line on stderr and give the status."""
    print(f"{program}: {message}", file=sys.stderr)
    return status


def report(program: str, request: Request, statuses: dict[int, int]) -> int:
    """Count the failed jobs and name the first one's log; 0, or that one's status.

    Args:
        program: Begins the message.
        request: All jobs.
        statuses: Exit status of each job that was run, by number.
    """
    failed = [job for job in request.jobs if statuses.get(job.number, 0) != 0]
    if not failed:
        return 0
    count = len(request.jobs)
    what = f"{len(failed)} of {count} jobs failed, first " if count > 1 else "failed, "
    reason = find_last_message(failed[0].log)
    message = f"{what}log is {failed[0].log}{': ' + reason if reason else ''}"
    return fail(program, message, statuses[failed[0].number])
