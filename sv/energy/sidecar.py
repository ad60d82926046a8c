"""The sidecar of a stage: what it used, rebuilt from its journals by a pure function.

A sidecar holds nothing that the journal, and those of the stage's other meters, do not. An energy
is of the machines alone; carbon and PUE have fields of their own. Unknown is null with a reason,
never 0.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sv.energy.attempt import Fields, build_attempt
from sv.energy.attribution import join_attributions
from sv.energy.carbon import join_carbon
from sv.energy.crosscheck import compute_crosschecks
from sv.energy.events import PHASE, sum_phases
from sv.energy.fleet.nodes import get_nodes_root
from sv.energy.journal import SUFFIX, BusyError, Record, fold_leftover, open_journal, read_journal
from sv.energy.record import SCHEMA_1, Attempt, Mark, Sidecar, parse_record, write_record
from sv.energy.samples import AttemptLines, split_attempts
from sv.energy.total import list_boundaries, sum_channels
from sv.errors import SvError


def rebuild(records: Iterable[Record], nodes: Mapping[int, Any] | None = None) -> Sidecar:
    """Rebuild a sidecar from the lines of its journal.

    Args:
        records: As `sv.energy.journal.read_journal` gives them.
        nodes: Attempt -> the journals of its other meters, as `read_nodes` gives them.

    Returns:
        The sidecar. Its figures are of the run that made the result: the last attempt and those
        before it that it resumed. ``energy_all_kwh`` is of every attempt.

    Raises:
        SvError: No attempt was ever begun.
    """
    groups, torn = split_attempts(records)
    if not groups:
        raise SvError("no attempt in the journal")
    nodes = nodes or {}
    attempts = [
        build_any_attempt(i, lines, nodes.get(i)) for i, lines in enumerate(groups, start=1)
    ]
    run, last, head = attempts[_find_run(attempts) :], attempts[-1], groups[-1].head
    channels = sum_channels(run)
    carbon = join_carbon([attempt["carbon"] for attempt in run])
    uncertainties = dict.fromkeys(a["uncertainty_reason"] for a in run if a["uncertainty_reason"])
    sidecar = {
        "schema": SCHEMA_1,
        "stage": head["stage"],
        "name": head["name"],
        "model": head["model"],
        "status": last["status"],
        "exit_code": last["exit_code"],
        "host": last["host"],
        "started_utc": run[0]["started_utc"],
        "duration_s": sum(attempt["duration_s"] for attempt in run),
        "energy_kwh": _sum_known(run, "energy_kwh"),
        "energy_node_kwh": _sum_known(run, "energy_node_kwh"),
        "energy_all_kwh": _sum_known(attempts, "energy_kwh"),
        "uncertainty_kwh": None if uncertainties else _sum_known(run, "uncertainty_kwh"),
        "uncertainty_reason": "; ".join(uncertainties) or None,
        "measured_fraction": _join_fractions(run),
        "boundary": list_boundaries(channels),
        "attribution": join_attributions(run),
        "reason": _explain(run),
        "co2_g": carbon["co2_g"],
        "co2_all_g": _sum_known(attempts, "co2_g"),
        "carbon": carbon,
        "pue": last["pue"],
        "channels": channels,
        "crosschecks": compute_crosschecks(channels),
        "phases": sum_phases(run),
        "attempts": attempts,
        "torn_lines": torn + sum(journals.torn for journals in nodes.values()),
    }
    if any("nodes" in attempt for attempt in run):
        sidecar["nodes"] = [
            {"attempt": attempt["attempt"], **entry}
            for attempt in run
            for entry in attempt.get("nodes", ())
        ]
    return parse_record(sidecar, "journal")


def build_any_attempt(number: int, lines: AttemptLines, nodes: Any) -> Fields:
    """Build an attempt of one machine, or with the journals of its other meters, of several."""
    if nodes is None:
        return build_attempt(number, lines)
    from sv.energy.fleet.attempt import build_fleet_attempt  # noqa: PLC0415 - one machine needs none

    return build_fleet_attempt(number, lines, nodes)


def read_nodes(journal: Path) -> dict[int, Any]:
    """Read the journals of a stage's other meters, by attempt; empty where there are none."""
    if not get_nodes_root(journal).is_dir():
        return {}
    from sv.energy.fleet.journals import read_node_journals  # noqa: PLC0415 - as above

    return read_node_journals(journal)


def sum_known(values: Iterable[float | None]) -> float | None:
    """Add up the figures that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _sum_known(attempts: list[Fields], key: str) -> float | None:
    return sum_known(attempt[key] for attempt in attempts)


def _join_fractions(run: list[Fields]) -> float | None:
    known = [attempt for attempt in run if attempt["measured_fraction"] is not None]
    energy_kwh = _sum_known(known, "energy_node_kwh")
    if not energy_kwh:
        return None
    return sum(a["measured_fraction"] * a["energy_node_kwh"] for a in known) / energy_kwh


def _explain(run: list[Fields]) -> str | None:
    """Say why the energy of a run is not known, or of what it is not the whole."""
    unknown = [attempt for attempt in run if attempt["energy_kwh"] is None]
    if len(unknown) == len(run):
        return run[-1]["reason"]
    reasons = []
    if unknown:
        numbers = ", ".join(str(attempt["attempt"]) for attempt in unknown)
        reasons.append(f"without attempt {numbers}, whose energy is unknown")
    boundaries = {tuple(a["boundary"]) for a in run if a["energy_kwh"] is not None}
    if len(boundaries) > 1:
        each = "; ".join(" + ".join(boundary) for boundary in sorted(boundaries))
        reasons.append(f"attempts cover different boundaries: {each}")
    reasons += [a["reason"] for a in run if a["reason"] and a["energy_kwh"] is not None]
    return "; ".join(dict.fromkeys(reasons)) or None


def find_run(attempts: Sequence[Attempt]) -> int:
    """Return the index of the first attempt of the run that made the result.

    The run goes back from the last attempt as long as there is something that was resumed. An
    attempt that ended early without any mark (a mistyped config) left nothing to resume: what
    was resumed lies before it, and its energy belongs to the run.
    """
    first = len(attempts) - 1
    while first > 0:
        attempt = attempts[first]
        marked = any(mark.mark != PHASE for mark in attempt.marks)  # a phase leaves nothing
        left_nothing = attempt.status != "complete" and not marked
        is_last = first == len(attempts) - 1
        if not attempt.resumed and (is_last or not left_nothing):
            break
        first -= 1
    return first


def _find_run(attempts: list[Fields]) -> int:
    typed: list[Any] = [
        SimpleNamespace(
            status=attempt["status"],
            resumed=attempt["resumed"],
            marks=[Mark(mark["mark"], None, None, None) for mark in attempt["marks"]],
        )
        for attempt in attempts
    ]
    return find_run(typed)


def get_sidecar_path(journal: Path) -> Path:
    """Return the path of a journal's sidecar."""
    return journal.with_name(journal.name.removesuffix(SUFFIX) + ".json")


def write_sidecar(journal: Path) -> Sidecar:
    """Rebuild the sidecar of a journal, rename it into place and return it.

    Raises:
        SvError: The journal cannot be read or has no attempt, or the sidecar not written.
    """
    sidecar = rebuild(read_journal(journal), read_nodes(journal))
    write_record(get_sidecar_path(journal), sidecar)
    return sidecar


def rebuild_folder(folder: Path) -> list[str]:
    """Rebuild every sidecar of a folder that is missing or older than its journals.

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
            attempts = count_attempts(path)
            if attempts == 0:
                return f"{path}: no attempt in it, left alone"
            fold_leftover(journal, attempts)
            running = fold_nodes(path)
            sidecar = write_sidecar(path)
    except BusyError:
        return f"{path}: its meter is still running, left alone"
    rebuilt = f"{get_sidecar_path(path)}: rebuilt, {sidecar.status}"
    if running:
        rebuilt += f"; still metering: {', '.join(running)}; rebuild again when they have ended"
    return rebuilt


def fold_nodes(path: Path) -> list[str]:
    """Complete the journals of a stage's killed other meters; gives those that still run."""
    if not get_nodes_root(path).is_dir():
        return []
    from sv.energy.fleet.journals import fold_node_leftovers  # noqa: PLC0415 - as above

    return fold_node_leftovers(path)


def count_attempts(journal: Path) -> int:
    """Count the attempts in a journal.

    Raises:
        SvError: It cannot be read.
    """
    return sum(record["line"] == "head" for record in read_journal(journal))


def is_stale(journal: Path) -> bool:
    """Tell whether a journal's sidecar is missing or older than it, or than a node's journal."""
    try:
        sidecar_ns = os.stat(get_sidecar_path(journal)).st_mtime_ns
    except FileNotFoundError:
        return True
    if sidecar_ns < os.stat(journal).st_mtime_ns:
        return True
    if not get_nodes_root(journal).is_dir():
        return False
    from sv.energy.fleet.journals import find_newest_ns  # noqa: PLC0415 - as above

    return sidecar_ns < find_newest_ns(journal)
