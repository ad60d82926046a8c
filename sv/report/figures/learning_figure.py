"""Validation EER against the energy that a training has used: a line for each system."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sv.report.figures.curves import LearningCurve, collect_learning
from sv.report.figures.frame import COLUMN_INCHES, add_legend_below, set_log_axis, widen_log
from sv.report.figures.palette import get_line_style
from sv.report.results import Results

_MARKS_A_LINE = 6
_LOG_FROM = 4.0  # times between the lowest and the highest EER
_LEAST_DECADES = 0.5


def draw_learning_energy(figure: Figure, results: Results) -> list[str]:
    """Draw the learning curve of every system into an empty figure.

    Returns:
        A line for each system or group of epochs left out; no axes are made without any curve.
    """
    curves, left_out = collect_learning(results)
    if not curves:
        return [*left_out, "no figure, no system has epochs with energy and validation EER"]
    figure.set_size_inches(COLUMN_INCHES, 3.0)
    axes = figure.add_axes((0.125, 0.13, 0.86, 0.85))
    _set_limits(axes, curves)
    handles = []
    for index, curve in enumerate(curves):
        every = max(1, round(len(curve.epochs) / _MARKS_A_LINE))
        # Not all at the same epochs: markers of like curves would hide each other.
        start = len(curve.epochs) - 1 - (index % every)
        shown = sorted({len(curve.epochs) - 1, *range(start, -1, -every)})
        style = {"markersize": 3.5, "markeredgewidth": 0.9, "linewidth": 1.1}
        if not curve.share:
            style["markerfacecolor"] = "white"
        (line,) = axes.plot(
            curve.energy_kwh, curve.eer_percent, markevery=shown, label=curve.system,
            zorder=3, **get_line_style(index), **style,
        )  # fmt: skip
        handles.append(line)
    axes.set_xlabel("Energy of the training so far (kWh)")
    axes.set_ylabel("Validation EER (%)")
    filled = {bool(curve.share) for curve in curves}
    title = {(False,): "System (energy estimated)", (True,): "System"}.get(
        tuple(filled), "System (hollow: energy estimated)"
    )
    add_legend_below(figure, axes, handles, title, left_inches=0.02)
    return left_out


def _set_limits(axes: Axes, curves: list[LearningCurve]) -> None:
    energies = [kwh for curve in curves for kwh in curve.energy_kwh if kwh > 0]
    set_log_axis(axes, "x", *widen_log(energies or [1.0], 0.03, _LEAST_DECADES))
    eers = np.array([eer for curve in curves for eer in curve.eer_percent])
    if eers.min() > 0 and eers.max() / eers.min() > _LOG_FROM:
        set_log_axis(axes, "y", *widen_log(eers.tolist(), 0.04, _LEAST_DECADES))
    else:
        room = max(0.08 * np.ptp(eers), 0.02 * eers.max(), 0.05)
        axes.set_ylim(max(0.0, eers.min() - room), eers.max() + room)
