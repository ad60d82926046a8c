"""Where a stage runs and with which code: host, boot, commit."""

import os
import subprocess
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
GIT_TIMEOUT_S = 10.0


def read_boot_id() -> str:
    """Give the id of the machine's current boot."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def get_process() -> str:
    """Give what tells this process from every other: ``host/boot-id/pid/start-ticks``."""
    pid = os.getpid()
    return f"{os.uname().nodename}/{read_boot_id()}/{pid}/{read_start_ticks(pid)}"


def find_process(name: str) -> int | None:
    """Give the id of a process that `get_process` named; None: not here, or it has ended."""
    machine, _, process = name.rpartition("/")
    machine, _, pid = machine.rpartition("/")
    if machine != f"{os.uname().nodename}/{read_boot_id()}" or not pid.isdecimal():
        return None
    return int(pid) if str(read_start_ticks(int(pid))) == process else None


def read_start_ticks(pid: int) -> int | None:
    """Give when a process was started, in ticks since the boot; None if there is no such process.

    Number and start together tell a process from a later one that got its number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # Field 22; the name, field 2, is in brackets and may hold anything (proc_pid_stat(5)).
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def read_git(folder: Path) -> dict[str, str | bool | None]:
    """Give the commit of the working tree and whether a tracked file differs from it.

    Both are None where there is no git, no repository or no commit.
    """
    words = ["git", "--no-optional-locks", "-C", str(folder), "describe", "--always", "--dirty",
             "--abbrev=40", "--exclude=*"]  # fmt: skip
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=GIT_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    commit, _, dirty = done.stdout.strip().partition("-")
    return {"commit": commit, "dirty": dirty == "dirty"}
