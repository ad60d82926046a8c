"""Where energy went: bars divided by stage of the recipe and by part of the machine.

Both in percent of the bar, with its energy next to it: systems differ by more than a stacked bar
of energies can show. Parts never add up to more than the energy of their stage. What the sidecar
does not divide stays one part of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sv.energy.record import Channel, Sidecar
from sv.energy.units import kwh_from_j
from sv.report.figures.frame import (
    COLUMN_INCHES,
    Drawing,
    add_legend_below,
)
from sv.report.results import FORECAST, RESULTS_STAGE, Results, Stage
from sv.report.tables.cells import choose_unit, format_significant
from sv.report.tables.evidence import (
    WHOLE,
    describe_energy,
    format_kwh,
    list_some,
    rate_share,
)

SHARED = "shared stages"
_MODEL_STAGES = {5: "train", 6: "extract", 7: "score"}
_UNDIVIDED = "the sidecar does not say which part of the machine used all of it"
# Colour and hatch of a stage of the recipe, by its number. Hatches are of lines: one of dots has
# thousands of curves.
_STAGE_STYLE = {
    0: ("#000000", ""),
    1: ("#CC79A7", "xxxx"),
    2: ("#F0E442", "++++"),
    3: ("#56B4E9", "||||"),
    4: ("#E69F00", "----"),
    5: ("#0072B2", ""),
    6: ("#E69F00", "////"),
    7: ("#009E73", "\\\\\\\\"),
}
# Part of the machine: how it is called, its colour, its hatch, and its hatch on white if it was
# estimated. Undivided: its parts were not read.
COMPONENTS = {
    "cpu_package": ("CPU", "#56B4E9", "////", "\\\\\\"),
    "dram": ("DRAM", "#F0E442", "\\\\\\\\", "|||"),
    "gpu_board": ("GPU", "#D55E00", "", "+++"),
    "gpu_module": ("GPU module, its CPU included", "#CC79A7", "xxxx", "---"),
    "rest": ("rest of the node", "#BBBBBB", "----", ""),
    "undivided": ("not divided", "#FFFFFF", "", "xxx"),
}
_ROW_INCHES = 0.165
_LEGEND_INCHES = 1.2  # below the bars; what is not used is cut off
_LETTER_INCHES = 0.056  # of a name of 7 points
_BETWEEN_INCHES = 0.16
_LEAST_INCHES = 0.7  # of a panel, however long the names are
_EDGE = {"edgecolor": "0.15", "linewidth": 0.5}
_LEAST_PERCENT = 0.7  # narrower pieces would be all edge
_MAX_LISTED = 8  # sidecars of a hover text


class Part(NamedTuple):
    """A part of a bar; ``component`` is a key of `COMPONENTS`."""

    component: str
    estimated: bool
    energy_kwh: float


class Piece(NamedTuple):
    """A part of a bar as it is drawn; pieces of one kind have the same ``order``."""

    order: tuple[int, bool]
    name: str
    energy_kwh: float
    colour: str
    hatch: str
    text: str


@dataclass(frozen=True)
class Bar:
    """The energy of the shared stages or of one system, divided in two ways.

    ``stages`` are (number of the stage, its name, kWh), ``parts`` one of each kind; ``sidecars``
    are those that they are from.
    """

    label: str
    stages: tuple[tuple[int, str, float], ...]
    parts: tuple[Part, ...]
    sidecars: tuple[Stage, ...]

    @property
    def energy_kwh(self) -> float:
        """The whole bar."""
        return sum(kwh for _, _, kwh in self.stages)


def collect_bars(results: Results) -> tuple[list[Bar], list[str]]:
    """Return a bar for the shared stages and for each system, and lines for what is left out."""
    owners = {SHARED: [s for s in results.shared if s.number < RESULTS_STAGE]}
    owners |= {system.name: list(system.stages) for system in results.systems}
    bars, left_out = [], []
    undivided: dict[str, list[str]] = {}
    for label, tried in owners.items():
        stages = [stage for stage in tried if stage.name != FORECAST]
        if len(stages) < len(tried):
            left_out.append(f"{label} without its forecast, which made no result")
        known = [stage for stage in stages if stage.energy_kwh is not None]
        unknown = [stage.path.stem for stage in stages if stage.energy_kwh is None]
        if unknown:
            left_out.append(f"{label} without {list_some(unknown)}: the energy is not known")
        if not any(stage.energy_kwh for stage in known):
            if label != SHARED and not unknown:
                left_out.append(f"{label} is not shown: no energy sidecar")
            continue
        parts: list[Part] = []
        for stage in known:
            found, reason = _split_energy(stage)
            parts += found
            if reason:
                undivided.setdefault(reason, []).append(f"{stage.path.stem} of {label}")
        summed = _sum_stages(known, shared=label == SHARED)
        bars.append(Bar(label, summed, _join_parts(parts), tuple(known)))
    for reason, names in undivided.items():
        left_out.append(f"{len(names)} stages are not divided, first {names[0]}: {reason}")
    return bars, left_out


def _sum_stages(stages: list[Stage], *, shared: bool) -> tuple[tuple[int, str, float], ...]:
    """Add up the stages of one number: a system has a stage 6 and 7 for each list."""
    summed: dict[int, tuple[str, float]] = {}
    for stage in sorted(stages, key=lambda stage: stage.number):
        name = stage.name if shared else _MODEL_STAGES.get(stage.number, stage.name)
        first, kwh = summed.get(stage.number, (name, 0.0))
        summed[stage.number] = first, kwh + (stage.energy_kwh or 0.0)
    return tuple((number, *named) for number, named in summed.items())


def _join_parts(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Add up the parts of one kind, as in `COMPONENTS`, estimates behind what was measured."""
    kinds = [(component, estimated) for component in COMPONENTS for estimated in (False, True)]
    summed = dict.fromkeys(kinds, 0.0)
    for component, estimated, energy_kwh in parts:
        summed[component, estimated] += energy_kwh
    return tuple(Part(*kind, energy_kwh) for kind, energy_kwh in summed.items() if energy_kwh)


def _split_energy(stage: Stage) -> tuple[tuple[Part, ...], str]:
    """Divide a stage's energy by part of the machine.

    Channels of the total are parts. Where the whole machine is in the total, its parts are those
    that the sidecar compares with it (`sv.energy.channels`), and its rest.

    Returns:
        Parts that add up to ``energy_kwh``; why they are not all divided, where that is so.
    """
    sidecar, total_kwh = stage.sidecar, stage.energy_kwh or 0.0
    whole = (Part("undivided", False, total_kwh),)
    if sidecar.attribution.rule != "exclusive":
        return whole, f"the rule {sidecar.attribution.rule} shares the machine as a whole"
    parts: list[Part] = []
    for channel in (channel for channel in sidecar.channels if channel.in_total):
        energy_kwh, estimated = kwh_from_j(channel.energy_j or 0.0), channel.kind == "estimated"
        if channel.boundary == "node":
            inside = _list_inside(channel, sidecar)
            rest_kwh = energy_kwh - sum(part.energy_kwh for part in inside)
            if inside and rest_kwh >= 0:
                parts += [*inside, Part("rest", False, rest_kwh)]
                continue
            estimated = False
        component = channel.boundary if channel.boundary in COMPONENTS else "undivided"
        parts.append(Part(component, estimated, energy_kwh))
    rest_kwh = total_kwh - sum(part.energy_kwh for part in parts)
    if rest_kwh < -WHOLE * total_kwh:
        return whole, "its channels add up to more than its energy"
    if rest_kwh > WHOLE * total_kwh:
        parts.append(Part("undivided", False, rest_kwh))
    joined = _join_parts(parts)
    undivided = any(part.component == "undivided" and part.energy_kwh > 0 for part in joined)
    return joined, _UNDIVIDED if undivided else ""


def _list_inside(node: Channel, sidecar: Sidecar) -> list[Part]:
    """List the parts of a machine that were measured inside it."""
    checks = [c for c in sidecar.crosschecks if c.b == node.id and c.rest_kwh is not None]
    inside = {name for check in checks for name in check.a.split(" + ")}
    return [
        Part(channel.boundary, False, kwh_from_j(channel.energy_j))
        for channel in sidecar.channels
        if channel.id in inside
        and channel.host == node.host
        and channel.energy_j is not None
        and not channel.in_total
        and channel.boundary in COMPONENTS
    ]


def draw_energy_stages(drawing: Drawing, results: Results) -> None:
    """Draw a bar for the shared stages and one for each system."""
    figure = drawing.figure
    bars, drawing.left_out = collect_bars(results)
    if not bars:
        drawing.left_out.append("no figure, no stage has a known energy")
        return
    rows_inches = _ROW_INCHES * len(bars) + 0.05
    height = rows_inches + 0.25 + _LEGEND_INCHES
    figure.set_size_inches(COLUMN_INCHES, height)
    left = 0.1 + _LETTER_INCHES * max(len(bar.label) for bar in bars)
    unit, factor = choose_unit([bar.energy_kwh for bar in bars], "kWh")
    numbers = [format_significant(factor * bar.energy_kwh) for bar in bars]
    right = 0.1 + _LETTER_INCHES * max(len(number) for number in numbers)  # for these
    width = max(_LEAST_INCHES, (COLUMN_INCHES - left - right - _BETWEEN_INCHES) / 2)
    legends = []
    for number, (title, rows) in enumerate(
        (
            ("By stage (%)", [_list_stages(bar) for bar in bars]),
            ("By part (%)", [_list_parts(bar) for bar in bars]),
        )
    ):
        start = left + number * (width + _BETWEEN_INCHES)
        axes = figure.add_axes((start / COLUMN_INCHES, _LEGEND_INCHES / height,
                                width / COLUMN_INCHES, rows_inches / height))  # fmt: skip
        _draw_bars(axes, bars, rows, drawing)
        axes.set_title(title, loc="left", fontsize=8)
        entries = {piece.order: piece for pieces in rows for piece in pieces}
        legends.append([
            Patch(label=piece.name, facecolor=piece.colour, hatch=piece.hatch, **_EDGE)
            for _, piece in sorted(entries.items())
        ])  # fmt: skip
    by_part = figure.axes[-1]
    by_part.set_yticklabels([])
    below = 0.24  # inches from the bars to the next legend
    for handles in legends:
        below += 0.06 + add_legend_below(by_part, handles, below_inches=below, left_inches=0.02)
    style = {"xytext": (72 * right, 0), "textcoords": "offset points", "ha": "right"}
    for row, number in enumerate(numbers):
        by_part.annotate(
            number, (1, row), xycoords=("axes fraction", "data"), va="center", fontsize=7, **style
        )
    style["xytext"] = (72 * right, 4)
    by_part.annotate(unit, (1, 1), xycoords="axes fraction", fontsize=8, **style)
    drawing.caption = (
        "Energy of the runs that made the results. The shared stages, before the training, serve "
        "all systems. White with hatches: estimated."
    )


def _draw_bars(
    axes: Axes, bars: Sequence[Bar], rows: Sequence[Sequence[Piece]], drawing: Drawing
) -> None:
    """Draw the pieces of each bar in a row of its own."""
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set(ylim=(len(bars) - 0.45, -0.55), xlim=(0, 100), xticks=(0, 50, 100))
    axes.grid(visible=False, axis="y")
    for row, (bar, pieces) in enumerate(zip(bars, rows, strict=True)):
        start = 0.0
        for piece in pieces:
            width = 100 / bar.energy_kwh * piece.energy_kwh
            style = {"edgecolor": piece.colour, "linewidth": 0.3}
            if width > _LEAST_PERCENT:
                style = {**_EDGE, "hatch": piece.hatch}
            (drawn,) = axes.barh(row, width, 0.74, start, facecolor=piece.colour, **style)
            drawing.add_hover(drawn, f"{bar.label}\n{piece.text}")
            start += width


def _list_stages(bar: Bar) -> list[Piece]:
    """Return the pieces of a bar by stage; their texts list the sidecars, the first of many."""
    pieces = []
    for number, name, kwh in bar.stages:
        stages = [stage for stage in bar.sidecars if stage.number == number]
        lines = [f"{stage.name}: {describe_energy(stage)}" for stage in stages[:_MAX_LISTED]]
        more = len(stages) - _MAX_LISTED
        lines += [f"and {more} more"] if more > 0 else []
        text = "\n".join([f"{number} {name}: {format_kwh(kwh)}", *lines])
        pieces.append(Piece((number, False), name, kwh, *_STAGE_STYLE[number], text))
    return pieces


def _list_parts(bar: Bar) -> list[Piece]:
    """Return the pieces of a bar by part; what is not divided is as good as its stages."""
    rates = {rate_share(stage.sidecar.measured_fraction) for stage in bar.sidecars}
    pieces = []
    for component, estimated, energy_kwh in bar.parts:
        name, colour, hatch, on_white = COMPONENTS[component]
        quality = "estimated" if estimated else "measured"
        if component == "undivided" and rates != {"measured"}:
            quality = "estimated, at least in part"
        text = f"{name}: {format_kwh(energy_kwh)}, {quality}"
        if estimated:
            name, colour, hatch = f"{name} (estimated)", "#FFFFFF", on_white
        order = list(COMPONENTS).index(component), estimated
        pieces.append(Piece(order, name, energy_kwh, colour, hatch, text))
    return pieces
