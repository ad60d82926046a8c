"""The interactive bars: where energy went, by stage of the recipe and by part of the machine."""

from typing import Any

import plotly.graph_objects as go

from sv.report.figures.palette import COMPONENT_STYLE, STAGE_STYLE
from sv.report.figures.parts import COMPONENTS, SHARED, Bar, collect_bars
from sv.report.page.facts import format_kwh
from sv.report.page.plot import (
    Plot,
    View,
    build_figure,
    build_hover,
    build_layout,
    describe_energy,
)
from sv.report.results import Results, Stage

_WHOLE = 1e-6  # of a share of energy: less is rounding
_MAX_LISTED = 8  # lines of a hover label
Owned = dict[str, tuple[Stage, ...]]  # the sidecars of each bar
_OTHER = ("#808080", "")


def build_bars(results: Results) -> Plot:
    """Build the energy of the shared stages and of each system, in kWh and in percent."""
    bars, left_out = collect_bars(results)
    views = []
    if bars:
        owned: Owned = {SHARED: results.shared}
        owned |= {system.name: system.stages for system in results.systems}
        by_stage, by_part = _stage_traces(bars, owned), _part_traces(bars, owned)
        for label, traces, percent in (
            ("by stage, kWh", by_stage, False),
            ("by stage, %", by_stage, True),
            ("by part of the machine, kWh", by_part, False),
            ("by part of the machine, %", by_part, True),
        ):
            views.append(View(label, build_figure(traces, _layout(percent)), tuple(left_out)))
    caption = (
        "Energy of the runs that made the results. The shared stages, before the training, serve "
        "all systems. Hatched: estimated, at least in part."
    )
    title, height = "Where the energy went", 170 + 26 * len(bars)
    return Plot("figure-stages", title, caption, "Divided", tuple(views), height)


def _layout(percent: bool) -> dict[str, Any]:
    layout = build_layout("Part of the energy (%)" if percent else "Energy (kWh)", "")
    layout.update(barmode="stack", barnorm="percent" if percent else "", bargap=0.35)
    layout["legend"].update(traceorder="normal")
    layout["yaxis"].update(autorange="reversed", type="category")
    layout["xaxis"].update(rangemode="tozero")
    return layout


def _stage_traces(bars: list[Bar], owned: Owned) -> list[Any]:
    names = {number: name for bar in bars for number, name, _ in bar.stages}
    traces = []
    for number in sorted(names):
        title = f"{number} {names[number]}"
        energies = [
            next((kwh for found, _, kwh in bar.stages if found == number), None) for bar in bars
        ]
        groups = [
            [s for s in owned[bar.label] if s.number == number and s.energy_kwh is not None]
            for bar in bars
        ]
        texts = [
            build_hover(bar.label, f"{title}: {format_kwh(energy)}", *_list_stages(stages))
            for bar, energy, stages in zip(bars, energies, groups, strict=True)
        ]
        hatched = [any(not _is_measured(stage) for stage in stages) for stages in groups]
        colour, _ = STAGE_STYLE.get(number, _OTHER)
        traces.append(_trace(title, bars, energies, texts, colour=colour, hatched=hatched))
    return traces


def _is_measured(stage: Stage) -> bool:
    return (stage.sidecar.measured_fraction or 0.0) > 1 - _WHOLE


def _list_stages(stages: list[Stage]) -> list[str]:
    lines = [f"{stage.name}: {describe_energy(stage)}" for stage in stages[:_MAX_LISTED]]
    more = len(stages) - _MAX_LISTED
    return [*lines, f"and {more} more"] if more > 0 else lines


def _part_traces(bars: list[Bar], owned: Owned) -> list[Any]:
    traces = []
    found = {(part.component, part.estimated) for bar in bars for part in bar.parts}
    kinds = [(component, estimated) for component in COMPONENTS for estimated in (False, True)]
    for component, estimated in (kind for kind in kinds if kind in found):
        energies = [_energy_of(bar, component, estimated=estimated) for bar in bars]
        words = [_quality(component, estimated, owned[bar.label]) for bar in bars]
        name = COMPONENTS[component]
        texts = [
            build_hover(bar.label, f"{name}: {format_kwh(energy)}, {quality}")
            for bar, energy, quality in zip(bars, energies, words, strict=True)
        ]
        hatched = [quality != "measured" for quality in words]
        colour, _ = COMPONENT_STYLE[component]
        title = f"{name}, estimated" if estimated else name
        traces.append(_trace(title, bars, energies, texts, colour=colour, hatched=hatched))
    return traces


def _energy_of(bar: Bar, component: str, *, estimated: bool) -> float | None:
    kind = (component, estimated)
    parts = (part for part in bar.parts if (part.component, part.estimated) == kind)
    return next((part.energy_kwh for part in parts), None)


def _quality(component: str, estimated: bool, stages: tuple[Stage, ...]) -> str:
    """Say how a part was found; what is not divided is as good as the stages that it is of."""
    if estimated:
        return "estimated"
    if component != "undivided" or all(_is_measured(stage) for stage in stages):
        return "measured"
    return "estimated, at least in part"


def _trace(
    name: str,
    bars: list[Bar],
    energies: list[float | None],
    texts: list[str],
    *,
    colour: str,
    hatched: list[bool],
) -> Any:
    # The legend shows the first bar's filling, also where that bar has no such part.
    usual = all(one for one, kwh in zip(hatched, energies, strict=True) if kwh is not None)
    shown = [usual if kwh is None else one for one, kwh in zip(hatched, energies, strict=True)]
    return go.Bar(
        orientation="h",
        y=[bar.label for bar in bars],
        x=energies,
        name=name,
        hovertext=texts,
        hoverinfo="text",
        marker={
            "color": "#BBBBBB" if colour == "#FFFFFF" else colour,
            "pattern": {"shape": ["/" if one else "" for one in shown], "solidity": 0.35},
            "line": {"width": 0},
        },
    )
