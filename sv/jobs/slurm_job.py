"""One job of utils/slurm.py, on the node where Slurm starts it: its log, command and status.

Usage (in the script that sbatch starts): python3 -m sv.jobs.slurm_job <folder> <number>
       (by srun, on each node of a job that has several): ... --task <folder> <number>

Slurm's SIGTERM, to a job that it cancels or requeues, is passed on to the command, which may save
its work. The status is then written as not final: utils/slurm.py sees what it means from whether
the job is in the queue again. SIGUSR1 says that the time limit is near: the command gets SIGTERM,
and when it has saved and ended, the job is put back into the queue. (srun gets no SIGTERM from
here: it kills its tasks.)

Slurm's SIGUSR1 comes at a fixed time (warning_s of slurm.conf). A command that saves checkpoints
names in the file ``$SV_JOB_CHECKPOINT``, at each of them, the seconds that a stop takes it
(``stop_s``): where these are more, it is signalled from here, so much earlier. One that has not
ended when only Slurm's KillWait is left is put back into the queue with it: a requeued job has
KillWait from then on, one at its limit would be lost.
"""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from sv.energy.nodes import node_command
from sv.files import refuse_link, write_json
from sv.jobs.completion import prove_job, take_job_prints, take_prints
from sv.jobs.jobs import Job, write_footer, write_header

# Slurm's own forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
CHECKPOINT_VARIABLE = "SV_JOB_CHECKPOINT"
TICK_S = 1.0  # between two looks at the time left
ASK_S = 600.0  # between two questions to Slurm how much it is
MARGIN_S = 5.0  # for what else happens at a stop: meters, status files
KILL_WAIT_S = 30.0  # Slurm's default
LATE_S = 1.0  # so much later may a signal that ended the command reach this process
SIGNALLED = {128 + signal.SIGTERM, 128 + signal.SIGKILL}


def parse_time_s(text: str) -> int | None:
    """Return the seconds of a time limit; None for UNLIMITED or INFINITE.

    Raises:
        ValueError: It is not in one of Slurm's forms.
    """
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return None
    found = TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"a time limit is 90, 1:30:00 or 1-12:00:00, not '{text}'")
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:  # hours:minutes:seconds
        hours, minutes, seconds = (numbers + [0, 0])[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:  # minutes:seconds
        hours, (minutes, seconds) = 0, (numbers + [0])[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


class TimeLimit:
    """When Slurm ends this job, and how long before a stop must begin.

    Args:
        checkpoint: File in which the command says how long a stop takes it.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._end_s, self._kill_wait_s = math.inf, KILL_WAIT_S
        self._asked_s = -math.inf

    def is_near(self) -> bool:
        """Whether the command needs the time that is left for its stop."""
        stop_s = (read_status(self._checkpoint) or {}).get("stop_s")
        return stop_s is not None and self._count_left_s() <= stop_s + MARGIN_S

    def is_last_chance(self) -> bool:
        """Whether the job must be put back into the queue now, or never."""
        return self._count_left_s() <= self._kill_wait_s + TICK_S

    def _count_left_s(self) -> float:
        now_s = time.monotonic()
        if now_s - self._asked_s >= ASK_S:  # again and again: an administrator may change it
            self._asked_s = now_s
            which = f"--jobs={os.environ['SLURM_JOB_ID']}"
            with contextlib.suppress(ValueError):  # no answer
                left_s = parse_time_s(_ask(["squeue", "--noheader", "--format=%L", which]).strip())
                self._end_s = math.inf if left_s is None else now_s + left_s
            found = re.search(r"KillWait\s*=\s*(\d+)", _ask(["scontrol", "show", "config"]))
            self._kill_wait_s = float(found[1]) if found else self._kill_wait_s
        return self._end_s - now_s


def _ask(argv: list[str]) -> str:
    """Return what a program of Slurm prints; nothing where it does not answer."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False,
            timeout=ASK_S,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""


class Commander:
    """Runs the command and passes signals on to it.

    Args:
        is_srun: The command is srun.
        limit: Of a job that can be put back into the queue.
    """

    def __init__(self, *, is_srun: bool, limit: TimeLimit | None = None) -> None:
        self.is_srun, self._limit = is_srun, limit
        self.received: set[int] = set()
        self.was_requeued = self._is_looking = False
        self._process: subprocess.Popen | None = None
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object = None) -> None:
        self.received.add(number)
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        if not self.is_srun:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(self._process.pid, signal.SIGTERM)
        elif number == signal.SIGUSR1:
            # To srun's step, the job's first; a signal to srun itself reaches more than the tasks.
            step = f"{os.environ['SLURM_JOB_ID']}.0"
            subprocess.Popen(["scancel", "--signal=TERM", step], stdin=subprocess.DEVNULL)

    def run(self, command: list[str], output: TextIO | None) -> int:
        """Run it to its end; return its status as a shell does."""
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output,
                stderr=None if output is None else subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=output or sys.stdout, flush=True)
            return 127
        for number in tuple(self.received):  # before the process was there
            self._pass_on(number)
        if self._limit is not None:
            signal.signal(signal.SIGALRM, self._look_at_time)
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
        code = self._process.wait()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return code if code >= 0 else 128 - code

    def _look_at_time(self, number: int, frame: object) -> None:
        if signal.SIGTERM in self.received or self._is_looking:
            return
        self._is_looking = True
        if signal.SIGUSR1 not in self.received and self._limit.is_near():
            self._receive(signal.SIGUSR1)
        if signal.SIGUSR1 in self.received and self._limit.is_last_chance():
            self.was_requeued = self.was_requeued or requeue()
        self._is_looking = False


def build_command(folder: Path, number: str, spec: dict[str, Any]) -> list[str]:
    """Return what the batch script runs: the command under its meter, or srun with all nodes."""
    job = spec["jobs"][number]
    if spec["nodes"] == 1:
        return [*node_command(job["label"]), *job["command"]]
    count = spec["nodes"]
    # srun does not take the threads over from sbatch (since Slurm 22.05).
    return [
        "srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1",
        f"--cpus-per-task={spec['threads']}", "--kill-on-bad-exit=1", "--mpi=none",
        sys.executable, "-m", "sv.jobs.slurm_job", "--task", str(folder), number,
    ]  # fmt: skip


def run_task(folder: Path, number: str, spec: dict[str, Any]) -> int:
    """Run the command on one of the job's nodes."""
    job, node = spec["jobs"][number], os.environ["SLURM_NODEID"]
    commander = Commander(is_srun=False)
    status = commander.run([*node_command(f"{job['label']}.node{node}"), *job["command"]], None)
    if status != 0:
        outcome = {"status": status, "signalled": bool(commander.received)}
        write_json(folder / f"{number}.node{node}", outcome)
    return status


def judge_tasks(folder: Path, number: str, status: int) -> tuple[int, bool]:
    """Find out why srun failed.

    Returns:
        The status of the node that failed by itself (srun's may be of those that it then ended) or
        else srun's; and whether all that failed had been signalled. (At the beginning of a grace
        time, GraceTime in slurm.conf, Slurm signals them and not this process.)
    """
    paths = sorted(folder.glob(f"{number}.node*"), key=lambda path: path.stat().st_mtime_ns)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    causes = [outcome["status"] for outcome in found if not outcome["signalled"]]
    return (causes[0] if causes else status), bool(found) and not causes


def read_status(path: Path) -> dict[str, Any] | None:
    """Read what `write_status` wrote; None if there is nothing yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def run_job(folder: Path, number: str, spec: dict[str, Any]) -> int:
    """Run the job with its log; leave its status in the folder and return it."""
    words, path = spec["jobs"][number], folder / f"{number}.status"
    earlier = read_status(path) or {}
    if earlier.get("final"):  # requeued after its end
        return earlier["status"]
    for stale in (path, *folder.glob(f"{number}.node*")):
        stale.unlink(missing_ok=True)
    job = Job(int(number), Path(words["log"]), words["command"])
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    checkpoint = folder.absolute() / f"{number}.checkpoint"
    os.environ[CHECKPOINT_VARIABLE] = str(checkpoint)
    saved, idle = take_prints({"": checkpoint}), earlier.get("idle", 0)
    # A job of an array would only run into its time limit once more.
    may_requeue = not spec["is_array"] and idle < spec["max_restarts"]
    commander = Commander(
        is_srun=spec["nodes"] > 1, limit=TimeLimit(checkpoint) if may_requeue else None
    )
    job.proof.unlink(missing_ok=True)
    before, started = take_job_prints(job.command), time.time()
    remark = f", {os.environ['SLURM_JOB_ID']} of Slurm" + (f", restart {restarts}" * bool(restarts))
    mode = "a" if restarts else "w"
    with open(job.log, mode, encoding="utf-8", opener=refuse_link) as log:
        began_ns = write_header(log, job, remark)
        status, tasks_signalled = commander.run(build_command(folder, number, spec), log), False
        if status in SIGNALLED and not commander.received:
            time.sleep(LATE_S)
        if status != 0 and commander.is_srun:
            status, tasks_signalled = judge_tasks(folder, number, status)
        write_footer(log, status, round(time.time() - started), spec["threads"])
    if status == 0 and spec["is_array"]:
        # Without "shared": submitted before a checkout was updated.
        prove_job(job.proof, job.command, before, began_ns, spec.get("shared", ()))
    is_final = status == 0 or not (commander.received or tasks_signalled)
    idle = idle + 1 if take_prints({"": checkpoint}) == saved else 0
    write_status(path, status, idle, is_final=is_final)
    near_limit = signal.SIGUSR1 in commander.received and not spec["is_array"]
    must_requeue = near_limit or (tasks_signalled and not commander.received)
    if not is_final and must_requeue and not commander.was_requeued:
        may_requeue = idle <= spec["max_restarts"]
        if not (may_requeue and requeue()):
            write_status(path, status, idle, is_final=True)
    return status


def write_status(path: Path, status: int, idle: int, *, is_final: bool) -> None:
    """Report to utils/slurm.py how the job ended; not final: it may be started again.

    ``idle`` counts the starts since the last one that left a checkpoint.
    """
    job = os.environ["SLURM_JOB_ID"]
    write_json(path, {"status": status, "final": is_final, "job": job, "idle": idle})


def requeue() -> bool:
    """Put this job back into the queue; return whether that was done."""
    argv = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
    code = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL).returncode
    return code in (0, -signal.SIGTERM)  # the requeue ends all processes of the job, this one too


def read_own_json(path: Path) -> Any:
    """Read a file that says what to run, perhaps hours after it was written.

    Raises:
        PermissionError: Somebody else could have written it.
    """
    with open(path, encoding="utf-8") as file:
        for status in (os.fstat(file.fileno()), os.lstat(path.parent)):
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise PermissionError(f"{path} can be written by others: nothing is run")
        return json.load(file)


def main(argv: list[str]) -> int:
    """Run the job or, with --task, its command on one node."""
    is_task = argv[0] == "--task"
    folder, number = Path(argv[-2]), argv[-1]
    try:
        spec = read_own_json(folder / "jobs.json")
    except FileNotFoundError:  # utils/slurm.py has its result, or a later call has begun anew
        return 0
    except PermissionError as error:
        print(f"utils/slurm.py: {error}", file=sys.stderr)
        return 1
    os.chdir(spec["cwd"])
    return run_task(folder, number, spec) if is_task else run_job(folder, number, spec)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
