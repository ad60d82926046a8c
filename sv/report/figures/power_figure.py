"""Power over time of the training and of the extractions of a system, from their journals."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sv.energy.journal import SUFFIX
from sv.energy.units import S_PER_HOUR
from sv.report.figures.frame import COLUMN_INCHES, add_legend_below, build_handle
from sv.report.figures.palette import LINE_STYLES, POWER_STYLE
from sv.report.figures.pieces import Pieces
from sv.report.figures.power import (
    TOTAL,
    Moment,
    Trace,
    get_journal_path,
    list_node_traces,
    read_node_trace,
    read_trace,
)
from sv.report.results import EXTRACT_STAGE, TRAIN_STAGE, Results, Stage
from sv.report.tables.evidence import list_some

_PANEL_INCHES = (1.7, 1.1)  # of up to two panels, of each of more
_BETWEEN_INCHES = 0.62  # ticks and label of one, title of the next
_FOOT_INCHES = 1.0  # for the legend; what is not used is cut off
_TOUCH_S = 1e-6
_MAX_NODES = 6  # panels of other meters of a stage
_MAX_EPOCHS = 60  # lines; of more only every so many-th is drawn
_MINUTES_BELOW_S, _HOURS_BELOW_S = 600.0, 10 * 3600.0
_MOMENTS: dict[str, dict[str, Any]] = {
    "epoch": {"color": "0.78", "linewidth": 0.5, "linestyle": "-", "zorder": 1},
    "phase": {"color": "0.3", "linewidth": 0.7, "linestyle": (0, (1, 1.5)), "zorder": 1.5},
    "attempt": {"color": "0.1", "linewidth": 0.9, "linestyle": (0, (6, 2)), "zorder": 1.5},
}


def list_power_figures(results: Results) -> tuple[dict[str, list[Stage]], list[str]]:
    """Give the stages of each figure ``power_<model>_<train|extract>``, and what has no journal."""
    figures: dict[str, list[Stage]] = {}
    missing = []
    for system in results.systems:
        for number, word in ((TRAIN_STAGE, "train"), (EXTRACT_STAGE, "extract")):
            stages = [s for s in system.stages if s.number == number and s.name.startswith(word)]
            found = [stage for stage in stages if get_journal_path(stage.path).is_file()]
            if found:
                figures[f"power_{system.name}_{word}"] = found
            missing += [f"{s.path.stem} of {system.name}" for s in stages if s not in found]
    if not missing:
        return figures, []
    return figures, [f"power: no trace of stages without a journal ({list_some(missing)})"]


def draw_power(figure: Figure, stages: list[Stage]) -> list[str]:
    """Draw a panel for each meter of each stage into an empty figure.

    Returns:
        A line for each stage without power or with more meters than are drawn; no axes are made
        if no stage has power.
    """
    panels, left_out = _read_panels(stages)
    if not panels:
        return [*left_out, "no figure"]
    panel_inches = _PANEL_INCHES[len(panels) > 2]
    height = len(panels) * (panel_inches + _BETWEEN_INCHES) + _FOOT_INCHES
    figure.set_size_inches(COLUMN_INCHES, height)
    lines: dict[str, Any] = {}  # the legend's entries, once for all panels
    others: dict[str, Any] = {}
    axes = None
    for number, (title, trace) in enumerate(panels):
        bottom = height - (number + 1) * (panel_inches + _BETWEEN_INCHES)
        axes = figure.add_axes((0.13, bottom / height, 0.855, panel_inches / height))
        axes.set_title(title, loc="left", fontsize=8)
        _draw_panel(axes, trace, lines, others)
    assert axes is not None
    add_legend_below(figure, axes, [*lines.values(), *others.values()], "")
    return left_out


def _read_panels(stages: list[Stage]) -> tuple[list[tuple[str, Trace]], list[str]]:
    """Read what each meter saw, with a title; give a line for what is left out."""
    panels, left_out = [], []
    for stage in stages:
        trace = read_trace(stage.path)
        title = ", ".join(filter(None, (stage.sidecar.model, stage.name)))
        if trace is None:
            left_out.append(f"no power in the journal of {stage.path.stem}")
            continue
        nodes = list_node_traces(stage.path, trace.attempts)
        if nodes:
            title += f", the stage's own meter ({trace.host})"
        if trace.tried > 1:
            title += f", {_name_attempts(trace)} of {trace.tried}"
        panels.append((title, trace))
        for journal in nodes[:_MAX_NODES]:
            label = journal.name.removesuffix(SUFFIX)
            if (other := read_node_trace(journal)) is None:
                left_out.append(f"no power in the journal of {label} of {stage.path.stem}")
            else:
                panels.append((f"{stage.name}, {label} ({other.host})", other))
        if len(nodes) > _MAX_NODES:
            more = len(nodes) - _MAX_NODES
            left_out.append(f"{more} more meters of {stage.path.stem} are not shown")
    return panels, left_out


def _draw_panel(axes: Axes, trace: Trace, lines: dict[str, Any], others: dict[str, Any]) -> None:
    """Draw one trace, and add what occurs in it to the legend's entries."""
    unit, unit_s = _choose_unit(trace.duration_s)
    axes.set_xlim(0, max(trace.duration_s, 1e-3) / unit_s)
    axes.set_xlabel(f"Metered time ({unit})")
    axes.set_ylabel("Power (W)")
    seen: dict[str, int] = {}
    for line in trace.lines:
        number = seen.get(line.boundary, 0)
        seen[line.boundary] = number + 1
        style = _choose_style(line, number)
        _draw_line(axes, line, unit_s, style)
        lines[line.name] = build_handle(line.name, marker="", **style)
        if _draw_range(axes, line, unit_s):
            of = "" if trace.thinned_s is None else f" of {trace.thinned_s:.0f} s means"
            others[f"range{of}"] = Patch(facecolor="0.8", label=f"range{of}")
    highest_w = max(float(np.nan_to_num(line.high_w).max(initial=0.0)) for line in trace.lines)
    axes.set_ylim(0, max(highest_w * 1.06, 1e-3))
    others |= _draw_moments(axes, trace.moments, unit_s)


def _choose_unit(duration_s: float) -> tuple[str, float]:
    if duration_s < _MINUTES_BELOW_S:
        return "s", 1.0
    return ("min", 60.0) if duration_s < _HOURS_BELOW_S else ("h", float(S_PER_HOUR))


def _name_attempts(trace: Trace) -> str:
    first, last = trace.attempts[0], trace.attempts[-1]
    return f"attempt {last}" if first == last else f"attempts {first} to {last}"


def _choose_style(line: Pieces, number: int) -> dict[str, Any]:
    """Colour by boundary; dashes by boundary and the place among its channels."""
    colour, dashes = POWER_STYLE.get(line.boundary, ("0.4", 0))
    return {
        "color": colour,
        "linestyle": LINE_STYLES[(dashes + number) % len(LINE_STYLES)],
        "linewidth": 1.5 if line.boundary == TOTAL else 0.9,
    }


def _draw_line(axes: Axes, line: Pieces, unit_s: float, style: dict[str, Any]) -> None:
    """Draw steps, open where nobody looked."""
    x, (mean,) = _list_steps(line, unit_s, line.mean_w)
    # A channel that is nearly the total lies on it, dashed.
    axes.plot(x, mean, zorder=2.5 if line.boundary == TOTAL else 3, **style)


def _draw_range(axes: Axes, line: Pieces, unit_s: float) -> bool:
    """Shade the range of power in each piece; tell whether there is any."""
    if not np.any(line.high_w > line.low_w):
        return False
    x, (low, high) = _list_steps(line, unit_s, line.low_w, line.high_w)
    colour = POWER_STYLE.get(line.boundary, ("0.4", 0))[0]
    axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0, zorder=2)
    return True


def _list_steps(
    line: Pieces, unit_s: float, *powers_w: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Give the corners of steps: times and powers, NaN between pieces that do not touch."""
    breaks = np.flatnonzero(line.start_s[1:] - line.end_s[:-1] > _TOUCH_S) + 1
    x, *steps = (
        np.insert(np.stack(pair, axis=1), breaks, np.nan, axis=0).ravel()
        for pair in ((line.start_s, line.end_s), *((power_w, power_w) for power_w in powers_w))
    )
    return x / unit_s, steps


def _draw_moments(axes: Axes, moments: tuple[Moment, ...], unit_s: float) -> dict[str, Any]:
    """Draw what the command marked; give the entries of the legend."""
    handles = {}
    epochs = [moment for moment in moments if moment.kind == "epoch"]
    every = len(epochs) // _MAX_EPOCHS + 1
    kept = {id(moment) for moment in epochs[every - 1 :: every]}
    for moment in moments:
        if moment.kind == "epoch" and id(moment) not in kept:
            continue
        style = _MOMENTS[moment.kind]
        axes.axvline(moment.at_s / unit_s, **style)
        label = f"{every} epochs" if moment.kind == "epoch" and every > 1 else moment.kind
        label += f" {moment.text}" if moment.kind == "phase" else ""
        handles[label] = build_handle(label, **{**style, "marker": ""})
    return handles
