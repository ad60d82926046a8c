"""The DET plot of a trial list: misses against false alarms on normal-deviate axes.

The 95 % interval of the misses (stage 7 resamples the speakers) is shaded where it is known.
Source: Martin et al., "The DET curve in assessment of detection task performance", 1997.
"""

from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sv.report.figures.frame import COLUMN_INCHES, add_legend_below, say_lacking
from sv.report.figures.palette import get_line_style
from sv.report.results import Results, find_score
from sv.score.record import ScoredList

_PROBIT = np.vectorize(NormalDist().inv_cdf, otypes=[float])
_TICKS_PERCENT = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90)
_TICK_GAP = 0.07  # of the axis, so that the numbers do not touch
_MAX_IN_LEGEND_INSIDE = 6
_MAX_SHADED = 3
_FREE_CORNER_PERCENT = 13.0
_EER_POINT = {
    "markersize": 4.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "zorder": 5,
}


def draw_det(figure: Figure, results: Results, trials: str) -> list[str]:
    """Draw the curves of all systems for one trial list (cosine, fp32) into an empty figure.

    Returns:
        A line for the systems that have metrics and no curve; no axes are made without any curve.
    """
    scores = [(system.name, find_score(system, trials)) for system in results.systems]
    curves = [(name, score) for name, score in scores if score and score.det]
    if not curves:
        return ["no figure, no system has a DET curve"]
    lacking = [(name, score) for name, score in scores if score and not score.det]
    left_out = say_lacking(lacking, "det")
    # The upper right is free as long as no curve comes near to chance.
    near_chance = any(score.eer_percent > _FREE_CORNER_PERCENT for _, score in curves)
    below = near_chance or len(curves) > _MAX_IN_LEGEND_INSIDE
    figure.set_size_inches(COLUMN_INCHES, COLUMN_INCHES)
    axes = figure.add_axes((0.13, 0.12, 0.82, 0.82))
    low, high = _limits([score for _, score in curves])
    _prepare(axes, low, high)
    # More shades than these would hide each other: then only that of the lowest EER.
    shaded = {name: score for name, score in curves if score.bootstrap and score.bootstrap.det.p_fa}
    if len(shaded) > _MAX_SHADED:
        best = min(shaded, key=lambda name: shaded[name].eer_percent)
        shaded = {best: shaded[best]}
    handles = []
    for index, (name, score) in enumerate(curves):
        assert score.det is not None
        style = get_line_style(index)
        marker = style.pop("marker")
        # Beyond the limits nothing is seen; clipping keeps 0 and 1 finite on this axis.
        p_fa = np.clip(score.det.p_fa, low / 10, 1 - low / 10)
        p_miss = np.clip(score.det.p_miss, low / 10, 1 - low / 10)
        axes.plot(_PROBIT(p_fa), _PROBIT(p_miss), **style)
        if name in shaded:
            _shade_interval(axes, score, low, **style)
        eer = np.clip(score.eer_percent / 100, low / 10, 1 - low / 10)
        point = {"marker": marker, "color": style["color"], **_EER_POINT}
        axes.plot(_PROBIT(eer), _PROBIT(eer), **point)
        label = f"{name} ({score.eer_percent:.2f})"
        handles.append(Line2D([], [], label=label, **{**style, **point}))
    title = "System (EER in %)"
    if shaded:
        title += ", 95 % shaded" if len(shaded) > 1 or len(curves) == 1 else ", best: 95 % shaded"
    if below:
        add_legend_below(figure, axes, handles, title, left_inches=0.02)
    else:
        _add_legend_inside(axes, handles, title)
    axes.set_title(trials, loc="left")
    return left_out


def _shade_interval(axes: Axes, score: ScoredList, low: float, **style: Any) -> None:
    """Shade the misses that other speakers would have given, at each rate of false alarms."""
    assert score.bootstrap is not None
    band = score.bootstrap.det
    p_fa, p_low, p_high = map(np.array, (band.p_fa, band.p_miss_low, band.p_miss_high))
    # Rarer false alarms than the list can show have no interval.
    seen = p_fa >= 1 / score.nontargets
    bounds = [_PROBIT(np.clip(p[seen], low / 10, 1 - low / 10)) for p in (p_low, p_high)]
    x = _PROBIT(p_fa[seen])
    axes.fill_between(x, *bounds, color=style["color"], alpha=0.15, linewidth=0)
    for bound in bounds:  # where shades overlap, and in grey print
        axes.plot(x, bound, linewidth=0.5, alpha=0.6, **style)


def _add_legend_inside(axes: Axes, handles: list[Line2D], title: str) -> None:
    legend = axes.legend(
        handles=handles, title=title, title_fontsize=7, handlelength=2.4, loc="upper right"
    )
    legend.set_zorder(6)
    legend.set_frame_on(True)  # over the curves
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.85)


def _limits(scores: list[ScoredList]) -> tuple[float, float]:
    """Choose the range of both axes so that every curve's middle part is seen."""
    rates = []
    for score in scores:
        assert score.det is not None
        rates += [p for p in (*score.det.p_fa, *score.det.p_miss) if 0 < p < 1]
        rates.append(score.eer_percent / 100)
    eers = [score.eer_percent / 100 for score in scores]
    lowest_seen = min((rate for rate in rates if rate > 0), default=0.01)
    # A decade and a half below the best EER, no further than the trials can tell.
    low = max(lowest_seen / 2, min(max(eer, 1e-4) for eer in eers) / 30, 1e-5)
    high = min(max(0.4, 1.5 * max(eers)), 0.95)
    return min(low, 0.05), high


def _prepare(axes: Axes, low: float, high: float) -> None:
    start, end = float(_PROBIT(low)), float(_PROBIT(high))
    ticks: list[float] = []
    places: list[float] = []
    for tick in reversed(_TICKS_PERCENT):
        place = float(_PROBIT(tick / 100))
        far = not places or places[-1] - place > _TICK_GAP * (end - start)
        if start <= place <= end and far:
            ticks.append(tick)
            places.append(place)
    axes.plot([start, end], [start, end], color="0.6", linewidth=0.7, linestyle=(0, (1, 2)))
    for axis, what in ((axes.xaxis, "False alarms (%)"), (axes.yaxis, "Misses (%)")):
        axis.set_ticks(places, [f"{tick:g}" for tick in ticks])
        axis.set_label_text(what)
    axes.set_xlim(start, end)
    axes.set_ylim(start, end)
    axes.set_aspect("equal")
