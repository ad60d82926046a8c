"""What trainings cost: EER against their energy, and their energy against their computation.

The first is the study's Figure 1, with the Pareto front and its knee. In the second, on two
logarithmic axes, energy in proportion to computation is a line of slope 1. It is drawn through the
system of least energy per multiply-accumulate; what lies above it paid for something else than
multiplications, small networks mostly for bringing data to the processors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sv.energy.units import j_from_kwh
from sv.report.advice import KNEE_METHOD, find_knee, pareto_front
from sv.report.figures.frame import (
    BAR,
    COLUMN_INCHES,
    Drawing,
    Place,
    add_legend_rows,
    add_remarks,
    build_handle,
    describe_eer,
    describe_energy,
    draw_bar,
    get_mark,
    get_marker,
    list_families,
    list_fillings,
    place_labels,
    set_log_axis,
    shorten_names,
    widen_log,
)
from sv.report.noise import find_measured
from sv.report.results import (
    TRAIN_STAGE,
    Results,
    Stage,
    System,
    compute_average,
    family_of,
    find_stage,
)
from sv.report.tables.cells import format_significant
from sv.report.tables.evidence import explain_energies, explain_incomplete

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_ON_FRONT = 2
_LEAST_DECADES = 0.5  # a factor of 3: equal systems must not look far apart
_LEAST_DECADES_WORK = 0.7
_LEAST_FRACTION = 3.0  # of an energy: how far down an interval is seen
_FRONT = {"color": "0.35", "linewidth": 0.9, "linestyle": (0, (5, 1.5)), "zorder": 2}
_KNEE = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.0}
_KNEE |= {"color": "0.1", "zorder": 3, "linestyle": "none"}
_MULTIPLES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
_MOST_BELOW = 30.0  # times below the least energy; the line runs out of the axes there
_INSIDE = 0.035  # of the x axis, from the end of a line to its factor
_LINE = {"color": "0.25", "linewidth": 1.0, "linestyle": "-", "zorder": 2}
_MULTIPLE = {"color": "0.65", "linewidth": 0.6, "linestyle": (0, (1, 2)), "zorder": 1.8}


@dataclass(frozen=True)
class Point:
    """A system in the figure of accuracy; ``stage`` is its training.

    ``eer_interval`` is the 95 % interval over speakers, None where it is not known.
    """

    label: str
    family: str
    energy_kwh: float
    eer_percent: float
    eer_interval: tuple[float, float] | None
    stage: Stage


@dataclass(frozen=True)
class Work:
    """What a training computed and used.

    ``gmac`` are the multiply-accumulates (10^9) of the forward passes of its crops; backward
    passes, validation and the head are in the energy and not in them. ``stage`` is the training.
    """

    label: str
    family: str
    gmac: float
    energy_kwh: float
    stage: Stage


def collect_points(results: Results, lists: tuple[str, ...]) -> tuple[list[Point], list[str]]:
    """Return the systems to show, and a line for each of the others."""
    points, left_out = [], []
    for system in results.systems:
        average = compute_average(system, lists)
        stage = find_stage(system, TRAIN_STAGE, "train")
        energy_kwh = stage.energy_kwh if stage else None
        if average.eer_percent is None or stage is None or not energy_kwh:
            lacks = "no training energy" if average.eer_percent is not None else average.reason
            left_out.append(f"{system.name} is not shown: {lacks}")
            continue
        measured = find_measured(system, lists, "eer_percent")
        points.append(
            Point(
                label=system.name + get_mark(stage),
                family=family_of(system.name),
                energy_kwh=energy_kwh,
                eer_percent=average.eer_percent,
                eer_interval=measured.interval if measured else None,
                stage=stage,
            )
        )
    return points, left_out


def choose_front(points: Sequence[Point]) -> tuple[list[int], int | None, str]:
    """Return the front and the knee, as indices of ``points``, and why there is no front.

    Only whole trainings can be on it, and only where their energies may be compared.
    """
    whole = [i for i, point in enumerate(points) if not explain_incomplete(point.stage)]
    obstacles = explain_energies([points[i].stage for i in whole])
    if obstacles:
        return [], None, f"no Pareto front: {'; '.join(obstacles)}"
    if len(whole) < _LEAST_ON_FRONT:
        return [], None, ""
    places = [(points[i].energy_kwh, points[i].eer_percent) for i in whole]
    knee = find_knee(places)
    return [whole[i] for i in pareto_front(places)], None if knee is None else whole[knee.index], ""


def draw_energy_accuracy(figure: "Figure", results: Results, lists: tuple[str, ...]) -> Drawing:
    """Draw every system that has both figures into an empty figure.

    Args:
        figure: Where to draw; no axes are made without any system.
        results: What stage 8 found.
        lists: Trial lists; the EER is the average over them.
    """
    points, left_out = collect_points(results, lists)
    if not points:
        what = "an average EER" if len(lists) != 1 else "an EER"
        return Drawing([*left_out, f"no figure, no system has both {what} and training energy"])
    figure.set_size_inches(COLUMN_INCHES, 3.4)
    axes = figure.add_axes((0.115, 0.12, 0.87, 0.78))
    _set_limits(axes, points)
    axes.set_xlabel("Training energy (kWh)")
    axes.set_ylabel(f"EER, {lists[0]} (%)" if len(lists) == 1 else "Average EER (%)")
    lines = [line for point in points for line in _draw_bars(axes, point)]
    front, bend, lacks = choose_front(points)
    knee = None if bend is None else points[bend]
    handles, about_knee = [], ""
    if front:
        lines.append(_draw_front(axes, [points[i] for i in front]))
        handles.append(build_handle("Pareto front", **_FRONT))
    if knee is not None:
        axes.plot(knee.energy_kwh, knee.eer_percent, **_KNEE)
        handles.append(build_handle("knee", **{**_KNEE, "markersize": 7}))
        about_knee = f"Knee: {knee.label}; {KNEE_METHOD}."
    bars = ["EER over other speakers"] if any(point.eer_interval for point in points) else []
    if any(point.stage.sidecar.uncertainty_kwh is not None for point in points):
        bars.append("energy with k = 2")
    if bars:
        handles.append(build_handle("95 %", **{**BAR, "linestyle": "-", "linewidth": 1.0}))
    about_bars = f"95 %: {', '.join(bars)}." if bars else ""
    drawing = Drawing([*left_out, lacks] if lacks else left_out)
    systems = [
        (p, (p.energy_kwh, p.eer_percent), describe_eer(p.eer_percent, p.eer_interval))
        for p in points
    ]
    _draw_systems(axes, systems, lines, drawing)
    _explain(axes, points, handles, about_bars, about_knee)
    return drawing


def _set_limits(axes: "Axes", points: list[Point]) -> None:
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


def _draw_bars(axes: "Axes", point: Point) -> list[list[Place]]:
    """Draw the intervals of a point that are known; return them as lines."""
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


def _draw_front(axes: "Axes", front: list[Point]) -> list[Place]:
    """Draw the front: for each energy, the lowest EER that no more energy buys."""
    steps = [(front[0].energy_kwh, axes.get_ylim()[1])]
    for point in front:
        steps += [(point.energy_kwh, steps[-1][1]), (point.energy_kwh, point.eer_percent)]
    steps.append((axes.get_xlim()[1], steps[-1][1]))
    axes.plot(*zip(*steps, strict=True), **_FRONT)
    return steps


def _draw_systems(
    axes: "Axes",
    systems: Sequence[tuple[Point | Work, Place, str]],
    lines: list[list[Place]],
    drawing: Drawing,
) -> None:
    """Draw a marker for each system at its place, and a label off the markers and ``lines``.

    The pointer shows name, text and energy of a system.
    """
    for system, place, text in systems:
        (marker,) = axes.plot(*place, **get_marker(system.family, system.stage))
        drawing.add_hover(marker, f"{system.label}\n{text}\n{describe_energy(system.stage)}")
    names, _ = shorten_names([system.label for system, _, _ in systems])
    place_labels(axes, [place for _, place, _ in systems], names, lines)


def _explain(
    axes: "Axes", systems: Sequence[Point | Work], handles: list["Artist"], *remarks: str
) -> None:
    """Explain what occurs: families, fillings, lines (``handles``), cut names after a remark."""
    fillings = list_fillings([system.stage for system in systems])
    others = [fillings + handles] if len(fillings) == 1 else [fillings, handles]
    add_legend_rows(axes, [list_families([system.family for system in systems]), *others])
    prefix = shorten_names([system.label for system in systems])[1]
    cut = f"Names without their \u2018{prefix}\u2019." if prefix else ""
    lines = [remark for remark in (remarks[0], cut, *remarks[1:]) if remark]
    add_remarks(axes, lines, below_inches=0.42)


def collect_work(results: Results) -> tuple[list[Work], list[str]]:
    """Return work and energy of every training, and a line for each system left out."""
    found, left_out = [], []
    for system in results.systems:
        stage = find_stage(system, TRAIN_STAGE, "train")
        gmac, lacks = _find_gmac(system)
        if gmac is None:
            left_out.append(f"{system.name} is not shown: {lacks}")
        elif stage is None or not stage.energy_kwh:
            left_out.append(f"{system.name} is not shown: no training energy")
        else:
            label = system.name + get_mark(stage)
            found.append(Work(label, family_of(system.name), gmac, stage.energy_kwh, stage))
            left_out += [f"{system.name}: {lacks}"] if lacks else []
    return found, left_out


def _find_gmac(system: System) -> tuple[float | None, str]:
    """Return the forward GMAC of a training; why it is not known, or what it leaves out."""
    network = system.network
    if network is None:
        return None, "no model.json"
    if not network.gmac or not network.crops_trained:
        return None, "no gmac or crops_trained in model.json"
    phases = network.crops_by_phase or {}
    longer = [name for name, count in list(phases.items())[1:] if count]
    note = f"the crops of {', '.join(longer)} are longer and are counted as the first phase's"
    return network.gmac * network.crops_trained, note if longer else ""


def find_cheapest(found: list[Work]) -> Work | None:
    """Return the training of least energy per GMAC, a whole one if there is any."""
    whole = [work for work in found if not explain_incomplete(work.stage)] or found
    return min(whole, key=lambda work: work.energy_kwh / work.gmac, default=None)


def draw_energy_gmac(figure: "Figure", results: Results) -> Drawing:
    """Draw every training whose work and energy are known into an empty figure, if there is any."""
    found, left_out = collect_work(results)
    cheapest = find_cheapest(found)
    if cheapest is None:
        return Drawing([*left_out, "no figure, no system has both GMAC and energy of its training"])
    figure.set_size_inches(COLUMN_INCHES, 3.2)
    axes = figure.add_axes((0.14, 0.13, 0.845, 0.77))
    set_log_axis(axes, "x", *widen_log([work.gmac for work in found], 0.1, _LEAST_DECADES_WORK))
    _set_energy_limits(axes, found, cheapest)
    axes.set_xlabel("Forward multiply-accumulates of the training (GMAC)")
    axes.set_ylabel("Training energy (kWh)")
    lines = _draw_proportions(axes, found, cheapest)
    handles = [build_handle("kWh \u221d GMAC", **{**_LINE, "marker": ""})]
    for work in found:
        if (uncertainty_kwh := work.stage.sidecar.uncertainty_kwh) is not None:
            low = max(work.energy_kwh - uncertainty_kwh, axes.get_ylim()[0] / 2)
            high = work.energy_kwh + uncertainty_kwh
            lines.append(draw_bar(axes, (work.gmac, low), (work.gmac, high)))
    if any(work.stage.sidecar.uncertainty_kwh is not None for work in found):
        handles.append(
            build_handle("\u00b1 (k = 2)", **{**BAR, "linestyle": "-", "linewidth": 1.0})
        )
    drawing = Drawing(left_out + explain_energies([work.stage for work in found]))
    rate = cheapest.energy_kwh / cheapest.gmac
    systems = []
    for work in found:
        times = f"{work.energy_kwh / work.gmac / rate:.2f} times the least kWh per GMAC"
        text = f"{work.gmac:.4g} GMAC, forward, {times}"
        systems.append((work, (work.gmac, work.energy_kwh), text))
    _draw_systems(axes, systems, lines, drawing)
    remark = (
        f"Line: proportional, through {cheapest.label}, the least energy per multiply-accumulate "
        f"({format_significant(j_from_kwh(rate))} J/GMAC); dotted: multiples of it."
    )
    _explain(axes, found, handles, remark)
    return drawing


def _set_energy_limits(axes: "Axes", found: list[Work], cheapest: Work) -> None:
    """Make room for the systems and for the line below the smallest of them."""
    energies = [work.energy_kwh for work in found]
    energies += [work.energy_kwh + (work.stage.sidecar.uncertainty_kwh or 0.0) for work in found]
    smallest = min(work.gmac for work in found) / cheapest.gmac * cheapest.energy_kwh
    energies.append(max(smallest, min(energies) / _MOST_BELOW))
    set_log_axis(axes, "y", *widen_log(energies, 0.1, _LEAST_DECADES_WORK))


def _draw_proportions(axes: "Axes", found: list[Work], cheapest: Work) -> list[list[Place]]:
    """Draw the line of proportionality, and its multiples up to the dearest system."""
    lines = []
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    least = cheapest.energy_kwh / cheapest.gmac  # kWh per GMAC
    most = max(work.energy_kwh / work.gmac for work in found) / least
    below = [factor for factor in _MULTIPLES if factor < most]
    for factor in (1, *_MULTIPLES[: len(below) + 1]):
        slope = factor * least
        line = [(left, slope * left), (right, slope * right)]
        axes.plot(*zip(*line, strict=True), **(_LINE if factor == 1 else _MULTIPLE))
        lines.append(line)
        # At the line's end in the axes, a little inside.
        x = min(right, top / slope) * (left / right) ** _INSIDE
        if factor > 1 and left < x and bottom < slope * x:
            axes.text(
                x, slope * x, f"\u00d7{factor}", fontsize=6, color="0.4", ha="center", va="center",
                zorder=1.9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
            step = (left / right) ** (_INSIDE / 2)
            lines.append([(x * step, slope * x), (x / step, slope * x)])
    return lines
