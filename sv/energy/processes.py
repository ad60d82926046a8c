"""The processes below another one: what a metered command has started."""

import os


def find_descendants(root: int) -> list[int]:
    """Find all processes below ``root``, parents before children.

    A process whose brother ends this moment may be missed; it is there the next time.
    """
    try:
        return _ask_threads(root)
    except FileNotFoundError:
        return _search_all(root)  # a kernel without CONFIG_PROC_CHILDREN


def is_below(root: int) -> bool:
    """Tell whether ``root`` is an ancestor of this process."""
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


def _search_all(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_read_parent(int(name)), []).append(int(name))
    found = list(children.get(root, []))
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, []))
    return found


def _read_parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return 0  # it has ended
    # Field 4; the name, field 2, is in brackets and may hold anything (proc_pid_stat(5)).
    return int(stat[stat.rindex(b")") + 2 :].split()[1])
