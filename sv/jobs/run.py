"""Run a command, or an array of jobs, on this machine with a log each. Kaldi's run.pl contract.

Usage: utils/run.py [options] [JOB=1:nj] <log> <command> [<argument>...]
 e.g.: utils/run.py --num-threads 1 JOB=1:8 exp/log/fbank.JOB.log python3 -m x.y feats.JOB.ark
       utils/run.py JOB=1:8 exp/log/count.JOB.log "cut -d ' ' -f 1 x.JOB.scp | wc -l >n.JOB"

A command of one word is a line of shell, run by bash -o pipefail -c. JOB in the log's name and in
the arguments is replaced by the job's number. Every log begins with the command, the host and the
start, and ends with an accounting line and the status.

As many jobs run at a time as cores and GPUs allow, at most --max-jobs-run. With --gpu N every
running job has N GPUs of its own in CUDA_VISIBLE_DEVICES, out of those that this program may use.
--mem and --time have no effect here; utils/slurm.py takes the same command line.

A finished job of an array is not done again: next to its log is a proof of the files that its
command line names, which it read or wrote; while the command and these files are the same (size and
time), the job is skipped. Folders are not looked into, so name files.
"""

import contextlib
import functools
import os
import queue
import signal
import subprocess
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from sv.energy.boards import VISIBLE, find_devices
from sv.energy.sensors.nvml import list_devices
from sv.errors import SvError
from sv.files import refuse_link
from sv.jobs.completion import prove_job, take_job_prints
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
    mark_done,
    parse,
    report,
    write_footer,
    write_header,
)
from sv.system import end_with_parent

NAME = "utils/run.py"


def find_gpus() -> list[str]:
    """Return the names that the visible GPUs have in ``$CUDA_VISIBLE_DEVICES``."""
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        # CUDA stops at the first wrong name; a batch system writes NoDevFiles for "none".
        end = next((i for i, x in enumerate(names) if x in ("", "-1", "NoDevFiles")), len(names))
        return names[:end]
    try:
        return [device.name for device in list_devices(None)]
    except SvError:
        return []


class Runner:
    """Runs jobs and keeps their processes, so that a signal reaches all of them.

    Args:
        request: What to run.
        gpus: GPUs of each job that runs at a time; an empty share leaves the environment as it is.
    """

    def __init__(self, request: Request, gpus: list[list[str]]) -> None:
        self.threads, self.is_array = request.options.num_threads, request.is_array
        self.inputs = request.inputs
        self.shares: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        for share in gpus:
            self.shares.put(share)
        self.lock = threading.Lock()
        self.running: dict[subprocess.Popen, Job] = {}
        self.stopping = False

    def run(self, job: Job) -> int:
        """Run one job; return its exit status."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.proof.unlink(missing_ok=True)
        before = take_job_prints(job.command)
        started = time.time()
        with open(job.log, "w", encoding="utf-8", opener=refuse_link) as log:
            began_ns = write_header(log, job)
            share = self.shares.get()
            try:
                status = self._wait(job, log, share)
            finally:
                self.shares.put(share)
            write_footer(log, status, round(time.time() - started), self.threads)
        if status == 0 and self.is_array:
            prove_job(job.proof, job.command, before, began_ns, self.inputs)
            mark_done(job)
        return status

    def _wait(self, job: Job, log, gpus: list[str]) -> int:
        environ = {**os.environ, VISIBLE: ",".join(gpus)} if gpus else None
        with self.lock:
            if self.stopping:
                return 128 + signal.SIGTERM
            try:
                process = subprocess.Popen(
                    job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    env=environ, start_new_session=True,
                    preexec_fn=functools.partial(end_with_parent, os.getpid()),  # noqa: PLW1509
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
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.killpg(process.pid, signal.SIGTERM)  # a shell's `cmd &` ignores SIGINT

    def describe(self) -> str:
        """Return the newest log line of a running job, or else where its log is."""
        with self.lock:
            jobs = list(self.running.values())
        return find_newest_line(jobs) or (f"log is {jobs[0].log}" if jobs else "")


def run_all(runner: Runner, jobs: list[Job], max_jobs: int) -> list[int]:
    """Run the jobs, ``max_jobs`` at a time, and print progress; return their statuses."""
    futures: list[Future[int]] = []

    def describe() -> str:
        done = sum(future.done() for future in futures)
        count = f"{done} of {len(jobs)} jobs done; " if len(jobs) > 1 else ""
        return f"{count}{runner.describe()}"

    with ThreadPoolExecutor(max_jobs) as pool:
        progress = Progress()
        try:
            futures += [pool.submit(runner.run, job) for job in jobs]
            while not all(future.done() for future in futures):
                time.sleep(0.05)
                progress.show(describe)
        except StopSignal:
            runner.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def share_machine(request: Request) -> list[list[str]]:
    """Return the GPUs of each job that may run at a time: as many items as jobs.

    Raises:
        ValueError: This machine lacks what one job asks for.
    """
    options = request.options
    if options.nodes > 1:
        raise ValueError(f"--nodes {options.nodes}: this is one machine; take utils/slurm.py")
    slots = options.max_jobs_run or max(1, len(os.sched_getaffinity(0)) // options.num_threads)
    if options.gpu == 0:
        return [[] for _ in range(slots)]
    gpus = find_gpus()
    if len(gpus) < options.gpu:
        why = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        seen = "1 GPU is" if len(gpus) == 1 else f"{len(gpus) or 'no'} GPUs are"
        raise ValueError(f"--gpu {options.gpu}: {seen} visible here{why}; ask for no more")
    shares = [gpus[i : i + options.gpu] for i in range(0, len(gpus), options.gpu)]
    return [share for share in shares[:slots] if len(share) == options.gpu]


def check(argv: list[str]) -> None:
    """Check that this machine could run what a command line asks for.

    Raises:
        ValueError, UsageError: It could not.
    """
    request = parse(build_parser(NAME, None), argv)
    if request.options.gpu:
        find_devices(request.options.gpu, os.environ)
    share_machine(request)


def main(argv: list[str]) -> int:
    """Run what the command line asks for; return 0, or the status of the first failed job."""
    try:
        request = parse(build_parser(NAME, __doc__), argv)
        shares = share_machine(request)
    except ValueError as error:
        return fail(NAME, str(error))
    left = request.slurm_folder
    if any(left.glob("*/jobs.json")):
        return fail(
            NAME, f"jobs of utils/slurm.py may still run ({left}): give its --cmd again, which "
            "waits for them (Ctrl-C there cancels them), or remove that folder if they have ended",
            status=1,
        )  # fmt: skip
    todo = find_todo(request)
    catch_signals()
    try:
        statuses = run_all(Runner(request, shares), todo, len(shares))
    except StopSignal as stopped:
        said = [find_last_message(job.log) for job in todo[:1]]
        saved = "".join(f": {text}" for text in said if ": stopped " in text)
        return fail(NAME, f"stopped by signal {stopped.args[0]}{saved}", 128 + stopped.args[0])
    except OSError as error:
        return fail(NAME, f"cannot write a log: {error}", 1)
    numbers = [job.number for job in todo]
    return report(NAME, request, dict(zip(numbers, statuses, strict=True)))
