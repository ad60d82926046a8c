"""Average EER against training energy, the study's Figure 1."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sv.report.cells import MARKS
from sv.report.evidence import energy_marks
from sv.report.labels import place_labels
from sv.report.palette import FAMILY_LABEL, FAMILY_STYLE
from sv.report.records import TRAIN_STAGE, Results, compute_average, family_of, find_stage

_MARKER_POINTS = 6.0


@dataclass(frozen=True)
class Point:
    """A system in the figure. ``share`` is the measured part of its energy."""

    label: str
    family: str
    energy_kwh: float
    eer_percent: float
    share: float | None


def draw_energy_accuracy(figure: Figure, results: Results) -> list[str]:
    """Draw every system that has both figures into an empty figure.

    Returns:
        A line for each system left out; no axes are made if all are.
    """
    points, left_out = collect_points(results)
    if not points:
        return [*left_out, "no figure, no system has both an average EER and training energy"]
    figure.set_size_inches(5.2, 3.6)
    axes = figure.add_axes((0.09, 0.12, 0.89, 0.76))
    axes.set_xscale("log")
    for point in points:
        axes.plot(point.energy_kwh, point.eer_percent, linestyle="none", **_marker(point))
    _set_limits(axes, points)
    axes.set_xlabel("Training energy (kWh)")
    lists = results.scored
    axes.set_ylabel(f"EER, {lists[0]} (%)" if len(lists) == 1 else "Average EER (%)")
    _add_legend(figure, axes, points)
    places = [(point.energy_kwh, point.eer_percent) for point in points]
    place_labels(figure, axes, places, [point.label for point in points], _MARKER_POINTS)
    return left_out


def collect_points(results: Results) -> tuple[list[Point], list[str]]:
    """Give the systems to show, and a line for each of the others."""
    points, left_out = [], []
    for system in results.systems:
        average = compute_average(system, results.scored)
        stage = find_stage(system, TRAIN_STAGE, "train")
        energy_kwh = stage.energy_kwh if stage else None
        if average.eer_percent is None or stage is None or not energy_kwh:
            lacks = "no training energy" if average.eer_percent is not None else average.reason
            left_out.append(f"{system.name} is not shown: {lacks}")
            continue
        mark = MARKS["incomplete"] if "incomplete" in energy_marks(stage) else ""
        share = stage.measured_fraction
        family = family_of(system.name)
        points.append(Point(system.name + mark, family, energy_kwh, average.eer_percent, share))
    return points, left_out


def _marker(point: Point) -> dict[str, Any]:
    """Filled: measured; half: partly; hollow: estimated, or not known to be measured."""
    shape, colour = FAMILY_STYLE[point.family]
    share = point.share or 0.0
    fill = "full" if share > 1 - 1e-6 else "none" if share < 1e-6 else "left"
    return {
        "marker": shape,
        "markersize": _MARKER_POINTS,
        "color": colour,
        "fillstyle": fill,
        "markerfacecoloralt": "white",
        "markeredgewidth": 1.1,
        "zorder": 4,
    }


def _set_limits(axes: Axes, points: list[Point]) -> None:
    energies = np.array([point.energy_kwh for point in points])
    eers = np.array([point.eer_percent for point in points])
    # At least a factor of 3 wide: equal systems must not look far apart.
    middle = np.log10(energies).min() / 2 + np.log10(energies).max() / 2
    half = max(np.ptp(np.log10(energies)) / 2 * 1.4, 0.5)
    axes.set_xlim(10 ** (middle - half), 10 ** (middle + half))
    room = max(0.18 * np.ptp(eers), 0.05 * eers.max(), 0.05)
    axes.set_ylim(max(0.0, eers.min() - room), eers.max() + room)
    subs = (1.0, 2.0, 5.0) if half < 1.2 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _add_legend(figure: Figure, axes: Axes, points: list[Point]) -> None:
    """Explain the families and fillings that occur."""
    families = []
    for family, label in FAMILY_LABEL.items():
        if any(point.family == family for point in points):
            shape, colour = FAMILY_STYLE[family]
            families.append(_handle(label, marker=shape, color=colour))
    shares = [point.share or 0.0 for point in points]
    kinds = [
        _handle(label, marker="o", color="0.35", fillstyle=fill, markerfacecoloralt="white")
        for fill, label, shown in (
            ("full", "measured", any(share > 1 - 1e-6 for share in shares)),
            ("left", "partly estimated", any(1e-6 <= share <= 1 - 1e-6 for share in shares)),
            ("none", "estimated", any(share < 1e-6 for share in shares)),
        )
        if shown
    ]
    if any(point.label.endswith(MARKS["incomplete"]) for point in points):
        kinds.append(_handle("incomplete", marker="$§$", color="0.15", markeredgewidth=0))
    for handles, above in ((families, 1.055), (kinds, 1.0)):
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, above), ncols=len(handles),
            bbox_transform=axes.transAxes, handletextpad=0.2, columnspacing=1.2, borderpad=0.2,
            borderaxespad=0.1,
        )  # fmt: skip


def _handle(label: str, **style: Any) -> Line2D:
    return Line2D([], [], linestyle="", markersize=5, label=label, **style)
