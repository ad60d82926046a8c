"""Power over time of the training and of the extractions of a system, from their journals.

A journal may have a million samples. While it is read, samples are left out evenly, without parsing
them, so that some thousands remain: energy is counted, so the mean power between two of them is
exact where the source is a counter. These go into as many bins as a figure has columns, with the
mean, the lowest and the highest power of each.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sv.energy.attempt import build_curve
from sv.energy.journal import SUFFIX, Record, list_readable, read_journal
from sv.energy.nodes import get_nodes_root
from sv.energy.samples import MISSING, AttemptLines, split_attempts
from sv.energy.units import S_PER_HOUR
from sv.errors import SvError
from sv.report.figures.frame import (
    COLUMN_INCHES,
    LINE_STYLES,
    Drawing,
    add_legend_below,
    build_handle,
    build_patch,
)
from sv.report.results import EXTRACT_STAGE, TRAIN_STAGE, Results, Stage
from sv.report.tables.evidence import list_some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SAMPLES = 12_000  # of a journal; more than these are thinned while it is read
BINS = 240  # of a figure: one a point of its width
TOTAL = "total"
_GAP_PERIODS = 3.0  # between two readings: no sample
_MAX_LINES = 7  # channels; of more, those of one boundary are summed
_TAIL_CHARACTERS = 8  # of a channel's id
_NAMES = {"cpu_package": "CPU", "dram": "DRAM", "gpu_board": "GPU", "gpu_module": "GPU module"}
# As the meter writes it; any other line is parsed as a whole.
_SAMPLE = re.compile(rb'\{"line": ?"sample", ?"t_s": ?(\d+(?:\.\d+)?),.*\}$')
_PANEL_INCHES = (1.7, 1.1)  # of up to two panels, of each of more
_BETWEEN_INCHES = 0.62  # ticks and label of one, title of the next
_FOOT_INCHES = 1.0  # for the legend; what is not used is cut off
_TOUCH_S = 1e-6
_MAX_METERS = 6  # panels of other meters of a stage
_MAX_EPOCHS = 60  # lines; of more only every so many-th is drawn
_MINUTES_BELOW_S, _HOURS_BELOW_S = 600.0, 10 * 3600.0
# Of a line of power: colour, and the place of its dashes in LINE_STYLES.
_STYLE = {
    TOTAL: ("#000000", 0),
    "cpu_package": ("#0072B2", 1),
    "dram": ("#E69F00", 2),
    "gpu_board": ("#D55E00", 3),
    "gpu_module": ("#CC79A7", 1),
    "node": ("#009E73", 2),
}
_EVENT_STYLE: dict[str, dict[str, Any]] = {
    "epoch": {"color": "0.78", "linewidth": 0.5, "linestyle": "-", "zorder": 1},
    "phase": {"color": "0.3", "linewidth": 0.7, "linestyle": (0, (1, 1.5)), "zorder": 1.5},
    "attempt": {"color": "0.1", "linewidth": 0.9, "linestyle": (0, (6, 2)), "zorder": 1.5},
}


@dataclass(frozen=True)
class Pieces:
    """Power of a channel, of several, or of the total, piece by piece: arrays (pieces,).

    ``start_s`` and ``end_s`` bound a piece in the time that was metered, ``awake_s`` is how long
    the machine was awake in it. ``low_w`` and ``high_w`` are the lowest and the highest mean
    between two samples. Joules and powers are NaN where there are no samples.
    """

    name: str
    boundary: str
    estimated: bool
    start_s: np.ndarray
    end_s: np.ndarray
    awake_s: np.ndarray
    joules: np.ndarray
    low_w: np.ndarray
    high_w: np.ndarray

    @property
    def mean_w(self) -> np.ndarray:
        """Mean power of every piece."""
        return np.divide(
            self.joules, self.awake_s, where=self.awake_s > 0, out=np.full_like(self.joules, np.nan)
        )


@dataclass(frozen=True)
class Event:
    """What a command marked, or the start of an attempt: ``kind`` is epoch, phase or attempt."""

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
    events: tuple[Event, ...]
    attempts: tuple[int, ...]
    tried: int
    duration_s: float
    thinned_s: float | None
    host: str


# Reading a journal.


def read_trace(stage: Stage) -> Trace | None:
    """Read the power of the run that made a stage's result, as its own meter saw it.

    Returns:
        None where the journal has no power of this run.

    Raises:
        SvError: The journal cannot be read.
    """
    groups, every = _read_attempts(_get_journal(stage))
    attempts = stage.sidecar.attempts
    if not groups or len(attempts) != len(groups):
        return None  # the sidecar is of another journal
    return _build_trace(groups, every, attempts.index(stage.sidecar.run[0]))


def list_meter_journals(stage: Stage, attempts: Sequence[int]) -> list[Path]:
    """List the journals of the other meters of these attempts of a stage, by attempt and name."""
    root = get_nodes_root(_get_journal(stage))
    return [path for n in attempts for path in sorted((root / str(n)).glob(f"*{SUFFIX}"))]


def read_meter_trace(journal: Path) -> Trace | None:
    """Read the power that another meter of a stage saw, all that its journal has.

    Raises:
        SvError: The journal cannot be read.
    """
    groups, every = _read_attempts(journal)
    return _build_trace(groups, every, 0) if groups else None


def _get_journal(stage: Stage) -> Path:
    return stage.path.with_name(stage.path.name.removesuffix(".json") + SUFFIX)


def _read_attempts(journal: Path) -> tuple[list[AttemptLines], int]:
    """Read the attempts of a journal, thinned; of how many samples one is left."""
    try:
        with open(journal, "rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise SvError(f"cannot read {journal}: {error.strerror}") from error
    step = lines // MAX_SAMPLES + 1
    return split_attempts(read_thinned(journal, step))[0], step


def read_thinned(journal: Path, step: int) -> Iterator[Record]:
    """Read a journal as `read_journal` does, but of ``step`` samples one.

    The first and the last of an attempt stay, and both sides of a gap. A sample that stays has the
    last readings of those before it that are left out: slow sensors answer in few samples.

    Raises:
        SvError: The journal cannot be read.
    """
    if step == 1:
        yield from read_journal(journal)
        return
    head: Record = {"channels": [], "period_s": 1.0}
    held: list[bytes] = []  # samples since the last one yielded
    last_s = float("inf")
    try:
        with open(journal, "rb") as file:
            for data in file:
                if sample := _SAMPLE.match(data):
                    t_s = float(sample[1])
                    if t_s - last_s > _GAP_PERIODS * head["period_s"]:
                        yield from _join_samples(held, head)
                        yield from _join_samples([data], head)
                        held = []
                    else:
                        held.append(data)
                    if len(held) == step:
                        yield from _join_samples(held, head)
                        held = []
                    last_s = t_s
                    continue
                record = _parse(data)
                if record["line"] in ("head", "end"):
                    yield from _join_samples(held, head)
                    held = []
                if record["line"] == "head":
                    head, last_s = record, float("-inf")  # the next sample stays
                yield record
    except OSError as error:
        raise SvError(f"cannot read {journal}: {error.strerror}") from error
    yield from _join_samples(held, head)


def _join_samples(held: list[bytes], head: Record) -> Iterator[Record]:
    """Yield the last of these samples; what it lacks is of the last one that has it."""
    readable = list_readable(head["channels"])
    shared = (head.get("config") or {}).get("attribution", "exclusive") != "exclusive"
    whole: Record | None = None
    for data in reversed(held):
        sample = _parse(data)
        if "raw" not in sample:
            continue  # torn
        raw = sample["raw"]
        if isinstance(raw, list):
            raw = dict(zip(readable, raw, strict=False))
        found = {name: value for name, value in raw.items() if value is not None}
        whole = {**sample, "raw": found} if whole is None else {
            **sample, **whole, "raw": found | whole["raw"],
        }  # fmt: skip
        if len(whole["raw"]) == len(readable) and ("usage" in whole or not shared):
            break
    if whole is not None:
        yield whole


def _parse(data: bytes) -> Record:
    try:
        record = json.loads(data)
    except ValueError:
        record = None
    return record if isinstance(record, dict) and "line" in record else {"line": "torn"}


# From samples to pieces.


def _build_trace(groups: list[AttemptLines], every: int, first: int) -> Trace | None:
    events: list[Event] = []
    measured: list[list[Pieces]] = []
    at_s, apart_s = 0.0, 0.0
    for number, lines in enumerate(groups[first:], start=first + 1):
        if number > first + 1:
            events.append(Event(at_s, "attempt", f"attempt {number}"))
        events += _list_events(lines, at_s)
        if len(lines.t_s) > 1:
            measured.append(_sum_alike(_name_channels(_measure(lines, at_s, every))))
            at_s += lines.t_s[-1] - lines.t_s[0]
            apart_s = max(apart_s, float(np.median(np.diff(lines.t_s))))
    found = _join_attempts(measured, at_s)
    if not found:
        return None
    return Trace(
        lines=found,
        events=tuple(events),
        attempts=tuple(range(first + 1, len(groups) + 1)),
        tried=len(groups),
        duration_s=at_s,
        thinned_s=apart_s if every > 1 else None,
        host=groups[-1].head["host"],
    )


def _list_events(lines: AttemptLines, at_s: float) -> Iterator[Event]:
    for mark in lines.marks:
        payload, t_s = mark["said"], mark["t_s"]
        if t_s is not None and lines.t_s and payload["mark"] in ("epoch", "phase"):
            text = str(payload.get("name" if payload["mark"] == "phase" else "epoch", ""))
            yield Event(at_s + max(0.0, t_s - lines.t_s[0]), payload["mark"], text)


def _measure(lines: AttemptLines, at_s: float, every: int) -> dict[str, Pieces]:
    """Return the pieces between the samples of an attempt of every channel that is shown, by id.

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
    """Return for every interval between two samples whether readings lie near enough around it."""
    read = np.flatnonzero(column != MISSING)
    near = np.diff(t_s[read]) <= reach_s
    steps = np.zeros(len(t_s), dtype=int)
    np.add.at(steps, read[:-1][near], 1)
    np.add.at(steps, read[1:][near], -1)
    return np.cumsum(steps)[:-1] > 0


def _get_name(pieces: Pieces) -> str:
    name = _NAMES.get(pieces.boundary, pieces.boundary)
    return f"{name} (estimated)" if pieces.estimated else name


def _name_channels(found: dict[str, Pieces]) -> list[Pieces]:
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
    """Bin the pieces of each attempt and put attempts behind each other, the total last."""
    joined: dict[str, list[Pieces]] = {}
    for found in attempts:
        for pieces in found:
            bins = int(BINS * (pieces.end_s[-1] - pieces.start_s[0]) / duration_s) + 1
            joined.setdefault(pieces.name, []).append(_bin(pieces, bins))
    lines = []
    for group in joined.values():
        keys = ("start_s", "end_s", "awake_s", "joules", "low_w", "high_w")
        arrays = {key: np.concatenate([getattr(pieces, key) for pieces in group]) for key in keys}
        lines.append(replace(group[0], **arrays))
    return tuple(sorted(lines, key=lambda pieces: pieces.boundary == TOTAL))


def _bin(pieces: Pieces, bins: int) -> Pieces:
    """Join pieces into bins of equal time; few pieces stay as they are."""
    if len(pieces.joules) <= 2 * bins:
        return pieces
    edges = np.linspace(pieces.start_s[0], pieces.end_s[-1], bins + 1)
    middles = (pieces.start_s + pieces.end_s) / 2
    places = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, bins - 1)
    seen = ~np.isnan(pieces.joules)
    places = places[seen]
    count = np.bincount(places, minlength=bins)
    awake_s, joules = (
        np.bincount(places, weights=values[seen], minlength=bins)
        for values in (pieces.awake_s, pieces.joules)
    )
    low_w, high_w = np.full(bins, np.inf), np.full(bins, -np.inf)
    np.minimum.at(low_w, places, pieces.low_w[seen])
    np.maximum.at(high_w, places, pieces.high_w[seen])
    joules, low_w, high_w = (
        np.where(count > 0, found, np.nan) for found in (joules, low_w, high_w)
    )
    return replace(
        pieces, start_s=edges[:-1], end_s=edges[1:], awake_s=awake_s, joules=joules, low_w=low_w,
        high_w=high_w,
    )  # fmt: skip


# Drawing.


def list_power_figures(results: Results) -> tuple[dict[str, list[Stage]], list[str]]:
    """Return the stages of each figure ``power_<model>_<train|extract>``; which have no journal."""
    figures: dict[str, list[Stage]] = {}
    missing = []
    for system in results.systems:
        for number, word in ((TRAIN_STAGE, "train"), (EXTRACT_STAGE, "extract")):
            stages = [s for s in system.stages if s.number == number and s.name.startswith(word)]
            found = [stage for stage in stages if _get_journal(stage).is_file()]
            if found:
                figures[f"power_{system.name}_{word}"] = found
            missing += [f"{s.path.stem} of {system.name}" for s in stages if s not in found]
    if not missing:
        return figures, []
    return figures, [f"power: no trace of stages without a journal ({list_some(missing)})"]


def draw_power(figure: "Figure", stages: list[Stage]) -> Drawing:
    """Draw a panel for each meter of each stage into an empty figure.

    Lines are returned for each stage without power or with more meters than are drawn; no axes are
    made if no stage has power.
    """
    panels, left_out = _read_panels(stages)
    if not panels:
        return Drawing([*left_out, "no figure"])
    panel_inches = _PANEL_INCHES[len(panels) > 2]
    height = len(panels) * (panel_inches + _BETWEEN_INCHES) + _FOOT_INCHES
    figure.set_size_inches(COLUMN_INCHES, height)
    lines: dict[str, Any] = {}  # the legend's entries, once for all panels
    others: dict[str, Any] = {}
    for number, (title, trace) in enumerate(panels):
        bottom = height - (number + 1) * (panel_inches + _BETWEEN_INCHES)
        axes = figure.add_axes((0.13, bottom / height, 0.855, panel_inches / height))
        axes.set_title(title, loc="left", fontsize=8)
        _draw_panel(axes, trace, lines, others)
    add_legend_below(figure.axes[-1], [*lines.values(), *others.values()])
    return Drawing(left_out)


def _read_panels(stages: list[Stage]) -> tuple[list[tuple[str, Trace]], list[str]]:
    """Read what each meter saw, with a title; return also a line for what is left out."""
    panels, left_out = [], []
    for stage in stages:
        trace = read_trace(stage)
        if trace is None:
            left_out.append(f"no power in the journal of {stage.path.stem}")
            continue
        title = ", ".join(filter(None, (stage.sidecar.model, stage.name)))
        journals = list_meter_journals(stage, trace.attempts)
        if journals:
            title += f", the stage's own meter ({trace.host})"
        if trace.tried > 1:
            title += f", {_name_attempts(trace)} of {trace.tried}"
        panels.append((title, trace))
        for journal in journals[:_MAX_METERS]:
            label = journal.name.removesuffix(SUFFIX)
            if (other := read_meter_trace(journal)) is None:
                left_out.append(f"no power in the journal of {label} of {stage.path.stem}")
            else:
                panels.append((f"{stage.name}, {label} ({other.host})", other))
        if (more := len(journals) - _MAX_METERS) > 0:
            left_out.append(f"{more} more meters of {stage.path.stem} are not shown")
    return panels, left_out


def _name_attempts(trace: Trace) -> str:
    first, last = trace.attempts[0], trace.attempts[-1]
    return f"attempt {last}" if first == last else f"attempts {first} to {last}"


def _draw_panel(axes: "Axes", trace: Trace, lines: dict[str, Any], others: dict[str, Any]) -> None:
    """Draw one trace, and add what occurs in it to the legend's entries."""
    unit, unit_s = _choose_unit(trace.duration_s)
    axes.set_xlim(0, max(trace.duration_s, 1e-3) / unit_s)
    axes.set_xlabel(f"Metered time ({unit})")
    axes.set_ylabel("Power (W)")
    seen: dict[str, int] = {}
    for line in trace.lines:
        number = seen.get(line.boundary, 0)
        seen[line.boundary] = number + 1
        colour, dashes = _STYLE.get(line.boundary, ("0.4", 0))
        style = {
            "color": colour,
            "linestyle": LINE_STYLES[(dashes + number) % len(LINE_STYLES)],
            "linewidth": 1.5 if line.boundary == TOTAL else 0.9,
        }
        x, mean, low, high = _list_steps(line)
        # A channel that is nearly the total lies on it, dashed.
        axes.plot(x / unit_s, mean, zorder=2.5 if line.boundary == TOTAL else 3, **style)
        lines[line.name] = build_handle(line.name, marker="", **style)
        if np.any(line.high_w > line.low_w):
            shade = {"color": colour, "alpha": 0.22, "linewidth": 0, "zorder": 2}
            axes.fill_between(x / unit_s, low, high, **shade)
            of = "" if trace.thinned_s is None else f" of {trace.thinned_s:.0f} s means"
            others[f"range{of}"] = build_patch(f"range{of}", facecolor="0.8")
    highest_w = max(float(np.nan_to_num(line.high_w).max(initial=0.0)) for line in trace.lines)
    axes.set_ylim(0, max(highest_w * 1.06, 1e-3))
    others |= _draw_events(axes, trace.events, unit_s)


def _choose_unit(duration_s: float) -> tuple[str, float]:
    if duration_s < _MINUTES_BELOW_S:
        return "s", 1.0
    return ("min", 60.0) if duration_s < _HOURS_BELOW_S else ("h", float(S_PER_HOUR))


def _list_steps(line: Pieces) -> list[np.ndarray]:
    """Return the corners of steps: times, then mean, lowest and highest power.

    They are open (NaN) where there are no samples and between pieces that do not touch.
    """
    breaks = np.flatnonzero(line.start_s[1:] - line.end_s[:-1] > _TOUCH_S) + 1
    powers_w = (line.mean_w, line.low_w, line.high_w)
    pairs = ((line.start_s, line.end_s), *((power_w, power_w) for power_w in powers_w))
    return [np.insert(np.stack(pair, axis=1), breaks, np.nan, axis=0).ravel() for pair in pairs]


def _draw_events(axes: "Axes", events: tuple[Event, ...], unit_s: float) -> dict[str, Any]:
    """Draw what the command marked; return the entries of the legend."""
    handles = {}
    epochs = [event for event in events if event.kind == "epoch"]
    every = len(epochs) // _MAX_EPOCHS + 1
    kept = {id(event) for event in epochs[every - 1 :: every]}
    for event in events:
        if event.kind == "epoch" and id(event) not in kept:
            continue
        style = _EVENT_STYLE[event.kind]
        axes.axvline(event.at_s / unit_s, **style)
        label = f"{every} epochs" if event.kind == "epoch" and every > 1 else event.kind
        label += f" {event.text}" if event.kind == "phase" else ""
        handles[label] = build_handle(label, **{**style, "marker": ""})
    return handles
