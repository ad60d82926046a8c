"""Slurm's own programs: sbatch, squeue, scancel."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from sv.errors import SvError

TIMEOUT_S = 60.0  # a busy controller answers late; squeue itself gives up after ten seconds or so
# States in which a job will do no more, slurm.h; in all others Slurm still has it.
ENDED = {
    "BOOT_FAIL": "its node failed to boot",
    "CANCELLED": "cancelled",
    "COMPLETED": "ended for Slurm",
    "DEADLINE": "past its deadline",
    "FAILED": "failed for Slurm",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory; give more by --mem",
    "PREEMPTED": "preempted",
    "REVOKED": "revoked",
    "TIMEOUT": "ran into its time limit; give more by --time",
}
# What passes by itself, in the messages of sbatch.
TRANSIENT = (
    "unable to contact",
    "timed out",
    "connection",
    "temporarily",
    "try again",
    "no answer",
)


class NoAnswerError(Exception):
    """A program of Slurm failed; the message is its own last line."""

    @property
    def is_transient(self) -> bool:
        """Whether asking again later may help."""
        return any(words in str(self).lower() for words in TRANSIENT)


@dataclass(frozen=True)
class Entry:
    """A job in the queue.

    Attributes:
        id: Slurm's number of it, 12_3 in an array.
        state: In Slurm's words, PENDING.
        reason: Why it waits, "Resources".
    """

    id: str
    state: str
    reason: str

    @property
    def has_ended(self) -> bool:
        """Whether Slurm will do no more with it."""
        return self.state in ENDED


def call(argv: Sequence[str]) -> str:
    """Run a program of Slurm and give what it prints.

    A signal to this process does not reach it, and is dealt with when it has ended: a submission
    is never half made.

    Raises:
        NoAnswerError: It failed, or took too long.
        SvError: It is not there.
    """
    # Called within a job of Slurm, that job's settings are not for the new one.
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }
    try:
        process = subprocess.Popen(
            list(argv), env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise SvError(f"{argv[0]}: {error.strerror}; is this a machine of a Slurm site?") from None
    with process:  # waits for its end, whatever comes
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise NoAnswerError(f"{argv[0]}: no answer in {TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        lines = [line for line in err.splitlines() if line.strip()]
        raise NoAnswerError(lines[-1] if lines else f"{argv[0]}: status {process.returncode}")
    return out


def submit(options: Sequence[str], script: str) -> str:
    """Submit a script; gives the number of the job or array.

    Raises:
        NoAnswerError: It is refused, or nobody answers; in the second case it may be submitted.
    """
    return call(["sbatch", "--parsable", *options, script]).split(";")[0].strip()


def read_queue(name: str) -> dict[int | None, Entry]:
    """Give the jobs of one name that Slurm knows, by number in their array (None: not in one).

    Raises:
        NoAnswerError: Nobody tells.
    """
    form = "--format=%F|%K|%T|%r"
    who = [f"--user={os.getuid()}", f"--name={name}"]
    text = call(["squeue", "--noheader", "--array", "--states=all", *who, form])
    entries = {}
    for line in text.splitlines():
        array, index, state, reason = line.strip().split("|", 3)
        is_array = index.isdecimal()
        number = f"{array}_{index}" if is_array else array
        entries[int(index) if is_array else None] = Entry(number, state, reason)
    return entries


def cancel(name: str) -> None:
    """Cancel the jobs of one name; that there are none is no error.

    Raises:
        NoAnswerError: Nobody knows whether it was done.
    """
    call(["scancel", f"--user={os.getuid()}", f"--name={name}"])


def format_numbers(numbers: Sequence[int]) -> str:
    """Write numbers as --array takes them: 1-3,7."""
    words: list[str] = []
    first = last = None
    for number in [*sorted(numbers), None]:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            words.append(str(first) if first == last else f"{first}-{last}")
        first = last = number
    return ",".join(words)
