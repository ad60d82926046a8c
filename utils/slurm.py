#!/usr/bin/env python3
"""Run a command, or an array of jobs, by Slurm with a log each, and wait. Kaldi's contract.

Usage: utils/slurm.py [--config <slurm.conf>] [options] [JOB=1:nj] <log> <command> [<argument>...]
 e.g.: utils/slurm.py --mem 4G JOB=1:8 exp/log/fbank.JOB.log python3 -m x.y feats.JOB.ark

Takes utils/run.py's command line, writes its logs, and skips what either of them has finished. All
jobs are one job array, with the caller's environment and working directory, which must lie on a
disk that the nodes share. With --nodes M the command is started once on each of M nodes. What the
site wants stands in the TOML file of --config; docs/cluster.md has an example.

The jobs' own status files are the truth: while squeue does not answer, it waits. A job that Slurm
requeues (preempted, its node lost) is awaited. Ended by a signal, it cancels the array; killed, it
leaves the array running, which the next call with the same log cancels before it begins.
"""

import fcntl
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also outside path.sh

import slurm_queue  # noqa: E402
from jobs import (  # noqa: E402
    Job,
    Request,
    StopSignal,
    build_parser,
    catch_signals,
    fail,
    find_todo,
    parse,
    report,
)
from slurm_config import SlurmConfig, build_options, parse_time_s  # noqa: E402
from slurm_watch import Watch  # noqa: E402

from sv.config import read_config  # noqa: E402
from sv.energy.fleet import nodes  # noqa: E402
from sv.errors import SvError, UsageError  # noqa: E402
from sv.files import write_json  # noqa: E402

NAME = "utils/slurm.py"
SUBMIT_S = 900.0  # a restart of the controller is over by then
STOP_S = 300.0  # cancelled jobs have their KillWait to end, 30 s by default, and their epilogs


def say(message: str) -> None:
    """Print one line on stderr."""
    print(f"{NAME}: {message}", file=sys.stderr, flush=True)


@contextmanager
def lock_folder(root: Path) -> Iterator[None]:
    """Keep others from the jobs of the same log; an empty folder is taken away again.

    Raises:
        SvError: Another call waits for them.
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
            with suppress(OSError):  # there are jobs that have not ended
                root.rmdir()


def clear_leftovers(root: Path, stem: str, poll_s: float) -> None:
    """Cancel what a killed call with the same log has left, and wait for its end."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        name = f"{stem}-{folder.name}"
        say(f"an earlier call was killed: cancelling its jobs, {name}")
        stop(name, poll_s, patience_s=None)
        shutil.rmtree(folder, ignore_errors=True)


def stop(name: str, poll_s: float, patience_s: float | None) -> bool:
    """Cancel the jobs of one name and wait until they have ended; False: they have not, in time."""
    until = None if patience_s is None else time.monotonic() + patience_s
    told = False
    while True:
        try:
            slurm_queue.cancel(name)
            if all(entry.has_ended for entry in slurm_queue.read_queue(name).values()):
                return True
        except slurm_queue.NoAnswerError as error:
            if not told:
                say(f"cannot cancel {name} yet ({error}); trying on")
                told = True
        if until is not None and time.monotonic() > until:
            return False
        time.sleep(min(poll_s, 1.0))


def write_submission(
    folder: Path, request: Request, todo: list[Job], config: SlurmConfig
) -> tuple[list[str], list[str]]:
    """Write what the jobs read on their nodes.

    Returns:
        Options of sbatch that go with it, and the labels of the jobs' meters.
    """
    options = request.options
    # The folder that holds log/ tells the label from those of a stage's other arrays.
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
    words = [sys.executable, str(Path(__file__).resolve().with_name("slurm_job.py")), str(folder)]
    script = f'#!/bin/sh\nexec {shlex.join(words)} "${{SLURM_ARRAY_TASK_ID:-{first}}}"\n'
    (folder / "job.sh").write_text(script, encoding="utf-8")
    output = str(folder).replace("\\", "\\\\").replace("%", "%%")
    if len(todo) == 1:
        own = [f"--output={output}/{first}.out"]
    else:
        throttle = f"%{options.max_jobs_run}" if options.max_jobs_run else ""
        numbers = slurm_queue.format_numbers([job.number for job in todo])
        own = [f"--output={output}/%a.out", f"--array={numbers}{throttle}"]
    all_labels = list(labels.values())
    if options.nodes > 1:
        all_labels = [f"{label}.node{i}" for label in all_labels for i in range(options.nodes)]
    return [*own, f"--chdir={os.getcwd()}", "--open-mode=append", "--export=ALL"], all_labels


def submit(options: list[str], script: Path, name: str, poll_s: float) -> str:
    """Submit; asks again while the controller is away.

    Raises:
        SvError: Slurm refuses, or is away for too long.
    """
    until, told = time.monotonic() + SUBMIT_S, False
    while True:
        try:
            return slurm_queue.submit([f"--job-name={name}", *options], str(script))
        except slurm_queue.NoAnswerError as error:
            if not error.is_transient or time.monotonic() > until:
                text = str(error).removeprefix("sbatch: error: ")
                raise SvError(f"sbatch: {text}; see --config and the options of the job") from None
            if not told:
                say(f"cannot submit yet ({error}); trying on")
                told = True
        time.sleep(poll_s)
        with suppress(slurm_queue.NoAnswerError):  # the answer was lost, not the request
            for entry in slurm_queue.read_queue(name).values():
                return entry.id.split("_")[0]


def run_jobs(
    folder: Path, name: str, request: Request, todo: list[Job], config: SlurmConfig
) -> dict[int, int]:
    """Submit the jobs and wait for them; gives their statuses.

    Args:
        folder: To make; removed when all of its jobs have ended.
        name: Of the jobs in the queue, which nobody else has.
        request: All jobs and the options.
        todo: The jobs to do.
        config: Of the site.

    Raises:
        StopSignal: A signal asked for an end; the jobs have been cancelled.
        SvError: They cannot be submitted.
    """
    watch = Watch(folder, name, todo, is_array=request.is_array, config=config, say=say)
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
    """Do what is not done yet; gives the exit status."""
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
    """Run what the command line says; 0, or the status of the first failed job."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
