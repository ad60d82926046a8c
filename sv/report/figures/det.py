"""The figures of a trial list: its DET plot, and the histograms of its scores.

The DET plot has misses against false alarms on normal-deviate axes; the 95 % interval of the misses
(stage 7 resamples the speakers) is shaded where it is known.
Source: Martin et al., "The DET curve in assessment of detection task performance", 1997.
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sv.report.figures.frame import (
    COLOURS,
    COLUMN_INCHES,
    Drawing,
    add_legend_below,
    build_handle,
    get_line_style,
)
from sv.report.results import Results, find_score
from sv.report.tables.evidence import list_some
from sv.score.record import PARTS, ScoredList

_PROBIT = np.vectorize(NormalDist().inv_cdf, otypes=[float])
_TICKS_PERCENT = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90)
_TICK_GAP = 0.07  # of the axis, so that the numbers do not touch
_MAX_IN_LEGEND_INSIDE = 6
_MAX_SHADED = 3
_FREE_CORNER_PERCENT = 13.0
_EER_POINT = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 5}
_COLUMNS = 3  # of panels of histograms
_PANEL_INCHES = (2.3, 1.5)


def _find_scores(
    drawing: Drawing, results: Results, trials: str, kind: str, noun: str
) -> list[tuple[str, ScoredList]]:
    """Return the systems that have a field ``kind`` of a trial list (first backend, fp32).

    Those that have metrics and lack only that are ``left_out``.
    """
    scores = [(system.name, find_score(system, trials)) for system in results.systems]
    known = [(name, score) for name, score in scores if score]
    shown = [(name, score) for name, score in known if getattr(score, kind)]
    if not shown:
        drawing.left_out.append(f"no figure, no system has a {noun}")
        return []
    stem = known[0][1].path.stem  # of the same list: the same in every system
    lacking = [name for name, score in known if not getattr(score, kind)]
    if lacking:
        drawing.left_out.append(f"no {stem}{PARTS[kind][0]} of {list_some(lacking)}")
    return shown


def draw_det(drawing: Drawing, results: Results, trials: str) -> None:
    """Draw the curves of all systems for one trial list."""
    figure = drawing.figure
    curves = _find_scores(drawing, results, trials, "det", "DET curve")
    if not curves:
        return
    # The upper right is free as long as no curve comes near to chance.
    near_chance = any(score.eer_percent > _FREE_CORNER_PERCENT for _, score in curves)
    below = near_chance or len(curves) > _MAX_IN_LEGEND_INSIDE
    figure.set_size_inches(COLUMN_INCHES, COLUMN_INCHES)
    axes = figure.add_axes((0.13, 0.12, 0.82, 0.82))
    low, high = _find_limits([score for _, score in curves])
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
        axes.plot(_deviate(score.det.p_fa, low), _deviate(score.det.p_miss, low), **style)
        if name in shaded:
            _shade_interval(axes, score, low, **style)
        eer = _deviate(score.eer_percent / 100, low)
        point = {"marker": marker, "color": style["color"], **_EER_POINT}
        axes.plot(eer, eer, **point)
        handles.append(build_handle(f"{name} ({score.eer_percent:.2f})", **{**style, **point}))
    title = "System (EER in %)"
    if shaded:
        title += ", 95 % shaded" if len(shaded) > 1 or len(curves) == 1 else ", best: 95 % shaded"
    if below:
        add_legend_below(axes, handles, title, left_inches=0.02)
    else:
        axes.legend(
            handles=handles, title=title, title_fontsize=7, handlelength=2.4, loc="upper right",
            frameon=True, facecolor="white", edgecolor="none", framealpha=0.85,  # over the curves
        ).set_zorder(6)  # fmt: skip
    axes.set_title(trials, loc="left")
    drawing.caption = f"Misses against false alarms on {trials}; the markers are at the EER."


def _deviate(rates: Any, low: float) -> np.ndarray:
    """Return normal deviates; clipped beyond the limits, where 0 and 1 would be infinite."""
    return _PROBIT(np.clip(rates, low / 10, 1 - low / 10))


def _shade_interval(axes: Axes, score: ScoredList, low: float, **style: Any) -> None:
    """Shade the misses that other speakers would have given, at each rate of false alarms."""
    assert score.bootstrap is not None
    band = score.bootstrap.det
    p_fa, p_low, p_high = map(np.array, (band.p_fa, band.p_miss_low, band.p_miss_high))
    # Rarer false alarms than the list can show have no interval.
    seen = p_fa >= 1 / score.nontargets
    bounds = [_deviate(p[seen], low) for p in (p_low, p_high)]
    x = _PROBIT(p_fa[seen])
    axes.fill_between(x, *bounds, color=style["color"], alpha=0.15, linewidth=0)
    for bound in bounds:  # where shades overlap, and in grey print
        axes.plot(x, bound, linewidth=0.5, alpha=0.6, **style)


def _find_limits(scores: list[ScoredList]) -> tuple[float, float]:
    """Choose the range of both axes so that every curve's middle part is seen."""
    eers = [score.eer_percent / 100 for score in scores]
    rates = [p for s in scores if s.det for p in (*s.det.p_fa, *s.det.p_miss) if p < 1] + eers
    lowest_seen = min((rate for rate in rates if rate > 0), default=0.01)
    # A decade and a half below the best EER, no further than the trials can tell.
    low = max(lowest_seen / 2, min(max(eer, 1e-4) for eer in eers) / 30, 1e-5)
    high = min(max(0.4, 1.5 * max(eers)), 0.95)
    return min(low, 0.05), high


def _prepare(axes: Axes, low: float, high: float) -> None:
    start, end = float(_PROBIT(low)), float(_PROBIT(high))
    ticks: dict[float, float] = {}  # percent: its place
    for tick in reversed(_TICKS_PERCENT):
        place = float(_PROBIT(tick / 100))
        far = not ticks or min(ticks.values()) - place > _TICK_GAP * (end - start)
        if start <= place <= end and far:
            ticks[tick] = place
    axes.plot([start, end], [start, end], color="0.6", linewidth=0.7, linestyle=(0, (1, 2)))
    for axis, what in ((axes.xaxis, "False alarms (%)"), (axes.yaxis, "Misses (%)")):
        axis.set_ticks(list(ticks.values()), [f"{tick:g}" for tick in ticks])
        axis.set_label_text(what)
    axes.set(xlim=(start, end), ylim=(start, end), aspect="equal")


def draw_scores(drawing: Drawing, results: Results, trials: str) -> None:
    """Draw the histograms of all systems for one trial list, a panel each.

    Each kind of trial has the same area, however few its trials are; the line is at the EER.
    """
    figure = drawing.figure
    shown = _find_scores(drawing, results, trials, "histogram", "histogram")
    if not shown:
        return
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure.set_size_inches(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for axes, (name, score) in zip(panels, shown, strict=False):
        _draw_histograms(axes, name, score)
    for axes in panels[len(shown) :]:
        axes.remove()
    for axes in panels[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("Score")
        axes.tick_params(labelbottom=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.subplots_adjust(hspace=0.35, wspace=0.12)
    panels[0].legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1.12), ncols=3)
    drawing.caption = (
        f"Scores on {trials}. Both kinds of trials have the same area, however few they are."
    )


def _draw_histograms(axes: Axes, name: str, score: ScoredList) -> None:
    assert score.histogram is not None
    edges = np.array(score.histogram.edges)
    # A filled and a hollow shape, which differ without colour too.
    for kind, counts, style in (
        ("nontarget", score.histogram.nontargets,
         {"color": COLOURS[1], "fill": True, "alpha": 0.55, "zorder": 2}),
        ("target", score.histogram.targets, {"color": COLOURS[0], "zorder": 3}),
    ):  # fmt: skip
        density = np.array(counts, dtype=float) / sum(counts) / np.diff(edges)
        axes.stairs(density, edges, linewidth=1.2, label=kind, **style)
    if score.eer_threshold is not None:
        axes.axvline(score.eer_threshold, color="0.15", linewidth=0.8, linestyle=(0, (4, 2)),
                     label="EER threshold", zorder=4)  # fmt: skip
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{name} ({score.eer_percent:.2f} %)", loc="left", fontsize=7)
