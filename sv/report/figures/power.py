"""The power of a stage over time, thinned to what can be seen, from its journal.

A journal may have a million samples. While it is read, samples are left out evenly so that some
thousands remain: energy is counted, so the mean power between two of them is exact where the
source is a counter. These go into as many bins as a figure has columns, with the mean, the lowest
and the highest power of each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sv.energy.attempt import build_curve
from sv.energy.journal import SUFFIX
from sv.energy.nodes import get_nodes_root
from sv.energy.record import read_record
from sv.energy.samples import MISSING, AttemptLines, split_attempts
from sv.report.figures.pieces import Pieces, bin_pieces
from sv.report.figures.thinning import choose_step, read_thinned

MAX_SAMPLES = 12_000  # of a journal; more than these are thinned while it is read
BINS = 240  # of a figure: one a point of its width
TOTAL = "total"
_GAP_PERIODS = 3.0  # between two readings: nobody looked
_MAX_LINES = 7  # channels; of more, those of one boundary are summed
_TAIL_CHARACTERS = 8  # of a channel's id
_NAMES = {"cpu_package": "CPU", "dram": "DRAM", "gpu_board": "GPU", "gpu_module": "GPU module"}


@dataclass(frozen=True)
class Moment:
    """What a command marked: ``kind`` is epoch, phase or attempt."""

    at_s: float
    kind: str
    text: str


@dataclass(frozen=True)
class Trace:
    """The power that one meter saw, attempt after attempt, of the machine ``host``.

    ``lines`` are the channels, and last the total of what is in the sidecar's energy.
    ``thinned_s`` is how far the samples that are left lie apart; None if all are. ``attempts`` are
    their numbers, of ``tried``.
    """

    lines: tuple[Pieces, ...]
    moments: tuple[Moment, ...]
    attempts: tuple[int, ...]
    tried: int
    duration_s: float
    thinned_s: float | None
    host: str


def get_journal_path(sidecar: Path) -> Path:
    """Give the journal of a sidecar."""
    return sidecar.with_name(sidecar.name.removesuffix(".json") + SUFFIX)


def read_trace(sidecar: Path) -> Trace | None:
    """Read the power of the run that made a stage's result, as its own meter saw it.

    Returns:
        None where the journal has no power of this run.

    Raises:
        SvError: The journal or the sidecar cannot be read.
    """
    journal = get_journal_path(sidecar)
    record = read_record(sidecar)
    groups, every = _read_attempts(journal)
    if not groups or len(record.attempts) != len(groups):
        return None  # the sidecar is of another journal
    return _build_trace(groups, every, record.attempts.index(record.run[0]))


def list_node_traces(sidecar: Path, attempts: Sequence[int]) -> list[Path]:
    """List the journals of the other meters of these attempts of a stage, by attempt and name."""
    root = get_nodes_root(get_journal_path(sidecar))
    return [path for n in attempts for path in sorted((root / str(n)).glob(f"*{SUFFIX}"))]


def read_node_trace(journal: Path) -> Trace | None:
    """Read the power that another meter of a stage saw, all that its journal has.

    Raises:
        SvError: The journal cannot be read.
    """
    groups, every = _read_attempts(journal)
    return _build_trace(groups, every, 0) if groups else None


def _read_attempts(journal: Path) -> tuple[list[AttemptLines], int]:
    """Read the attempts of a journal, thinned; of how many samples one is left."""
    every = choose_step(journal, MAX_SAMPLES)
    return split_attempts(read_thinned(journal, every))[0], every


def _build_trace(groups: list[AttemptLines], every: int, first: int) -> Trace | None:
    moments: list[Moment] = []
    measured: list[dict[str, Pieces]] = []
    at_s, apart_s = 0.0, 0.0
    for number, lines in enumerate(groups[first:], start=first + 1):
        if number > first + 1:
            moments.append(Moment(at_s, "attempt", f"attempt {number}"))
        moments += _list_moments(lines, at_s)
        if len(lines.t_s) > 1:
            measured.append(_measure(lines, at_s, every))
            at_s += lines.t_s[-1] - lines.t_s[0]
            apart_s = max(apart_s, float(np.median(np.diff(lines.t_s))))
    found = _join_attempts([_sum_alike(_name(pieces)) for pieces in measured], at_s)
    if not found:
        return None
    return Trace(
        lines=found,
        moments=tuple(moments),
        attempts=tuple(range(first + 1, len(groups) + 1)),
        tried=len(groups),
        duration_s=at_s,
        thinned_s=apart_s if every > 1 else None,
        host=groups[-1].head["host"],
    )


def _list_moments(lines: AttemptLines, at_s: float) -> Iterator[Moment]:
    for mark in lines.marks:
        said, t_s = mark["said"], mark["t_s"]
        if t_s is not None and lines.t_s and said["mark"] in ("epoch", "phase"):
            text = str(said.get("name" if said["mark"] == "phase" else "epoch", ""))
            yield Moment(at_s + max(0.0, t_s - lines.t_s[0]), said["mark"], text)


def _measure(lines: AttemptLines, at_s: float, every: int) -> dict[str, Pieces]:
    """Give the pieces between the samples of an attempt of every channel that is shown, by id.

    Left out are channels that are never summed (they are of other channels' energy too) and
    estimates of what was measured.
    """
    channels, curve_j, attribution, so_far = build_curve(lines)
    specs = {spec["id"]: spec for spec in lines.head["channels"]}
    t_s, awake_s = np.array(lines.t_s), np.diff(lines.awake_s)
    start_s = at_s + t_s - t_s[0]
    period_s = every * lines.head["period_s"]
    found: dict[str, Pieces] = {}
    seen_by: dict[str, np.ndarray] = {}

    def add(name: str, boundary: str, joules: np.ndarray, *, estimated: bool) -> None:
        seen = seen_by[name] & (awake_s > 0)
        joules = np.where(seen, joules, np.nan)
        watts = np.divide(joules, awake_s, where=seen, out=np.full_like(joules, np.nan))
        ends = start_s[:-1], start_s[1:]
        found[name] = Pieces(name, boundary, estimated, *ends, awake_s, joules, watts, watts)

    for channel in channels:
        estimated, name = channel.kind == "estimated", channel.id
        spec = specs[name]
        if channel.energy_j is None or not spec["in_total"]:
            continue
        if channel.in_total or not estimated:
            reach_s = _GAP_PERIODS * max(period_s, spec.get("update_period_s") or 0.0)
            seen_by[name] = _find_seen(np.array(lines.raw[name]), t_s, reach_s)
            add(name, channel.boundary, np.diff(so_far[name]), estimated=estimated)
    counted = [ch for ch in channels if ch.in_total and ch.id in found]
    if not curve_j or not counted:
        return found
    estimated = all(channel.kind == "estimated" for channel in counted)
    seen_by[TOTAL] = np.all([seen_by[channel.id] for channel in counted], axis=0)
    add(TOTAL, TOTAL, np.diff(curve_j), estimated=estimated)
    if len(counted) == 1 and attribution.rule == "exclusive":
        only = found.pop(counted[0].id)
        found[TOTAL] = replace(found[TOTAL], name=f"{TOTAL}: {_get_name(only)}")
    return found


def _find_seen(column: np.ndarray, t_s: np.ndarray, reach_s: float) -> np.ndarray:
    """Tell of every interval between two samples whether readings lie near enough around it."""
    read = np.flatnonzero(column != MISSING)
    near = np.diff(t_s[read]) <= reach_s
    steps = np.zeros(len(t_s), dtype=int)
    np.add.at(steps, read[:-1][near], 1)
    np.add.at(steps, read[1:][near], -1)
    return np.cumsum(steps)[:-1] > 0


def _get_name(pieces: Pieces) -> str:
    name = _NAMES.get(pieces.boundary, pieces.boundary)
    return f"{name} (estimated)" if pieces.estimated else name


def _name(found: dict[str, Pieces]) -> list[Pieces]:
    """Name channels by what they are of; the id's end tells those of one boundary apart."""
    boundaries = [(pieces.boundary, pieces.estimated) for pieces in found.values()]
    named = []
    for pieces in found.values():
        name = _get_name(pieces)
        if pieces.boundary == TOTAL:
            name = pieces.name + (" (estimated)" * (pieces.estimated and ":" not in pieces.name))
        elif boundaries.count((pieces.boundary, pieces.estimated)) > 1:
            name += f" {pieces.name.rsplit('.', 1)[-1][:_TAIL_CHARACTERS]}"
        named.append(replace(pieces, name=name))
    return named


def _sum_alike(found: list[Pieces]) -> list[Pieces]:
    """Add up the channels of one boundary where all of them would be too many lines."""
    if len(found) <= _MAX_LINES:
        return found
    groups: dict[tuple[str, bool], list[Pieces]] = {}
    for pieces in found:
        groups.setdefault((pieces.boundary, pieces.estimated), []).append(pieces)
    summed = []
    for group in groups.values():
        first = group[0]
        if len(group) > 1:
            watts = np.sum([pieces.low_w for pieces in group], axis=0)
            joules = np.sum([pieces.joules for pieces in group], axis=0)
            name = f"{len(group)} \u00d7 {_get_name(first)}"
            first = replace(first, name=name, joules=joules, low_w=watts, high_w=watts)
        summed.append(first)
    return summed


def _join_attempts(attempts: list[list[Pieces]], duration_s: float) -> tuple[Pieces, ...]:
    """Thin the pieces of each attempt and put attempts behind each other, the total last."""
    joined: dict[str, list[Pieces]] = {}
    for found in attempts:
        for pieces in found:
            bins = int(BINS * (pieces.end_s[-1] - pieces.start_s[0]) / duration_s) + 1
            joined.setdefault(pieces.name, []).append(bin_pieces(pieces, bins))
    lines = []
    for group in joined.values():
        keys = ("start_s", "end_s", "awake_s", "joules", "low_w", "high_w")
        arrays = {key: np.concatenate([getattr(pieces, key) for pieces in group]) for key in keys}
        lines.append(replace(group[0], **arrays))
    return tuple(sorted(lines, key=lambda pieces: pieces.boundary == TOTAL))
