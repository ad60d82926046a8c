"""A daemon that starts commands, as Slurm's does: what it starts is below it, not below a meter.

``python3 spool.py serve FOLDER`` runs what it finds there until it is killed;
``python3 spool.py submit FOLDER LABEL COMMAND...`` hands it a command under a meter of the stage,
waits and gives its status. With ``$SPOOL_WRAP`` (words of a shell) in front of the meter.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from sv.energy.nodes import expect, node_command


def serve(folder: Path) -> None:
    """Run every job, each in a session of its own, several at a time."""
    running = {}
    while True:
        for job in folder.glob("*.job"):
            what = json.loads(job.read_text())
            job.unlink()
            with open(job.with_suffix(".log"), "a") as log:
                running[job] = subprocess.Popen(
                    what["argv"], env=what["environ"], cwd=what["cwd"], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            job.with_suffix(".pid").write_text(str(running[job].pid))
        for job, process in list(running.items()):
            if process.poll() is not None:
                del running[job]
                job.with_suffix(".tmp").write_text(str(process.returncode))
                job.with_suffix(".tmp").rename(job.with_suffix(".done"))
        time.sleep(0.02)


def submit(folder: Path, label: str, command: list[str]) -> int:
    """Hand over a job and wait for it."""
    expect(os.environ, [label])
    done = folder / f"{label}.done"
    done.unlink(missing_ok=True)
    argv = [*shlex.split(os.environ.get("SPOOL_WRAP", "")), *node_command(label), *command]
    job = {"argv": argv, "environ": dict(os.environ), "cwd": os.getcwd()}
    tmp = folder / f"{label}.new"
    tmp.write_text(json.dumps(job))
    tmp.rename(folder / f"{label}.job")
    while not done.exists():
        time.sleep(0.02)
    status = int(done.read_text())
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    sys.exit(submit(Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
