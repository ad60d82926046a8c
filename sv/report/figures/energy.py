"""What trainings cost: EER against their energy, and their energy against their computation.

The first is the study's Figure 1, with the Pareto front and its knee. In the second, on two
logarithmic axes, energy in proportion to computation is a line of slope 1. It is drawn through the
system of least energy per multiply-accumulate; what lies above it paid for something else than
multiplications, small networks mostly for bringing data to the processors.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from sv.energy.units import j_from_kwh
from sv.report.advice import (
    KNEE_METHOD,
    Point,
    Training,
    choose_front,
    collect_points,
    find_training,
)
from sv.report.figures.frame import (
    COLUMN_INCHES,
    LEGEND_ROW_INCHES,
    MARKER_POINTS,
    Drawing,
    Place,
    build_handle,
    place_labels,
    set_log_axis,
    shorten_names,
)
from sv.report.results import Results, System
from sv.report.tables.cells import format_significant
from sv.report.tables.evidence import (
    describe_eer,
    describe_energy,
    explain_energies,
    explain_incomplete,
    rate_share,
)

_LEAST_DECADES = 0.5  # a factor of 3: equal systems must not look far apart
_LEAST_DECADES_WORK = 0.7
_LEAST_FRACTION = 3.0  # of an energy: how far down an interval is seen
# Family of the study's Table 1: its label, marker and colour, all different.
_FAMILIES = {
    "depth": ("Depth", "o", "#0072B2"),
    "stage": ("Stage distribution", "s", "#D55E00"),
    "width": ("Width", "^", "#009E73"),
    "other": ("Other", "D", "#CC79A7"),
}
_FILLINGS = {"full": "measured", "left": "partly estimated", "none": "estimated"}
_BAR = {"color": "0.62", "linewidth": 0.6, "zorder": 1.5}  # of an interval
_FRONT = {"color": "0.35", "linewidth": 0.9, "linestyle": (0, (5, 1.5)), "zorder": 2}
_KNEE = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.0}
_KNEE |= {"color": "0.1", "zorder": 3, "linestyle": "none"}
_MULTIPLES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
_MOST_BELOW = 30.0  # times below the least energy; the line runs out of the axes there
_INSIDE = 0.035  # of the x axis, from the end of a line to its factor
_LINE = {"color": "0.25", "linewidth": 1.0, "linestyle": "-", "zorder": 2}
_MULTIPLE = {"color": "0.65", "linewidth": 0.6, "linestyle": (0, (1, 2)), "zorder": 1.8}
_REMARK_CHARACTERS = 24  # an inch
_REMARKS_INCHES = 0.42  # from the axes down to the remarks, past tick and axis labels


@dataclass(frozen=True)
class Work(Training):
    """What a training computed and used.

    ``gmac`` are the multiply-accumulates (10^9) of the forward passes of its crops; backward
    passes, validation and the head are in the energy and not in them.
    """

    gmac: float


def draw_energy_accuracy(drawing: Drawing, results: Results, lists: tuple[str, ...]) -> None:
    """Draw every system that has a training energy and an EER, the average over ``lists``."""
    points, drawing.left_out = collect_points(results, lists)
    if not points:
        what = "an average EER" if len(lists) != 1 else "an EER"
        drawing.left_out.append(f"no figure, no system has both {what} and training energy")
        return
    drawing.figure.set_size_inches(COLUMN_INCHES, 3.4)
    axes = drawing.figure.add_axes((0.115, 0.12, 0.87, 0.78))
    _set_limits(axes, points)
    axes.set_xlabel("Training energy (kWh)")
    axes.set_ylabel(f"EER, {lists[0]} (%)" if len(lists) == 1 else "Average EER (%)")
    bars = [
        [(point.energy_kwh, end) for end in point.eer_interval]
        for point in points
        if point.eer_interval is not None
    ]
    words = ["EER over other speakers"] if bars else []
    least_kwh = axes.get_xlim()[0] / 2
    spans = [(point.find_interval(least_kwh), point.eer_percent) for point in points]
    if any(span for span, _ in spans):
        bars += [[(end, eer_percent) for end in span] for span, eer_percent in spans if span]
        words.append("energy with k = 2")
    remarks = [f"95 %: {', '.join(words)}." if words else ""]
    lines, handles = [], []
    front, bend, lacks = choose_front(points)
    if front:
        # For each energy, the lowest EER that no more energy buys.
        energies = np.repeat([points[i].energy_kwh for i in front], 2)
        eers = np.repeat([points[i].eer_percent for i in front], 2)
        steps = [*energies, axes.get_xlim()[1]], [axes.get_ylim()[1], *eers]
        axes.plot(*steps, **_FRONT)
        lines.append(list(zip(*steps, strict=True)))
        handles.append(build_handle("Pareto front", **_FRONT))
    if bend is not None:
        axes.plot(points[bend].energy_kwh, points[bend].eer_percent, **_KNEE)
        handles.append(build_handle("knee", **{**_KNEE, "markersize": 7}))
        remarks.append(f"Knee: {points[bend].label}; {KNEE_METHOD}.")
    drawing.left_out += [lacks] if lacks else []
    systems = [
        (p, (p.energy_kwh, p.eer_percent), describe_eer(p.eer_percent, p.eer_interval))
        for p in points
    ]
    handles += _draw_bars(axes, bars, "95 %")
    _draw_systems(axes, drawing, systems, lines + bars)
    _explain(axes, points, handles, remarks)


def _set_limits(axes: Axes, points: list[Point]) -> None:
    """Make room for points and intervals; one of energy down to 0 runs out of the axes."""
    energies = [point.energy_kwh for point in points]
    for point in points:
        energies += point.find_interval(point.energy_kwh / _LEAST_FRACTION) or ()
    set_log_axis(axes, "x", energies, 0.12, _LEAST_DECADES)
    eers = np.array([point.eer_percent for point in points])
    ends = [end for point in points for end in point.eer_interval or ()]
    room = max(0.18 * np.ptp(eers), 0.05 * eers.max(), 0.05)
    low = min([eers.min() - room, *(end - 0.1 * room for end in ends)])
    high = max([eers.max() + room, *(end + 0.1 * room for end in ends)])
    axes.set_ylim(max(0.0, low), high)


def _draw_bars(axes: Axes, bars: list[list[Place]], label: str) -> list[Artist]:
    """Draw intervals, each between two places; return their entry of the legend, if any."""
    for bar in bars:
        axes.plot(*zip(*bar, strict=True), **_BAR)
    style = {**_BAR, "linestyle": "-", "linewidth": 1.0}
    return [build_handle(label, **style)] if bars else []


def _get_fill(system: Training) -> str:
    """Return a key of `_FILLINGS`: what is not known to be measured is called estimated."""
    rate = rate_share(system.stage.sidecar.measured_fraction)
    return {"measured": "full", "partly_estimated": "left"}.get(rate, "none")


def _draw_systems(
    axes: Axes,
    drawing: Drawing,
    systems: Sequence[tuple[Training, Place, str]],
    lines: list[list[Place]],
) -> None:
    """Draw a marker for each system at its place, and a label off the markers and ``lines``.

    The pointer shows name, text and energy of a system.
    """
    for system, place, text in systems:
        _, shape, colour = _FAMILIES[system.family]
        (marker,) = axes.plot(
            *place, marker=shape, markersize=MARKER_POINTS, color=colour,
            fillstyle=_get_fill(system), markerfacecoloralt="white", markeredgewidth=1.1,
            zorder=4, linestyle="none",
        )  # fmt: skip
        drawing.add_hover(marker, f"{system.label}\n{text}\n{describe_energy(system.stage)}")
    names, _ = shorten_names([system.label for system, _, _ in systems])
    place_labels(axes, [place for _, place, _ in systems], names, lines)


def _explain(
    axes: Axes, systems: Sequence[Training], handles: list[Artist], remarks: list[str]
) -> None:
    """Explain what occurs: families, fillings, lines (``handles``) above the axes, remarks below.

    That names are cut is said after the first remark.
    """
    families = [
        build_handle(label, marker=marker, color=colour)
        for family, (label, marker, colour) in _FAMILIES.items()
        if any(system.family == family for system in systems)
    ]
    style = {"marker": "o", "color": "0.35", "markerfacecoloralt": "white"}
    fillings = [
        build_handle(label, fillstyle=fill, **style)
        for fill, label in _FILLINGS.items()
        if fill in map(_get_fill, systems)
    ]
    if any(explain_incomplete(system.stage) for system in systems):
        mark = {"marker": "$§$", "color": "0.15", "markeredgewidth": 0}
        fillings.append(build_handle("incomplete or disputed", **mark))
    figure, box = axes.figure, axes.get_position()
    width_inches, height_inches = box.size * figure.get_size_inches()
    rows = [families, fillings + handles]
    if handles and len(fillings) > 1:
        rows = [families, fillings, handles]
    for number, row in enumerate(reversed(rows)):
        above = 1.0 + (0.02 + number * LEGEND_ROW_INCHES) / height_inches
        figure.legend(
            handles=row, loc="lower left", bbox_to_anchor=(0, above), ncols=len(row),
            bbox_transform=axes.transAxes, handletextpad=0.3, columnspacing=1.0, borderpad=0.1,
            borderaxespad=0.1, handlelength=1.6,
        )  # fmt: skip
    _, prefix = shorten_names([system.label for system in systems])
    remarks.insert(1, f"Names without their \u2018{prefix}\u2019." if prefix else "")
    characters = int(_REMARK_CHARACTERS * width_inches)
    texts = [line for remark in remarks for line in textwrap.wrap(remark, characters)]
    axes.annotate(
        "\n".join(texts), (0, 0), xycoords="axes fraction", xytext=(0, -72 * _REMARKS_INCHES),
        textcoords="offset points", va="top", fontsize=6, color="0.25", linespacing=1.25,
    )  # fmt: skip


def collect_work(results: Results) -> tuple[list[Work], list[str]]:
    """Return work and energy of every training, and a line for each system left out."""
    found, left_out = [], []
    for system in results.systems:
        training = find_training(system)
        gmac, lacks = _find_gmac(system)
        if gmac is None:
            left_out.append(f"{system.name} is not shown: {lacks}")
        elif training is None:
            left_out.append(f"{system.name} is not shown: no training energy")
        else:
            found.append(Work(*training, gmac))
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


def draw_energy_gmac(drawing: Drawing, results: Results) -> None:
    """Draw every training whose work and energy are known."""
    found, drawing.left_out = collect_work(results)
    cheapest = find_cheapest(found)
    if cheapest is None:
        lacks = "no figure, no system has both GMAC and energy of its training"
        drawing.left_out.append(lacks)
        return
    drawing.figure.set_size_inches(COLUMN_INCHES, 3.2)
    axes = drawing.figure.add_axes((0.14, 0.13, 0.845, 0.77))
    set_log_axis(axes, "x", [work.gmac for work in found], 0.1, _LEAST_DECADES_WORK)
    rate = cheapest.energy_kwh / cheapest.gmac
    # Room for the systems, and for the line below the smallest of them.
    energies = [work.energy_kwh for work in found]
    smallest = min(work.gmac for work in found) * rate
    intervals = [interval for work in found if (interval := work.find_interval(0.0))]
    energies += [high for _, high in intervals] + [max(smallest, min(energies) / _MOST_BELOW)]
    set_log_axis(axes, "y", energies, 0.1, _LEAST_DECADES_WORK)
    axes.set_xlabel("Forward multiply-accumulates of the training (GMAC)")
    axes.set_ylabel("Training energy (kWh)")
    lines = _draw_proportions(axes, found, rate)
    least_kwh = axes.get_ylim()[0] / 2
    bars = [
        [(work.gmac, end) for end in interval]
        for work in found
        if (interval := work.find_interval(least_kwh))
    ]
    handles = [build_handle("kWh \u221d GMAC", **_LINE)]
    handles += _draw_bars(axes, bars, "\u00b1 (k = 2)")
    drawing.left_out += explain_energies([work.stage for work in found])
    systems = []
    for work in found:
        times = f"{work.energy_kwh / work.gmac / rate:.2f} times the least kWh per GMAC"
        text = f"{work.gmac:.4g} GMAC, forward, {times}"
        systems.append((work, (work.gmac, work.energy_kwh), text))
    _draw_systems(axes, drawing, systems, lines + bars)
    remark = (
        f"Line: proportional, through {cheapest.label}, the least energy per multiply-accumulate "
        f"({format_significant(j_from_kwh(rate))} J/GMAC); dotted: multiples of it."
    )
    _explain(axes, found, handles, [remark])


def _draw_proportions(axes: Axes, found: list[Work], least: float) -> list[list[Place]]:
    """Draw the line of ``least`` kWh per GMAC, and its multiples up to the dearest system."""
    lines = []
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
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
