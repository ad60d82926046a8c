"""One job of utils/slurm.py, on the node where Slurm starts it: its log, command and status.

Usage (in the script that sbatch starts): python3 -m sv.jobs.slurm_job <folder> <number>
       (by srun, on each node of a job that has several): ... --task <folder> <number>

Slurm's SIGTERM, to a job that it cancels or requeues, is passed on to the command, which may save
its work. The status is then written as not final: utils/slurm.py sees what it means from whether
the job is in the queue again. SIGUSR1 says that the time limit is near: the command gets SIGTERM,
and the job is put back into the queue. (srun gets no SIGTERM from here: it kills its tasks.)
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from sv.energy.nodes import node_command
from sv.files import refuse_link, write_json
from sv.jobs.completion import prove_job, take_job_prints
from sv.jobs.jobs import Job, write_footer, write_header

LATE_S = 1.0  # so much later may a signal that ended the command reach this process
SIGNALLED = {128 + signal.SIGTERM, 128 + signal.SIGKILL}


class Commander:
    """Runs the command and passes signals on to it."""

    def __init__(self, *, is_srun: bool) -> None:
        self.is_srun = is_srun
        self.received: set[int] = set()
        self._process: subprocess.Popen | None = None
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
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
        code = self._process.wait()
        return code if code >= 0 else 128 - code


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
    earlier = read_status(path)
    if earlier is not None and earlier["final"]:  # requeued after its end
        return earlier["status"]
    for stale in (path, *folder.glob(f"{number}.node*")):
        stale.unlink(missing_ok=True)
    job = Job(int(number), Path(words["log"]), words["command"])
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    commander = Commander(is_srun=spec["nodes"] > 1)
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
        prove_job(job.proof, job.command, before, began_ns)
    is_final = status == 0 or not (commander.received or tasks_signalled)
    write_status(path, status, is_final=is_final)
    # A job of an array would only run into its time limit once more.
    near_limit = signal.SIGUSR1 in commander.received and not spec["is_array"]
    must_requeue = near_limit or (tasks_signalled and not commander.received)
    if not is_final and must_requeue and (restarts >= spec["max_restarts"] or not requeue()):
        write_status(path, status, is_final=True)
    return status


def write_status(path: Path, status: int, *, is_final: bool) -> None:
    """Report to utils/slurm.py how the job ended; not final: it may be started again."""
    write_json(path, {"status": status, "final": is_final, "job": os.environ["SLURM_JOB_ID"]})


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
