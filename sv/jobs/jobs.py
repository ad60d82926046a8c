"""What utils/run.py and utils/slurm.py share: their command line, their logs, what is finished.

Both keep the same proofs (sv/jobs/completion.py), so that one finishes what the other began.
"""

import argparse
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sv.energy.journal import MARKS_VARIABLE, RESUMED, UNCHANGED, write_mark
from sv.jobs.completion import SHELL, is_finished, list_words, read_proof, take_job_prints
from sv.system import mask_secrets

MAX_JOBS = 1_000_000  # of an array; Slurm's own limit is lower
PROGRESS_S = 15.0  # a sign of life on the terminal from work that takes longer than this


@dataclass(frozen=True)
class Job:
    """One job of the array (or the only one): its number, its log and its command."""

    number: int
    log: Path
    command: list[str]

    @property
    def proof(self) -> Path:
        """File that proves that the job is finished."""
        return self.log.with_name(f".{self.log.name}.done")

    def is_finished(self) -> bool:
        """Return whether its proof is of this command and of the files as they are."""
        return is_finished(self.proof, self.command, take_job_prints(self.command))


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        options: Values of the options.
        jobs: All jobs, by number.
        is_array: Whether there was a ``JOB=1:nj``.
        name: Name of the log without the job's number and ``.log``: "fbank".
        inputs: Words of an array that are the same in all jobs: none of them writes such a file.
    """

    options: argparse.Namespace
    jobs: list[Job]
    is_array: bool
    name: str
    inputs: frozenset[str] = frozenset()

    @property
    def slurm_folder(self) -> Path:
        """Where utils/slurm.py keeps what its jobs run, until they have ended."""
        return self.jobs[0].log.absolute().with_name(f".{self.name}.slurm")


class StopSignal(Exception):  # noqa: N818 - a request, not an error
    """A signal requested a stop; carries its number."""


def catch_signals() -> None:
    """Make the signals that request a stop raise `StopSignal`."""

    def stop(number, frame):
        raise StopSignal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)


def build_parser(program: str, text: str | None) -> argparse.ArgumentParser:
    """Build the parser of the options that both programs have."""
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
    if len(rest) == 2:
        rest = [rest[0], *SHELL, rest[1]]
    name = Path(rest[0]).name.removesuffix(".log")
    if array is None:
        return Request(args, [Job(1, Path(rest[0]), rest[1:])], False, name)
    word, first = array[1], int(array[2])
    last = int(array[3] or first)
    if last >= first + MAX_JOBS:
        raise ValueError(f"{array[0]}: more than {MAX_JOBS} jobs")
    if last < first:
        raise ValueError(f"{array[0]}: the last job comes before the first")
    if last > first and word not in rest[0]:
        raise ValueError(f"the log {rest[0]} must hold {word}, or all jobs write the same one")
    inputs = frozenset(each for each in list_words(rest[1:]) if word not in each)
    jobs = []
    for number in range(first, last + 1):
        log, *command = (text.replace(word, str(number)) for text in rest)
        jobs.append(Job(number, Path(log), command))
    return Request(args, jobs, True, name.replace(f".{word}", "").replace(word, ""), inputs)


def find_todo(request: Request) -> list[Job]:
    """Return the jobs that are not finished; print how many are, and how many once were."""
    jobs = request.jobs
    if not request.is_array or request.options.resume == "false":
        return jobs
    todo = [job for job in jobs if not job.is_finished()]
    if len(todo) < len(jobs):
        skipped = f"{len(jobs) - len(todo)} of {len(jobs)} jobs"
        print(f"  {skipped} finished before, log is {jobs[0].log}", file=sys.stderr)
        marks = os.environ.get(MARKS_VARIABLE)
        write_mark(marks, RESUMED, skipped=skipped)
        if not todo:
            write_mark(marks, UNCHANGED, what=f"{skipped} finished before")
    proofs = [read_proof(job.proof) for job in todo]
    if again := sum(bool(proof and (proof.read or proof.written)) for proof in proofs):
        print(
            f"  {again} of {len(jobs)} jobs are done again: their command, inputs or outputs are "
            f"not those of before, log is {jobs[0].log}", file=sys.stderr,
        )  # fmt: skip
    return todo


def mark_done(job: Job) -> None:
    """Report to the meter that this attempt has left a result, which a later one resumes from."""
    write_mark(os.environ.get(MARKS_VARIABLE), "job", log=str(job.log))


def format_now() -> str:
    """Format the time as date(1) does."""
    return time.strftime("%a %b %d %H:%M:%S %Z %Y")


def write_header(log: TextIO, job: Job, remark: str = "") -> int:
    """Begin the job's log; return the file's time, in ns of the file system's clock."""
    log.write(
        f"# {shlex.join(mask_secrets(job.command))}\n# Running on {socket.gethostname()}{remark}\n"
    )
    log.write(f"# Started at {format_now()}\n#\n")
    log.flush()
    return os.fstat(log.fileno()).st_mtime_ns


def write_footer(log: TextIO, status: int, seconds: int, threads: int) -> None:
    """End the job's log."""
    log.write(f"# Accounting: time={seconds} threads={threads}\n")
    log.write(f"# Ended (code {status}) at {format_now()}, elapsed time {seconds} seconds\n")


class Progress:
    """Prints how far the jobs are, every `PROGRESS_S` at most and only what is new."""

    def __init__(self) -> None:
        self._shown_s, self._last_line = time.monotonic(), ""

    def show(self, describe: Callable[[], str]) -> None:
        """Print what ``describe`` returns, if it is time."""
        if time.monotonic() - self._shown_s < PROGRESS_S:
            return
        self._shown_s, line = time.monotonic(), describe()
        if line and line != self._last_line:
            print(f"  {line}", file=sys.stderr, flush=True)
            self._last_line = line


def find_newest_line(jobs: Iterable[Job]) -> str:
    """Return the last line of the first log of running jobs that has one, or an empty string."""
    for job in jobs:
        try:
            with open(job.log, "rb") as file:
                file.seek(max(0, os.path.getsize(job.log) - 2000))
                lines = [line for line in file.read().decode(errors="replace").splitlines() if line]
        except OSError:  # not begun, or the nodes' shared disk is slow to show it
            continue
        if lines and not lines[-1].startswith("#"):
            return f"{job.log.name}: {lines[-1]}"
    return ""


def find_last_message(log: Path) -> str:
    """Return the last line that the command wrote, or else the last of Slurm's own programs."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
    own = [line for line in lines if not line.startswith(("srun: ", "slurmstepd"))]
    return next(reversed(own or lines), "")


def fail(program: str, message: str, status: int = 2) -> int:
    """Print one line on stderr; return the status."""
    print(f"{program}: {message}", file=sys.stderr)
    return status


def report(program: str, request: Request, statuses: dict[int, int]) -> int:
    """Count the failed jobs and name the log of the first.

    Args:
        program: Begins the message.
        request: All jobs.
        statuses: Exit status of each job that was run, by number.

    Returns:
        The status of the first failed job; 0 if none failed.
    """
    failed = [job for job in request.jobs if statuses.get(job.number, 0) != 0]
    if not failed:
        return 0
    count = len(request.jobs)
    status, reason = statuses[failed[0].number], find_last_message(failed[0].log)
    # Of one job the log says whether it failed or stopped at its budget.
    what = f"{len(failed)} of {count} jobs failed, first" if count > 1 else f"status {status},"
    return fail(program, f"{what} log is {failed[0].log}{': ' + reason if reason else ''}", status)
