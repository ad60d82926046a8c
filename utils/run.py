#!/usr/bin/env python3
"""Run a command, or an array of jobs, on this machine with a log each. Kaldi's run.pl contract.

Usage: utils/run.py [options] [JOB=1:nj] <log> <command> [<argument>...]
 e.g.: utils/run.py --num-threads 1 JOB=1:8 exp/log/fbank.JOB.log python3 -m x.y feats.JOB.ark

JOB in the log's name and in the arguments is replaced by the job's number. Every log begins with
the command, the host and the start, and ends with an accounting line and the status.

A job of an array that has finished is not done again: beside its log lies a record of the files
named on its command line, which it read or wrote; while the command and these files are the same
(size and time), the job is skipped. Folders are not looked into, so name files.
"""

import argparse
import contextlib
import ctypes
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also outside path.sh

from sv.energy.marks import RESUMED, write_mark  # noqa: E402

NAME = "utils/run.py"
PROGRESS_S = 15.0  # a sign of life on the terminal from work that takes longer than this
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Job:
    """One job of the array (or the only one): its log and its command."""

    log: Path
    command: list[str]

    @property
    def record(self) -> Path:
        """Where the proof of its completion lies."""
        return self.log.with_name(f".{self.log.name}.done")


class StopSignal(Exception):  # noqa: N818 - no error, a request
    """A signal asks to end; carries its number."""


def fail(message: str, status: int = 2) -> int:
    """Print one line on stderr and give the status."""
    print(f"{NAME}: {message}", file=sys.stderr)
    return status


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[Job], bool]:
    """Parse the command line into options, jobs, and whether they are an array.

    Raises:
        ValueError: The command line is wrong.
    """
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, allow_abbrev=False, exit_on_error=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--num-threads", type=int, default=1, help="threads of one job")
    parser.add_argument("--max-jobs-run", type=int, help="jobs at a time (cores / threads)")
    parser.add_argument("--mem", help="memory of a job; for clusters, ignored here")
    parser.add_argument("--gpu", type=int, default=0, help="GPUs of a job; for clusters")
    parser.add_argument("--time", help="time limit of a job; for clusters, ignored here")
    parser.add_argument(
        "--resume", choices=["true", "false"], default="true", help="skip jobs done"
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    try:
        args, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        raise ValueError(f"unknown option {unknown[0]} (see --help)")
    if args.num_threads < 1 or (args.max_jobs_run or 1) < 1:
        raise ValueError("--num-threads and --max-jobs-run must be at least 1")
    rest = args.rest
    array = re.fullmatch(r"([A-Z]+)=(\d+)(?::(\d+))?", rest[0]) if rest else None
    rest = rest[1:] if array else rest
    if len(rest) < 2:
        raise ValueError("a log and a command are needed (see --help)")
    if array is None:
        return args, [Job(Path(rest[0]), rest[1:])], False
    word, first = array[1], int(array[2])
    last = int(array[3] or first)
    if last < first:
        raise ValueError(f"{array[0]}: the last job comes before the first")
    if last > first and word not in rest[0]:
        raise ValueError(f"the log {rest[0]} must hold {word}, or all jobs write the same one")
    jobs = []
    for number in range(first, last + 1):
        log, *command = (text.replace(word, str(number)) for text in rest)
        jobs.append(Job(Path(log), command))
    return args, jobs, True


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


def end_with_parent() -> None:
    """Make the kernel end a job whose run.py was killed: nobody would read its result."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Runner:
    """Runs jobs, keeps their processes so that a signal reaches all of them."""

    def __init__(self, threads: int, is_array: bool) -> None:
        self.threads, self.is_array = threads, is_array
        self.lock = threading.Lock()
        self.running: dict[subprocess.Popen, Job] = {}
        self.stopping = False

    def run(self, job: Job) -> int:
        """Run one job and give its status."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.record.unlink(missing_ok=True)
        inputs = fingerprint(job.command)
        started = time.time()
        with open(job.log, "w", encoding="utf-8") as log:
            log.write(f"# {shlex.join(job.command)}\n# Running on {socket.gethostname()}\n")
            log.write(f"# Started at {time.strftime('%a %b %d %H:%M:%S %Z %Y')}\n#\n")
            log.flush()
            began_ns = os.stat(job.log).st_mtime_ns  # the clock of files may lag behind
            status = self._wait(job, log)
            seconds = round(time.time() - started)
            log.write(f"# Accounting: time={seconds} threads={self.threads}\n")
            log.write(f"# Ended (code {status}) at {time.strftime('%a %b %d %H:%M:%S %Z %Y')}, ")
            log.write(f"elapsed time {seconds} seconds\n")
        if status == 0 and self.is_array:
            # Of a file that was there before: written since, it is taken for an output; changed
            # and yet older (moved into place), for an input that is not the one that was read.
            record = {"command": job.command, "files": {**fingerprint(job.command), **inputs}}
            outputs = fingerprint(job.command)
            for name in outputs.keys() & inputs.keys():
                if outputs[name] != inputs[name] and outputs[name][1] >= began_ns:
                    record["files"][name] = outputs[name]
            tmp = job.record.with_suffix(".tmp")
            tmp.write_text(json.dumps(record), encoding="utf-8")
            os.replace(tmp, job.record)
            # Tells the meter that this attempt left something to go on from.
            write_mark(os.environ.get("SV_METER_MARKS"), "job", log=str(job.log))
        return status

    def _wait(self, job: Job, log) -> int:
        with self.lock:
            if self.stopping:
                return 128 + signal.SIGTERM
            try:
                process = subprocess.Popen(
                    job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, preexec_fn=end_with_parent,  # noqa: PLW1509
                )  # fmt: skip
            except OSError as error:
                log.write(f"{job.command[0]}: {error.strerror}\n")
                return 127
            self.running[process] = job
        code = process.wait()
        with self.lock:
            del self.running[process]
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """End every running job, with its children."""
        with self.lock:
            self.stopping = True
            for process in self.running:
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.pid, signal.SIGTERM)  # a shell's `cmd &` ignores SIGINT

    def describe(self) -> str:
        """Give the newest log line of a running job."""
        with self.lock:
            jobs = list(self.running.values())
        for job in jobs:
            with open(job.log, "rb") as file:
                file.seek(max(0, os.path.getsize(job.log) - 2000))
                lines = [line for line in file.read().decode(errors="replace").splitlines() if line]
            if lines and not lines[-1].startswith("#"):
                return f"{job.log.name}: {lines[-1]}"
        return f"log is {jobs[0].log}" if jobs else ""


def run_all(runner: Runner, jobs: list[Job], max_jobs: int) -> list[int]:
    """Run the jobs, ``max_jobs`` at a time, saying every now and then how far they are."""
    with ThreadPoolExecutor(max_jobs) as pool:
        shown, last_line = time.monotonic(), ""
        try:
            futures = [pool.submit(runner.run, job) for job in jobs]
            while not all(future.done() for future in futures):
                time.sleep(0.05)
                if time.monotonic() - shown < PROGRESS_S:
                    continue
                shown, line = time.monotonic(), runner.describe()
                if line and line != last_line:
                    done = sum(future.done() for future in futures)
                    count = f"{done} of {len(jobs)} jobs done; " if len(jobs) > 1 else ""
                    print(f"  {count}{line}", file=sys.stderr)
                    last_line = line
        except StopSignal:
            runner.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def main(argv: list[str]) -> int:
    """Run what the command line says; 0, or the status of the first failed job."""
    try:
        args, jobs, is_array = parse(argv)
    except ValueError as error:
        return fail(str(error))
    todo = jobs
    if is_array and args.resume == "true":
        todo = [job for job in jobs if not is_done(job)]
        if len(todo) < len(jobs):
            skipped = f"{len(jobs) - len(todo)} of {len(jobs)} jobs"
            print(f"  {skipped} finished before, log is {jobs[0].log}", file=sys.stderr)
            write_mark(os.environ.get("SV_METER_MARKS"), RESUMED, skipped=skipped)
    runner = Runner(args.num_threads, is_array)

    def stop(number, frame):
        raise StopSignal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
            signal.signal(number, stop)
    cores = len(os.sched_getaffinity(0))
    try:
        statuses = run_all(runner, todo, args.max_jobs_run or max(1, cores // args.num_threads))
    except StopSignal as stopped:
        return fail(f"stopped by signal {stopped.args[0]}", 128 + stopped.args[0])
    except OSError as error:
        return fail(f"cannot write a log: {error}", 1)
    failed = [(job, s) for job, s in zip(todo, statuses, strict=True) if s != 0]
    if failed:
        job, status = failed[0]
        what = f"{len(failed)} of {len(jobs)} jobs failed, first " if len(jobs) > 1 else "failed, "
        reason = last_message(job.log)
        return fail(f"{what}log is {job.log}{': ' + reason if reason else ''}", status)
    return 0


def last_message(log: Path) -> str:
    """Give the last line that the command itself wrote."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((x.strip() for x in reversed(lines) if x.strip() and x[0] != "#"), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
