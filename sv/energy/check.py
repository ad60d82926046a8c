"""Check that the figures of sidecars can be computed again and contradict nothing.

That a file is a sidecar at all is checked where it is read (`sv.energy.record`).
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from sv.energy.journal import get_journal_path, naming, read_journal
from sv.energy.processes import get_machine
from sv.energy.record import Attempt, Channel, Sidecar, read_record
from sv.energy.samples import read_journals
from sv.energy.sidecar import find_run, rebuild
from sv.energy.units import UNITS_PER_J, j_from_count, j_from_kwh, s_from_us, sum_known
from sv.errors import SvError

SAME = 1e-9  # relative: the same sum in another order
MAX_LISTED = 5  # differences from the journal: one wrong figure changes many


def check_files(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Check sidecars, each by itself and all against each other.

    Returns:
        What is wrong: the file and one line, which begins with where in the sidecar.

    Raises:
        SvError: A file is missing.
    """
    wrong, valid = [], []
    for path in paths:
        if not path.is_file():
            raise SvError(f"no such file {path}")
        try:
            sidecar = read_record(path)
        except SvError as error:
            wrong.append((path, str(error).removeprefix(f"{path}: ")))
        else:
            valid.append((path, sidecar))
            wrong += [(path, line) for line in check_sidecar(path, sidecar)]
    return wrong + check_overlaps(valid)


def check_sidecar(path: Path, sidecar: Sidecar) -> list[str]:
    """Check one sidecar, whose journal lies next to it.

    Returns:
        What is wrong, one line each, which begins with where in the sidecar; empty: nothing.
    """
    wrong = _check_journal(path, sidecar)
    for attempt in sidecar.attempts:
        where = f"attempts[{attempt.attempt - 1}]"
        for i, channel in enumerate(attempt.channels):
            place = f"{where}.channels[{i}] ({channel.id})"
            wrong += _check_channel(channel, place)
            wrong += [f"{place}: {channel.doubt}"] if channel.doubt else []
        wrong += _check_sums(attempt, where)
        meters_kwh = sum_known(meter.energy_kwh for meter in attempt.meters)
        wrong += _compare(attempt.energy_kwh, meters_kwh, f"{where}.energy_kwh", "its meters")
    wrong += _check_sums(sidecar, "")
    attempts = sidecar.attempts
    run = find_run(attempts)
    numbers = tuple(attempt.attempt for attempt in run)
    if sidecar.run_attempts != numbers:
        wrong.append(f"run_attempts: is {sidecar.run_attempts}, the attempts give {numbers}")
    for key, chosen, of in (
        ("energy_kwh", run, "the run's attempts"),
        ("energy_node_kwh", run, "the run's attempts"),
        ("energy_all_kwh", attempts, "all attempts"),
    ):
        name = key.replace("_all", "")
        summed_kwh = sum_known(getattr(attempt, name) for attempt in chosen)
        wrong += _compare(getattr(sidecar, key), summed_kwh, key, of)
    return wrong


def _check_journal(path: Path, sidecar: Sidecar) -> list[str]:
    journal = get_journal_path(path)
    if not journal.is_file():
        return [f"no journal {journal.name} next to it: nothing can be computed again"]
    try:
        with naming(journal):
            again = rebuild(read_journal(journal), read_journals(journal))
    except SvError as error:
        return [f"{journal.name}: {str(error).removeprefix(f'{journal}: ')}"]
    found = list(_find_differences(sidecar, again, ""))
    if len(found) > MAX_LISTED:
        found = [*found[:MAX_LISTED], f"and {len(found) - MAX_LISTED} more differences"]
    return [f"{line} (journal)" for line in found]


def _find_differences(ours: Any, again: Any, where: str) -> Iterator[str]:
    """List where two parts of a record differ; numbers that agree to `SAME` do not."""
    if dataclasses.is_dataclass(ours) and dataclasses.is_dataclass(again):
        ours, again = vars(ours), vars(again)
    if isinstance(ours, dict) and isinstance(again, dict):
        for key in sorted(ours.keys() | again.keys()):
            place = f"{where}.{key}" if where else key
            if key in ours and key in again:
                yield from _find_differences(ours[key], again[key], place)
            else:
                yield f"{place}: {'not' if key not in ours else 'only'} in the sidecar"
    elif isinstance(ours, tuple) and isinstance(again, tuple) and len(ours) == len(again):
        for i, pair in enumerate(zip(ours, again, strict=True)):
            yield from _find_differences(*pair, f"{where}[{i}]")
    elif isinstance(ours, float) and isinstance(again, float) and is_same(ours, again):
        return
    elif ours != again:
        yield f"{where}: {ours!r} in the sidecar, {again!r} computed"


def is_same(a: float, b: float) -> bool:
    """Return whether two sums are the same but for rounding."""
    return math.isclose(a, b, rel_tol=SAME, abs_tol=1e-12)


def _compare(stated: float | None, summed: float | None, where: str, of: str) -> list[str]:
    if stated is None and summed is None:
        return []
    if stated is None or summed is None or not is_same(stated, summed):
        return [f"{where}: is {stated}, the sum over {of} is {summed}"]
    return []


def _check_channel(channel: Channel, where: str) -> list[str]:
    raw, energy_j = channel.raw, channel.energy_j
    if channel.kind == "unavailable":
        wrong = [f"{where}: unavailable, but has an energy"] if energy_j is not None else []
        return wrong + ([f"{where}: unavailable, but in_total"] if channel.in_total else [])
    if energy_j is not None and raw is None and channel.host is not None:
        return []  # joined from several meters: only their journals can be computed again
    if energy_j is None or raw is None:
        return [f"{where}: {channel.kind}, but has no energy or no raw readings"]
    wrong = []
    advance = raw.last - raw.first + raw.wraps * (raw.max_range or 0)
    by_hand_j = None
    if channel.method == "counter_delta" and raw.resets == 0:
        by_hand_j = j_from_count(advance, raw.unit)
    elif channel.method == "cpu_time_x_power":
        by_hand_j = s_from_us(advance) * (channel.power_w_per_core or 0.0)
    if by_hand_j is not None and not is_same(energy_j, by_hand_j):
        wrong.append(f"{where}: energy_j is {energy_j}, its raw readings give {by_hand_j}")
    max_w, gap_s = channel.power_w and channel.power_w.max, channel.samples.max_gap_s
    if channel.method == "counter_delta" and raw.max_range and max_w and gap_s:
        half_wrap_s = raw.max_range / UNITS_PER_J[raw.unit] / max_w / 2
        if gap_s > half_wrap_s and channel.doubt is None and channel.in_total:
            wrong.append(
                f"{where}: {gap_s:.0f} s without a reading, half a wrap takes {half_wrap_s:.0f} s"
            )
    return wrong


def _check_sums(figures: Attempt | Sidecar, where: str) -> list[str]:
    """Check an attempt's or a whole sidecar's total, its boundary and its carbon."""
    dot = f"{where}." if where else ""
    total = {(ch.host, ch.id): ch for ch in figures.channels if ch.in_total}
    wrong = []
    if figures.energy_kwh is None and not figures.reason:
        wrong.append(f"{dot}reason: there is none, and energy_kwh is null")
    for (host, name), channel in total.items():
        # Only of one attempt: another one may have chosen another total.
        outers = channel.contained_in if where else ()
        inside = [outer for outer in outers if (host, outer) in total]
        if inside:
            wrong.append(f"{dot}channels: {name} is summed, and so is {inside[0]}, which has it in")
    node_kwh = figures.energy_node_kwh
    node_j = None if node_kwh is None else j_from_kwh(node_kwh)
    summed_j = sum_known(channel.energy_j for channel in figures.channels if channel.in_total)
    wrong += _compare(node_j, summed_j, f"{dot}energy_node_kwh (in J)", "the channels in the total")
    if figures.attribution.rule == "exclusive":
        wrong += _compare(
            figures.energy_kwh, node_kwh, f"{dot}energy_kwh", "the machine (rule exclusive)"
        )
    if figures.co2_g is not None and figures.energy_kwh is not None and where:
        carbon_j = sum(interval.energy_j for interval in figures.carbon.intervals)
        energy_j = j_from_kwh(figures.energy_kwh)
        if not math.isclose(carbon_j, energy_j, rel_tol=1e-6, abs_tol=1e-9):
            wrong.append(f"{dot}carbon.intervals: sum to {carbon_j} J, the energy is {energy_j} J")
    return wrong


def check_overlaps(sidecars: Sequence[tuple[Path, Sidecar]]) -> list[tuple[Path, str]]:
    """Find energy that two sidecars count: the same machine, channel and time.

    An estimate from the command's own processes overlaps with no other, and a job's part of a
    shared machine is meant to be counted together with the other parts.
    """
    counted = [  # in whole: a meter, and where it stands
        ((path, attempt.attempt), f"attempts[{attempt.attempt - 1}].meters[{i}]", meter)
        for path, sidecar in sidecars
        for attempt in sidecar.attempts
        for i, meter in enumerate(attempt.meters)
        if meter.rule == "exclusive" and meter.boot_s is not None
    ]
    wrong = []
    for (of, place, one), (other_of, other_place, other) in combinations(counted, 2):
        machine = get_machine(one.boot_id, one.host)
        if machine != get_machine(other.boot_id, other.host) or of == other_of:
            continue
        seconds = min(one.boot_s[1], other.boot_s[1]) - max(one.boot_s[0], other.boot_s[0])
        both = ", ".join(sorted({*one.channels} & {*other.channels}))
        if both and seconds > 0:
            also = f"{both} of {seconds:.1f} s are also in {of[0]}, {place}"
            wrong.append((other_of[0], f"{other_place}: {also}"))
    return wrong
