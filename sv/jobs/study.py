"""A walk over many systems: run.sh once for each, then a table of what is done, failed and left.

A system that fails does not stop the others. A signal ends the walk: it is passed on once, to the
run.sh that is running, whose stage then saves what it has and ends (as in a run of one system).
"""

import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sv.energy.record import read_record
from sv.energy.units import format_figure
from sv.errors import SvError
from sv.files import read_json, read_text
from sv.score.record import read_scored_list
from sv.system import end_with_parent

DONE, BEFORE, FAILED, STOPPED, LEFT = "done", "finished before", "failed", "stopped", "left"
# The lines of utils/meter.sh that begin a stage, that skip it, and that end it.
HEADER = re.compile(r"utils/meter\.sh: \S+ \S+ stage (\d+ \S+)$")
SKIPPED = re.compile(r"utils/meter\.sh: stage \d+ \S+: finished before$")
SUMMARY = re.compile(r"stage \d+ \S+: .* -> ")
AT_BUDGET = ", stopped at the budget "
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TRAIN, EXTRACT, SCORE, RESULTS = 5, 6, 7, 8
ESTIMATED = "†"
FORECAST = ("energy_kwh", "energy_kwh_low", "energy_kwh_high", "co2_g", "hours")


@dataclass(frozen=True)
class Row:
    """What became of a system: a line of the summary.

    Attributes:
        model: Its name.
        precision: Of extraction and scoring; None where neither is run.
        status: One of the five words above.
        reached: The last stage that was begun: ``5 train``.
        message: Why it failed.
    """

    model: str
    precision: str | None
    status: str
    reached: str | None = None
    message: str = ""


class Walk:
    """Calls run.sh for one system after the other.

    Args:
        command: run.sh and its options, without models, precision and stages.
        first, last: Stages, of which 5 to 8 are walked.
    """

    def __init__(self, command: Sequence[str], first: int, last: int) -> None:
        self._command, self._first, self._last = list(command), first, last
        self._process: subprocess.Popen | None = None
        self.stopped_by: int | None = None

    def run(self, models: Sequence[str], precisions: Sequence[str]) -> list[Row]:
        """Run all systems, then make the results; return what became of each."""
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._stop)
        rows: list[Row] = []
        for number, model in enumerate(models, start=1):
            if self.stopped_by is None:
                print(f"run.sh: system {number} of {len(models)}: {model}", file=sys.stderr)
            rows += self._run_model(model, precisions)
        if self._last >= RESULTS:
            row = self._run_part(models[0], precisions[0], RESULTS, RESULTS)
            if row.status != DONE:
                rows.append(replace(row, model="(results)", precision=None))
        return rows

    def _run_model(self, model: str, precisions: Sequence[str]) -> list[Row]:
        trained = Row(model, None, BEFORE)
        if self._first <= TRAIN <= self._last:
            trained = self._run_part(model, precisions[0], TRAIN, TRAIN)
        if self._last < EXTRACT or self._first > SCORE:
            return [replace(trained, precision=None)]
        if trained.status not in (DONE, BEFORE):
            return [replace(trained, precision=precision) for precision in precisions]
        rows = []
        for precision in precisions:
            first, last = max(self._first, EXTRACT), min(self._last, SCORE)
            row = self._run_part(model, precision, first, last)
            if row.status == BEFORE:
                row = replace(row, status=trained.status)
            rows.append(replace(row, reached=row.reached or trained.reached))
        return rows

    def _run_part(self, model: str, precision: str, first: int, last: int) -> Row:
        """Run some stages of one system."""
        if self.stopped_by is not None:
            return Row(model, precision, LEFT)
        sys.stdout.flush()
        options = ["--model", model, "--precision", precision]
        options += ["--stage", str(first), "--stop-stage", str(last)]
        self._process = subprocess.Popen(
            # A session of its own: a terminal's Ctrl-C then comes once, from here.
            [*self._command, *options], stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            preexec_fn=functools.partial(end_with_parent, os.getpid()),  # noqa: PLW1509 - 1 thread
        )  # fmt: skip
        if self.stopped_by is not None:  # the signal came before the process was there
            self._process.terminate()
        reached, message, begun, skipped, at_budget = None, "", 0, 0, False
        # Read to the end, not to run.sh's: its stage may still be saving a checkpoint.
        for line in self._process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            if header := HEADER.match(line):
                reached, message, begun = header[1], "", begun + 1
            elif SKIPPED.match(line):
                skipped += 1
            elif summary := SUMMARY.search(line):
                at_budget = at_budget or AT_BUDGET in summary[0]
            elif line.strip() and not line.startswith(" "):
                message = line.strip()
        code = self._process.wait()
        status = BEFORE if 0 < begun == skipped else DONE
        if code != 0:
            status = STOPPED if at_budget else self._judge(code)
        if status == FAILED:
            reached = reached or str(first)
            what = f"{model} failed in stage {reached}"
            print(f"run.sh: {what}: {message}", file=sys.stderr, flush=True)
        return Row(model, precision, status, reached, message)

    def _judge(self, code: int) -> str:
        """Return whether a run.sh that ended with a status, as Popen has it, failed or stopped."""
        number = -code if code < 0 else code - 128
        if self.stopped_by is None and number in STOPPING:
            self.stopped_by = number  # sent to the stage itself
        return FAILED if self.stopped_by is None else STOPPED

    def _stop(self, number: int, frame: object) -> None:
        if self.stopped_by is None:  # not by print: it may be in the middle of a line
            os.write(2, b"run.sh: stopping; the stage may first save what it has\n")
        self.stopped_by = number
        if self._process is not None:
            self._process.terminate()


def format_summary(rows: Sequence[Row], data: Path, exp: Path, backend: str) -> str:
    """Format the table of systems, the failures and what is left.

    Args:
        rows: What became of each system.
        data: Has ``test_trials``, the lists whose EER is averaged.
        exp: Model folders.
        backend: The one whose EER is shown.
    """
    lists = _list_trials(data)
    several = len({row.precision for row in rows if row.precision}) > 1
    head = ["system", *(["precision"] if several else []), "stage reached", "EER (%)"]
    table = [[*head, "training (kWh)", "status"]]
    for row in rows:
        precision = [row.precision or "-"] if several else []
        table.append([
            row.model, *precision, row.reached or "-", _find_eer(exp, row, lists, backend),
            _find_training_kwh(exp / row.model), row.status,
        ])  # fmt: skip
    lines = _align(table)
    if any(ESTIMATED in line for line in lines):
        lines.append(f"{ESTIMATED} estimated in part or whole, not measured")
    if any(cells[-3] != "-" for cells in table[1:]):
        lines.append(f"EER: mean over {', '.join(lists)}, {backend}")
    lines += _explain(rows)
    if any(row.status not in (DONE, BEFORE) for row in rows):
        lines.append("the same command resumes and leaves what is finished (with --resume true)")
    return "\n".join(lines)


def format_forecasts(rows: Sequence[Row], exp: Path) -> str:
    """Format what each training is expected to cost, the sum, and the failures."""
    table = [["system", "kWh", "low", "high", "CO2 (g)", "hours", "status"]]
    forecasts: list[dict[str, Any]] = []
    for row in rows:
        expected: dict[str, Any] = {}
        if row.status == DONE:
            expected = read_json(exp / row.model / "forecast.json")["expected"]
            forecasts.append(expected)
        table.append([row.model, *_list_figures(expected), row.status])
    sums = {}
    for key in FORECAST:
        values = [expected[key] for expected in forecasts]
        sums[key] = sum(values) if values and None not in values else None
    table.append(["sum", *_list_figures(sums), f"{len(forecasts)} of {len(rows)}"])
    lines = [
        *_align(table),
        "expected, from a short segment of each training; low and high: 95 % of one system, and in "
        "the sum as if all erred the same way",
    ]
    return "\n".join([*lines, *_explain(rows)])


def _explain(rows: Sequence[Row]) -> list[str]:
    """Return lines that count the systems by status, and name those that failed or are left."""
    statuses = [row.status for row in rows]
    words = (DONE, BEFORE, FAILED, STOPPED, LEFT)
    counts = [f"{statuses.count(word)} {word}" for word in words if word in statuses]
    failures = dict.fromkeys(
        f"failed: {row.model} in stage {row.reached}: {row.message}"
        for row in rows
        if row.status == FAILED
    )
    left = dict.fromkeys(row.model for row in rows if row.status in (STOPPED, LEFT))
    return [", ".join(counts), *failures, *([f"left: {' '.join(left)}"] if left else [])]


def _list_figures(expected: dict[str, Any]) -> list[str]:
    values = [expected.get(key) for key in FORECAST]
    return ["-" if value is None else format_figure(value) for value in values]


def _list_trials(data: Path) -> list[str]:
    try:
        return [line.split()[0] for line in read_text(data / "test_trials").splitlines()]
    except SvError:
        return []


def _find_eer(exp: Path, row: Row, lists: Sequence[str], backend: str) -> str:
    """Return the mean EER of a system that was scored, or ``-``."""
    if row.status not in (DONE, BEFORE) or not (row.reached or "").startswith("7"):
        return "-"
    suffix = "" if row.precision in (None, "fp32") else f"_{row.precision}"
    folder = exp / row.model / "scores"
    try:
        scored = [read_scored_list(folder / f"{name}_{backend}{suffix}.json") for name in lists]
    except SvError:  # the walk has ended well; its summary must not fail
        return "-"
    return f"{sum(each.eer_percent for each in scored) / len(scored):.2f}" if scored else "-"


def _find_training_kwh(folder: Path) -> str:
    """Return the energy of a training that has begun, marked if estimated, or ``-``."""
    try:
        sidecar = read_record(folder / "energy" / "05_train.json")
    except SvError:
        return "-"
    if sidecar.energy_kwh is None:
        return "unknown"
    return format_figure(sidecar.energy_kwh) + ESTIMATED * (sidecar.measured_fraction != 1)


def _align(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]
