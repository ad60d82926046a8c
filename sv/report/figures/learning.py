"""Validation EER against the energy that a training has used: a line for each system."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sv.report.advice import choose_front, collect_points
from sv.report.figures.frame import (
    COLUMN_INCHES,
    Drawing,
    add_legend_below,
    build_handle,
    get_line_style,
    set_log_axis,
)
from sv.report.results import Results, Stage
from sv.report.tables.cells import choose_unit
from sv.report.tables.evidence import describe_share, format_kwh, list_some

_MARKS_A_LINE = 6
_LOG_FROM = 4.0  # times between the lowest and the highest EER
_LEAST_DECADES = 0.5
_OTHER = {"color": "0.75", "linewidth": 0.7, "zorder": 2}  # of a system that is not on the front


@dataclass(frozen=True)
class LearningCurve:
    """Validation EER at the end of epochs, against the energy of the run up to then.

    ``share`` is the measured part of the energy, 0 to 1; None: not known.
    """

    system: str
    epochs: tuple[int, ...]
    energy_kwh: tuple[float, ...]
    eer_percent: tuple[float, ...]
    share: float | None


def collect_learning(results: Results) -> tuple[list[LearningCurve], list[str]]:
    """Return the learning curve of every system, and a line for what is left out of it."""
    curves, left_out = [], []
    for system in results.systems:
        stage = system.training
        if stage is None:
            left_out.append(f"{system.name} is not shown: no training energy")
            continue
        points, lacking = _read_epochs(stage)
        for reason, numbers in lacking.items():
            epochs = [str(number) for number in numbers]
            left_out.append(f"{system.name} without epoch {list_some(epochs)}: {reason}")
        if points:
            # An epoch that a later attempt did again is there as it was in the end.
            rows = [(epoch, *points[epoch]) for epoch in sorted(points)]
            share = stage.sidecar.measured_fraction
            curves.append(LearningCurve(system.name, *zip(*rows, strict=True), share))
        elif not lacking:
            left_out.append(f"{system.name} is not shown: no epochs in {stage.path.name}")
    return curves, left_out


def _read_epochs(stage: Stage) -> tuple[dict[int, tuple[float, float]], dict[str, list[int]]]:
    """Read the epochs of a training from the marks in its sidecar.

    Returns:
        Epoch -> kWh of the run up to its end (resumed attempts included) and validation EER in
        percent; and reason -> the epochs that lack one of them.
    """
    points: dict[int, tuple[float, float]] = {}
    lacking: dict[str, list[int]] = {}
    before_kwh: float | None = 0.0
    for attempt in stage.sidecar.run:
        for mark in attempt.marks:
            if mark.mark != "epoch":
                continue
            epoch = int(mark.payload.get("epoch", 0))
            eer_percent = mark.payload.get("valid_eer_percent")
            if before_kwh is None:
                reason = "the energy of an attempt before it is not known"
            elif mark.energy_kwh is None:
                reason = mark.energy_reason or "its energy is not known"
            elif eer_percent is None:
                reason = "no validation EER"
            else:
                points[epoch] = (before_kwh + mark.energy_kwh, float(eer_percent))
                continue
            lacking.setdefault(reason, []).append(epoch)
        known = before_kwh is not None and attempt.energy_kwh is not None
        before_kwh = before_kwh + attempt.energy_kwh if known else None
    missing = {reason: [n for n in epochs if n not in points] for reason, epochs in lacking.items()}
    return points, {reason: epochs for reason, epochs in missing.items() if epochs}


def draw_learning_energy(drawing: Drawing, results: Results) -> None:
    """Draw the learning curve of every system; if there is a Pareto front, the others in grey."""
    curves, drawing.left_out = collect_learning(results)
    if not curves:
        lacks = "no figure, no system has epochs with energy and validation EER"
        drawing.left_out.append(lacks)
        return
    drawing.figure.set_size_inches(COLUMN_INCHES, 3.0)
    axes = drawing.figure.add_axes((0.125, 0.13, 0.86, 0.85))
    unit, factor = choose_unit([curve.energy_kwh[-1] for curve in curves], "kWh")
    _set_limits(axes, curves, factor)
    points, _ = collect_points(results, results.scored)
    front = {points[index].label for index in choose_front(points)[0]}
    shown = [curve for curve in curves if not front or curve.system in front]
    handles = []
    for curve in curves:
        energies = [factor * kwh for kwh in curve.energy_kwh]
        if curve in shown:
            style = _style_curve(shown.index(curve), curve)
            (line,) = axes.plot(energies, curve.eer_percent, label=curve.system, **style)
            handles.append(line)
        else:
            axes.plot(energies, curve.eer_percent, **_OTHER)
        # The pointer finds every epoch, not only those with a marker.
        (found,) = axes.plot(energies, curve.eer_percent, "o", markersize=4, alpha=0, zorder=4)
        rows = zip(curve.epochs, curve.energy_kwh, curve.eer_percent, strict=True)
        texts = [
            f"{curve.system}, epoch {epoch}\nEER {eer_percent:.2f} %, {format_kwh(kwh)}, "
            f"{describe_share(curve.share)}"
            for epoch, kwh, eer_percent in rows
        ]
        drawing.add_hover(found, *texts)
    if len(shown) < len(curves):
        handles.append(build_handle("not on the front", **{**_OTHER, "linestyle": "-"}))
    axes.set_xlabel(f"Energy of the training so far ({unit})")
    axes.set_ylabel("Validation EER (%)")
    add_legend_below(axes, handles, left_inches=0.02)
    drawing.caption = (
        "Validation EER at the end of each epoch, on the training's own trials, against the energy "
        "until then: lower than another's at the same energy is better so far. "
        + ("Coloured: the systems of the Pareto front. " if len(shown) < len(curves) else "")
        + "Hollow markers: the energy is estimated, not measured."
    )


def _style_curve(index: int, curve: LearningCurve) -> dict[str, Any]:
    every = max(1, round(len(curve.epochs) / _MARKS_A_LINE))
    # Not all at the same epochs: markers of like curves would hide each other.
    last = len(curve.epochs) - 1
    marked = sorted({last, *range(last - index % every, -1, -every)})
    style = get_line_style(index) | {"markevery": marked, "linewidth": 1.1, "zorder": 3}
    style |= {"markersize": 3.5, "markeredgewidth": 0.9}
    return style if curve.share else {**style, "markerfacecolor": "white"}


def _set_limits(axes: Axes, curves: list[LearningCurve], factor: float) -> None:
    energies = [factor * kwh for curve in curves for kwh in curve.energy_kwh if kwh > 0]
    set_log_axis(axes, "x", energies or [1.0], 0.03, _LEAST_DECADES)
    eers = np.concatenate([curve.eer_percent for curve in curves])
    if eers.min() > 0 and eers.max() / eers.min() > _LOG_FROM:
        set_log_axis(axes, "y", eers, 0.04, _LEAST_DECADES)
    else:
        room = max(0.08 * np.ptp(eers), 0.02 * eers.max(), 0.05)
        axes.set_ylim(max(0.0, eers.min() - room), eers.max() + room)
