"""conf/slurm.conf: what a site wants on every sbatch line. Strict TOML; everything has a default.

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
import re
from dataclasses import dataclass, field

from sv.config import at_least

WORDS = ("partition", "account", "qos", "constraint", "mem", "time")
# Slurm's own forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)


@dataclass(frozen=True)
class JobKind:
    """What one kind of job asks for; None: what the site gives."""

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
    """A site.

    Attributes:
        gpu: Option that asks for ``{n}`` GPUs on every node of a job.
        poll_s: Time between two looks at the queue.
        grace_s: A job that Slurm no longer has, and whose status is not seen on the shared disk
            for so long, is lost.
        warning_s: A training is told so long before its time limit, to save a checkpoint.
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
    """Give the seconds of a time limit; None for UNLIMITED or INFINITE.

    Raises:
        ValueError: It is none.
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
    """Give the options of sbatch that say what a job gets, the command line's before the file's.

    Args:
        config: Of the site.
        asked: Options of utils/slurm.py.
        is_array: Whether the job is one of many, which cannot go on from a checkpoint.
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
    # Slurm warns at once where the limit is nearer than that.
    is_long = limit_s is None or limit_s >= 2 * config.warning_s
    if not is_array and config.warning_s and is_long:
        words.append(f"--signal=B:USR1@{config.warning_s}")
    return [*words, *config.options, *kind.options]
