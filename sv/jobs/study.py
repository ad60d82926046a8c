"""A walk over many systems: run.sh once for each, then a table of what is done, failed and left.

Some systems run at a time, one after the other by default. One that fails does not stop the others.
What became of it is read from its run.sh's exit status and the meters' files: a stage that was
begun has made its journal grow, and how it ended is in its sidecar. A signal ends the walk: it is
passed on once, to every run.sh that is running, whose stage then saves what it has and ends (as in
a run of one system).
"""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sv.energy.journal import SUFFIX, get_sidecar_path
from sv.energy.meter import PROGRAM as METER
from sv.energy.record import read_record
from sv.energy.units import format_figure
from sv.errors import SvError
from sv.files import read_json, read_text
from sv.score.record import read_scored_list
from sv.system import end_with_parent

DONE, BEFORE, FAILED, STOPPED, LEFT = "done", "finished before", "failed", "stopped", "left"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TRAIN, EXTRACT, SCORE, RESULTS = 5, 6, 7, 8
NAMES = {TRAIN: "5 train", EXTRACT: "6 extract", SCORE: "7 score", RESULTS: "8 results"}
ESTIMATED = "†"
FORECAST = ("energy_kwh", "energy_kwh_low", "energy_kwh_high", "co2_g", "hours")


@dataclass(frozen=True)
class Row:
    """What became of a system: a line of the summary.

    Attributes:
        model: Its name.
        precision: Of extraction and scoring; None where neither is run.
        status: One of the five words above.
        reached: The last stage that was begun: ``5 train``; of a failed one with the name of its
            sidecar: ``6 extract_voxceleb1``.
        message: Why it failed.
    """

    model: str
    precision: str | None
    status: str
    reached: str | None = None
    message: str = ""


class Walk:
    """Calls run.sh for every system.

    Args:
        command: run.sh and its options, without models, precision and stages.
        first, last: Stages, of which 5 to 8 are walked.
        exp: Model folders.
        parallel: Systems at a time.
    """

    def __init__(
        self, command: Sequence[str], first: int, last: int, exp: Path, parallel: int = 1
    ) -> None:
        self._command, self._first, self._last = list(command), first, last
        self._exp, self._parallel = exp, parallel
        self._running: set[subprocess.Popen] = set()
        self.stopped_by: int | None = None

    def run(self, models: Sequence[str], precisions: Sequence[str]) -> list[Row]:
        """Run all systems, then make the results; return what became of each."""
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._stop)

        def run_model(item: tuple[int, str]) -> list[Row]:
            number, model = item
            if self.stopped_by is None:
                # Text and newline in one write: several threads write lines.
                sys.stderr.write(f"run.sh: system {number} of {len(models)}: {model}\n")
            return self._run_model(model, precisions)

        with ThreadPoolExecutor(self._parallel) as pool:
            rows = [row for rows in pool.map(run_model, enumerate(models, 1)) for row in rows]
        if self._last >= RESULTS:
            row = self._run_part(models[0], precisions[0], RESULTS, RESULTS)
            if row.status not in (DONE, BEFORE):
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
            rows.append(row)
        return rows

    def _run_part(self, model: str, precision: str, first: int, last: int) -> Row:
        """Run some stages of one system."""
        if self.stopped_by is not None:
            return Row(model, precision, LEFT)
        energy = (self._exp if first == RESULTS else self._exp / model) / "energy"
        before = _measure_journals(energy)
        code, message = self._call(model, precision, first, last)
        sizes = _measure_journals(energy)
        begun = [path for path in sizes if sizes[path] != before.get(path)]
        if code == 0:
            return Row(model, precision, DONE if begun else BEFORE, NAMES[last])
        newest = max(begun, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None:  # refused, or stopped, before its first stage
            reached, is_stopped = str(first), False
        else:
            number, name = newest.name.removesuffix(SUFFIX).split("_", 1)
            reached, is_stopped = f"{int(number)} {name}", _was_stopped(newest)
        if is_stopped or self.stopped_by is not None:
            return Row(model, precision, STOPPED, reached)
        print(f"run.sh: {model} failed in stage {reached}: {message}", file=sys.stderr, flush=True)
        return Row(model, precision, FAILED, reached, message)

    def _call(self, model: str, precision: str, first: int, last: int) -> tuple[int, str]:
        """Call run.sh; return its exit status and the last line to stderr, if it is no meter's."""
        sys.stdout.flush()
        options = ["--model", model, "--precision", precision]
        options += ["--stage", str(first), "--stop-stage", str(last)]
        process = subprocess.Popen(
            # A session of its own: a terminal's Ctrl-C then comes once, from here.
            [*self._command, *options], stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            preexec_fn=functools.partial(end_with_parent, os.getpid()),  # noqa: PLW1509
        )  # fmt: skip
        self._running.add(process)
        if self.stopped_by is not None:  # the signal came before the process was there
            _pass_on(self.stopped_by, process)
        label, message = f"{model}: " if self._parallel > 1 and first < RESULTS else "", ""
        # Read to the end, not to run.sh's: its stage may still be saving a checkpoint.
        for line in process.stderr:
            sys.stderr.write(f"{label}{line}")
            sys.stderr.flush()
            if line.strip() and not line.startswith((" ", METER)):
                message = line.strip()
        code = process.wait()
        self._running.discard(process)
        return code, message

    def _stop(self, number: int, frame: object) -> None:
        if self.stopped_by is None:  # not by print: it may be in the middle of a line
            os.write(2, b"run.sh: stopping; the stage may first save what it has\n")
        self.stopped_by = number
        for process in tuple(self._running):
            _pass_on(number, process)


def _pass_on(number: int, process: subprocess.Popen) -> None:
    """Send a signal to a run.sh: Ctrl-C to all that it runs, as a terminal does."""
    with suppress(ProcessLookupError):  # it has just ended
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # a shell alone would wait for its command
        else:
            os.kill(process.pid, signal.SIGTERM)  # its stage's meter ends with it


def _measure_journals(energy: Path) -> dict[Path, int]:
    """Return the sizes of all journals of a folder."""
    return {path: path.stat().st_size for path in energy.glob(f"0*{SUFFIX}")}


def _was_stopped(journal: Path) -> bool:
    """Return whether a stage's last attempt ended by a signal or at its budget: it did not fail."""
    try:
        status = read_record(get_sidecar_path(journal)).attempts[-1].status
    except SvError:  # of a killed meter
        return False
    return status in ("stopped", "interrupted")


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
