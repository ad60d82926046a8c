"""GPU boards for one stage: chosen, locked against other stages, and named to CUDA.

Stages of this recipe, whoever runs them, share the boards of a machine by locks: a file for each
device in a folder that all users share, locked (flock(2)) by the stage's meter until it ends. A
lock needs no right to write, so a file may be of any user; the kernel says who holds it (proc(5)).

The devices are named to CUDA by UUID: an index would mean another board to CUDA than to NVML where
a machine has boards of several kinds.
"""

import fcntl
import os
import pwd
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE

from sv.energy.sensors.nvml import Device, list_devices
from sv.errors import SvError, UsageError

VARIABLE = "SV_GPU_LOCKS"  # another folder of locks: where containers have a /tmp of their own
FOLDER = "/tmp/sv_gpu_locks"  # noqa: S108 - made by whoever comes first, as /tmp/.X11-unix is
SHARED = 0o1777  # any user creates files, only the owner removes them
VISIBLE = "CUDA_VISIBLE_DEVICES"
CHOICE_S = 5.0  # two stages that choose at once: one waits for the other


def take_boards(count: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Choose devices for a command and lock them until this process ends.

    Chosen are the first free ones of those that ``CUDA_VISIBLE_DEVICES`` leaves, before all those
    on which nothing computes. In a job of Slurm, which has given them, none is locked.

    Args:
        count: Boards, or slices of boards (MIG).
        environ: Environment of the command.

    Returns:
        The environment with their UUIDs in ``CUDA_VISIBLE_DEVICES``; with no name, which hides all
        boards from CUDA, for a count of 0.

    Raises:
        UsageError: There are fewer, or others hold them; all that were locked are free again.
    """
    if count == 0:
        return {**environ, VISIBLE: ""}
    devices = find_devices(count, environ)
    if "SLURM_JOB_ID" in environ and VISIBLE in environ:
        taken = [device.name for device in devices[:count]]
    else:
        taken = _lock_some(count, devices, Path(environ.get(VARIABLE) or FOLDER))
    return {**environ, VISIBLE: ",".join(taken)}


def find_devices(count: int, environ: Mapping[str, str]) -> list[Device]:
    """Find the devices that ``CUDA_VISIBLE_DEVICES`` leaves, whoever uses them.

    Raises:
        UsageError: There are fewer than ``count``.
    """
    visible = environ.get(VISIBLE)
    advice = "without --ngpu run.sh uses what is visible"
    try:
        devices = list_devices(visible)
    except SvError as error:
        raise UsageError(f"--ngpu {count}: {error}; {advice}") from error
    if len(devices) < count:
        which = "" if visible is None else f" ({VISIBLE}={visible})"
        seen = "1 GPU is" if len(devices) == 1 else f"{len(devices) or 'no'} GPUs are"
        raise UsageError(f"--ngpu {count}: {seen} visible here{which}; {advice}")
    return devices


def _lock_some(count: int, devices: Sequence[Device], path: Path) -> list[str]:
    """Lock ``count`` of the devices; return their names."""
    umask = os.umask(0)
    try:
        folder = _open_folder(path)
        _lock(folder, CHOICE_S)  # else two that come at once could each take half and give up
        locks: dict[str, int] = {}  # open until this process ends
        obstacles = []
        for device in sorted(devices, key=lambda device: device.is_busy):
            if len(locks) == count:
                break
            fd, obstacle = _lock_file(folder, device.name.replace("/", "_"))
            if fd is None:
                obstacles.append(f"{device.name} {obstacle}")
            else:
                locks[device.name] = fd
        os.close(folder)
    except OSError as error:
        raise UsageError(f"--ngpu {count}: cannot lock in {path}: {error.strerror}") from error
    finally:
        os.umask(umask)
    if len(locks) == count:
        return [device.name for device in devices if device.name in locks]
    for fd in locks.values():
        os.close(fd)
    free = f"{len(locks) or 'none'} of {len(devices)} GPUs {'are' if len(locks) > 1 else 'is'} free"
    raise UsageError(f"--ngpu {count}: {free}: {', '.join(obstacles)}")


def _open_folder(path: Path) -> int:
    with suppress(FileExistsError):
        path.mkdir(SHARED)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    status = os.fstat(folder)
    if S_IMODE(status.st_mode) & SHARED != SHARED:
        raise UsageError(
            f"{path} of {_name_user(status.st_uid)} has mode {S_IMODE(status.st_mode):o}, and "
            f"users cannot share it; run: chmod {SHARED:o} {path}, or name another in ${VARIABLE}"
        )
    return folder


def _lock_file(folder: int, name: str) -> tuple[int | None, str]:
    """Lock a file of the folder: return it open, or what is in the way."""
    # A link is not followed, a named pipe not waited for. O_CREAT is for a new file alone: with
    # fs.protected_regular=1 the kernel refuses it for another user's (Linux 4.19).
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            fd = os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
    except OSError as error:
        return None, f"has a lock file that cannot be opened ({error.strerror})"
    if _lock(fd):
        return fd, ""
    holder = _find_holder(os.fstat(fd).st_ino)
    os.close(fd)
    return None, f"is held by {holder}"


def _lock(fd: int, patience_s: float = 0.0) -> bool:
    until_s = time.monotonic() + patience_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= until_s:
            return False
        time.sleep(0.01)


def _find_holder(inode: int) -> str:
    """Say who holds the lock of a file; its device is not compared, as btrfs has two for a file."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:2285669 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and int(words[5].rsplit(":", 1)[1]) == inode:
                pid = int(words[4])
                return f"pid {pid} of {_name_user(os.stat(f'/proc/{pid}').st_uid)}"
    return "a process that cannot be seen from here"


def _name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
