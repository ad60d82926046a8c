"""A Slurm site: what it wants on every sbatch line (conf/slurm.conf), and its programs.

The file is strict TOML; everything has a default:

    account = "abc@v100"                 # of all jobs
    options = ["--hint=nomultithread"]   # further options of sbatch, word by word
    [cpu_jobs]                           # of jobs without --gpu, instead of the above
    partition = "prepost"
    [gpu_jobs]                           # of jobs with --gpu
    constraint = "v100-32g"
    time = "20:00:00"

``options`` of a table are added to the general ones; its other keys replace them.
"""

import argparse
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from sv.config import at_least
from sv.errors import SvError

WORDS = ("partition", "account", "qos", "constraint", "mem", "time")
# Slurm's own forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)

TIMEOUT_S = 60.0  # a busy controller answers late; squeue itself gives up after about ten seconds
# States in which a job has ended, slurm.h; in all others Slurm still has it.
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


@dataclass(frozen=True)
class JobKind:
    """What one kind of job asks for; None: the site's default."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mem: str | None = None
    time: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what sbatch would refuse without naming this file."""
        if self.time is not None:
            parse_time_s(self.time)


@dataclass(frozen=True)
class SlurmConfig(JobKind):
    """The settings of a site.

    Attributes:
        gpu: Option that asks for ``{n}`` GPUs on every node of a job.
        poll_s: Time between two calls of squeue.
        grace_s: A job that Slurm no longer has is lost if its status does not appear on the shared
            disk for so long.
        warning_s: So long before its time limit a training is signalled, to save a checkpoint.
        max_restarts: How often such a training is put back into the queue.
    """

    gpu: str = "--gres=gpu:{n}"
    poll_s: float = 15.0
    grace_s: float = 90.0
    warning_s: int = 180
    max_restarts: int = 20
    cpu_jobs: JobKind = field(default_factory=JobKind)
    gpu_jobs: JobKind = field(default_factory=JobKind)

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        at_least(self, 0.1, "poll_s", "grace_s")
        at_least(self, 0, "warning_s", "max_restarts")
        if "{n}" not in self.gpu:
            raise ValueError(f"gpu must hold {{n}}, the number of GPUs, unlike '{self.gpu}'")


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


def build_options(config: SlurmConfig, asked: argparse.Namespace, *, is_array: bool) -> list[str]:
    """Return the options of sbatch that say what a job gets; the command line's win.

    Args:
        config: Of the site.
        asked: Options of utils/slurm.py.
        is_array: Whether the job is one of many, which cannot resume from a checkpoint.
    """
    kind = config.gpu_jobs if asked.gpu else config.cpu_jobs
    own = {"mem": asked.mem, "time": asked.time}
    values = {word: own.get(word) or getattr(kind, word) or getattr(config, word) for word in WORDS}
    words = [f"--{word}={value}" for word, value in values.items() if value]
    words += [f"--cpus-per-task={asked.num_threads}", f"--nodes={asked.nodes}"]
    words += [f"--ntasks={asked.nodes}", "--ntasks-per-node=1", "--requeue"]
    if asked.gpu:
        words += config.gpu.replace("{n}", str(asked.gpu)).split()
    limit_s = parse_time_s(values["time"]) if values["time"] else None
    # A job whose limit is nearer than that would be signalled at once.
    is_long = limit_s is None or limit_s >= 2 * config.warning_s
    if not is_array and config.warning_s and is_long:
        words.append(f"--signal=B:USR1@{config.warning_s}")
    return [*words, *config.options, *kind.options]


class NoAnswerError(Exception):
    """A program of Slurm failed; the message is its last line."""

    @property
    def is_transient(self) -> bool:
        """Whether asking again later may help."""
        return any(words in str(self).lower() for words in TRANSIENT)


@dataclass(frozen=True)
class Entry:
    """A job in the queue.

    Attributes:
        id: Slurm's number of it, 12_3 in an array.
        state: In Slurm's words: PENDING.
        reason: Why it waits: "Resources".
    """

    id: str
    state: str
    reason: str

    @property
    def has_ended(self) -> bool:
        """Whether it will not run any more."""
        return self.state in ENDED


def call(argv: Sequence[str]) -> str:
    """Run a program of Slurm; return what it prints.

    A signal to this process does not reach it, and is handled when it has ended: a submission is
    never half made.

    Raises:
        NoAnswerError: It failed, or took too long.
        SvError: It is not installed.
    """
    # Within a job of Slurm: that job's settings are not for the new one.
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


def sbatch(options: Sequence[str], script: str) -> None:
    """Submit a script.

    Raises:
        NoAnswerError: It is refused, or there is no answer; then it may have been submitted.
    """
    call(["sbatch", "--parsable", *options, script])


def read_queue(name: str) -> dict[int | None, Entry]:
    """Return the jobs of one name that Slurm knows, by number in their array (None: no array).

    Raises:
        NoAnswerError: There is no answer.
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
    """Cancel the jobs of one name; that there are none is not an error.

    Raises:
        NoAnswerError: There is no answer; they may have been cancelled.
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
