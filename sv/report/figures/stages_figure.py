"""Stacked bars of energy: each bar divided by stage of the recipe and by part of the machine.

Both in percent of the bar, with its kWh beside it: systems differ by more than a stacked bar in
kWh can show.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sv.report.figures.frame import COLUMN_INCHES, add_legend_below
from sv.report.figures.palette import COMPONENT_STYLE, ESTIMATED_HATCH, STAGE_STYLE
from sv.report.figures.parts import COMPONENTS, Bar, collect_bars
from sv.report.results import Results
from sv.report.tables.cells import format_significant

_ROW_INCHES = 0.165
_LEGEND_INCHES = 1.2  # below the bars; what is not used is cut off
_LETTER_INCHES = 0.056  # of a name of 7 points
_BETWEEN_INCHES = 0.16
_LEAST_INCHES = 0.7  # of a panel, however long the names are
_EDGE = {"edgecolor": "0.15", "linewidth": 0.5}
_LEAST_PERCENT = 0.7  # narrower pieces would be all edge
Piece = tuple[float, str, str]  # percent, colour, hatch


def draw_energy_stages(figure: Figure, results: Results) -> list[str]:
    """Draw a bar for the shared stages and one for each system into an empty figure.

    Returns:
        A line for what is left out or not divided; no axes are made without any energy.
    """
    bars, left_out = collect_bars(results)
    if not bars:
        return [*left_out, "no figure, no stage has a known energy"]
    rows_inches = _ROW_INCHES * len(bars) + 0.05
    height = rows_inches + 0.25 + _LEGEND_INCHES
    figure.set_size_inches(COLUMN_INCHES, height)
    left = 0.1 + _LETTER_INCHES * max(len(bar.label) for bar in bars)
    numbers = [format_significant(bar.energy_kwh) for bar in bars]
    right = 0.1 + _LETTER_INCHES * max(len(number) for number in numbers)  # for these
    width = max(_LEAST_INCHES, (COLUMN_INCHES - left - right - _BETWEEN_INCHES) / 2)
    panels = []
    for start in (left, left + width + _BETWEEN_INCHES):
        place = (start / COLUMN_INCHES, _LEGEND_INCHES / height, width / COLUMN_INCHES,
                 rows_inches / height)  # fmt: skip
        panels.append(figure.add_axes(place))
        _prepare(panels[-1], bars)
    by_stage, by_part = panels
    by_stage.set_title("By stage (%)", loc="left", fontsize=8)
    by_part.set_title("By part (%)", loc="left", fontsize=8)
    by_part.set_yticklabels([])
    for row, bar in enumerate(bars):
        percent = 100 / bar.energy_kwh
        pieces = [(percent * kwh, *STAGE_STYLE[number]) for number, _, kwh in bar.stages]
        _draw_bar(by_stage, row, pieces)
        pieces = [
            (percent * part.energy_kwh, *_choose_style(part.component, part.estimated))
            for part in bar.parts
        ]
        _draw_bar(by_part, row, pieces)
        by_part.annotate(
            numbers[row], (1, row), xycoords=("axes fraction", "data"), xytext=(72 * right, 0),
            textcoords="offset points", va="center", ha="right", fontsize=7,
        )  # fmt: skip
    by_part.annotate(
        "kWh", (1, 1), xycoords="axes fraction", xytext=(72 * right, 4), ha="right", fontsize=8,
        textcoords="offset points",
    )  # fmt: skip
    below = 0.24
    for handles in (_list_stages(bars), _list_parts(bars)):
        below += 0.06 + add_legend_below(
            figure, by_part, handles, "", below_inches=below, left_inches=0.02
        )
    return left_out


def _prepare(axes: Axes, bars: list[Bar]) -> None:
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_xlim(0, 100)
    axes.set_xticks((0, 50, 100))
    axes.grid(visible=False, axis="y")


def _draw_bar(axes: Axes, row: int, pieces: Sequence[Piece]) -> None:
    start = 0.0
    for width, colour, hatch in pieces:
        edge = _EDGE if width > _LEAST_PERCENT else {"edgecolor": colour, "linewidth": 0.3}
        axes.barh(row, width, left=start, height=0.74, facecolor=colour, hatch=hatch, **edge)
        start += width


def _list_stages(bars: list[Bar]) -> list[Patch]:
    names = {number: name for bar in bars for number, name, _ in bar.stages}
    return [_build_patch(names[number], *STAGE_STYLE[number]) for number in sorted(names)]


def _list_parts(bars: list[Bar]) -> list[Patch]:
    found = {(part.component, part.estimated) for bar in bars for part in bar.parts}
    kinds = [(component, estimated) for component in COMPONENTS for estimated in (False, True)]
    return [
        _build_patch(
            COMPONENTS[component] + (" (estimated)" if estimated else ""),
            *_choose_style(component, estimated),
        )
        for component, estimated in kinds
        if (component, estimated) in found
    ]


def _build_patch(label: str, colour: str, hatch: str) -> Patch:
    return Patch(facecolor=colour, hatch=hatch, label=label, **_EDGE)


def _choose_style(component: str, estimated: bool) -> tuple[str, str]:
    if estimated:
        return "#FFFFFF", ESTIMATED_HATCH[component]
    return COMPONENT_STYLE[component]
