"""Run a command, or an array of jobs, by Slurm with a log each, and wait. Kaldi's contract.

Usage: utils/slurm.py [--config <slurm.conf>] [options] [JOB=1:nj] <log> <command> [<argument>...]
 e.g.: utils/slurm.py --mem 4G JOB=1:8 exp/log/fbank.JOB.log python3 -m x.y feats.JOB.ark

Takes utils/run.py's command line, writes its logs, and skips what either of them has finished. All
jobs are one job array, with the caller's environment and working directory, which must be on a disk
that the nodes share. With --nodes M the command is started once on each of M nodes. The site's
settings are in the TOML file of --config; docs/cluster.md has an example.

A job's own status file decides: while squeue does not answer, this program waits. So it does for a
job that Slurm requeues (preempted, its node lost). Stopped by a signal, it cancels the array;
killed, it leaves the array running, which the next call with the same log cancels first.
"""

import fcntl
import json
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sv.config import read_config
from sv.energy.fleet import nodes
from sv.errors import SvError, UsageError
from sv.files import write_json
from sv.jobs.jobs import (
    Job,
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
from sv.jobs.slurm_site import (
    ENDED,
    Entry,
    NoAnswerError,
    SlurmConfig,
    build_options,
    cancel,
    format_numbers,
    parse_time_s,
    read_queue,
    sbatch,
)

NAME = "utils/slurm.py"
SUBMIT_S = 900.0  # a restart of the controller is over by then
STOP_S = 300.0  # cancelled jobs have their KillWait to end, 30 s by default, and their epilogs
LOOK_S = 0.5  # between two looks at the status files
PROGRESS_S = 15.0  # as utils/run.py's
LOST = "Slurm has lost it; did its node fail?"


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
        self._shown_s, self._last_line = time.monotonic(), ""

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
            self._show()
            time.sleep(min(LOOK_S, self._config.poll_s))

    def collect(self) -> None:
        """Read the status files of the jobs that have ended by themselves."""
        # Listing the folder makes an NFS client ask anew; a file it found missing stays so longer.
        names = set(os.listdir(self._folder)) if self._folder.is_dir() else set()
        for number in tuple(self._open):
            found = self._read(number) if f"{number}.status" in names else None
            if found is not None and found["final"]:
                self._close(number, found["status"])

    def _read(self, number: int) -> dict[str, Any] | None:
        try:
            return json.loads((self._folder / f"{number}.status").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

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
        found, job = self._read(number), self._jobs[number]
        status = 1 if found is None else found["status"]
        what = LOST if entry is None else ENDED[entry.state]
        own = find_last_message(self._folder / f"{number}.out")
        if found is None and entry is not None and entry.state in ("COMPLETED", "FAILED"):
            what += f" without a status in {self._folder}; is that on a disk the nodes share?"
        name = f"job {entry.id}" if entry is not None else f"job {number} of {self._name}"
        with open(job.log, "a", encoding="utf-8") as log:
            log.write(f"{own}\n" if own else "")
            log.write(f"{name}: {what}\n# Ended (code {status}) at {format_now()}\n")
        self._close(number, status)

    def _show(self) -> None:
        """Print progress from time to time."""
        if time.monotonic() - self._shown_s < PROGRESS_S:
            return
        self._shown_s = time.monotonic()
        line = "; ".join(part for part in (self._describe_queue(), self._find_line()) if part)
        if line and line != self._last_line:
            print(f"  {line}", file=sys.stderr, flush=True)
            self._last_line = line

    def _describe_queue(self) -> str:
        entries = [self._queue[number] for number in self._open if number in self._queue]
        waiting = [entry for entry in entries if entry.state == "PENDING"]
        parts = []
        if len(self._jobs) > 1:
            parts.append(f"{len(self.statuses)} of {len(self._jobs)} jobs done")
            running = sum(entry.state == "RUNNING" for entry in entries)
            parts += [f"{running} running"] if running else []
        if waiting:
            count = f"{len(waiting)} " if len(self._jobs) > 1 else ""
            parts.append(f"{count}waiting ({waiting[0].reason})")
        return ", ".join(parts)

    def _find_line(self) -> str:
        running = [
            number
            for number in self._open
            if number in self._queue and self._queue[number].state == "RUNNING"
        ]
        lines = (find_newest_line(self._jobs[number]) for number in running)
        return next((line for line in lines if line), "")


@contextmanager
def lock_folder(root: Path) -> Iterator[None]:
    """Keep other calls from the jobs of the same log; an empty folder is removed afterwards.

    Raises:
        SvError: Another call waits for these jobs.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / "lock"
    with open(path, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SvError(f"another {NAME} waits for these jobs (it has locked {path})") from None
        except OSError as error:  # Lustre without flock, for one
            say(f"cannot lock {path} ({error.strerror}): start no other call with the same log")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: jobs have not ended
                root.rmdir()


def clear_leftovers(root: Path, stem: str, poll_s: float) -> None:
    """Cancel the jobs that a killed call with the same log has left, and wait for their end."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        name = f"{stem}-{folder.name}"
        say(f"an earlier call was killed: cancelling its jobs, {name}")
        stop(name, poll_s, patience_s=None)
        shutil.rmtree(folder, ignore_errors=True)


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


def write_submission(
    folder: Path, request: Request, todo: list[Job], config: SlurmConfig
) -> tuple[list[str], list[str]]:
    """Write the files that the jobs read on their nodes.

    Returns:
        Options of sbatch that belong to them, and the labels of the jobs' meters.
    """
    options = request.options
    # The folder that holds log/ distinguishes the label from those of a stage's other arrays.
    above = todo[0].log.absolute().parent
    place = above.parent.name if above.name == "log" else above.name
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", f"{place}.{request.name}").lstrip(".-") or "job"
    labels = {job.number: f"{stem}.{job.number}" for job in todo}
    folder.mkdir()
    write_json(
        folder / "jobs.json",
        {
            "cwd": os.getcwd(),
            "threads": options.num_threads,
            "nodes": options.nodes,
            "is_array": request.is_array,
            "max_restarts": config.max_restarts,
            "jobs": {
                str(job.number): {
                    "log": str(job.log), "command": job.command, "label": labels[job.number],
                }
                for job in todo
            },
        },
    )  # fmt: skip
    first = todo[0].number
    words = [sys.executable, "-m", "sv.jobs.slurm_job", str(folder)]
    script = f'#!/bin/sh\nexec {shlex.join(words)} "${{SLURM_ARRAY_TASK_ID:-{first}}}"\n'
    (folder / "job.sh").write_text(script, encoding="utf-8")
    output = str(folder).replace("\\", "\\\\").replace("%", "%%")
    if len(todo) == 1:
        own = [f"--output={output}/{first}.out"]
    else:
        throttle = f"%{options.max_jobs_run}" if options.max_jobs_run else ""
        numbers = format_numbers([job.number for job in todo])
        own = [f"--output={output}/%a.out", f"--array={numbers}{throttle}"]
    all_labels = list(labels.values())
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
        with suppress(NoAnswerError):
            if read_queue(name):  # the answer was lost, not the request
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
        StopSignal: A signal requested a stop; the jobs have been cancelled.
        SvError: They cannot be submitted.
    """
    watch = Watch(folder, name, todo, is_array=request.is_array, config=config)
    try:
        own, labels = write_submission(folder, request, todo, config)
        nodes.expect(os.environ, labels)
        options = build_options(config, request.options, is_array=request.is_array)
        submit([*options, *own], folder / "job.sh", name, config.poll_s)
        statuses = watch.wait()
    except StopSignal as stopped:
        say(f"stopped by signal {stopped.args[0]}: cancelling {name}")
        if stop(name, config.poll_s, STOP_S):
            watch.collect()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"{name} has not ended yet: scancel --name={name}")
        raise
    except SvError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return statuses


def run(request: Request, config: SlurmConfig) -> int:
    """Run the jobs that are not finished; return the exit status."""
    root = request.jobs[0].log.absolute().with_name(f".{request.name}.slurm")
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", request.name).lstrip("-") or "job"
    with lock_folder(root):
        clear_leftovers(root, stem, config.poll_s)
        todo = find_todo(request)
        for job in todo:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        key = secrets.token_hex(4)
        statuses = run_jobs(root / key, f"{stem}-{key}", request, todo, config) if todo else {}
    return report(NAME, request, statuses)


def main(argv: list[str]) -> int:
    """Run what the command line asks for; return 0, or the status of the first failed job."""
    parser = build_parser(NAME, __doc__)
    parser.add_argument("--config", type=Path, help="the site's slurm.conf (Slurm's defaults)")
    try:
        request = parse(parser, argv)
        if request.options.time:
            parse_time_s(request.options.time)
        path = request.options.config
        config = read_config(path, SlurmConfig) if path else SlurmConfig()
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
