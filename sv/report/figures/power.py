"""Power over time of the training and of the extractions of a system, from their journals.

A journal may have a million samples. Some thousands of them are left, evenly: energy is counted,
so the mean power between two of them is exact where the source is a counter. These go into as many
bins as a figure has columns, with the mean, the lowest and the highest power of each.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sv.energy.attempt import build_machines
from sv.energy.journal import SUFFIX, get_journal_path, naming, read_journal
from sv.energy.nodes import get_nodes_root
from sv.energy.record import Channel, Sidecar
from sv.energy.samples import MISSING, AttemptLines, split_attempts
from sv.energy.units import S_PER_HOUR
from sv.report.figures.frame import (
    COLUMN_INCHES,
    LINE_STYLES,
    Drawing,
    add_legend_below,
    build_handle,
)
from sv.report.results import EXTRACT_STAGE, TRAIN_STAGE, Results, Stage
from sv.report.tables.evidence import list_some

MAX_SAMPLES = 12_000  # of a journal; more than these are thinned
BINS = 240  # of a figure: one a point of its width
TOTAL = "total"
_GAP_PERIODS = 3.0  # between two readings: no sample
_MAX_LINES = 7  # channels; of more, those of one boundary are summed
_TAIL_CHARACTERS = 8  # of a channel's id
_NAMES = {"cpu_package": "CPU", "dram": "DRAM", "gpu_board": "GPU", "gpu_module": "GPU module"}
_PANEL_INCHES = (1.7, 1.1)  # of up to two panels, of each of more
_BETWEEN_INCHES = 0.62  # ticks and label of one, title of the next
_FOOT_INCHES = 1.0  # for the legend; what is not used is cut off
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


class Event(NamedTuple):
    """What a command marked, or the start of an attempt: ``kind`` is epoch, phase or attempt."""

    at_s: float
    kind: str
    text: str


class Line(NamedTuple):
    """A channel, several, or the total. The name is the legend's, the boundary the style's."""

    name: str
    boundary: str


@dataclass(frozen=True)
class Trace:
    """The power that one meter saw, attempt after attempt, of the machine ``host``.

    Attributes:
        lines: The channels, and last the total of what is in the sidecar's energy.
        edges_s: Bounds of the bins in the time that was metered, (bins + 1,).
        awake_s: How long the machine was awake in each bin, (bins,).
        mean_w: Mean power, (lines, bins), NaN where there are no samples. So are ``low_w`` and
            ``high_w``, the lowest and the highest mean between two samples.
        attempts: Their numbers, of ``tried``.
        thinned_s: How far the samples that are left lie apart; None if all are.
    """

    lines: tuple[Line, ...]
    edges_s: np.ndarray
    awake_s: np.ndarray
    mean_w: np.ndarray
    low_w: np.ndarray
    high_w: np.ndarray
    events: tuple[Event, ...]
    attempts: tuple[int, ...]
    tried: int
    thinned_s: float | None
    host: str


# From a journal to power.


def read_trace(journal: Path, sidecar: Sidecar | None = None) -> Trace | None:
    """Read the power that one meter of a stage saw.

    Args:
        journal: Its journal.
        sidecar: Of the stage, if it is its own meter: of that the run that made the result is read.

    Returns:
        None where the journal has no power of this run, or where the sidecar is of another one.

    Raises:
        SvError: The journal cannot be read.
    """
    with naming(journal):
        return _read_trace(journal, sidecar)


def _read_trace(journal: Path, sidecar: Sidecar | None) -> Trace | None:
    groups, _ = split_attempts(read_journal(journal))
    if sidecar is not None and len(groups) != len(sidecar.attempts):
        return None
    attempts = sidecar.run_attempts if sidecar else tuple(range(1, len(groups) + 1))
    every = sum(len(lines.t_s) for lines in groups) // MAX_SAMPLES + 1
    events, clocks, powers = [], [], []
    at_s, apart_s = 0.0, 0.0
    for number in attempts:
        lines = groups[number - 1]
        if number > attempts[0]:
            events.append(Event(at_s, "attempt", f"attempt {number}"))
        events += _list_events(lines, at_s)
        if len(lines.t_s) < 2:
            continue
        thin_samples(lines, every)
        t_s = np.array(lines.t_s)
        clocks.append((at_s + t_s[:-1] - t_s[0], np.diff(t_s), np.diff(lines.awake_s)))
        powers.append(_measure(lines))
        at_s += t_s[-1] - t_s[0]
        apart_s = max(apart_s, float(np.median(np.diff(t_s))))
    names = sorted(dict.fromkeys(n for found in powers for n in found), key=lambda n: n[1] == TOTAL)
    if not names:
        return None
    start_s, long_s, awake_s = map(np.concatenate, zip(*clocks, strict=True))
    joules = [
        np.concatenate([found.get(name, np.full(len(clock[0]), np.nan))
                        for clock, found in zip(clocks, powers, strict=True)])
        for name in names
    ]  # fmt: skip
    return Trace(
        tuple(names), *_bin(start_s, long_s, awake_s, np.stack(joules)), tuple(events),
        attempts, len(groups),
        apart_s if every > 1 else None, groups[-1].head["host"],
    )  # fmt: skip


def _list_events(lines: AttemptLines, at_s: float) -> Iterator[Event]:
    for mark in lines.marks:
        payload, t_s = mark["said"], mark["t_s"]
        if t_s is not None and lines.t_s and payload["mark"] in ("epoch", "phase"):
            text = str(payload.get("name" if payload["mark"] == "phase" else "epoch", ""))
            yield Event(at_s + max(0.0, t_s - lines.t_s[0]), payload["mark"], text)


def thin_samples(lines: AttemptLines, every: int) -> None:
    """Leave one of ``every`` samples; the first, the last and both sides of a gap stay.

    A sample that stays has the last readings of those before it that are left out: slow sensors
    answer in few samples. The period is that of what is left, which is no gap.
    """
    if every == 1:
        return
    t_s, count, period_s = np.array(lines.t_s), len(lines.t_s), lines.head["period_s"]
    lines.head = {**lines.head, "period_s": every * period_s}
    gaps = np.flatnonzero(np.diff(t_s) > _GAP_PERIODS * period_s)
    kept = np.unique(np.r_[np.arange(0, count, every), count - 1, gaps, gaps + 1])
    before = np.r_[-1, kept[:-1]]
    lines.t_s, lines.awake_s = (array("d", np.array(x)[kept]) for x in (t_s, lines.awake_s))
    for name, column in lines.raw.items():
        raw = np.array(column)
        last = np.maximum.accumulate(np.where(raw != MISSING, np.arange(count), -1))[kept]
        lines.raw[name] = array("q", np.where(last > before, raw[last], MISSING))
    lines.usage = {int(np.searchsorted(kept, i)): usage for i, usage in lines.usage.items()}


def _measure(lines: AttemptLines) -> dict[Line, np.ndarray]:
    """Return the joules between the samples of an attempt, NaN where there are none, by line.

    Left out are channels that are never summed (they are of other channels' energy too) and
    estimates of what was measured.
    """
    (machine,) = build_machines(lines, None)  # as if there were no other meter
    curve_j = machine.job and machine.job.value
    specs = {spec["id"]: spec for spec in lines.head["channels"]}
    t_s, awake = np.array(lines.t_s), np.diff(lines.awake_s) > 0
    shown = [
        channel
        for channel in machine.channels
        if channel.energy_j is not None
        and specs[channel.id]["in_total"]
        and (channel.in_total or channel.kind != "estimated")
    ]
    joules = {}
    for channel in shown:
        update_s = specs[channel.id].get("update_period_s") or 0.0
        reach_s = _GAP_PERIODS * max(lines.head["period_s"], update_s)
        # Between two samples there is power where the readings around them are near enough.
        read = np.flatnonzero(np.array(lines.raw[channel.id]) != MISSING)
        near = np.r_[False, np.diff(t_s[read]) <= reach_s, False]
        seen = near[np.searchsorted(read, np.arange(len(t_s) - 1), side="right")] & awake
        joules[channel.id] = np.where(seen, np.diff(machine.runs[0].so_far[channel.id]), np.nan)
    counted = [channel for channel in shown if channel.in_total]
    total: dict[Line, np.ndarray] = {}
    if curve_j and counted:
        # NaN where one of its channels is.
        seen_j = np.sum([joules[channel.id] for channel in counted], axis=0)
        name = TOTAL
        if len(counted) == 1 and machine.attribution.rule == "exclusive":
            shown.remove(counted[0])
            name = f"{TOTAL}: {_name(counted[0])}"
        elif all(channel.kind == "estimated" for channel in counted):
            name = f"{TOTAL} (estimated)"
        total[Line(name, TOTAL)] = np.where(np.isnan(seen_j), np.nan, np.diff(curve_j))
    groups: dict[Line, list[Channel]] = {}
    for channel in shown:
        groups.setdefault(Line(_name(channel), channel.boundary), []).append(channel)
    found: dict[Line, np.ndarray] = {}
    for line, group in groups.items():
        if len(group) > 1 and len(shown) + len(total) > _MAX_LINES:
            summed = np.sum([joules[channel.id] for channel in group], axis=0)
            found[Line(f"{len(group)} \u00d7 {line.name}", line.boundary)] = summed
            continue
        for channel in group:  # the id's end tells those of one boundary apart
            tail = f" {channel.id.rsplit('.', 1)[-1][:_TAIL_CHARACTERS]}" * (len(group) > 1)
            found[Line(line.name + tail, line.boundary)] = joules[channel.id]
    return found | total


def _name(channel: Channel) -> str:
    name = _NAMES.get(channel.boundary, channel.boundary)
    return f"{name} (estimated)" if channel.kind == "estimated" else name


def _bin(
    start_s: np.ndarray, long_s: np.ndarray, awake_s: np.ndarray, joules: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Join intervals between samples into bins of about equal time; few stay as they are.

    A bin ends where samples begin or end to be missing, so that it has all of them or none.

    Returns:
        The bounds of the bins, how long each was awake, and mean, lowest and highest power.
    """
    end_s = start_s[-1] + long_s[-1]
    watts = np.full_like(joules, np.nan)
    np.divide(joules, awake_s, out=watts, where=awake_s > 0)
    places = np.arange(len(start_s))
    if len(places) > 2 * BINS:
        places = ((start_s + long_s / 2) / end_s * BINS).astype(int)
    changes = (np.diff(np.isnan(joules), axis=1) != 0).any(axis=0) | (np.diff(places) > 0)
    starts = np.r_[0, np.flatnonzero(changes) + 1]
    awake_s, joules = (np.add.reduceat(x, starts, axis=-1) for x in (awake_s, joules))
    mean_w = np.full_like(joules, np.nan)
    np.divide(joules, awake_s, out=mean_w, where=awake_s > 0)
    bounds_w = (extreme.reduceat(watts, starts, axis=1) for extreme in (np.minimum, np.maximum))
    return np.r_[start_s[starts], end_s], awake_s, mean_w, *bounds_w


# Drawing.


def list_power_figures(results: Results) -> tuple[dict[str, list[Stage]], list[str]]:
    """Return the stages of each figure ``power_<model>_<train|extract>``; which have no journal."""
    figures: dict[str, list[Stage]] = {}
    missing = []
    for system in results.systems:
        for number, word in ((TRAIN_STAGE, "train"), (EXTRACT_STAGE, "extract")):
            for stage in system.stages:
                if stage.number != number or not stage.name.startswith(word):
                    continue
                if get_journal_path(stage.path).is_file():
                    figures.setdefault(f"power_{system.name}_{word}", []).append(stage)
                else:
                    missing.append(f"{stage.path.stem} of {system.name}")
    lacks = f"power: no trace of stages without a journal ({list_some(missing)})"
    return figures, [lacks] if missing else []


def draw_power(drawing: Drawing, stages: list[Stage]) -> None:
    """Draw a panel for each meter of each stage.

    Stages without power, and those with more meters than are drawn, are ``left_out``.
    """
    figure = drawing.figure
    panels, drawing.left_out = _read_panels(stages)
    if not panels:
        drawing.left_out.append("no figure")
        return
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
    drawing.caption = "Power over time, as each meter read it."


def _read_panels(stages: list[Stage]) -> tuple[list[tuple[str, Trace]], list[str]]:
    """Read what each meter saw, with a title; return also a line for what is left out."""
    panels, left_out = [], []
    for stage in stages:
        own = get_journal_path(stage.path)
        trace = read_trace(own, stage.sidecar)
        if trace is None:
            left_out.append(f"no power in the journal of {stage.path.stem}")
            continue
        title = ", ".join(filter(None, (stage.sidecar.model, stage.name)))
        first, last = trace.attempts[0], trace.attempts[-1]
        root = get_nodes_root(own)
        journals = [p for n in trace.attempts for p in sorted((root / str(n)).glob(f"*{SUFFIX}"))]
        if journals:
            title += f", the stage's own meter ({trace.host})"
        if trace.tried > 1:
            numbers = f"attempt {last}" if first == last else f"attempts {first} to {last}"
            title += f", {numbers} of {trace.tried}"
        panels.append((title, trace))
        for journal in journals[:_MAX_METERS]:
            label = journal.name.removesuffix(SUFFIX)
            if (other := read_trace(journal)) is None:
                left_out.append(f"no power in the journal of {label} of {stage.path.stem}")
            else:
                panels.append((f"{stage.name}, {label} ({other.host})", other))
        if (more := len(journals) - _MAX_METERS) > 0:
            left_out.append(f"{more} more meters of {stage.path.stem} are not shown")
    return panels, left_out


def _draw_panel(axes: Axes, trace: Trace, lines: dict[str, Any], others: dict[str, Any]) -> None:
    """Draw one trace, and add what occurs in it to the legend's entries."""
    duration_s = trace.edges_s[-1]
    unit, unit_s = "h", float(S_PER_HOUR)
    if duration_s < _HOURS_BELOW_S:
        unit, unit_s = ("s", 1.0) if duration_s < _MINUTES_BELOW_S else ("min", 60.0)
    edges = trace.edges_s / unit_s
    axes.set_xlim(0, max(duration_s, 1e-3) / unit_s)
    axes.set_xlabel(f"Metered time ({unit})")
    axes.set_ylabel("Power (W)")
    boundaries = [line.boundary for line in trace.lines]
    powers = zip(trace.lines, trace.mean_w, trace.low_w, trace.high_w, strict=True)
    for i, (line, mean_w, low_w, high_w) in enumerate(powers):
        colour, dashes = _STYLE.get(line.boundary, ("0.4", 0))
        dashes += boundaries[:i].count(line.boundary)
        style = {
            "color": colour,
            "linestyle": LINE_STYLES[dashes % len(LINE_STYLES)],
            "linewidth": 1.5 if line.boundary == TOTAL else 0.9,
        }
        # A channel that is nearly the total lies on it, dashed.
        above = 2.5 if line.boundary == TOTAL else 3
        axes.stairs(mean_w, edges, baseline=None, zorder=above, **style)
        lines[line.name] = build_handle(line.name, marker="", **style)
        if np.any(high_w > low_w):
            shade = {"facecolor": colour, "alpha": 0.22, "linewidth": 0, "zorder": 2}
            axes.stairs(high_w, edges, baseline=low_w, fill=True, **shade)
            of = "" if trace.thinned_s is None else f" of {trace.thinned_s:.0f} s means"
            others[f"range{of}"] = Patch(label=f"range{of}", facecolor="0.8")
    axes.set_ylim(0, max(float(np.nan_to_num(trace.high_w).max()) * 1.06, 1e-3))
    epochs = [event for event in trace.events if event.kind == "epoch"]
    every = len(epochs) // _MAX_EPOCHS + 1
    for event in trace.events:
        if event.kind == "epoch" and event not in epochs[every - 1 :: every]:
            continue
        axes.axvline(event.at_s / unit_s, **_EVENT_STYLE[event.kind])
        label = f"{every} epochs" if event.kind == "epoch" and every > 1 else event.kind
        label += f" {event.text}" if event.kind == "phase" else ""
        others[label] = build_handle(label, **{**_EVENT_STYLE[event.kind], "marker": ""})
