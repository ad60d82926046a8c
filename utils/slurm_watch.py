"""Wait for the jobs of one submission: their status files, and what Slurm knows of the others."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs import Job, find_last_message, find_newest_line, format_now, tell_done
from slurm_config import SlurmConfig
from slurm_queue import ENDED, Entry, NoAnswerError, read_queue

LOOK_S = 0.5  # between two looks at the status files
PROGRESS_S = 15.0  # as utils/run.py's
LOST = "Slurm has lost it; did its node fail?"


class Watch:
    """The jobs that are waited for.

    Args:
        folder: Of the submission, where the jobs leave their status.
        name: Of the jobs in the queue.
        jobs: All that were submitted.
        is_array: Whether they are jobs of an array.
        config: Of the site.
        say: Prints a line.
    """

    def __init__(
        self, folder: Path, name: str, jobs: list[Job], *, is_array: bool, config: SlurmConfig,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.statuses: dict[int, int] = {}
        self._folder, self._name, self._config, self._say = folder, name, config, say
        self._is_array = is_array
        self._jobs = {job.number: job for job in jobs}
        self._open = list(self._jobs)
        self._queue: dict[int, Entry] = {}
        self._gone_s: dict[int, float] = {}  # since when Slurm is done with a job
        self._is_answering = True
        self._shown_s, self._last_line = time.monotonic(), ""

    def wait(self) -> dict[int, int]:
        """Wait until every job has ended; gives the statuses by number."""
        asked_s = time.monotonic()
        while True:
            self.collect()
            if not self._open:
                return self.statuses
            if time.monotonic() - asked_s >= self._config.poll_s:
                self._ask()
                asked_s = time.monotonic()
            self._show()
            time.sleep(min(LOOK_S, self._config.poll_s))

    def collect(self) -> None:
        """Read the status files of the jobs that have ended by themselves."""
        # Opening the folder makes an NFS client look anew: what it missed once, it misses longer.
        names = set(os.listdir(self._folder)) if self._folder.is_dir() else set()
        for number in tuple(self._open):
            found = self._read(number) if f"{number}.status" in names else None
            if found is not None and found["final"]:
                self._close(number, found["status"])

    def _read(self, number: int) -> dict[str, Any] | None:
        try:
            return json.loads((self._folder / f"{number}.status").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _close(self, number: int, status: int) -> None:
        self._open.remove(number)
        self.statuses[number] = status
        if status == 0 and self._is_array:
            tell_done(self._jobs[number])

    def _ask(self) -> None:
        """Ask Slurm for the jobs, and close those that it has ended without their knowledge."""
        try:
            found = read_queue(self._name)
        except NoAnswerError as error:
            if self._is_answering:
                self._say(f"squeue does not answer ({error}); waiting on: the jobs tell their end")
            self._is_answering = False
            self._gone_s.clear()  # what was seen before the loss may be seen again
            return
        if not self._is_answering:
            self._say("squeue answers again")
        self._is_answering = True
        if None in found:  # one job, no array
            found[self._open[0]] = found.pop(None)
        self._queue = {number: entry for number, entry in found.items() if number is not None}
        self.collect()  # a job that has ended since the last look
        now = time.monotonic()
        for number in tuple(self._open):
            entry = self._queue.get(number)
            if entry is not None and not entry.has_ended:
                self._gone_s.pop(number, None)
            elif now - self._gone_s.setdefault(number, now) >= self._config.grace_s:
                self._give_up(number, entry)

    def _give_up(self, number: int, entry: Entry | None) -> None:
        """Close a job that Slurm has ended; its log gets the reason as its last line."""
        found, job = self._read(number), self._jobs[number]
        status = 1 if found is None else found["status"]
        what = LOST if entry is None else ENDED[entry.state]
        own = find_last_message(self._folder / f"{number}.out")
        if found is None and entry is not None and entry.state in ("COMPLETED", "FAILED"):
            what += f" without a status in {self._folder}; is that on a disk the nodes share?"
        name = f"job {entry.id}" if entry is not None else f"job {number} of {self._name}"
        with open(job.log, "a", encoding="utf-8") as log:
            log.write(f"{own}\n" if own else "")
            log.write(f"{name}: {what}\n# Ended (code {status}) at {format_now()}\n")
        self._close(number, status)

    def _show(self) -> None:
        """Say every now and then how far the jobs are."""
        if time.monotonic() - self._shown_s < PROGRESS_S:
            return
        self._shown_s = time.monotonic()
        line = "; ".join(part for part in (self._describe_queue(), self._find_line()) if part)
        if line and line != self._last_line:
            print(f"  {line}", file=sys.stderr, flush=True)
            self._last_line = line

    def _describe_queue(self) -> str:
        entries = [self._queue[number] for number in self._open if number in self._queue]
        waiting = [entry for entry in entries if entry.state == "PENDING"]
        parts = []
        if len(self._jobs) > 1:
            parts.append(f"{len(self.statuses)} of {len(self._jobs)} jobs done")
            running = sum(entry.state == "RUNNING" for entry in entries)
            parts += [f"{running} running"] if running else []
        if waiting:
            count = f"{len(waiting)} " if len(self._jobs) > 1 else ""
            parts.append(f"{count}waiting ({waiting[0].reason})")
        return ", ".join(parts)

    def _find_line(self) -> str:
        running = [
            number
            for number in self._open
            if number in self._queue and self._queue[number].state == "RUNNING"
        ]
        lines = (find_newest_line(self._jobs[number]) for number in running)
        return next((line for line in lines if line), "")
