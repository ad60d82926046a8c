"""The sidecar of a stage: what it used, rebuilt from its journals by a pure function.

A sidecar holds nothing that the journal, and those of the stage's other meters, do not. From the
same journals are its energy over time (`read_energy_series`) and its power as a table
(`write_trace`).
"""

import csv
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from sv.energy.attempt import PHASE, build_attempt, build_machines, list_points
from sv.energy.attribution import join_attributions
from sv.energy.carbon import join_carbon, note_pues
from sv.energy.channels import compute_crosschecks, list_boundaries, sum_channels
from sv.energy.config import WORLD
from sv.energy.journal import (
    OWN,
    RESUMED,
    SUFFIX,
    UNCHANGED,
    BusyError,
    Record,
    count_attempts,
    fold_leftover,
    get_journal_path,
    get_sidecar_path,
    naming,
    open_journal,
    read_journal,
)
from sv.energy.live import SILENT_S, get_live_path, read_live_file, remove_live
from sv.energy.nodes import is_stale, list_folders
from sv.energy.record import SCHEMA, Attempt, Phase, Sidecar, parse_record, write_record
from sv.energy.samples import AttemptLines, StageJournals, read_journals, split_attempts
from sv.energy.sensors.readers import BOUNDARIES
from sv.energy.units import (
    format_figure,
    format_measured,
    format_utc,
    j_from_kwh,
    parse_utc,
    sum_known,
)
from sv.errors import SvError
from sv.files import replacing


def rebuild(
    records: Iterable[Record], journals: Mapping[int, StageJournals] | None = None
) -> Sidecar:
    """Rebuild a sidecar from the lines of its journal.

    Args:
        records: As `sv.energy.journal.read_journal` returns them.
        journals: Attempt -> the journals of its other meters, as `read_journals` returns them.

    Returns:
        The sidecar. Its figures are of the run that made the result (`find_run`);
        ``energy_all_kwh`` is of every attempt.

    Raises:
        SvError: No attempt was ever begun.
    """
    groups, torn = split_attempts(records)
    if not groups:
        raise SvError("no attempt in the journal")
    journals = journals or {}
    attempts = tuple(
        build_attempt(i, lines, journals.get(i)) for i, lines in enumerate(groups, start=1)
    )
    run, head = find_run(attempts), groups[-1].head
    last = run[-1]
    channels = sum_channels(run)
    energy_kwh = sum_known(attempt.energy_kwh for attempt in run)
    energy_j = None if energy_kwh is None else j_from_kwh(energy_kwh)
    carbon = join_carbon([attempt.carbon for attempt in run], energy_j)
    carbon = note_pues(carbon, (attempt.pue.value for attempt in run if attempt.co2_g))
    split = [a for a in run if a.measured_fraction is not None]
    total_kwh = sum(a.energy_kwh or 0.0 for a in split)
    measured_kwh = sum((a.measured_fraction or 0.0) * (a.energy_kwh or 0.0) for a in split)
    unsure = dict.fromkeys(a.uncertainty_reason for a in run if a.uncertainty_reason)
    return Sidecar(
        schema=SCHEMA,
        stage=head["stage"],
        name=head["name"],
        model=head["model"],
        status=last.status,
        exit_code=last.exit_code,
        host=last.host,
        started_utc=run[0].started_utc,
        duration_s=sum(attempt.duration_s for attempt in run),
        energy_kwh=energy_kwh,
        energy_node_kwh=sum_known(attempt.energy_node_kwh for attempt in run),
        energy_all_kwh=sum_known(attempt.energy_kwh for attempt in attempts),
        uncertainty_kwh=None if unsure else sum_known(a.uncertainty_kwh for a in run),
        uncertainty_reason="; ".join(unsure) or None,
        measured_fraction=measured_kwh / total_kwh if total_kwh else None,
        boundary=list_boundaries(channels),
        attribution=join_attributions([attempt.attribution for attempt in run]),
        reason=explain_run(run),
        co2_g=carbon.co2_g,
        co2_all_g=_sum_co2(attempts),
        carbon=carbon,
        pue=last.pue,
        run_attempts=tuple(attempt.attempt for attempt in run),
        channels=channels,
        crosschecks=compute_crosschecks(channels),
        phases=_sum_phases(run),
        attempts=attempts,
        torn_lines=torn + sum(each.torn for each in journals.values()),
    )


def _sum_co2(attempts: Sequence[Attempt]) -> float | None:
    """Add up the grams of all attempts; None where one that used energy has none."""
    if any(attempt.energy_kwh and attempt.co2_g is None for attempt in attempts):
        return None
    return sum_known(attempt.co2_g for attempt in attempts)


def explain_run(run: Sequence[Attempt]) -> str | None:
    """Say why the energy of attempts is not known, or of what it is not the whole."""
    unknown = [attempt for attempt in run if attempt.energy_kwh is None]
    if len(unknown) == len(run):
        return run[-1].reason
    reasons = []
    if run[0].resumed:
        reasons.append(f"attempt {run[0].attempt} resumed work that no attempt here has done")
    if unknown:
        numbers = ", ".join(str(attempt.attempt) for attempt in unknown)
        reasons.append(f"without attempt {numbers}, whose energy is unknown")
    boundaries = {attempt.boundary for attempt in run if attempt.energy_kwh is not None}
    if len(boundaries) > 1:
        each = "; ".join(" + ".join(boundary) for boundary in sorted(boundaries))
        reasons.append(f"attempts cover different boundaries: {each}")
    reasons += [a.reason for a in run if a.reason and a.energy_kwh is not None]
    return "; ".join(dict.fromkeys(reasons)) or None


def _sum_phases(run: Sequence[Attempt]) -> tuple[Phase, ...]:
    """Add up the phases of a run's attempts by name, in the order in which they first began."""
    by_name: dict[str, list[Phase]] = {}
    for phase in (phase for attempt in run for phase in attempt.phases):
        by_name.setdefault(phase.name, []).append(phase)
    summed = []
    for name, phases in by_name.items():
        known = [phase.energy_kwh for phase in phases]
        energy_kwh = None if None in known else sum_known(known)
        seconds = sum(phase.duration_s for phase in phases)
        summed.append(Phase(name, seconds, energy_kwh, len(phases)))
    return tuple(summed)


def find_run(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Return the attempts of the run that made the result.

    The run goes back from the last attempt that did something, as long as there is something that
    was resumed. Attempts after it were refused, or failed before they left anything, and count
    under everything tried alone; so does one that found all its work finished. Between a start
    and what resumed it, one that left nothing belongs to the run.
    """
    tried = [attempt for attempt in attempts if not _is_unchanged(attempt)]
    while tried and left_nothing(tried[-1]):
        tried.pop()
    if not tried:
        return tuple([a for a in attempts if a.status == "complete"][-1:] or attempts[-1:])
    first = len(tried) - 1
    while first > 0 and (tried[first].resumed or left_nothing(tried[first])):
        first -= 1
    return tuple(tried[first:])


def _is_unchanged(attempt: Attempt) -> bool:
    marks = {mark.mark for mark in attempt.marks}
    return UNCHANGED in marks and marks <= {UNCHANGED, RESUMED, PHASE}


def left_nothing(attempt: Attempt) -> bool:
    """Return whether an attempt was refused, or failed or stopped before it left anything."""
    # A phase leaves nothing.
    return attempt.status != "complete" and all(mark.mark == PHASE for mark in attempt.marks)


# Files


def write_sidecar(journal: Path) -> Sidecar:
    """Rebuild the sidecar of a journal, rename it into place and return it.

    Raises:
        SvError: The journal cannot be read or has no attempt, or the sidecar not written.
    """
    sidecar = rebuild(read_journal(journal), read_journals(journal))
    write_record(get_sidecar_path(journal), sidecar)
    return sidecar


def rebuild_folder(folder: Path) -> tuple[list[str], bool]:
    """Rebuild every sidecar of a folder that is missing, damaged or not of all its journals have.

    A journal whose meter is still running is left alone; one that cannot be rebuilt costs no other.

    Returns:
        One line a journal that was rebuilt, left alone or failed; whether none failed.

    Raises:
        SvError: The folder is missing.
    """
    if not folder.is_dir():
        raise SvError(f"no such folder {folder}")
    lines, succeeded = [], True
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            with naming(path):
                if is_stale(path):
                    lines.append(_rebuild(path))
        except SvError as error:
            lines.append(f"{path}: not rebuilt: {str(error).removeprefix(f'{path}: ')}")
            succeeded = False
    return lines, succeeded


def _rebuild(path: Path) -> str:
    try:
        with open_journal(path, wait_s=0.0) as journal:
            attempts = count_attempts(path)
            if attempts == 0:
                return f"{path}: no attempt in it, left alone"
            fold_leftover(journal, attempts)
            running = fold_nodes(path)
            sidecar = rebuild(read_journal(path), read_journals(path))
            parse_record(
                dataclasses.asdict(sidecar), str(path)
            )  # what cannot be read is not written
            write_record(get_sidecar_path(path), sidecar)
    except BusyError:
        return f"{path}: its meter is still running, left alone"
    rebuilt = f"{get_sidecar_path(path)}: rebuilt, {sidecar.status}"
    if (torn := sidecar.torn_lines) > 0:
        rebuilt += f"; {torn} unreadable {'line' if torn == 1 else 'lines'}"
    if running:
        rebuilt += f"; still metering: {', '.join(running)}; rebuild again when they have ended"
    return rebuilt


def fold_nodes(journal: Path) -> list[str]:
    """Complete the journals of a stage's killed other meters with their commands' last marks.

    Returns:
        The labels, with their hosts, whose meters are still running: they are left alone.
    """
    running = []
    for folder in list_folders(journal):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            live = read_live_file(get_live_path(path))
            name = f"{path.name.removesuffix(SUFFIX)} on {live['host'] if live else 'its host'}"
            try:
                with open_journal(path, wait_s=0.0) as node:
                    # On another host, and written lately: the disk may know no locks.
                    elsewhere = live is not None and live["host"] != os.uname().nodename
                    if elsewhere and time.time() - os.stat(path).st_mtime < SILENT_S:
                        running.append(name)
                        continue
                    attempts = count_attempts(path)
                    if attempts:
                        fold_leftover(node, attempts)
                    remove_live(get_live_path(path))
            except BusyError:
                running.append(name)
    return running


# What is printed, and what else is computed from the journals


def format_summary(sidecar: Sidecar) -> str:
    """Format ``stage 5 train: 0.0123 kWh (estimated), 0.5 gCO2e, 312 s at 142 W``.

    After an attempt that is not of the run it also says why, and the figures are the run's.
    """
    last, parts = sidecar.attempts[-1], [_format_energy(sidecar)]
    if sidecar.co2_g is not None:
        failed = "; ".join(sidecar.carbon.fallback_from)
        fallback = f"at {sidecar.carbon.provider}, because {failed}" if failed else ""
        whys = "; ".join(filter(None, (fallback, sidecar.carbon.reason)))
        zone = sidecar.carbon.zone
        where = " at the world's mean (--country gives yours)" if zone == WORLD else ""
        parts.append(f"{format_figure(sidecar.co2_g)} gCO2e{f' ({whys})' if whys else where}")
    power = ""
    if sidecar.energy_kwh is not None and sidecar.duration_s:
        power = f" at {format_figure(j_from_kwh(sidecar.energy_kwh) / sidecar.duration_s)} W"
    parts.append(f"{format_figure(sidecar.duration_s)} s{power}")
    if sidecar.status != "complete":
        parts.append(describe_end(sidecar.run[-1]))
    figures = ", ".join(parts)
    if last.attempt not in sidecar.run_attempts:
        figures = f"{describe_end(last)}; unchanged: {figures}"
    what = sidecar.name if sidecar.stage == OWN else f"stage {sidecar.stage} {sidecar.name}"
    return f"{what}: {figures}"


def describe_end(attempt: Attempt) -> str:
    """Describe how an attempt ended that did not complete, or that had nothing to do."""
    if attempt.status == "stopped":
        return f"stopped at the budget of {attempt.marks[-1].payload.get('budget_kwh')} kWh"
    if attempt.status != "complete":
        return f"{attempt.status} with status {attempt.exit_code}"
    what = (str(mark.payload.get("what")) for mark in attempt.marks if mark.mark == UNCHANGED)
    return f"nothing to do: {', '.join(dict.fromkeys(what))}"


def _format_energy(sidecar: Sidecar) -> str:
    if sidecar.energy_kwh is None:
        return f"energy unknown ({sidecar.reason})"
    fraction = sidecar.measured_fraction
    how = "nothing advanced" if fraction is None else format_measured(fraction)
    why = f"; {sidecar.reason}" if sidecar.reason else ""
    return f"{format_figure(sidecar.energy_kwh)} kWh ({how}{why})"


def read_energy_series(journal: Path) -> list[tuple[float, float]]:
    """Read how a run's energy grew.

    Args:
        journal: Of a stage; those of its other meters lie next to it.

    Returns:
        Unix time and joules so far, attempt after attempt of the run that made the result (see
        `find_run`); between two attempts the energy stays. Empty where no energy is known. The
        last joules are the sidecar's ``energy_kwh``.

    Raises:
        SvError: The journal cannot be read, or has no attempt.
    """
    series: list[tuple[float, float]] = []
    with naming(journal):
        journals = read_journals(journal)
        sidecar = rebuild(read_journal(journal), journals)
        groups, _ = split_attempts(read_journal(journal))
        for number in sidecar.run_attempts:
            before_j = series[-1][1] if series else 0.0
            points = list_points(build_machines(groups[number - 1], journals.get(number)))
            series += [(unix_s, before_j + joules) for unix_s, joules in points]
    return series


def write_trace(path: Path) -> tuple[Path, int]:
    """Write the power trace of a sidecar next to it, as CSV.

    Each row is the time since the sample before: mean power of each channel and of the total (the
    job's part of it, where a rule of attribution shares the machine). The first sample of an
    attempt has no row. Empty cells are not known.

    Args:
        path: The sidecar or its journal.

    Returns:
        The file, ``<NN>_<name>.trace.csv``, and its rows.

    Raises:
        SvError: There is no journal next to it, or the trace cannot be written.
    """
    journal = get_journal_path(path)
    if not journal.is_file():
        raise SvError(f"no such file {journal}: the trace is computed from the journal")
    with naming(journal):
        return _write_trace(journal)


def _write_trace(journal: Path) -> tuple[Path, int]:
    groups, _ = split_attempts(read_journal(journal))
    names: dict[str, str] = {}
    for lines in groups:
        readable = [ch for ch in lines.head["channels"] if ch["id"] in lines.raw]
        names |= {channel["id"]: channel["boundary"] for channel in readable}
    order = sorted(names, key=lambda name: (BOUNDARIES.index(names[name]), name))
    target, rows = journal.with_name(f"{journal.name.removesuffix(SUFFIX)}.trace.csv"), 0
    with replacing(target) as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{name}_w" for name in order]
        writer.writerow(["attempt", "utc", "elapsed_s", "total_w", *columns])
        for number, lines in enumerate(groups, start=1):
            for row in _list_rows(lines, order):
                writer.writerow([number, *row])
                rows += 1
    return target, rows


def _list_rows(lines: AttemptLines, order: list[str]) -> Iterator[list[str]]:
    (machine,) = build_machines(lines, None)  # as if there were no other meter
    curve_j = machine.job and machine.job.value
    so_far = machine.runs[0].so_far
    start_unix_s = parse_utc(lines.head["started_utc"]) if lines.t_s else 0.0
    for a, b in pairwise(range(len(lines.t_s))):
        seconds = lines.awake_s[b] - lines.awake_s[a]
        elapsed_s = lines.t_s[b] - lines.t_s[0]
        powers = [
            f"{(curve[b] - curve[a]) / seconds:.6g}" if curve and seconds > 0 else ""
            for curve in (curve_j, *(so_far.get(name) for name in order))
        ]
        yield [format_utc(start_unix_s + elapsed_s), f"{elapsed_s:.6f}", *powers]
