"""A walk over many systems: run.sh once for each, whatever becomes of the one before.

A system that fails costs no other. A signal ends the walk: it is passed on once, to the run.sh of
the moment, whose stage then saves what it has and ends (as in a run of one system).
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sv.energy.command import end_with_parent

DONE, BEFORE, FAILED, STOPPED, LEFT = "done", "finished before", "failed", "stopped", "left"
# The two lines of run.sh that begin a stage, and the meter's line that ends one.
HEADER = re.compile(r"run\.sh: \S+ \S+ stage (\d: \S+?)(: finished before)?$")
METER_LINE = re.compile(r"stage \d+ \S+: .* -> ")
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TRAIN, EXTRACT, SCORE, RESULTS = 5, 6, 7, 8


@dataclass(frozen=True)
class Part:
    """One call of run.sh: some stages of one model, at one precision where that matters."""

    model: str
    precision: str
    first: int
    last: int

    def list_options(self) -> list[str]:
        """Give the options that say so to run.sh."""
        return [
            *("--model", self.model, "--precision", self.precision),
            *("--stage", str(self.first), "--stop-stage", str(self.last)),
        ]


@dataclass(frozen=True)
class Outcome:
    """What became of a system: one of the words above, the last stage begun, and why."""

    status: str
    reached: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the summary; ``precision`` is None where nothing is extracted or scored."""

    model: str
    precision: str | None
    outcome: Outcome


class Walk:
    """Calls run.sh, one system after the other.

    Args:
        command: run.sh and its options but those of `Part.list_options`.
        first, last: Stages, of which 5 to 8 are walked.
    """

    def __init__(self, command: Sequence[str], first: int, last: int) -> None:
        self._command, self._first, self._last = list(command), first, last
        self._process: subprocess.Popen | None = None
        self.stopped_by: int | None = None

    def run(self, models: Sequence[str], precisions: Sequence[str]) -> list[Row]:
        """Walk all systems, then make the results; give what became of each."""
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
                signal.signal(number, self._stop)
        rows: list[Row] = []
        for number, model in enumerate(models, start=1):
            if self.stopped_by is None:
                print(f"run.sh: system {number} of {len(models)}: {model}", file=sys.stderr)
            rows += self._run_model(model, precisions)
        if self._last >= RESULTS:
            outcome = self._run_part(Part(models[0], precisions[0], RESULTS, RESULTS))
            if outcome.status != DONE:
                rows.append(Row("(results)", None, outcome))
        return rows

    def _run_model(self, model: str, precisions: Sequence[str]) -> list[Row]:
        outcome = Outcome(BEFORE)
        if self._first <= TRAIN <= self._last:
            outcome = self._run_part(Part(model, precisions[0], TRAIN, TRAIN))
        if self._last < EXTRACT or self._first > SCORE:
            return [Row(model, None, outcome)]
        rows = []
        for precision in precisions:
            first, last = max(self._first, EXTRACT), min(self._last, SCORE)
            joined = outcome
            if outcome.status in (DONE, BEFORE):
                joined = self._run_part(Part(model, precision, first, last))
                joined = replace(joined, reached=joined.reached or outcome.reached)
                if joined.status == BEFORE:
                    joined = replace(joined, status=outcome.status)
            rows.append(Row(model, precision, joined))
        return rows

    def _run_part(self, part: Part) -> Outcome:
        if self.stopped_by is not None:
            return Outcome(LEFT)
        sys.stdout.flush()
        self._process = subprocess.Popen(
            # A session of its own: a terminal's Ctrl-C then comes once, from here.
            [*self._command, *part.list_options()], stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - no threads here
        )  # fmt: skip
        if self.stopped_by is not None:  # the signal came before there was a process to tell
            self._process.terminate()
        reached, message, begun, skipped = None, "", 0, 0
        # Read to the end, not to run.sh's: its stage may still be saving a checkpoint.
        for line in self._process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            if header := HEADER.match(line):
                reached, message = header[1].replace(":", ""), ""
                begun, skipped = begun + 1, skipped + bool(header[2])
            elif line.strip() and not line.startswith(" ") and not METER_LINE.search(line):
                message = line.strip()
        return self._judge(part, self._process.wait(), Outcome(
            BEFORE if 0 < begun == skipped else DONE, reached, message))  # fmt: skip

    def _judge(self, part: Part, code: int, outcome: Outcome) -> Outcome:
        """Give the outcome of a part that ended with a status, as Popen has it."""
        number = -code if code < 0 else code - 128
        if self.stopped_by is None and number in STOPPING:
            self.stopped_by = number  # not ours: somebody ended the stage itself
        if self.stopped_by is not None:
            return replace(outcome, status=STOPPED) if code else outcome
        if code == 0:
            return outcome
        outcome = replace(outcome, status=FAILED, reached=outcome.reached or str(part.first))
        what = f"{part.model} failed in stage {outcome.reached}"
        print(f"run.sh: {what}: {outcome.message}", file=sys.stderr, flush=True)
        return outcome

    def _stop(self, number: int, frame: object) -> None:
        if self.stopped_by is None:  # not by print: it may be in the middle of a line
            os.write(2, b"run.sh: stopping; the stage may first save what it has\n")
        self.stopped_by = number
        if self._process is not None:
            self._process.terminate()
