"""EER against training energy, the study's Figure 1, with the Pareto front and its knee."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sv.report.advice import KNEE_METHOD
from sv.report.figures.frame import (
    BAR,
    COLUMN_INCHES,
    add_legend_rows,
    add_remarks,
    build_handle,
    draw_bar,
    set_log_axis,
    widen_log,
)
from sv.report.figures.labels import place_labels, shorten_names
from sv.report.figures.palette import FAMILY_LABEL, FAMILY_STYLE
from sv.report.figures.points import Point, choose_front, collect_points, get_mark
from sv.report.results import Results, Stage

MARKER_POINTS = 5.0
_LEAST_DECADES = 0.5  # a factor of 3: equal systems must not look far apart
_WHOLE = 1e-6
_LEAST_FRACTION = 3.0  # of an energy: how far down an interval is seen
_FRONT = {"color": "0.35", "linewidth": 0.9, "linestyle": (0, (5, 1.5)), "zorder": 2}
_KNEE = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.0}
_KNEE |= {"color": "0.1", "zorder": 3}


def draw_energy_accuracy(figure: Figure, results: Results, trials: str | None = None) -> list[str]:
    """Draw every system that has both figures into an empty figure.

    Args:
        figure: Where to draw.
        results: What stage 8 found.
        trials: A trial list; None: the average of all scored lists.

    Returns:
        A line for each system left out; no axes are made if all are.
    """
    lists = results.scored if trials is None else (trials,)
    points, left_out = collect_points(results, lists)
    if not points:
        what = "an average EER" if len(lists) != 1 else "an EER"
        return [*left_out, f"no figure, no system has both {what} and training energy"]
    figure.set_size_inches(COLUMN_INCHES, 3.4)
    axes = figure.add_axes((0.115, 0.12, 0.87, 0.78))
    _set_limits(axes, points)
    axes.set_xlabel("Training energy (kWh)")
    axes.set_ylabel(f"EER, {lists[0]} (%)" if len(lists) == 1 else "Average EER (%)")
    lines = [line for point in points for line in _draw_bars(axes, point)]
    front, bend, lacks = choose_front(points)
    knee = None if bend is None else points[bend]
    if front:
        lines.append(_draw_front(axes, [points[i] for i in front]))
    if knee is not None:
        axes.plot(knee.energy_kwh, knee.eer_percent, linestyle="none", **_KNEE)
    for point in points:
        place = (point.energy_kwh, point.eer_percent)
        axes.plot(
            *place,
            linestyle="none",
            **get_marker(point.family, point.stage),
        )
    names, prefix = shorten_names([point.label for point in points])
    place_labels(
        figure,
        axes,
        [(p.energy_kwh, p.eer_percent) for p in points],
        names,
        marker_points=MARKER_POINTS,
        lines=lines,
    )
    _explain(figure, axes, points, front=bool(front), knee=knee, prefix=prefix)
    return left_out + ([lacks] if lacks else [])


def get_marker(family: str, stage: Stage) -> dict[str, Any]:
    """Filled: measured; half: partly; hollow: estimated, or not known to be measured."""
    shape, colour = FAMILY_STYLE[family]
    share = stage.sidecar.measured_fraction or 0.0
    fill = "full" if share > 1 - _WHOLE else "none" if share < _WHOLE else "left"
    return {
        "marker": shape,
        "markersize": MARKER_POINTS,
        "color": colour,
        "fillstyle": fill,
        "markerfacecoloralt": "white",
        "markeredgewidth": 1.1,
        "zorder": 4,
    }


def list_families(families: Sequence[str]) -> list[Any]:
    """Give the legend's entries of the families that occur."""
    return [
        build_handle(label, marker=FAMILY_STYLE[family][0], color=FAMILY_STYLE[family][1])
        for family, label in FAMILY_LABEL.items()
        if family in families
    ]


def list_fillings(stages: Sequence[Stage]) -> list[Any]:
    """Give the legend's entries of the fillings that occur, and of the mark of the incomplete."""
    shares = [stage.sidecar.measured_fraction or 0.0 for stage in stages]
    kinds = (
        ("full", "measured", any(share > 1 - _WHOLE for share in shares)),
        ("left", "partly estimated", any(_WHOLE <= share <= 1 - _WHOLE for share in shares)),
        ("none", "estimated", any(share < _WHOLE for share in shares)),
    )
    style = {"marker": "o", "color": "0.35", "markerfacecoloralt": "white"}
    found = [build_handle(label, fillstyle=fill, **style) for fill, label, shown in kinds if shown]
    if any(get_mark(stage) for stage in stages):
        found.append(build_handle("incomplete", marker="$§$", color="0.15", markeredgewidth=0))
    return found


def _set_limits(axes: Axes, points: list[Point]) -> None:
    """Make room for points and intervals."""
    energies = [point.energy_kwh for point in points]
    for point in points:
        uncertainty_kwh = point.stage.sidecar.uncertainty_kwh or 0.0
        energies += [point.energy_kwh + uncertainty_kwh]
        # An interval down to 0 runs out of the axes.
        energies += [max(point.energy_kwh - uncertainty_kwh, point.energy_kwh / _LEAST_FRACTION)]
    set_log_axis(axes, "x", *widen_log(energies, 0.12, _LEAST_DECADES))
    eers = np.array([point.eer_percent for point in points])
    ends = [end for point in points for end in point.eer_interval or ()]
    room = max(0.18 * np.ptp(eers), 0.05 * eers.max(), 0.05)
    low = min([eers.min() - room, *(end - 0.1 * room for end in ends)])
    high = max([eers.max() + room, *(end + 0.1 * room for end in ends)])
    axes.set_ylim(max(0.0, low), high)


def _draw_bars(axes: Axes, point: Point) -> list[list[tuple[float, float]]]:
    """Draw the intervals of a point that are known; give them as lines."""
    lines = []
    kwh, eer_percent = point.energy_kwh, point.eer_percent
    if point.eer_interval is not None:
        low, high = point.eer_interval
        lines.append(draw_bar(axes, (kwh, low), (kwh, high)))
    if (uncertainty_kwh := point.stage.sidecar.uncertainty_kwh) is not None:
        # Down to 0 and below it a logarithmic axis has no place.
        low = max(kwh - uncertainty_kwh, axes.get_xlim()[0] / 2)
        lines.append(draw_bar(axes, (low, eer_percent), (kwh + uncertainty_kwh, eer_percent)))
    return lines


def _draw_front(axes: Axes, front: list[Point]) -> list[tuple[float, float]]:
    """Draw the front: for each energy, the lowest EER that no more energy buys."""
    steps = [(front[0].energy_kwh, axes.get_ylim()[1])]
    for point in front:
        steps += [(point.energy_kwh, steps[-1][1]), (point.energy_kwh, point.eer_percent)]
    steps.append((axes.get_xlim()[1], steps[-1][1]))
    axes.plot(*zip(*steps, strict=True), **_FRONT)
    return steps


def _explain(
    figure: Figure, axes: Axes, points: list[Point], *, front: bool, knee: Point | None, prefix: str
) -> None:
    """Explain what occurs: families, fillings, front, knee and intervals."""
    lines, bars = [], []
    if front:
        lines.append(build_handle("Pareto front", **{**_FRONT, "marker": ""}))
    if knee is not None:
        lines.append(build_handle("knee", **{**_KNEE, "markersize": 7}))
    if any(point.eer_interval for point in points):
        bars.append("EER over other speakers")
    if any(point.stage.sidecar.uncertainty_kwh is not None for point in points):
        bars.append("energy with k = 2")
    if bars:
        lines.append(build_handle("95 %", **{**BAR, "linestyle": "-", "linewidth": 1.0}))
    fillings = list_fillings([point.stage for point in points])
    others = [fillings + lines] if len(fillings) == 1 else [fillings, lines]
    add_legend_rows(figure, axes, [list_families([p.family for p in points]), *others])
    remarks = [f"95 %: {', '.join(bars)}."] if bars else []
    if prefix:
        remarks.append(f"Names without their \u2018{prefix}\u2019.")
    if knee is not None:
        remarks.append(f"Knee: {knee.label}; {KNEE_METHOD}.")
    add_remarks(figure, axes, remarks, below_inches=0.42)
