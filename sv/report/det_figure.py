"""The DET plot of a trial list: misses against false alarms on normal-deviate axes.

Source: Martin et al., "The DET curve in assessment of detection task performance", 1997.
"""

from itertools import cycle
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sv.report.palette import COLOURS, LINE_STYLES
from sv.report.records import Results, Score, find_score

_PROBIT = np.vectorize(NormalDist().inv_cdf, otypes=[float])
_TICKS_PERCENT = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90)
_TICK_GAP = 0.07  # of the axis, so that the numbers do not touch
_MAX_IN_LEGEND_INSIDE = 6
_FREE_CORNER_PERCENT = 13.0
_EER_POINT = {
    "marker": "o",
    "markersize": 4.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "zorder": 5,
}


def draw_det(figure: Figure, results: Results, trials: str) -> list[str]:
    """Draw the curves of all systems for one trial list (cosine, fp32) into an empty figure.

    Returns:
        A line for each system that has metrics and no curve; no axes are made without any curve.
    """
    scores = [(system.name, find_score(system, trials)) for system in results.systems]
    curves = [(name, score) for name, score in scores if score and score.det]
    left_out = [f"no {s.path.stem}.det.json of {n}" for n, s in scores if s and not s.det]
    if not curves:
        return [*left_out, "no figure, no system has a DET curve"]
    # The upper right is free as long as no curve comes near to chance.
    near_chance = any(score.eer_percent > _FREE_CORNER_PERCENT for _, score in curves)
    beside = near_chance or len(curves) > _MAX_IN_LEGEND_INSIDE
    figure.set_size_inches(3.5, 3.5)
    axes = figure.add_axes((0.13, 0.12, 0.82, 0.82))
    low, high = _limits([score for _, score in curves])
    _prepare(axes, low, high)
    styles = zip(cycle(COLOURS), (s for s in cycle(LINE_STYLES) for _ in COLOURS), strict=False)
    for (name, score), (colour, line) in zip(curves, styles, strict=False):
        assert score.det is not None
        # Beyond the limits nothing is seen; clipping keeps 0 and 1 finite on this axis.
        p_fa = np.clip(score.det.p_fa, low / 10, 1 - low / 10)
        p_miss = np.clip(score.det.p_miss, low / 10, 1 - low / 10)
        label = f"{name} ({score.eer_percent:.2f} %)"
        axes.plot(_PROBIT(p_fa), _PROBIT(p_miss), color=colour, linestyle=line, label=label)
        eer = np.clip(score.eer_percent / 100, low / 10, 1 - low / 10)
        axes.plot(_PROBIT(eer), _PROBIT(eer), color=colour, **_EER_POINT)
    _add_legend(axes, beside=beside)
    axes.set_title(trials, loc="left")
    return left_out


def _add_legend(axes: Axes, *, beside: bool) -> None:
    place: dict[str, Any] = {"loc": "upper right"}
    if beside:
        place = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    legend = axes.legend(title="System (EER)", title_fontsize=7, handlelength=2.2, **place)
    legend.set_zorder(6)
    if not beside:  # over the curves
        legend.set_frame_on(True)
        legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.85)


def _limits(scores: list[Score]) -> tuple[float, float]:
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
