"""The metered command: started, waited for, signalled, as if there were no meter in between.

The command stays in the meter's process group, so that a terminal treats both as one job. The
meter blocks its signals and takes them one by one (`wait_for_signal`): it has no handlers.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from sv.energy.processes import find_descendants
from sv.system import adopt_orphans, end_with_parent

WNOTHREAD = 0x20000000  # linux/wait.h: not the children of other threads, which sensors start
SI_KERNEL = 0x80  # asm-generic/siginfo.h: sent by the kernel, here the terminal's driver
PASSED_ON = {
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
}  # fmt: skip
STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
WAITED_FOR = PASSED_ON | {signal.SIGCHLD}
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # POSIX shell, 2.8.2 Exit Status for Commands
LEFTOVER_S = 10.0  # what a stopped command leaves behind gets this long to end


class StartError(Exception):
    """The command could not be started; ``status`` is what a shell would return."""

    def __init__(self, word: str, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        super().__init__(f"{word}: {'command not found' if missing else error.strerror}")
        self.status = NOT_FOUND if missing else NOT_EXECUTABLE


def replace_process(
    argv: Sequence[str], environ: Mapping[str, str], say: Callable[[str], None]
) -> int:
    """Become a command (same process id); returns, with a status, only if that fails."""
    try:
        os.execvpe(argv[0], argv, dict(environ))
    except OSError as error:
        failure = StartError(argv[0], error)
        say(str(failure))
        return failure.status


class Command:
    """A running command and all processes below it.

    Attributes:
        exit_code: As a shell returns it, 128 + signal when killed; None while it runs.
        stopped_by: The first signal passed on that asks a program to end, else None.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.exit_code: int | None = None
        self.stopped_by: signal.Signals | None = None
        self._killed_by_user = False
        adopt_orphans()  # their CPU time is counted, and they can be ended
        # An ignored SIGCHLD is inherited through exec and would lose the command's status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
        self._arrival = select.poll()
        self._arrival.register(_open_signal_fd(), select.POLLIN)
        meter = os.getpid()

        def prepare_child() -> None:
            end_with_parent(meter)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

        try:
            self._child = subprocess.Popen(  # one thread: preexec_fn is safe
                list(argv),
                env=dict(environ),
                preexec_fn=prepare_child,  # noqa: PLW1509
                close_fds=False,  # <(process substitution) and make's job server are open files
            )
        except OSError as error:
            raise StartError(argv[0], error) from error
        # A Ctrl-C from before the command was started has reached the meter alone.
        self._early = signal.sigpending()

    def wait_for_signal(self, timeout_s: float) -> None:
        """Wait for a signal, at most ``timeout_s``: pass it on, or take the command's end."""
        self._arrival.poll(1000 * max(0.0, timeout_s))
        # Python 3.11's sigtimedwait returns what lay in memory if it was stopped (Ctrl-Z) past its
        # timeout; without one it never sleeps.
        info = signal.sigtimedwait(WAITED_FOR, 0)
        if info is not None and info.si_signo != signal.SIGCHLD:
            self._pass_on(signal.Signals(info.si_signo), info.si_code)
        self._reap()

    def _pass_on(self, number: signal.Signals, code: int) -> None:
        if number in STOPPING and self.stopped_by is None:
            self.stopped_by = number
        # The terminal sends Ctrl-C to the whole process group: the command has had it already.
        by_terminal = code == SI_KERNEL and number not in self._early
        if not by_terminal and self.exit_code is None:
            self._killed_by_user = self._killed_by_user or number in STOPPING
            _kill(self._child.pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | WNOTHREAD)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child.pid:
                code = os.waitstatus_to_exitcode(status)
                self._child.returncode = code  # subprocess must not wait for it again
                self.exit_code = code if code >= 0 else 128 - code

    def end_leftovers(self) -> None:
        """After a command that a user's signal stopped: end what it left running.

        A shell that is killed does not stop its own child, which would run on unmetered.
        """
        if self.stopped_by is None or not self._killed_by_user:
            return
        for pid in find_descendants(os.getpid()):
            _kill(pid, self.stopped_by)
        deadline_s = time.monotonic() + LEFTOVER_S
        while find_descendants(os.getpid()) and time.monotonic() < deadline_s:
            self.wait_for_signal(0.1)


def _open_signal_fd() -> int:
    """Open what becomes readable when one of `WAITED_FOR` has come (signalfd(2))."""
    mask = sum(1 << (number - 1) for number in WAITED_FOR)
    # sigset_t has 128 bytes in glibc and musl, of which the kernel looks at the first eight.
    sigset = mask.to_bytes(8, sys.byteorder) + bytes(120)
    fd = ctypes.CDLL(None).signalfd(-1, sigset, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise OSError("signalfd failed")
    return fd


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user
        os.kill(pid, number)
