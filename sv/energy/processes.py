"""Processes of this machine: which are below another one, what they use, where and when they run.

Everything is read from /proc; a process may end while it is read.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from sv.energy.units import us_from_s
from sv.errors import SvError

PROC = Path("/proc")
BOOT_ID = PROC / "sys" / "kernel" / "random" / "boot_id"
GIT_TIMEOUT_S = 10.0
KIB = 1024
# /proc/stat, first line: user nice system idle iowait irq softirq steal guest guest_nice
# (proc_stat(5)); guest is in user. Idle, waiting and stolen time is no work of this machine.
BUSY_FIELDS = (0, 1, 2, 5, 6)
PARENT, FLAGS, START_TICKS = 1, 6, 19  # in `read_stat`
FORKED = 0x40  # of the flags: forked and no program begun (PF_FORKNOEXEC, include/linux/sched.h)


def read_stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/<pid>/stat after the name; empty if the process has ended.

    The name, field 2, is in brackets and may hold anything; what follows begins with field 3, the
    state (proc_pid_stat(5)).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read()
    except OSError:
        return []
    return stat[stat.rindex(b")") + 2 :].split()


# The tree


def find_descendants(root: int) -> list[int]:
    """Find all processes below ``root``, parents before children.

    A process whose sibling ends at the same time may be missed; it is found the next time.
    """
    try:
        return _ask_threads(root)
    except FileNotFoundError:
        return search_all(root)  # a kernel without CONFIG_PROC_CHILDREN


def is_below(root: int) -> bool:
    """Return whether ``root`` is an ancestor of this process."""
    pid = os.getpid()
    while pid > 0 and pid != root:
        pid = _read_parent(pid)
    return pid == root


def _ask_threads(root: int) -> list[int]:
    """Follow the lists of children: a machine of a thousand processes costs no more than one."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        raise FileNotFoundError
    found = [root]
    for pid in found:  # grows while it is walked
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    found.extend(int(child) for child in file.read().split())
        except OSError:
            continue  # it has ended
    return found[1:]


def search_all(root: int) -> list[int]:
    """Find all processes below ``root`` by looking at every process of the machine."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_read_parent(int(name)), []).append(int(name))
    found = list(children.get(root, []))
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, []))
    return found


def _read_parent(pid: int) -> int:
    stat = read_stat(pid)
    return int(stat[PARENT]) if stat else 0


# Names of processes and machines


def read_boot_id() -> str:
    """Return the id of the machine's current boot."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def get_machine(boot_id: str | None, host: str | None) -> str:
    """Return what identifies a machine: its boot, which all containers of a kernel share.

    A host name is of a container, and may change while the machine runs; it serves where the boot
    is not known.
    """
    return boot_id or host or ""


def read_start_ticks(pid: int) -> int | None:
    """Return when a process was started, in ticks since the boot; None: there is no such process.

    Number and start together tell a process from a later one that got its number.
    """
    stat = read_stat(pid)
    return int(stat[START_TICKS]) if stat else None


def get_process() -> str:
    """Return a unique name of this process: ``boot-id/pid/start-ticks``."""
    pid = os.getpid()
    return f"{read_boot_id()}/{pid}/{read_start_ticks(pid)}"


def find_process(name: str) -> int | None:
    """Return the id of a process that `get_process` named; None: not here, or it has ended."""
    machine, _, ticks = name.rpartition("/")
    machine, _, pid = machine.rpartition("/")
    if machine != read_boot_id() or not pid.isdecimal():
        return None
    return int(pid) if str(read_start_ticks(int(pid))) == ticks else None


def read_git(folder: Path) -> dict[str, str | bool | None]:
    """Return the commit of the working tree and whether a tracked file differs from it.

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


# Use of processor and memory: the inputs of attribution


def read_usage(meter: int, *, memory: bool) -> dict[str, int | None]:
    """Read what a job and its machine use now.

    Args:
        meter: Process id of the meter; the job is all below it.
        memory: Whether to read memory too.

    Returns:
        Processor time of the machine since its boot in us and, if asked for, bytes that the job
        and the machine hold; None for what cannot be read.
    """
    usage: dict[str, int | None] = {"node_cpu_us": _read_node_cpu_us()}
    if memory:
        usage["job_bytes"] = sum(read_memory(pid)[0] for pid in find_descendants(meter))
        usage["node_bytes"] = _read_node_bytes()
    return usage


def _read_node_cpu_us() -> int | None:
    """Read the busy processor time of the machine since its boot, without idle, iowait, steal."""
    try:
        with open(PROC / "stat", "rb") as file:
            fields = file.readline().split()[1:]
        ticks = sum(int(fields[i]) for i in BUSY_FIELDS)
    except (OSError, ValueError, IndexError):
        return None
    return us_from_s(ticks / os.sysconf("SC_CLK_TCK"))


def _read_node_bytes() -> int | None:
    try:
        lines = (PROC / "meminfo").read_text(encoding="ascii").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return (kib["MemTotal"] - kib["MemAvailable"]) * KIB
    except (OSError, ValueError, KeyError, IndexError):
        return None


def read_memory(pid: int) -> tuple[int, int]:
    """Return a process's resident bytes, and those of them that are shared; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            resident, shared = file.read().split()[1:3]
    except (OSError, ValueError):
        return 0, 0
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return int(resident) * page_bytes, int(shared) * page_bytes


def read_pss_anon(pid: int) -> int | None:
    """Return a process's anonymous bytes, a page that n processes share as an n-th of it.

    The kernel walks all pages of the process for it.

    Returns:
        None where it cannot be read, or the kernel does not say (Linux before 5.3).
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            rollup = file.read()
    except OSError:
        return None
    match = re.search(rb"^Pss_Anon:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(match[1]) * KIB if match else None


def run_in_child(work: Callable[[], object]) -> None:
    """Call a function in a forked child.

    For work that imports what starts threads (numpy): the meter must have one thread until its
    command is forked. Call it while there is only one.

    Raises:
        SvError: The function raised it, or the child was killed.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except SvError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        reason = file.read().decode()
    if os.waitpid(pid, 0)[1] != 0:
        raise SvError(reason or "the reading of the earlier attempts was killed; run it again")
