"""The interactive figures of trained systems: accuracy and computation against energy."""

from typing import Any

import plotly.graph_objects as go

from sv.energy.units import j_from_kwh
from sv.report.advice import KNEE_METHOD
from sv.report.figures.curves import collect_work, find_cheapest
from sv.report.figures.palette import FAMILY_LABEL, FAMILY_STYLE
from sv.report.figures.points import Point, choose_front, collect_points
from sv.report.page.plot import (
    INK,
    QUIET,
    Plot,
    View,
    build_figure,
    build_hover,
    build_layout,
    describe_eer,
    describe_energy,
    set_log,
    span_decades,
)
from sv.report.results import Results, Stage
from sv.report.tables.cells import format_significant
from sv.report.tables.evidence import explain_energies

_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond"}
_APART = (0.12, 0.1)  # of the axes, between two points that both have their name beside them
_WHOLE = 1e-6  # of a share of energy: less is rounding


def build_accuracy(results: Results) -> Plot:
    """Build EER against training energy, for the average and for each list."""
    choices = {name: (name,) for name in results.scored}
    if len(results.scored) > 1:
        choices = {"Average": results.scored, **choices}
    views = []
    for label, lists in choices.items():
        points, left_out = collect_points(results, lists)
        if points:
            title = "Average EER (%)" if len(lists) > 1 else f"EER, {label} (%)"
            views.append(_view_accuracy(label, title, points, left_out))
    caption = (
        "Line: the Pareto front, the systems that no other beats in both figures. Ringed, if "
        f"there is one: {KNEE_METHOD}. Filled markers are measured energy, open ones estimated, "
        "open ones with a dot partly so. Vertical bars are 95 % intervals."
    )
    title = "Accuracy against training energy"
    return Plot("figure-accuracy", title, caption, "EER of", tuple(views))


def _view_accuracy(label: str, title: str, points: list[Point], left_out: list[str]) -> View:
    front, knee, lacks = choose_front(points)
    on_front = [points[index] for index in front]
    ringed = [] if knee is None else [points[knee]]
    traces: list[Any] = []
    if front:
        traces.append(
            go.Scatter(
                x=[point.energy_kwh for point in on_front],
                y=[point.eer_percent for point in on_front],
                mode="lines",
                line={"color": QUIET, "width": 1.2, "shape": "hv"},
                name="Pareto front",
                hoverinfo="skip",
            )
        )
    for point in ringed:
        ring = {"symbol": "circle-open", "size": 20, "color": INK, "line": {"width": 1.2}}
        traces.append(
            go.Scatter(
                x=[point.energy_kwh],
                y=[point.eer_percent],
                mode="markers",
                marker=ring,
                name="knee",
                hoverinfo="skip",
            )  # fmt: skip
        )
    named = _choose_names(points, [*ringed, *on_front])
    middle = sorted(point.energy_kwh for point in points)[len(points) // 2]
    for family, members in _by_family(points):
        trace = _markers(family, [point.stage for point in members])
        trace.update(
            x=[point.energy_kwh for point in members],
            y=[point.eer_percent for point in members],
            mode="markers+text",
            text=[point.label if point.label in named else "" for point in members],
            textposition=[
                "top left" if point.energy_kwh > 2 * middle else "top right" for point in members
            ],
            textfont={"size": 11},
            error_y=_intervals(members),
            hovertext=[
                build_hover(
                    point.label,
                    describe_eer(point.eer_percent, point.eer_interval),
                    describe_energy(point.stage),
                )
                for point in members
            ],
        )
        traces.append(trace)
    layout = build_layout("Training energy (kWh)", title)
    set_log(layout["xaxis"], [point.energy_kwh for point in points])
    return View(label, build_figure(traces, layout), (*([lacks] if lacks else []), *left_out))


def _choose_names(points: list[Point], wanted: list[Point]) -> set[str]:
    """Choose whose names stand in the figure: those wanted, first ones first, without overlap."""
    width = _APART[0] * span_decades([point.energy_kwh for point in points])
    eers = [point.eer_percent for point in points]
    height = _APART[1] * (max(eers) - min(eers))
    chosen: list[Point] = []
    for point in wanted:
        near = [p for p in chosen if abs(p.eer_percent - point.eer_percent) <= height]
        ratios = [max(p.energy_kwh, point.energy_kwh) / min(p.energy_kwh, point.energy_kwh)
                  for p in near]  # fmt: skip
        if all(ratio > 10**width for ratio in ratios):
            chosen.append(point)
    return {point.label for point in chosen}


def _intervals(points: list[Point]) -> dict[str, Any]:
    """Give the 95 % intervals as bars, of length 0 where there is none."""
    bounds = [point.eer_interval or (point.eer_percent, point.eer_percent) for point in points]
    pairs = list(zip(points, bounds, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - point.eer_percent) for point, (_, high) in pairs],
        "arrayminus": [max(0.0, point.eer_percent - low) for point, (low, _) in pairs],
        "color": "rgba(128, 128, 128, 0.5)",
        "thickness": 1,
        "width": 0,
    }


def build_work(results: Results) -> Plot:
    """Build training energy against the multiply-accumulates of the training."""
    found, left_out = collect_work(results)
    cheapest = find_cheapest(found)
    views, words = [], ""
    if cheapest is not None:
        rate = cheapest.energy_kwh / cheapest.gmac
        words = f"{cheapest.label} ({format_significant(1000 * j_from_kwh(rate))} mJ per GMAC)"
        ends = [min(work.gmac for work in found) / 3, max(work.gmac for work in found) * 3]
        traces: list[Any] = [
            go.Scatter(
                x=ends,
                y=[rate * end for end in ends],
                mode="lines",
                name="kWh ∝ GMAC",
                line={"color": QUIET, "width": 1.2},
                hoverinfo="skip",
            )  # fmt: skip
        ]
        for family, members in _by_family(found):
            trace = _markers(family, [work.stage for work in members])
            trace.update(
                x=[work.gmac for work in members],
                y=[work.energy_kwh for work in members],
                hovertext=[
                    build_hover(
                        work.label,
                        describe_energy(work.stage),
                        f"{work.gmac:.4g} GMAC, forward",
                        f"{work.energy_kwh / work.gmac / rate:.2f} times the least kWh per GMAC",
                    )
                    for work in members
                ],
            )
            traces.append(trace)
        layout = build_layout("Computation, forward passes (GMAC)", "Training energy (kWh)")
        set_log(layout["xaxis"], [work.gmac for work in found])
        set_log(layout["yaxis"], [work.energy_kwh for work in found])
        left_out += explain_energies([work.stage for work in found])
        views.append(View("", build_figure(traces, layout), tuple(left_out)))
    caption = (
        f"Line: energy in proportion to computation, through {words}, the least energy per "
        "multiply-accumulate. A system above it paid for something else than arithmetic, such as "
        "waiting for data."
    )
    title = "Training energy against computation"
    return Plot("figure-work", title, caption, "", tuple(views))


def _by_family(members: list[Any]) -> list[tuple[str, list[Any]]]:
    groups = [(family, [m for m in members if m.family == family]) for family in FAMILY_STYLE]
    return [(family, group) for family, group in groups if group]


def _markers(family: str, stages: list[Stage]) -> Any:
    """Give a trace of a family without places; markers say how its energies were found."""
    shape, colour = FAMILY_STYLE[family]
    return go.Scatter(
        mode="markers",
        name=FAMILY_LABEL[family],
        hoverinfo="text",
        marker={
            "symbol": [_SYMBOLS[shape] + _openness(stage) for stage in stages],
            "color": colour,
            "size": 10,
            "line": {"width": 1.5},
        },
        cliponaxis=False,
    )


def _openness(stage: Stage) -> str:
    share = stage.sidecar.measured_fraction or 0.0
    if share < _WHOLE:
        return "-open"
    return "" if share > 1 - _WHOLE else "-open-dot"
