"""What Python's standard library lacks of Linux: ending with the parent, adopting orphans.

Both are prctl(2). Nothing is imported or looked up late, so a ``preexec_fn`` may call them.
"""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36


def end_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to send this process SIGTERM when the process that started it ends.

    A killed script leaves what it runs behind: work whose result nothing would read.

    Args:
        parent: Process id of the parent, where the caller knows it from before the start of this
            process; None: the parent of now.
    """
    parent = os.getppid() if parent is None else parent
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends: they can be counted and ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
