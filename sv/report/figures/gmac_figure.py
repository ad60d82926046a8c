"""Training energy against the computation of the training: how far it is from proportional.

On two logarithmic axes proportionality is a line of slope 1. It is drawn through the system of
least energy per multiply-accumulate; what lies above it paid for something else than
multiplications, small networks mostly for bringing data to the processors.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sv.energy.units import j_from_kwh
from sv.report.figures.curves import Work, collect_work, find_cheapest
from sv.report.figures.energy_figure import MARKER_POINTS, get_marker, list_families, list_fillings
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
from sv.report.results import Results
from sv.report.tables.cells import format_significant
from sv.report.tables.evidence import explain_energies

_LEAST_DECADES = 0.7
_MULTIPLES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
_MOST_BELOW = 30.0  # times below the least energy; the line runs out of the axes there
_INSIDE = 0.035  # of the x axis, from the end of a line to its factor
_LINE = {"color": "0.25", "linewidth": 1.0, "linestyle": "-", "zorder": 2}
_MULTIPLE = {"color": "0.65", "linewidth": 0.6, "linestyle": (0, (1, 2)), "zorder": 1.8}
Points = list[tuple[float, float]]


def draw_energy_gmac(figure: Figure, results: Results) -> list[str]:
    """Draw every training whose work and energy are known into an empty figure.

    Returns:
        A line for each system left out; no axes are made if all are.
    """
    found, left_out = collect_work(results)
    cheapest = find_cheapest(found)
    if cheapest is None:
        return [*left_out, "no figure, no system has both GMAC and energy of its training"]
    left_out += explain_energies([work.stage for work in found])
    figure.set_size_inches(COLUMN_INCHES, 3.2)
    axes = figure.add_axes((0.14, 0.13, 0.845, 0.77))
    set_log_axis(axes, "x", *widen_log([work.gmac for work in found], 0.1, _LEAST_DECADES))
    _set_energy_limits(axes, found, cheapest)
    axes.set_xlabel("Forward multiply-accumulates of the training (GMAC)")
    axes.set_ylabel("Training energy (kWh)")
    lines = _draw_proportions(axes, found, cheapest)
    for work in found:
        lines += _draw_uncertainty(axes, work)
        place = (work.gmac, work.energy_kwh)
        axes.plot(
            *place,
            linestyle="none",
            **get_marker(work.family, work.stage),
        )
    names, prefix = shorten_names([work.label for work in found])
    places = [(work.gmac, work.energy_kwh) for work in found]
    place_labels(figure, axes, places, names, marker_points=MARKER_POINTS, lines=lines)
    _explain(figure, axes, found, cheapest, prefix)
    return left_out


def _set_energy_limits(axes: Axes, found: list[Work], cheapest: Work) -> None:
    """Make room for the systems and for the line below the smallest of them."""
    energies = [work.energy_kwh for work in found]
    energies += [work.energy_kwh + (work.stage.sidecar.uncertainty_kwh or 0.0) for work in found]
    smallest = min(work.gmac for work in found) / cheapest.gmac * cheapest.energy_kwh
    energies.append(max(smallest, min(energies) / _MOST_BELOW))
    set_log_axis(axes, "y", *widen_log(energies, 0.1, _LEAST_DECADES))


def _draw_proportions(axes: Axes, found: list[Work], cheapest: Work) -> list[Points]:
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


def _draw_uncertainty(axes: Axes, work: Work) -> list[Points]:
    uncertainty_kwh = work.stage.sidecar.uncertainty_kwh
    if uncertainty_kwh is None:
        return []
    low = max(work.energy_kwh - uncertainty_kwh, axes.get_ylim()[0] / 2)
    high = work.energy_kwh + uncertainty_kwh
    return [draw_bar(axes, (work.gmac, low), (work.gmac, high))]


def _explain(figure: Figure, axes: Axes, found: list[Work], cheapest: Work, prefix: str) -> None:
    j_per_gmac = j_from_kwh(cheapest.energy_kwh) / cheapest.gmac
    lines = [build_handle("kWh \u221d GMAC", **{**_LINE, "marker": ""})]
    remarks = [
        f"Line: proportional, through {cheapest.label}, the least energy per multiply-accumulate "
        f"({format_significant(j_per_gmac)} J/GMAC); dotted: multiples of it."
    ]
    if any(work.stage.sidecar.uncertainty_kwh is not None for work in found):
        lines.append(build_handle("\u00b1 (k = 2)", **{**BAR, "linestyle": "-", "linewidth": 1.0}))
    fillings = list_fillings([work.stage for work in found])
    others = [fillings + lines] if len(fillings) == 1 else [fillings, lines]
    add_legend_rows(figure, axes, [list_families([w.family for w in found]), *others])
    if prefix:
        remarks.append(f"Names without their \u2018{prefix}\u2019.")
    add_remarks(figure, axes, remarks, below_inches=0.42)
