"""The power of a stage over time, as a table (CSV) computed from its journal."""

import csv
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from sv.energy.attempt import Fields, build_curve
from sv.energy.journal import SUFFIX, read_journal
from sv.energy.samples import AttemptLines, split_attempts
from sv.energy.sensors.readers import BOUNDARIES
from sv.energy.units import format_utc, parse_utc
from sv.errors import SvError
from sv.files import replacing


def write_trace(path: Path) -> tuple[Path, int]:
    """Write the power trace of a sidecar beside it.

    Each row is the time since the sample before: mean power of each channel and of the total (the
    job's part of it, where a rule of attribution shares the machine). The first sample of an
    attempt has no row. Empty cells are not known.

    Args:
        path: The sidecar or its journal.

    Returns:
        The file, ``<NN>_<name>.trace.csv``, and its rows.

    Raises:
        SvError: There is no journal beside it, or the trace cannot be written.
    """
    stem = path.name.removesuffix(SUFFIX).removesuffix(".json")
    journal = path.with_name(stem + SUFFIX)
    if not journal.is_file():
        raise SvError(f"no such file {journal}: the trace is computed from the journal")
    groups, _ = split_attempts(read_journal(journal))
    names: dict[str, str] = {}
    for lines in groups:
        readable = [ch for ch in lines.head["channels"] if ch["id"] in lines.raw]
        names |= {channel["id"]: channel["boundary"] for channel in readable}
    order = sorted(names, key=lambda name: (BOUNDARIES.index(names[name]), name))
    target, rows = path.with_name(f"{stem}.trace.csv"), 0
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
    channels, curve_j, _, so_far = build_curve(lines)
    known: dict[str, Fields] = {ch["id"]: ch for ch in channels if ch["energy_j"] is not None}
    start_unix_s = parse_utc(lines.head["started_utc"]) if lines.t_s else 0.0
    for a, b in pairwise(range(len(lines.t_s))):
        seconds = lines.awake_s[b] - lines.awake_s[a]
        curves = [curve_j, *(so_far[name] if name in known else None for name in order)]
        elapsed_s = lines.t_s[b] - lines.t_s[0]
        powers = [
            f"{(curve[b] - curve[a]) / seconds:.6g}" if curve and seconds > 0 else ""
            for curve in curves
        ]
        yield [format_utc(start_unix_s + elapsed_s), f"{elapsed_s:.6f}", *powers]
