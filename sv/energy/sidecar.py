"""The sidecar of a stage: what it used, rebuilt from its journal by a pure function.

A sidecar holds nothing that the journal does not. An energy is of the machine alone; carbon and
PUE have fields of their own. Unknown is null with a reason, never 0.
"""

import os
from pathlib import Path

from sv.energy.attempt import Fields, build_attempt
from sv.energy.journal import SUFFIX, BusyError, Record, open_journal, read_journal
from sv.energy.marks_file import fold_leftover
from sv.energy.total import sum_channels, sum_energy
from sv.energy.units import kwh_from_j
from sv.errors import SvError
from sv.files import write_json

SCHEMA = "energy-sidecar/1"


def rebuild(records: list[Record]) -> Fields:
    """Rebuild a sidecar from the lines of its journal.

    Args:
        records: As `sv.energy.journal.read_journal` gives them.

    Returns:
        The sidecar. Its figures are of the run that made the result: the last attempt and those
        before it that it resumed. ``energy_all_kwh`` is of every attempt.

    Raises:
        SvError: No attempt was ever begun.
    """
    groups = split_attempts(records)
    if not groups:
        raise SvError("no attempt in the journal")
    attempts = [build_attempt(i, group) for i, group in enumerate(groups, start=1)]
    run, last, head = attempts[find_run(attempts) :], attempts[-1], groups[-1][0]
    channels = sum_channels(run)
    energy_j, measured_fraction, reason = sum_energy(channels)
    unknown = [attempt["attempt"] for attempt in run if attempt["energy_kwh"] is None]
    if unknown and energy_j is not None:
        reason = f"without attempt {', '.join(map(str, unknown))}, whose energy is unknown"
    known_co2 = [attempt["co2_g"] for attempt in run if attempt["co2_g"] is not None]
    known_kwh = [attempt["energy_kwh"] for attempt in attempts if attempt["energy_kwh"] is not None]
    return {
        "schema": SCHEMA,
        "stage": head["stage"],
        "name": head["name"],
        "model": head["model"],
        "status": last["status"],
        "exit_code": last["exit_code"],
        "host": last["host"],
        "started_utc": run[0]["started_utc"],
        "duration_s": sum(attempt["duration_s"] for attempt in run),
        "energy_kwh": None if energy_j is None else kwh_from_j(energy_j),
        "energy_all_kwh": sum(known_kwh) if known_kwh else None,
        "measured_fraction": measured_fraction,
        "reason": reason,
        "co2_g": sum(known_co2) if known_co2 else None,
        "carbon": last["carbon"],
        "pue": last["pue"],
        "channels": channels,
        "attempts": attempts,
        "torn_lines": sum(record["line"] == "torn" for record in records),
    }


def find_run(attempts: list[Fields]) -> int:
    """Give the index of the first attempt of the run that made the result.

    The run goes back from the last attempt as long as there is something that was resumed. An
    attempt that ended early without any mark (a mistyped config) left nothing to resume: what
    was resumed lies before it, and its energy belongs to the run.
    """
    first = len(attempts) - 1
    while first > 0:
        left_nothing = attempts[first]["status"] != "complete" and not attempts[first]["marks"]
        is_last = first == len(attempts) - 1
        if not attempts[first]["resumed"] and (is_last or not left_nothing):
            break
        first -= 1
    return first


def split_attempts(records: list[Record]) -> list[list[Record]]:
    """Split the lines of a journal into attempts; each begins with its head."""
    groups: list[list[Record]] = []
    for record in records:
        if record["line"] == "head":
            groups.append([record])
        elif groups:
            groups[-1].append(record)
    return groups


def get_sidecar_path(journal: Path) -> Path:
    """Give the sidecar of a journal."""
    return journal.with_name(journal.name.removesuffix(SUFFIX) + ".json")


def write_sidecar(journal: Path) -> Fields:
    """Rebuild the sidecar of a journal, rename it into place and give it.

    Raises:
        SvError: The journal cannot be read or has no attempt, or the sidecar not written.
    """
    sidecar = rebuild(read_journal(journal))
    write_json(get_sidecar_path(journal), sidecar)
    return sidecar


def rebuild_folder(folder: Path) -> list[str]:
    """Rebuild every sidecar of a folder that is missing or older than its journal.

    A journal whose meter is still running is left alone.

    Returns:
        One line a journal that was rebuilt or left alone.

    Raises:
        SvError: The folder is missing, or a file cannot be read or written.
    """
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}")
    return [
        line
        for journal in sorted(folder.glob(f"*{SUFFIX}"))
        if (line := _rebuild_stale(journal)) is not None
    ]


def _rebuild_stale(path: Path) -> str | None:
    if not is_stale(path):
        return None
    try:
        with open_journal(path, wait_s=0.0) as journal:
            attempts = len(split_attempts(read_journal(path)))
            if attempts == 0:
                return f"{path}: no attempt in it, left alone"
            fold_leftover(journal, attempts)
            sidecar = write_sidecar(path)
    except BusyError:
        return f"{path}: its meter is still running, left alone"
    return f"{get_sidecar_path(path)}: rebuilt, {sidecar['status']}"


def is_stale(journal: Path) -> bool:
    """Tell whether a journal's sidecar is missing or older than the journal."""
    try:
        sidecar_ns = os.stat(get_sidecar_path(journal)).st_mtime_ns
    except FileNotFoundError:
        return True
    return sidecar_ns < os.stat(journal).st_mtime_ns
