"""What a walk over many systems ends with: a table of what is done, failed and left."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sv.energy.summary import format_figure
from sv.errors import SvError
from sv.files import read_json, read_text
from sv.study.walk import BEFORE, DONE, FAILED, LEFT, STOPPED, Row

ESTIMATED = "†"


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
        outcome = row.outcome
        table.append([
            row.model, *precision, outcome.reached or "-", _find_eer(exp, row, lists, backend),
            _find_training_kwh(exp / row.model), outcome.status,
        ])  # fmt: skip
    lines = _align(table)
    if any(ESTIMATED in line for line in lines):
        lines.append(f"{ESTIMATED} estimated in part or whole, not measured")
    if any(cells[-3] != "-" for cells in table[1:]):
        lines.append(f"EER: mean over {', '.join(lists)}, {backend}")
    lines += _explain(rows)
    if any(row.outcome.status not in (DONE, BEFORE) for row in rows):
        lines.append("the same command goes on and leaves what is finished (with --resume true)")
    return "\n".join(lines)


def _explain(rows: Sequence[Row]) -> list[str]:
    statuses = [row.outcome.status for row in rows]
    counts = [
        f"{statuses.count(word)} {word}"
        for word in (DONE, BEFORE, FAILED, STOPPED, LEFT)
        if word in statuses
    ]
    failures = dict.fromkeys(
        f"failed: {row.model} in stage {row.outcome.reached}: {row.outcome.message}"
        for row in rows
        if row.outcome.status == FAILED
    )
    left = dict.fromkeys(row.model for row in rows if row.outcome.status in (STOPPED, LEFT))
    lines = [", ".join(counts), *failures]
    if left:
        lines.append(f"left: {' '.join(left)}")
    return lines


def format_forecasts(rows: Sequence[Row], exp: Path) -> str:
    """Format what each training is expected to cost, the sum, and the failures."""
    keys = ("energy_kwh", "co2_g", "hours")
    table = [["system", "kWh", "low", "high", "CO2 (g)", "hours", "status"]]
    sums: dict[str, list[float | None]] = {}
    for row in rows:
        found: dict[str, Any] = {}
        if row.outcome.status == DONE:
            found = read_json(exp / row.model / "forecast.json")["expected"]
            for key in (*keys, "energy_kwh_low", "energy_kwh_high"):
                sums.setdefault(key, []).append(found[key])
        table.append([row.model, *_list_figures(found), row.outcome.status])
    known = {key: None if None in each else sum(each) for key, each in sums.items()}
    table.append(["sum", *_list_figures(known), f"{len(sums.get('hours', []))} of {len(rows)}"])
    lines = [
        *_align(table),
        "expected, from a short stretch of each training; low and high: 95 % of one system, and in "
        "the sum as if all erred the same way",
    ]
    return "\n".join([*lines, *_explain(rows)])


def _list_figures(expected: dict[str, Any]) -> list[str]:
    keys = ("energy_kwh", "energy_kwh_low", "energy_kwh_high", "co2_g", "hours")
    values = [expected.get(key) for key in keys]
    return ["-" if value is None else format_figure(value) for value in values]


def _list_trials(data: Path) -> list[str]:
    try:
        return [line.split()[0] for line in read_text(data / "test_trials").splitlines()]
    except SvError:
        return []


def _find_eer(exp: Path, row: Row, lists: Sequence[str], backend: str) -> str:
    """Give the mean EER of a system that was scored, or ``-``."""
    outcome = row.outcome
    if outcome.status not in (DONE, BEFORE) or not (outcome.reached or "").startswith("7"):
        return "-"
    suffix = "" if row.precision in (None, "fp32") else f"_{row.precision}"
    folder = exp / row.model / "scores"
    files = [folder / f"{name}_{backend}{suffix}.json" for name in lists]
    try:
        eers = [read_json(path)["eer_percent"] for path in files]
    except SvError:  # the walk has ended well; its summary must not fail
        return "-"
    return f"{sum(eers) / len(eers):.2f}" if eers else "-"


def _find_training_kwh(folder: Path) -> str:
    """Give the energy of a training that has begun, marked where it is not measured, or ``-``."""
    try:
        sidecar = read_json(folder / "energy" / "05_train.json")
    except SvError:
        return "-"
    if sidecar["energy_kwh"] is None:
        return "unknown"
    mark = "" if sidecar["measured_fraction"] == 1 else ESTIMATED
    return f"{format_figure(sidecar['energy_kwh'])}{mark}"


def _align(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]
