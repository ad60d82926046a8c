"""What trainings cost: EER against their energy, and their energy against their computation.

The first is the study's Figure 1, with the Pareto front and its knee. In the second, on two
logarithmic axes, energy in proportion to computation is a line of slope 1. It is drawn through the
system of least energy per multiply-accumulate; what lies above it paid for something else than
multiplications, small networks mostly for bringing data to the processors.
"""

import textwrap
from collections.abc import Collection, Sequence
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
    choose_labels,
    place_labels,
    set_log_axis,
    shorten_names,
)
from sv.report.results import Results, System
from sv.report.tables.cells import choose_unit, format_significant
from sv.report.tables.evidence import (
    describe_eer,
    describe_energy,
    explain_energies,
    format_kwh,
    rate_share,
)
from sv.score.bootstrap import subtract

_LEAST_DECADES = 0.5  # a factor of 3: equal systems must not look far apart
_LEAST_DECADES_WORK = 0.7
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
_BEST = {"color": "0.35", "linewidth": 0.7, "linestyle": (0, (1, 2)), "zorder": 1.8}
_KNEE = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.0}
_KNEE |= {"color": "0.1", "zorder": 3, "linestyle": "none"}
_MULTIPLES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
_MOST_BELOW = 30.0  # times below the least energy; the line runs out of the axes there
_INSIDE = 0.035  # of the x axis, from the end of a line to its factor
_LINE = {"color": "0.25", "linewidth": 1.0, "linestyle": "-", "zorder": 2}
_MULTIPLE = {"color": "0.65", "linewidth": 0.6, "linestyle": (0, (1, 2)), "zorder": 1.8}
_FIT = {"color": "0.35", "linewidth": 0.9, "linestyle": (0, (5, 1.5)), "zorder": 2}
_LEAST_FITTED = 4  # systems: through three any line is a fit
_CLEARLY = 1.25  # times the fit: a system above it is named
# Prefixes of multiply-accumulates, and how many of them a GMAC is.
_WORK = (
    ("EMAC", 1e-9, "10¹⁸"),
    ("PMAC", 1e-6, "10¹⁵"),
    ("TMAC", 1e-3, "10¹²"),
    ("GMAC", 1.0, "10⁹"),
)
_KEY_CHARACTERS = 22  # an inch
_KEY_INCHES = 0.42  # from the axes down to the key, past tick and axis labels


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
    draw_points(drawing, points, f"EER, {lists[0]}" if len(lists) == 1 else "Average EER")


def draw_points(drawing: Drawing, points: Sequence[Point], what: str) -> None:
    """Draw systems, one or more; ``what`` is their EER."""
    drawing.figure.set_size_inches(COLUMN_INCHES, 3.4)
    axes = drawing.figure.add_axes((0.115, 0.12, 0.87, 0.78))
    unit, factor = choose_unit([point.energy_kwh for point in points], "kWh")
    places = [(factor * point.energy_kwh, point.eer_percent) for point in points]
    best = min(range(len(points)), key=lambda index: points[index].eer_percent)
    spans = _compare_to_best(points, best)
    set_log_axis(axes, "x", [x for x, _ in places], 0.12, _LEAST_DECADES)
    _set_eer_limits(
        axes, [*(y for _, y in places), *(end for span in spans.values() for end in span)]
    )
    axes.set_xlabel(f"Training energy ({unit})")
    axes.set_ylabel(f"{what} (%)")
    bars = [[(places[index][0], end) for end in span] for index, span in spans.items()]
    handles = _draw_bars(axes, bars, "95 %, against the lowest")
    lines = []
    if bars:
        lines.append([(x, points[best].eer_percent) for x in axes.get_xlim()])
        axes.plot(*zip(*lines[0], strict=True), **_BEST)
    front, bend, lacks = choose_front(points)
    if front:
        # For each energy, the lowest EER that no more energy buys.
        x, y = (np.repeat([places[i][axis] for i in front], 2) for axis in (0, 1))
        steps = [*x, axes.get_xlim()[1]], [axes.get_ylim()[1], *y]
        axes.plot(*steps, **_FRONT)
        lines.append(list(zip(*steps, strict=True)))
        handles.append(build_handle("Pareto front", **_FRONT))
    if bend is not None:
        axes.plot(*places[bend], **_KNEE)
    drawing.left_out += [lacks] if lacks else []
    systems = [
        (p, place, describe_eer(p.eer_percent, p.eer_interval))
        for p, place in zip(points, places, strict=True)
    ]
    named = {*front, best}
    key = _draw_systems(axes, drawing, systems, lines + bars, named=named, knee=bend)
    _explain(axes, points, handles, key)
    drawing.caption = _caption_accuracy(points, what, bend, front=bool(front), bars=bool(bars))


def _compare_to_best(points: Sequence[Point], best: int) -> dict[int, tuple[float, float]]:
    """Return where the 95 % interval of each EER lies, of its difference from the lowest.

    The differences are paired: both of a pair are of the same draws of speakers.
    """
    lowest = points[best]
    spans = {}
    for index, point in enumerate(points):
        if index != best and point.measured and lowest.measured:
            difference = subtract(point.measured, lowest.measured)
            if difference and difference.interval:
                low, high = difference.interval
                spans[index] = (lowest.eer_percent + low, lowest.eer_percent + high)
    return spans


def _set_eer_limits(axes: Axes, eers: Sequence[float]) -> None:
    room = max(0.12 * np.ptp(eers), 0.03 * max(eers), 0.05)
    axes.set_ylim(max(0.0, min(eers) - room), max(eers) + room)


def _caption_accuracy(
    points: Sequence[Point], what: str, bend: int | None, *, front: bool, bars: bool
) -> str:
    uncertain = [
        100 * p.stage.sidecar.uncertainty_kwh / p.energy_kwh
        for p in points
        if p.stage and p.stage.sidecar.uncertainty_kwh is not None
    ]
    parts = [f"{what} against training energy.", _describe_fillings(points)]
    if front:
        parts.append("Dashed: the Pareto front, the systems that no other beats in both.")
    if bend is not None:
        parts.append(f"Knee: {points[bend].label}, {KNEE_METHOD}.")
    if bars:
        parts.append(
            "Bars: 95 % intervals of the difference from the lowest EER (dotted), paired over "
            "speakers; one that reaches the line is within noise of it."
        )
    if uncertain:
        low, high = (format_significant(end, 2) for end in (min(uncertain), max(uncertain)))
        span = low if low == high else f"{low} to {high}"
        parts.append(f"Energies are uncertain by {span} % (k = 2), mostly alike in all systems.")
    return " ".join([*parts, *_describe_names(points)]).replace(" %", "\u00a0%")


def _describe_fillings(systems: Sequence[Training]) -> str:
    fills = set(map(_get_fill, systems))
    if fills == {"none"}:
        return "Every energy is estimated (hollow), not measured."
    if fills == {"full"}:
        return "Every energy is measured."
    return "Filled: measured energy; half-filled: partly estimated; hollow: estimated."


def _describe_names(systems: Sequence[Training]) -> list[str]:
    _, prefix = shorten_names([system.label for system in systems])
    return [f"Names without their \u2018{prefix}\u2019."] if prefix else []


def _draw_bars(axes: Axes, bars: list[list[Place]], label: str) -> list[Artist]:
    """Draw intervals, each between two places; return their entry of the legend, if any."""
    for bar in bars:
        axes.plot(*zip(*bar, strict=True), **_BAR)
    style = {**_BAR, "linestyle": "-", "linewidth": 1.0}
    return [build_handle(label, **style)] if bars else []


def _get_fill(system: Training) -> str:
    """Return a key of `_FILLINGS`: what is not known to be measured is called estimated."""
    if system.stage is None:
        return "full"
    rate = rate_share(system.stage.sidecar.measured_fraction)
    return {"measured": "full", "partly_estimated": "left"}.get(rate, "none")


def _draw_systems(
    axes: Axes,
    drawing: Drawing,
    systems: Sequence[tuple[Training, Place, str]],
    lines: list[list[Place]],
    *,
    named: Collection[int],
    knee: int | None = None,
) -> str:
    """Draw a marker for each system at its place, and a label off the markers and ``lines``.

    The pointer shows name, text and energy of a system. The systems ``named`` have their names as
    labels, others numbers if there are many.

    Returns:
        The key of these numbers.
    """
    for system, place, text in systems:
        _, shape, colour = _FAMILIES[system.family]
        (marker,) = axes.plot(
            *place, marker=shape, markersize=MARKER_POINTS, color=colour,
            fillstyle=_get_fill(system), markerfacecoloralt="white", markeredgewidth=1.1,
            zorder=4, linestyle="none",
        )  # fmt: skip
        energy = describe_energy(system.stage) if system.stage else format_kwh(system.energy_kwh)
        drawing.add_hover(marker, f"{system.label}\n{text}\n{energy}")
    labels, key = choose_labels([system.label for system, _, _ in systems], named)
    if knee is not None:
        labels[knee] = f"knee: {labels[knee]}"
    place_labels(axes, [place for _, place, _ in systems], labels, lines)
    return key


def _explain(axes: Axes, systems: Sequence[Training], handles: list[Artist], key: str) -> None:
    """Explain what occurs: families, fillings, lines (``handles``) above the axes, key below."""
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
    if not all(system.is_whole for system in systems):
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
    lines = textwrap.wrap(key, int(_KEY_CHARACTERS * width_inches))
    axes.annotate(
        "\n".join(lines), (0, 0), xycoords="axes fraction", xytext=(0, -72 * _KEY_INCHES),
        textcoords="offset points", va="top", fontsize=6.5, color="0.15", linespacing=1.25,
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
    whole = [work for work in found if work.is_whole] or found
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
    largest = max(work.gmac for work in found)
    work_unit, scale, power = next((u for u in _WORK if largest * u[1] >= 1), _WORK[-1])
    unit, factor = choose_unit([work.energy_kwh for work in found], "kWh")
    places = [(scale * work.gmac, factor * work.energy_kwh) for work in found]
    rate = factor * cheapest.energy_kwh / (scale * cheapest.gmac)
    set_log_axis(axes, "x", [x for x, _ in places], 0.1, _LEAST_DECADES_WORK)
    # Room for the systems, and for the line below the smallest of them.
    energies = [y for _, y in places]
    smallest = min(x for x, _ in places) * rate
    energies.append(max(smallest, min(energies) / _MOST_BELOW))
    set_log_axis(axes, "y", energies, 0.1, _LEAST_DECADES_WORK)
    axes.set_xlabel(f"Forward computation of the training ({work_unit}, {power})")
    axes.set_ylabel(f"Training energy ({unit})")
    lines = _draw_proportions(axes, places, rate)
    handles = [build_handle(f"{unit} \u221d {work_unit}", **_LINE)]
    unlike = explain_energies([work.stage for work in found if work.stage])
    drawing.left_out += unlike
    fit = None if unlike else fit_power(found)
    above = {}
    if fit:
        ends = [(x, factor * fit.compute(x / scale)) for x in axes.get_xlim()]
        axes.plot(*zip(*ends, strict=True), **_FIT)
        lines.append(ends)
        handles.append(build_handle("fit", **_FIT))
        ratios = [work.energy_kwh / fit.compute(work.gmac) for work in found]
        above = {index: ratio for index, ratio in enumerate(ratios) if ratio > _CLEARLY}
    systems = []
    for work, place in zip(found, places, strict=True):
        times = f"{place[1] / place[0] / rate:.2f} times the least energy per multiply-accumulate"
        systems.append((work, place, f"{work.gmac:.4g} GMAC, forward, {times}"))
    named = {*above, found.index(cheapest)}
    key = _draw_systems(axes, drawing, systems, lines, named=named)
    _explain(axes, found, handles, key)
    least = format_significant(j_from_kwh(cheapest.energy_kwh / cheapest.gmac))
    parts = [
        "Training energy against the forward multiply-accumulates of all crops trained.",
        _describe_fillings(found),
        f"Line: in proportion, through {cheapest.label}, the least energy per multiply-accumulate "
        f"({least} J/GMAC); dotted: multiples of it.",
    ]
    if fit:
        higher = ", ".join(f"{found[i].label} ({ratio:.2f} times)" for i, ratio in above.items())
        parts.append(
            f"Dashed: kWh \u221d GMAC^{fit.exponent:.2f}, fitted to the logarithms (R² "
            f"{fit.r2:.2f}); clearly above it: {higher or 'none'}."
        )
    drawing.caption = " ".join([*parts, *_describe_names(found)])


@dataclass(frozen=True)
class Fit:
    """kWh = factor x GMAC^exponent; ``r2`` is the share of the variance of log kWh."""

    factor: float
    exponent: float
    r2: float

    def compute(self, gmac: float) -> float:
        """Return the kWh of some GMAC."""
        return self.factor * gmac**self.exponent


def fit_power(found: Sequence[Work]) -> Fit | None:
    """Fit a power law to whole trainings, by least squares of the logarithms; None of too few."""
    whole = [work for work in found if work.is_whole]
    x, y = (np.log10([getattr(w, key) for w in whole]) for key in ("gmac", "energy_kwh"))
    if len(whole) < _LEAST_FITTED or not np.ptp(x) or not np.ptp(y):
        return None
    exponent, offset = np.polyfit(x, y, 1)
    r2 = 1 - np.var(y - exponent * x - offset) / np.var(y)
    return Fit(float(10**offset), float(exponent), float(r2))


def _draw_proportions(axes: Axes, places: list[Place], least: float) -> list[list[Place]]:
    """Draw the line of the ``least`` slope, and its multiples up to the steepest place."""
    lines = []
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    most = max(y / x for x, y in places) / least
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
    return lines
